//! ⑤ The pure half of a batch: running values, decisions and the entries to write, without I/O.
//!
//! An engine loads counters through [`Counters`], calls [`Batch::apply`] for each operation in order, writes
//! [`Batch::entries`] in one transaction and, after the commit, makes the counters of [`Batch::into_parts`] visible. On any error it
//! drops the batch, and nothing happened. Keeps `exact-under-concurrency`: each operation sees the running values
//! that the one before it left; `all-or-nothing`; `denied-writes-nothing`.

use crate::accounts::Account;
use crate::decide::{self, Cure, Decision, LimitState, MetricState, Verdict, decide, weight};
use crate::demand::{Ask, Demand, Operation};
use crate::error::StoreError;
use crate::limits::{MetricLimits, Terms};
use crate::metrics::{self, Units};
use crate::time::Timestamp;
use crate::usage::{Counter, CounterKey, CounterMap, Entry, EntryKind, NO_OVERAGE, Overage, Taken};
use crate::windows::{Cuts, Window};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

/// Where a batch finds what it decides on.
pub trait Counters {
    /// The committed counter; a new one where there is none.
    ///
    /// # Errors
    /// Whatever the store says; the batch is dropped then.
    fn load(&mut self, key: &CounterKey) -> Result<Counter, StoreError>;

    /// Units of it held by open calls and reservations.
    fn held(&self, key: &CounterKey) -> i64;
}

/// What the batch knows of configuration versions (`version-checked-in-batch`).
pub trait Versions {
    /// The version now in force, if knowledge of `account` read at `version` is still good; `None` if it is stale:
    /// the version moved and the change concerns this account.
    fn current(&self, account: &Account, version: i64) -> Option<i64>;
}

/// What an operation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are decisions; a box would cost each an allocation"
)]
pub enum Outcome {
    /// A demand was decided.
    Decided(Decision),
    /// The demand's knowledge is out of date; nothing was taken. Read afresh, from the key on.
    Stale,
    /// A settlement, record, correction or reset was done; `value` is the metric's own value after it.
    Done {
        /// The metric's own value.
        value: i64,
        /// What it was before.
        before: i64,
    },
    /// A sum would leave 0 ..= 2^53 − 1; nothing was changed.
    OutOfRange,
}

/// A batch being decided.
#[derive(Debug)]
pub struct Batch {
    now: Timestamp,
    changed: CounterMap<Changed>,
    entries: Vec<Entry>,
    good_until: Timestamp,
}

/// A counter that the batch changed: its running value, and the place of its last entry.
#[derive(Clone, Copy, Debug)]
struct Changed {
    counter: Counter,
    entry: usize,
}

/// Windows by way of cutting, so that a calendar is asked once a minute and not once a demand. Bounded.
#[derive(Debug, Default)]
pub struct CutCache {
    cuts: HashMap<u64, Cuts, foldhash::fast::RandomState>,
}

/// Ways of cutting kept at most; beyond it the cache starts anew.
const CUT_CACHE_ENTRIES_MAX: usize = 4_096;

impl CutCache {
    /// The windows of a metric's counters at `at`.
    pub fn cuts(&mut self, terms: &Terms, entry: &MetricLimits<'_>, at: Timestamp) -> Cuts {
        if let Some(cuts) = self.cuts.get(&entry.cut).filter(|cuts| cuts.good.contains(at)) {
            return *cuts;
        }
        let cuts = terms.calendar.cuts(entry.metric, at);
        if self.cuts.len() >= CUT_CACHE_ENTRIES_MAX {
            self.cuts.clear();
        }
        self.cuts.insert(entry.cut, cuts);
        cuts
    }
}

/// A counter brought to the instant that counts for it.
struct Ready {
    counter: Counter,
    at: Timestamp,
    cuts: Cuts,
}

