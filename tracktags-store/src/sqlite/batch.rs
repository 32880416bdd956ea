//! ⑤ THE transaction: membership closed, decide on a scratch copy, lock, compare versions and the clock, write,
//! commit, make visible. The order is binding (docs/RELIABILITY.md, rules of the batch).

use super::audit;
use super::connection::{self, CommitFault, data_version};
use super::live::Running;
use super::usage::{self, LedgerRow};
use super::writer::Writer;
use crate::admission::Waiting;
use crate::ledger::{Packed, pack_entries};
use crate::mailbox::Deliveries;
use std::sync::Arc;
use tracktags_core::audit::Event;
use tracktags_core::batch::{Batch, Outcome};
use tracktags_core::demand::Operation;
use tracktags_core::error::StoreError;
use tracktags_core::limits::Terms;
use tracktags_core::metrics::Units;
use tracktags_core::usage::{CounterKey, CounterMap};

/// A batch as decided, not yet written.
struct Decided {
    batch: Batch,
    outcomes: Vec<Outcome>,
}

/// How a batch ended.
enum Ending {
    /// Nothing of it was to be written, or everything was committed.
    Done(Decided),
    /// A known roll-back.
    Failed(StoreError),
    /// The commit's result was not heard.
    Unknown(Decided),
}

impl Writer {
    /// Does a batch and answers it.
    pub(super) fn batch(&mut self, waiting: Vec<Waiting>) {
        match self.run(&waiting) {
            Ok(Ending::Done(decided)) => self.answer(waiting, decided),
            Ok(Ending::Unknown(decided)) => self.resolve(waiting, decided),
            Ok(Ending::Failed(error)) | Err(error) => self.fail(waiting, &error),
        }
    }

    fn run(&mut self, waiting: &[Waiting]) -> Result<Ending, StoreError> {
        let mut decided = self.decide(waiting)?;
        // Where nothing is taken nothing is locked: `data_version` is read now, after membership closed.
        if decided.batch.entries().is_empty() && self.note_outside_commits()? {
            decided = self.decide(waiting)?;
        }
        if decided.batch.entries().is_empty() {
            return Ok(Ending::Done(decided));
        }
        self.begin()?;
        let locked = self.instant();
        let ending = self.under_lock(waiting, decided);
        self.note_held(locked);
        Ok(ending)
    }

    /// From the lock to the commit.
    fn under_lock(&mut self, waiting: &[Waiting], mut decided: Decided) -> Ending {
        match self.write(waiting, &mut decided) {
            Ok(false) => {
                self.rollback();
                return Ending::Done(decided);
            }
            Ok(true) => {}
            Err(error) => {
                self.rollback();
                return Ending::Failed(error);
            }
        }
        match connection::commit(&mut self.conn) {
            Ok(()) => Ending::Done(decided),
            Err(CommitFault::RolledBack(error)) => {
                self.rollback();
                Ending::Failed(error)
            }
            Err(CommitFault::Unknown(error)) => {
                tracing::error!(%error, batch = self.next_batch, "a commit was not heard");
                Ending::Unknown(decided)
            }
        }
    }

    /// Under the lock: decides again if configuration or the clock moved, then writes. `false`: nothing is left
    /// to write.
    fn write(&mut self, waiting: &[Waiting], decided: &mut Decided) -> Result<bool, StoreError> {
        let moved = self.note_outside_commits()?;
        if moved || !decided.batch.holds_at(self.now()) {
            *decided = self.decide(waiting)?;
            if decided.batch.entries().is_empty() {
                return Ok(false);
            }
        }
        let at = decided.batch.now();
        let packed = &mut self.packed;
        packed.clear();
        let entries = pack_entries(decided.batch.entries(), at, |_, state| packed.push(Packed::from(state)));
        let (open_calls, open_units) = self.holds.totals();
        let row = LedgerRow {
            batch: self.next_batch,
            boot: self.boot.clone(),
            lane: 0,
            written_at: at.as_micros(),
            open_calls: i64::try_from(open_calls).unwrap_or(i64::MAX),
            open_units: i64::try_from(open_units).unwrap_or(i64::MAX),
            entries,
        };
        usage::append(&mut self.conn, &row)?;
        self.note_corrections(waiting, decided)?;
        Ok(true)
    }

