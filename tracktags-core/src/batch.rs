//! ⑤ The pure half of a batch: running values, decisions and the entries to write, without I/O.
//!
//! An engine loads counters through [`Counters`], calls [`Batch::apply`] for each operation in order, writes
//! [`Batch::entries`] in one transaction and, after the commit, makes the counters as of their last entries visible. On any
//! error it drops the batch, and nothing happened. Keeps `exact-under-concurrency`: each operation sees the running values
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
    /// The place of the last entry of each counter that changed: the state in it is the running value.
    last: CounterMap<usize>,
    entries: Vec<Entry>,
    good_until: Timestamp,
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
    pub fn cuts(&mut self, terms: &Terms, entry: &MetricLimits<'_>, at: Timestamp) -> &Cuts {
        if self.cuts.len() >= CUT_CACHE_ENTRIES_MAX && !self.cuts.contains_key(&entry.cut) {
            self.cuts.clear();
        }
        let fresh = || terms.calendar.cuts(entry.metric, at);
        let cuts = self.cuts.entry(entry.cut).or_insert_with(fresh);
        if !cuts.good.contains(at) {
            *cuts = fresh();
        }
        cuts
    }
}

/// A counter brought to the instant that counts for it. Large, so it is filled where it lies.
#[derive(Default)]
struct Ready {
    counter: Counter,
    at: Timestamp,
    cuts: Cuts,
}

/// One metric of a demand, and what its limits say.
#[derive(Default)]
struct Asked {
    place: usize,
    units: i64,
    ready: Ready,
    verdict: Verdict,
}

impl Asked {
    fn new(place: usize, units: i64) -> Self {
        Self { place, units, ..Self::default() }
    }
}

impl Batch {
    /// An empty batch at the clock's `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { now, last: CounterMap::default(), entries: Vec::new(), good_until: Timestamp::MAX }
    }

    /// An empty batch with room for so many operations.
    #[must_use]
    pub fn with_room(now: Timestamp, operations: usize) -> Self {
        let mut batch = Self::new(now);
        batch.last.reserve(operations);
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

    /// What is to be written, in order. The last entry of a counter says what becomes of it.
    #[must_use]
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
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
                    ready.counter.reset(ready.at, *level_too);
                    Some(Change::to(EntryKind::Reset))
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
        ready: &mut Ready,
    ) -> Result<(), StoreError> {
        let last = self.last.get(entry.counter).and_then(|place| self.entries.get(*place));
        match last {
            Some(last) => ready.counter = last.state,
            None => ready.counter = counters.load(entry.counter)?,
        }
        ready.at = ready.counter.instant(self.now);
        ready.cuts = *cuts.cuts(terms, entry, ready.at);
        ready.counter.bring_to(ready.at, &ready.cuts);
        Ok(())
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
        match demand.ask {
            Ask::One { place, units } => {
                let asked = &mut [Asked::new(place, units.get())];
                self.decide(demand, version, asked, counters, cuts)
            }
            Ask::All { count } => {
                let units = |place| {
                    count.filter(|(counted, _)| *counted == place).map_or(0, |(_, units)| units.get())
                };
                let places = 0..terms.limits.metrics().len();
                let mut asked: Vec<_> = places.map(|place| Asked::new(place, units(place))).collect();
                self.decide(demand, version, &mut asked, counters, cuts)
            }
        }
    }

    /// Decides every metric asked, takes what is to be taken if none refuses, and says where the account stands.
    fn decide(
        &mut self,
        demand: &Demand,
        version: i64,
        asked: &mut [Asked],
        counters: &mut impl Counters,
        cuts: &mut CutCache,
    ) -> Result<Outcome, StoreError> {
        let terms = &*demand.terms;
        let mut worst: Option<(Cure, (usize, usize))> = None;
        for (at, Asked { place, units, ready, verdict }) in asked.iter_mut().enumerate() {
            let Some(entry) = terms.limits.get(*place) else { continue };
            self.ready(terms, &entry, counters, cuts, ready)?;
            self.good_until = self.good_until.min(ready.cuts.good.end);
            let held = || counters.held(entry.counter);
            *verdict = decide(&entry, &ready.counter, &ready.cuts, *units, held, terms.enforcement);
            if let Some(denial) = verdict.denial
                && worst.is_none_or(|(cure, _)| cure < denial.cure)
            {
                worst = Some((denial.cure, (at, denial.limit)));
            }
        }
        let mut taken = None;
        let mut metrics = SmallVec::new();
        for Asked { place, units, ready, verdict } in asked {
            let Some(entry) = terms.limits.get(*place) else { continue };
            if worst.is_none() && demand.takes && *units > 0 {
                let Some(units) = self.take_units(&entry, ready, *units, &verdict.overage) else {
                    return Ok(Outcome::OutOfRange);
                };
                taken = Some((*place, units));
            }
            metrics.push(state_of(*place, &entry, ready, verdict));
        }
        Ok(Outcome::Decided(Decision {
            admitted: worst.is_none(),
            version,
            at: self.now,
            metrics,
            denied_by: worst.map(|(_, by)| by),
            retry_after_seconds: worst.and_then(|(cure, _)| decide::retry_after_seconds(cure, self.now)),
            taken,
        }))
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
        if !ready.counter.take(ready.at, operation, units, overage) {
            return None;
        }
        let change = Change { units, samples: 1, overage: *overage, ..Change::to(EntryKind::Take) };
        let number = self.write(entry, ready, &change);
        let bucket = ready.cuts.bucket();
        Some(Taken { entry: number, at: ready.at, bucket, units, overage: *overage })
    }

    fn change(
        &mut self,
        terms: &Terms,
        place: usize,
        counters: &mut impl Counters,
        cuts: &mut CutCache,
        how: impl FnOnce(&mut Ready, &MetricLimits<'_>) -> Option<Change>,
    ) -> Result<Outcome, StoreError> {
        let Some(entry) = terms.limits.get(place) else { return Ok(Outcome::OutOfRange) };
        let mut ready = Ready::default();
        self.ready(terms, &entry, counters, cuts, &mut ready)?;
        let before = own_value(&entry, &ready.counter);
        let Some(change) = how(&mut ready, &entry) else { return Ok(Outcome::OutOfRange) };
        self.good_until = self.good_until.min(ready.cuts.good.end);
        self.write(&entry, &mut ready, &change);
        Ok(Outcome::Done { value: own_value(&entry, &ready.counter), before })
    }

    /// Notes a change of `ready` as an entry and as the running value. Takes of one counter at one instant that follow
    /// each other are one entry, so a hot counter costs one entry a batch.
    fn write(&mut self, entry: &MetricLimits<'_>, ready: &mut Ready, change: &Change) -> u64 {
        let after = &mut ready.counter;
        let at = change.at.unwrap_or(ready.at);
        let bucket = change.bucket.unwrap_or_else(|| ready.cuts.bucket());
        let next = self.entries.len();
        let place = match self.last.get_mut(entry.counter) {
            Some(place) => place,
            None => self.last.entry(entry.counter.clone()).or_insert(next),
        };
        let merged = self.entries.get_mut(*place).filter(|last| {
            let same = last.kind == EntryKind::Take && change.kind == EntryKind::Take;
            same && last.operation.is_releasable() && last.at == at && last.bucket == bucket
                // After a new cut the takes before it can no longer be taken back: keep them apart.
                && last.state.cut == after.cut && last.state.since == after.since
        });
        if let Some(last) = merged {
            // One entry, one number: the counter's goes back to it.
            after.entry = last.number;
            last.units = last.units.saturating_add(change.units);
            for (sum, overage) in last.overage.iter_mut().zip(change.overage) {
                *sum = sum.saturating_add(overage);
            }
            last.state = *after;
        } else {
            *place = next;
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
                state: *after,
            });
        }
        after.entry
    }
}