impl Batch {
    /// An empty batch at the clock's `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { now, changed: CounterMap::default(), entries: Vec::new(), good_until: Timestamp::MAX }
    }

    /// An empty batch with room for so many operations.
    #[must_use]
    pub fn with_room(now: Timestamp, operations: usize) -> Self {
        let mut batch = Self::new(now);
        batch.changed.reserve(operations);
        batch.entries.reserve(operations);
        batch
    }

    /// The clock it decides by.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Whether every decision in it would be the same at `now`: the clock passed no window's end and no expiry, and
    /// did not go back.
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.now <= now && now < self.good_until
    }

    /// What is to be written, in order. Empty: nothing is to be committed.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The counters that changed, and the entries.
    pub fn into_parts(self) -> (impl Iterator<Item = (CounterKey, Counter)>, Vec<Entry>) {
        let counters = self.changed.into_iter().map(|(key, changed)| (key, changed.counter));
        (counters, self.entries)
    }

    /// Does one operation against the running values.
    ///
    /// # Errors
    /// Whatever `counters` says; drop the batch then.
    pub fn apply(
        &mut self,
        operation: &Operation,
        counters: &mut impl Counters,
        versions: &impl Versions,
        cuts: &mut CutCache,
    ) -> Result<Outcome, StoreError> {
        match operation {
            Operation::Take(demand) => self.take(demand, counters, versions, cuts),
            Operation::Settle { terms, place, taken, units } => {
                self.change(terms, *place, counters, cuts, |ready, entry| settle(ready, entry, taken, *units))
            }
            Operation::Record { terms, place, units, when } => {
                self.change(terms, *place, counters, cuts, |ready, entry| record(ready, entry, *units, *when))
            }
            Operation::Start { terms, place, units } => {
                self.change(terms, *place, counters, cuts, |ready, entry| start(ready, entry, *units))
            }
            Operation::Correct { terms, place, units } => {
                self.change(terms, *place, counters, cuts, |ready, entry| {
                    correct(ready, entry, units.get().saturating_neg())
                })
            }
            Operation::SetTo { terms, place, units } => {
                self.change(terms, *place, counters, cuts, |ready, entry| {
                    correct(ready, entry, units.get().saturating_sub(own_value(entry, &ready.counter)))
                })
            }
            Operation::Reset { terms, place, level_too } => {
                self.change(terms, *place, counters, cuts, |ready, _| {
                    Some(Change::to(EntryKind::Reset, ready.counter.reset(ready.at, *level_too)))
                })
            }
        }
    }

    fn ready(
        &self,
        terms: &Terms,
        entry: &MetricLimits<'_>,
        counters: &mut impl Counters,
        cuts: &mut CutCache,
    ) -> Result<Ready, StoreError> {
        let mut counter = match self.changed.get(entry.counter) {
            Some(changed) => changed.counter,
            None => counters.load(entry.counter)?,
        };
        let at = counter.instant(self.now);
        let cuts = cuts.cuts(terms, entry, at);
        counter.bring_to(at, &cuts);
        Ok(Ready { counter, at, cuts })
    }

    fn take(
        &mut self,
        demand: &Demand,
        counters: &mut impl Counters,
        versions: &impl Versions,
        cuts: &mut CutCache,
    ) -> Result<Outcome, StoreError> {
        let terms = &*demand.terms;
        let until = demand.good_until();
        let Some(version) = versions.current(&terms.account, demand.version).filter(|_| self.now < until)
        else {
            return Ok(Outcome::Stale);
        };
        self.good_until = self.good_until.min(until);
        let mut decision = Decision {
            admitted: true,
            version,
            at: self.now,
            metrics: SmallVec::new(),
            denied_by: None,
            retry_after_seconds: None,
            taken: None,
        };
        let mut asked: SmallVec<[(usize, i64, Ready, Verdict); 1]> = SmallVec::new();
        let mut worst: Option<(Cure, (usize, usize))> = None;
        for (place, units) in places(demand) {
            let Some(entry) = terms.limits.get(place) else { continue };
            let ready = self.ready(terms, &entry, counters, cuts)?;
            self.good_until = self.good_until.min(ready.cuts.good.end);
            let held = || counters.held(entry.counter);
            let verdict = decide(&entry, &ready.counter, &ready.cuts, units, held, terms.enforcement);
            if let Some(denial) = verdict.denial
                && worst.is_none_or(|(cure, _)| cure < denial.cure)
            {
                worst = Some((denial.cure, (asked.len(), denial.limit)));
            }
            asked.push((place, units, ready, verdict));
        }
        if let Some((cure, by)) = worst {
            decision.admitted = false;
            decision.denied_by = Some(by);
            decision.retry_after_seconds = decide::retry_after_seconds(cure, self.now);
        }
        for (place, units, mut ready, verdict) in asked {
            let Some(entry) = terms.limits.get(place) else { continue };
            if decision.admitted && demand.takes && units > 0 {
                let Some(taken) = self.take_units(&entry, &mut ready, units, &verdict.overage) else {
                    return Ok(Outcome::OutOfRange);
                };
                decision.taken = Some((place, taken));
            }
            decision.metrics.push(state_of(place, &entry, &ready, &verdict));
        }
        Ok(Outcome::Decided(decision))
    }

    /// Takes units of the one metric that a demand counts. It is the only one that changes, so a sum out of range
    /// leaves nothing half done.
    fn take_units(
        &mut self,
        entry: &MetricLimits<'_>,
        ready: &mut Ready,
        units: i64,
        overage: &Overage,
    ) -> Option<Taken> {
        let operation = entry.metric.operation;
        let units = if operation == metrics::Operation::Count { weight(operation, units) } else { units };
        let after = ready.counter.taken(ready.at, operation, units, overage)?;
        let change = Change { units, samples: 1, overage: *overage, ..Change::to(EntryKind::Take, after) };
        let number = self.write(entry, ready, change);
        ready.counter = after;
        let bucket = ready.cuts.bucket();
        Some(Taken { entry: number, at: ready.at, bucket, units, overage: *overage })
    }

    fn change(
        &mut self,
        terms: &Terms,
        place: usize,
        counters: &mut impl Counters,
        cuts: &mut CutCache,
        how: impl FnOnce(&Ready, &MetricLimits<'_>) -> Option<Change>,
    ) -> Result<Outcome, StoreError> {
        let Some(entry) = terms.limits.get(place) else { return Ok(Outcome::OutOfRange) };
        let mut ready = self.ready(terms, &entry, counters, cuts)?;
        let Some(change) = how(&ready, &entry) else { return Ok(Outcome::OutOfRange) };
        self.good_until = self.good_until.min(ready.cuts.good.end);
        let before = own_value(&entry, &ready.counter);
        ready.counter = change.after;
        self.write(&entry, &ready, change);
        Ok(Outcome::Done { value: own_value(&entry, &ready.counter), before })
    }

    /// Notes a change as an entry and as the running value. Takes of one counter at one instant that follow each
    /// other are one entry, so a hot counter costs one entry a batch.
    fn write(&mut self, entry: &MetricLimits<'_>, ready: &Ready, change: Change) -> u64 {
        let mut after = change.after;
        let at = change.at.unwrap_or(ready.at);
        let bucket = change.bucket.unwrap_or_else(|| ready.cuts.bucket());
        let next = self.entries.len();
        let changed = match self.changed.entry(entry.counter.clone()) {
            Slot::Occupied(changed) => changed.into_mut(),
            Slot::Vacant(new) => new.insert(Changed { counter: after, entry: next }),
        };
        let last = self.entries.get_mut(changed.entry);
        let merged = last.filter(|last| {
            let same = last.kind == EntryKind::Take && change.kind == EntryKind::Take;
            same && last.operation.is_releasable() && last.at == at && last.bucket == bucket
                // After a new cut the takes before it can no longer be taken back: keep them apart.
                && last.state.cut == after.cut && last.state.since == after.since
        });
        let number = if let Some(last) = merged {
            // One entry, one number: the counter's goes back to it.
            after.entry = last.number;
            last.units = last.units.saturating_add(change.units);
            for (sum, overage) in last.overage.iter_mut().zip(change.overage) {
                *sum = sum.saturating_add(overage);
            }
            last.state = after;
            last.number
        } else {
            changed.entry = next;
            self.entries.push(Entry {
                counter: entry.counter.clone(),
                operation: entry.metric.operation,
                kind: change.kind,
                number: after.entry,
                at,
                bucket,
                units: change.units,
                samples: if entry.metric.operation.is_releasable() { 0 } else { change.samples },
                overage: change.overage,
                take: change.take,
                state: after,
            });
            after.entry
        };
        changed.counter = after;
        number
    }
}

