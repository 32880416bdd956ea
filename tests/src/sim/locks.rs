//! Who holds what of the store: all of it, as on SQLite, or rows of counters, as on PostgreSQL.

use std::collections::BTreeSet;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::CounterKey;

/// Who holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A start of a node; also after its connection was lost, while its commit may still come.
    Boot(u64),
    Outsider,
}

struct Held {
    holder: Holder,
    /// Nothing named: everything.
    rows: Option<BTreeSet<CounterKey>>,
    /// The earliest and the latest that the clock said since it got the last of it.
    span: (Timestamp, Timestamp),
}

#[derive(Default)]
pub(super) struct Locks(Vec<Held>);

impl Locks {
    pub(super) const fn is_free(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, holder: Holder) -> bool {
        self.0.iter().any(|held| held.holder == holder)
    }

    /// All of the store, if nobody holds anything.
    pub(super) fn try_all(&mut self, holder: Holder, now: Timestamp) -> bool {
        if !self.is_free() {
            return false;
        }
        self.0.push(Held { holder, rows: None, span: (now, now) });
        true
    }

    /// One counter's row besides what the holder has, if nobody else holds it.
    pub(super) fn try_row(&mut self, holder: Holder, row: &CounterKey, now: Timestamp) -> bool {
        let holds = |held: &Held| held.rows.as_ref().is_none_or(|rows| rows.contains(row));
        if self.0.iter().any(|held| held.holder != holder && holds(held)) {
            return false;
        }
        self.pretend(holder, now);
        for own in self.0.iter_mut().filter(|held| held.holder == holder) {
            own.span = (now, now);
            own.rows.iter_mut().for_each(|rows| rows.extend([row.clone()]));
        }
        true
    }

    /// No row at all, for a holder that says it has some.
    pub(super) fn pretend(&mut self, holder: Holder, now: Timestamp) {
        if !self.has(holder) {
            self.0.push(Held { holder, rows: Some(BTreeSet::new()), span: (now, now) });
        }
    }

    pub(super) fn release(&mut self, holder: Holder) {
        self.0.retain(|held| held.holder != holder);
    }

    /// The clock says something else.
    pub(super) fn note_clock(&mut self, now: Timestamp) {
        for Held { span: (earliest, latest), .. } in &mut self.0 {
            *earliest = now.min(*earliest);
            *latest = now.max(*latest);
        }
    }

    /// What the clock said while this holder had all that it has.
    pub(super) fn span(&self, holder: Holder) -> Option<(Timestamp, Timestamp)> {
        self.0.iter().find(|held| held.holder == holder).map(|held| held.span)
    }
}