/// What changed a counter, on its way into an entry.
struct Change {
    kind: EntryKind,
    units: i64,
    samples: i64,
    overage: Overage,
    take: u64,
    at: Option<Timestamp>,
    bucket: Option<Timestamp>,
}

impl Change {
    const fn to(kind: EntryKind) -> Self {
        Self { kind, units: 0, samples: 0, overage: NO_OVERAGE, take: 0, at: None, bucket: None }
    }
}

fn settle(ready: &mut Ready, entry: &MetricLimits<'_>, taken: &Taken, units: Units) -> Option<Change> {
    let kept = weight(entry.metric.operation, units.get());
    let delta = kept.saturating_sub(taken.units);
    // Overage belongs to the units taken last: a smaller true cost takes from it first.
    let overage = taken.overage.map(|overage| {
        let left = if delta >= 0 { overage } else { overage.saturating_add(delta).max(0) };
        left.saturating_sub(overage)
    });
    ready.counter.settle(ready.at, &ready.cuts, taken, delta, &overage);
    Some(Change {
        units: delta,
        overage,
        take: taken.entry,
        at: Some(taken.at),
        bucket: Some(taken.bucket),
        ..Change::to(if kept == 0 { EntryKind::Release } else { EntryKind::Adjust })
    })
}

/// Moves usage by `units`, signed. `None` where the metric's value would fall below 0 or pass what units hold.
fn correct(ready: &mut Ready, entry: &MetricLimits<'_>, units: i64) -> Option<Change> {
    Units::new(own_value(entry, &ready.counter).saturating_add(units)).ok()?;
    ready.counter.correct(ready.at, units).then(|| Change { units, ..Change::to(EntryKind::Correct) })
}

fn record(
    ready: &mut Ready,
    entry: &MetricLimits<'_>,
    units: Units,
    when: Option<Timestamp>,
) -> Option<Change> {
    let operation = entry.metric.operation;
    let units =
        if operation == metrics::Operation::Count { weight(operation, units.get()) } else { units.get() };
    let at = when.unwrap_or(ready.at);
    if !ready.counter.record(ready.at, at, &ready.cuts, operation, units) {
        return None;
    }
    let hour = Window::Hour;
    let bucket =
        if ready.cuts.span(hour).contains(at) { ready.cuts.bucket() } else { hour_before(&ready.cuts, at) };
    Some(Change { units, samples: 1, at: Some(at), bucket: Some(bucket), ..Change::to(EntryKind::Record) })
}

fn start(ready: &mut Ready, entry: &MetricLimits<'_>, units: Units) -> Option<Change> {
    let change = record(ready, entry, units, None)?;
    ready.counter.start_from(change.units);
    Some(change)
}

/// The hour of history of an instant outside the running hour, counted back or on in whole hours from it.
fn hour_before(cuts: &Cuts, at: Timestamp) -> Timestamp {
    let hour = 3_600;
    let start = cuts.bucket().as_seconds();
    let away = at.as_seconds().saturating_sub(start).div_euclid(hour);
    Timestamp::from_seconds(start.saturating_add(away.saturating_mul(hour)))
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
    let cuts = *cuts.cuts(terms, &entry, at);
    let mut counter = *counter;
    counter.bring_to(at, &cuts);
    let ready = Ready { counter, at, cuts };
    let verdict = decide(&entry, &ready.counter, &ready.cuts, 1, || 0, terms.enforcement);
    Some(state_of(place, &entry, &ready, &verdict))
}