    /// Corrections by hand leave their row of the trail in the transaction that does them.
    fn note_corrections(&mut self, waiting: &[Waiting], decided: &Decided) -> Result<(), StoreError> {
        for (one, outcome) in waiting.iter().zip(&decided.outcomes) {
            let (Some(noted), Outcome::Done { value, before }) = (&one.noted, outcome) else { continue };
            let (by, event) = &**noted;
            let now = decided.batch.now();
            if event.after.is_some() {
                audit::note_event(&mut self.conn, &self.secrets, now, by, event, None)?;
                continue;
            }
            let value_of = |value: i64| serde_json::json!({"value": value}).to_string();
            let event = Event { after: Some(value_of(*value)), ..event.clone() };
            audit::note_event(&mut self.conn, &self.secrets, now, by, &event, Some(value_of(*before)))?;
        }
        Ok(())
    }

    /// Whether another connection committed since the last look; then every version known is in doubt.
    pub(super) fn note_outside_commits(&mut self) -> Result<bool, StoreError> {
        let version = data_version(&mut self.conn)?;
        let moved = version != self.data_version;
        if moved {
            self.data_version = version;
            self.versions.doubt();
        }
        Ok(moved)
    }

    fn decide(&mut self, waiting: &[Waiting]) -> Result<Decided, StoreError> {
        let takes = waiting.iter().filter(|one| matches!(one.operation, Operation::Take(_)));
        let mut learned = None;
        for business in takes.map(|one| &one.operation.terms().account.business) {
            // Neighbours are mostly of one business.
            if learned != Some(business) {
                self.versions.learn(&mut self.conn, business)?;
                learned = Some(business);
            }
        }
        let mut batch = Batch::with_room(self.now(), waiting.len());
        let mut outcomes = Vec::with_capacity(waiting.len());
        let mut running = Running {
            live: &mut self.live,
            conn: &mut self.conn,
            holds: &self.holds,
            opened: CounterMap::default(),
        };
        for one in waiting {
            let outcome = batch.apply(&one.operation, &mut running, &self.versions, &mut self.cuts)?;
            if let Some((key, units)) = opened(one, &outcome) {
                *running.opened.entry(key.clone()).or_default() += units;
            }
            outcomes.push(outcome);
        }
        Ok(Decided { batch, outcomes })
    }

    /// After the commit: the scratch copy becomes visible, holds open, callers wake.
    fn answer(&mut self, waiting: Vec<Waiting>, decided: Decided) {
        self.store_answers();
        self.make_visible(&waiting, &decided);
        let mut deliveries = Deliveries::default();
        for (one, outcome) in waiting.into_iter().zip(decided.outcomes) {
            deliveries.add(one.slot, Ok(outcome));
        }
    }

    fn make_visible(&mut self, waiting: &[Waiting], decided: &Decided) {
        if !decided.batch.entries().is_empty() {
            self.next_batch = self.next_batch.saturating_add(1);
        }
        for (entry, state) in decided.batch.entries().iter().zip(self.packed.drain(..)) {
            self.live.commit(entry, state);
        }
        for (one, outcome) in waiting.iter().zip(&decided.outcomes) {
            if let Some((key, units)) = opened(one, outcome) {
                self.holds.open(key, units);
            }
            if let Outcome::Decided(decision) = outcome
                && let Some((metric, _)) = decision.denied_by
            {
                self.note_denied(
                    one.operation.terms(),
                    decision.metrics.get(metric).map(|metric| metric.place),
                );
            }
        }
    }

    fn note_denied(&mut self, terms: &Arc<Terms>, place: Option<usize>) {
        if let Some(entry) = place.and_then(|place| terms.limits.get(place)) {
            let now = self.now();
            let bucket = self.cuts.cuts(terms, entry, now).bucket();
            self.live.deny(&entry.counter, bucket, entry.metric.operation);
        }
    }