/// A change of a counter, on its way into an entry.
struct Change {
    kind: EntryKind,
    after: Counter,
    units: i64,
    samples: i64,
    overage: Overage,
    take: u64,
    at: Option<Timestamp>,
    bucket: Option<Timestamp>,
}

impl Change {
    const fn to(kind: EntryKind, after: Counter) -> Self {
        Self { kind, after, units: 0, samples: 0, overage: NO_OVERAGE, take: 0, at: None, bucket: None }
    }
}

fn settle(ready: &Ready, entry: &MetricLimits<'_>, taken: &Taken, units: Units) -> Option<Change> {
    let kept = weight(entry.metric.operation, units.get());
    let delta = kept.saturating_sub(taken.units);
    // Overage belongs to the units taken last: a smaller true cost takes from it first.
    let overage = taken.overage.map(|overage| {
        let left = if delta >= 0 { overage } else { overage.saturating_add(delta).max(0) };
        left.saturating_sub(overage)
    });
    let after = ready.counter.settled(ready.at, &ready.cuts, taken, delta, &overage);
    Some(Change {
        units: delta,
        overage,
        take: taken.entry,
        at: Some(taken.at),
        bucket: Some(taken.bucket),
        ..Change::to(if kept == 0 { EntryKind::Release } else { EntryKind::Adjust }, after)
    })
}