    /// A known roll-back: demands are told, settlements wait for the store.
    fn fail(&mut self, waiting: Vec<Waiting>, error: &StoreError) {
        tracing::warn!(%error, "a batch was rolled back");
        self.store_fails(error);
        let (settlements, demands): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|one| matches!(one.operation, Operation::Settle { .. }));
        self.queue.put_back(settlements);
        let mut deliveries = Deliveries::default();
        for one in demands {
            deliveries.add(one.slot, Err(again(error)));
        }
        drop(deliveries);
        if !self.queue.is_closed() {
            std::thread::park_timeout(super::writer::RETRY_WAIT);
        }
    }

    /// A commit that was not heard: its marker says what happened, once the log can be believed. It is never run
    /// again blindly and never called failed.
    fn resolve(&mut self, waiting: Vec<Waiting>, decided: Decided) {
        let batch = self.next_batch;
        let mut told = false;
        let mut owed = Vec::new();
        let mut waiting: Vec<(Waiting, Outcome)> = waiting.into_iter().zip(decided.outcomes).collect();
        let began = self.instant();
        let committed = loop {
            match self.reopen_and_look(batch) {
                Ok(committed) => break committed,
                Err(error) => tracing::error!(%error, batch, "the outcome of a batch is still not known"),
            }
            if !told && began.elapsed() >= super::writer::UNKNOWN_WAIT {
                told = true;
                owed = tell_unknown(&mut waiting);
            }
            std::thread::park_timeout(super::writer::RETRY_WAIT);
        };
        tracing::warn!(batch, committed, "the outcome of a batch is known now");
        if committed {
            self.queue.put_back(owed);
        }
        let mut deliveries = Deliveries::default();
        let mut again_later = Vec::new();
        for (one, outcome) in waiting {
            match (&one.operation, committed) {
                (_, true) => {
                    if let Some((key, units)) = opened(&one, &outcome) {
                        self.holds.open(key, units);
                    }
                    deliveries.add(one.slot, Ok(outcome));
                }
                (Operation::Settle { .. }, false) => again_later.push(one),
                (_, false) => {
                    deliveries.add(one.slot, Err(StoreError::Unavailable("the commit was lost".into())));
                }
            }
        }
        self.queue.put_back(again_later);
    }
}

/// Tells callers that nobody knows, and hands back what is owed if the batch turns out to be committed: the release
/// of what their demands took, since nothing was forwarded. Settlements go on waiting for the batch's fate.
fn tell_unknown(waiting: &mut Vec<(Waiting, Outcome)>) -> Vec<Waiting> {
    let mut deliveries = Deliveries::default();
    let mut owed = Vec::new();
    for (one, outcome) in std::mem::take(waiting) {
        if matches!(one.operation, Operation::Settle { .. }) {
            waiting.push((one, outcome));
            continue;
        }
        if let Outcome::Decided(decision) = &outcome
            && let Some((place, taken)) = decision.taken
        {
            let terms = Arc::clone(one.operation.terms());
            let operation = Operation::Settle { terms, place, taken, units: Units::ZERO };
            let (release, _nobody_waits) = Waiting::new(operation, false);
            owed.push(release);
        }
        deliveries.add(one.slot, Err(StoreError::CommitUnknown));
    }
    owed
}

/// What an admitted demand holds open until it is settled.
fn opened<'a>(one: &'a Waiting, outcome: &Outcome) -> Option<(&'a CounterKey, i64)> {
    if !one.opens {
        return None;
    }
    let Outcome::Decided(decision) = outcome else { return None };
    let (place, taken) = decision.taken?;
    let entry = one.operation.terms().limits.get(place)?;
    Some((&entry.counter, taken.units))
}

/// The same error for each caller of a batch.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::StorageFull => StoreError::StorageFull,
        StoreError::CommitUnknown => StoreError::CommitUnknown,
        StoreError::Corrupt(detail) => StoreError::Corrupt(detail.clone()),
        other => StoreError::Unavailable(other.to_string().into()),
    }
}