/// Moves usage by `units`, signed. `None` where the metric's value would fall below 0 or pass what units hold.
fn correct(ready: &Ready, entry: &MetricLimits<'_>, units: i64) -> Option<Change> {
    Units::new(own_value(entry, &ready.counter).saturating_add(units)).ok()?;
    let after = ready.counter.corrected(ready.at, units)?;
    Some(Change { units, ..Change::to(EntryKind::Correct, after) })
}

fn record(ready: &Ready, entry: &MetricLimits<'_>, units: Units, when: Option<Timestamp>) -> Option<Change> {
    let operation = entry.metric.operation;
    let units =
        if operation == metrics::Operation::Count { weight(operation, units.get()) } else { units.get() };
    let at = when.unwrap_or(ready.at);
    let after = ready.counter.recorded(ready.at, at, &ready.cuts, operation, units)?;
    let hour = Window::Hour;
    let bucket =
        if ready.cuts.span(hour).contains(at) { ready.cuts.bucket() } else { hour_before(&ready.cuts, at) };
    Some(Change {
        units,
        samples: 1,
        at: Some(at),
        bucket: Some(bucket),
        ..Change::to(EntryKind::Record, after)
    })
}

fn start(ready: &Ready, entry: &MetricLimits<'_>, units: Units) -> Option<Change> {
    let change = record(ready, entry, units, None)?;
    Some(Change { after: change.after.starting_from(change.units), ..change })
}

/// The hour of history of an instant outside the running hour, counted back or on in whole hours from it.
fn hour_before(cuts: &Cuts, at: Timestamp) -> Timestamp {
    let hour = 3_600;
    let start = cuts.bucket().as_seconds();
    let away = at.as_seconds().saturating_sub(start).div_euclid(hour);
    Timestamp::from_seconds(start.saturating_add(away.saturating_mul(hour)))
}

fn places(demand: &Demand) -> SmallVec<[(usize, i64); 1]> {
    match demand.ask {
        Ask::One { place, units } => SmallVec::from_buf([(place, units.get())]),
        Ask::All { count } => (0..demand.terms.limits.metrics().len())
            .map(|place| match count {
                Some((counted, units)) if counted == place => (place, units.get()),
                _ => (place, 0),
            })
            .collect(),
    }
}

/// A metric's own value: of its interval, or its level where it never begins again.
#[must_use]
pub fn own_value(entry: &MetricLimits<'_>, counter: &Counter) -> i64 {
    let window = match entry.metric.metric_type {
        metrics::MetricType::Checkpoint => None,
        metrics::MetricType::Reset | metrics::MetricType::StripeBilling => Some(Window::Own),
    };
    counter.tally(window).value(entry.metric.operation)
}

fn state_of(place: usize, entry: &MetricLimits<'_>, ready: &Ready, verdict: &Verdict) -> MetricState {
    let operation = entry.metric.operation;
    let limits =
        entry.limits.iter().zip(&verdict.breaches).map(|(limit, breached)| {
            LimitState::read(limit, operation, &ready.counter, &ready.cuts, *breached)
        });
    MetricState { place, value: own_value(entry, &ready.counter), limits: limits.collect() }
}

/// Where an account stands with a metric when nothing is asked of it; `is_breached` says whether one more unit
/// would breach. A window that has ended reads 0.
#[must_use]
pub fn read_state(
    terms: &Terms,
    place: usize,
    counter: &Counter,
    now: Timestamp,
    cuts: &mut CutCache,
) -> Option<MetricState> {
    let entry = terms.limits.get(place)?;
    let at = counter.instant(now);
    let cuts = cuts.cuts(terms, &entry, at);
    let mut counter = *counter;
    counter.bring_to(at, &cuts);
    let ready = Ready { counter, at, cuts };
    let verdict = decide(&entry, &ready.counter, &ready.cuts, 1, || 0, terms.enforcement);
    Some(state_of(place, &entry, &ready, &verdict))
}
