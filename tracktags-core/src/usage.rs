//! The counter of one (account, metric): its level, every running window, and how each kind of ledger entry
//! changes them.
//!
//! A counter is brought to an instant before anything happens to it: a window whose end has passed is entered anew
//! at 0, the metric's own interval at what the account starts from. Time never runs back for a counter: an earlier
//! clock counts as the instant of its last change.
//!
//! | kind | level | each running window |
//! |---|---|---|
//! | take, record | + units | + units (a record of the past only where the window covers its time) |
//! | release, adjust | ± units, unless the level was reset since; never below 0 | ± units where the window covers the take's time and the take is not older than `since`; never below 0 |
//! | correct | − units; below 0 is refused | − units, but stops at 0 |
//! | reset | kept, or 0 | 0 |

use crate::accounts::{Account, MetricName};
use crate::metrics::{Operation, UNITS_MAX, Units, words};
use crate::time::Timestamp;
use crate::windows::{Cuts, WINDOWS, Window};
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Names one counter: an account and a metric. Cheap to clone; ordered by business, customer, metric, which is the
/// order in which rows are locked everywhere (`locks-in-key-order`).
#[derive(Clone)]
pub struct CounterKey(Arc<CounterName>);

/// A map by counter. The key has its hash with it already, so mixing in the map's own random seed is all there is to do.
pub type CounterMap<V> = HashMap<CounterKey, V, foldhash::fast::RandomState>;

struct CounterName {
    account: Account,
    metric: MetricName,
    hash: u64,
}

impl CounterKey {
    /// The counter of `metric` for `account`.
    #[must_use]
    pub fn new(account: Account, metric: MetricName) -> Self {
        let mut hasher = DefaultHasher::new();
        account.hash(&mut hasher);
        metric.hash(&mut hasher);
        Self(Arc::new(CounterName { account, metric, hash: hasher.finish() }))
    }

    /// Whose usage it counts.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.0.account
    }

    /// Which of `shards` parts it falls into, for maps that are locked in parts.
    #[must_use]
    pub fn shard(&self, shards: usize) -> usize {
        usize::try_from(self.0.hash >> 32).unwrap_or_default().checked_rem(shards).unwrap_or_default()
    }

    /// What it counts.
    #[must_use]
    pub fn metric(&self) -> &MetricName {
        &self.0.metric
    }
}

impl PartialEq for CounterKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.hash == other.0.hash
                && self.0.metric == other.0.metric
                && self.0.account == other.0.account)
    }
}
impl Eq for CounterKey {}

impl Hash for CounterKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl PartialOrd for CounterKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for CounterKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.0.account, &self.0.metric).cmp(&(&other.0.account, &other.0.metric))
    }
}

impl fmt::Debug for CounterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let customer = self.0.account.customer.as_ref().map_or("", |customer| customer.as_str());
        write!(f, "{}/{customer}/{}", self.0.account.business, self.0.metric)
    }
}

/// What one window, or the level, has added up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tally {
    /// The value of the metric's operation (for AVG the sum).
    pub units: i64,
    /// Units taken beyond an `allow_overage` limit.
    pub overage: i64,
    /// How many samples; kept for MAX, MIN, LAST and AVG only.
    pub samples: i64,
}

impl Tally {
    /// The value a limit compares and a reader sees.
    #[must_use]
    pub const fn value(&self, operation: Operation) -> i64 {
        match operation {
            Operation::Avg if self.samples > 0 => self.units.div_euclid(self.samples),
            Operation::Avg
            | Operation::Sum
            | Operation::Count
            | Operation::Max
            | Operation::Min
            | Operation::Last => self.units,
        }
    }

    /// Whether one more sample of `units` stays in the range of units.
    const fn has_room(&self, operation: Operation, units: i64) -> bool {
        let sum = match operation {
            Operation::Sum | Operation::Count | Operation::Avg => self.units.saturating_add(units),
            Operation::Max | Operation::Min | Operation::Last => units,
        };
        sum <= UNITS_MAX && self.samples < i64::MAX
    }

    /// Adds one sample of `units`, for which there is room.
    fn add_sample(&mut self, operation: Operation, units: i64) {
        self.units = match operation {
            Operation::Sum | Operation::Count | Operation::Avg => self.units.saturating_add(units),
            Operation::Max if self.samples > 0 => self.units.max(units),
            Operation::Min if self.samples > 0 => self.units.min(units),
            Operation::Max | Operation::Min | Operation::Last => units,
        };
        if !operation.is_releasable() {
            self.samples = self.samples.saturating_add(1);
        }
    }

    /// Adds what may be negative; stops at 0 and at the most there can be.
    fn moved(mut self, units: i64, overage: i64) -> Self {
        self.units = self.units.saturating_add(units).clamp(0, UNITS_MAX);
        self.overage = self.overage.saturating_add(overage).clamp(0, UNITS_MAX);
        self
    }
}

/// A running window of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RunningWindow {
    /// The first instant after it.
    pub end: Timestamp,
    /// What it has added up to.
    pub tally: Tally,
}

/// Overage by window, in the order of [`Window::ALL`], and of the level last.
pub type Overage = [i64; WINDOWS + 1];

/// No overage.
pub const NO_OVERAGE: Overage = [0; WINDOWS + 1];

/// Everything that a decision needs to know of one (account, metric).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counter {
    /// The level: what time never resets.
    pub level: Tally,
    /// The running windows, in the order of [`Window::ALL`].
    pub windows: [RunningWindow; WINDOWS],
    /// The instant of its last change.
    pub changed_at: Timestamp,
    /// The number of its last entry in the ledger; they count from 1 without gaps.
    pub entry: u64,
    /// Takes with a smaller entry number can no longer be taken back from a window.
    pub since: u64,
    /// Takes with a smaller entry number can no longer be taken back from the level.
    pub level_since: u64,
    /// How its windows were cut last ([`Cuts::id`]).
    pub cut: u64,
    /// What the metric's own interval begins at; it is shown in the value and is no usage.
    pub start: i64,
}

words! {
    /// What an entry of the ledger did.
    EntryKind {
        /// Units were taken by a demand.
        Take = "take",
        /// A take was given back whole.
        Release = "release",
        /// A take was changed to its true cost.
        Adjust = "adjust",
        /// Usage was recorded without asking.
        Record = "record",
        /// Usage was corrected, mostly downwards.
        Correct = "correct",
        /// Windows were set to 0.
        Reset = "reset",
    }
}

/// One entry of the usage ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which counter.
    pub counter: CounterKey,
    /// How its samples add up.
    pub operation: Operation,
    /// What happened.
    pub kind: EntryKind,
    /// Its number among the counter's entries.
    pub number: u64,
    /// Instant of effect: the batch's clock for a take, that of its take for a release or adjustment, the given
    /// time for a record of the past.
    pub at: Timestamp,
    /// Start of the hour of history it falls into, cut in the business's zone when taken.
    pub bucket: Timestamp,
    /// Units, signed.
    pub units: i64,
    /// Samples it stands for; for MAX, MIN, LAST and AVG.
    pub samples: i64,
    /// Overage by window and level, signed.
    pub overage: Overage,
    /// The number of the take that a release or adjustment changes, else 0.
    pub take: u64,
    /// The counter after it.
    pub state: Counter,
}

/// Units that were taken and may still be given back or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The number of the entry that took them.
    pub entry: u64,
    /// When.
    pub at: Timestamp,
    /// Into which hour of history.
    pub bucket: Timestamp,
    /// How many.
    pub units: i64,
    /// Of these, beyond a limit, by window and level.
    pub overage: Overage,
}

impl Counter {
    /// The instant that counts for it when the clock says `now`.
    #[must_use]
    pub fn instant(&self, now: Timestamp) -> Timestamp {
        now.max(self.changed_at)
    }

    /// Brings it to the windows of `cuts`, which are those of `at`. A window that has ended is entered anew at 0;
    /// after a change of zone, anchor or interval a running one keeps what it counted and ends where the new cut
    /// says, and what was taken before can no longer be taken back from it.
    pub fn bring_to(&mut self, at: Timestamp, cuts: &Cuts) {
        let recut = self.cut != cuts.id;
        for ((running, span), window) in self.windows.iter_mut().zip(&cuts.spans).zip(Window::ALL) {
            if at >= running.end {
                *running = RunningWindow { end: span.end, tally: fresh(window, self.start) };
            } else if recut {
                running.end = span.end;
            }
        }
        if recut {
            self.cut = cuts.id;
            self.since = self.entry.saturating_add(1);
        }
    }

    /// A running window, or the level.
    #[must_use]
    pub fn tally(&self, window: Option<Window>) -> &Tally {
        window
            .and_then(|window| self.windows.get(window.index()))
            .map_or(&self.level, |running| &running.tally)
    }

    /// Takes one sample of `units` into the level and every window, with `overage` noted where it belongs.
    /// `false`, and nothing changed, where a sum would leave the range of units.
    #[must_use]
    pub fn take(&mut self, at: Timestamp, operation: Operation, units: i64, overage: &Overage) -> bool {
        let has_room = self.windows.iter().all(|running| running.tally.has_room(operation, units))
            && self.level.has_room(operation, units);
        if !has_room {
            return false;
        }
        self.level.add_sample(operation, units);
        for running in &mut self.windows {
            running.tally.add_sample(operation, units);
        }
        if *overage != NO_OVERAGE {
            self.level = self.level.moved(0, overage_of_level(overage));
            for (running, overage) in self.windows.iter_mut().zip(overage) {
                running.tally = running.tally.moved(0, *overage);
            }
        }
        self.touch(at);
        true
    }

    /// Records usage that happened at `when`: into the level, and into the windows of `cuts` that cover it. `false`, and
    /// nothing changed, where a sum would leave the range of units.
    #[must_use]
    pub fn record(
        &mut self,
        at: Timestamp,
        when: Timestamp,
        cuts: &Cuts,
        operation: Operation,
        units: i64,
    ) -> bool {
        let mut covering = self.windows.iter().zip(&cuts.spans).filter(|(_, span)| span.contains(when));
        let has_room = covering.all(|(running, _)| running.tally.has_room(operation, units));
        if !has_room || !self.level.has_room(operation, units) {
            return false;
        }
        self.level.add_sample(operation, units);
        for (running, _) in self.windows.iter_mut().zip(&cuts.spans).filter(|(_, span)| span.contains(when)) {
            running.tally.add_sample(operation, units);
        }
        self.touch(at);
        true
    }

    /// From now on each further interval starts from `units`.
    pub const fn start_from(&mut self, units: i64) {
        self.start = units;
    }

    /// Changes a take by `units` and `overage`, both signed.
    pub fn settle(&mut self, at: Timestamp, cuts: &Cuts, taken: &Taken, units: i64, overage: &Overage) {
        if taken.entry >= self.level_since {
            self.level = self.level.moved(units, overage_of_level(overage));
        }
        if taken.entry >= self.since {
            let windows = self.windows.iter_mut().zip(&cuts.spans).zip(overage);
            for ((running, _), overage) in windows.filter(|((_, span), _)| span.contains(taken.at)) {
                running.tally = running.tally.moved(units, *overage);
            }
        }
        self.touch(at);
    }

    /// Corrects by `units`, signed; a window stops at 0. `false`, and nothing changed, where the level would fall below
    /// 0 or pass what units hold.
    #[must_use]
    pub fn correct(&mut self, at: Timestamp, units: i64) -> bool {
        let Ok(level) = Units::new(self.level.units.saturating_add(units)) else { return false };
        self.level.units = level.get();
        for running in &mut self.windows {
            running.tally = running.tally.moved(units, 0);
        }
        self.touch(at);
        true
    }

    /// Sets every running window to 0, and the level and what intervals start from too when asked.
    pub fn reset(&mut self, at: Timestamp, level_too: bool) {
        self.touch(at);
        for running in &mut self.windows {
            running.tally = Tally::default();
        }
        self.since = self.entry;
        if level_too {
            self.level = Tally::default();
            self.level_since = self.entry;
            self.start = 0;
        }
    }

    fn touch(&mut self, at: Timestamp) {
        self.changed_at = at;
        self.entry = self.entry.saturating_add(1);
    }

    /// Whether `entry` leads from this state, the one before it, to the state it carries: the chain that
    /// `verify` walks. A release may or may not have met a window, which only the calendar knows; both are taken.
    #[must_use]
    pub fn leads_to(&self, entry: &Entry) -> bool {
        let after = &entry.state;
        let numbered = entry.number == self.entry.saturating_add(1) && after.entry == entry.number;
        let level = fits(entry, &self.level, &after.level, overage_of_level(&entry.overage));
        let windows = self.windows.iter().zip(&after.windows).zip(&entry.overage);
        numbered
            && after.changed_at >= self.changed_at
            && level
            && windows.zip(Window::ALL).all(|(((before, after), overage), window)| {
                let anew = fresh(window, self.start);
                fits(entry, &before.tally, &after.tally, *overage)
                    || (after.end != before.end && fits(entry, &anew, &after.tally, *overage))
            })
    }
}

/// A window that is entered anew. What it starts from is one sample, where samples are kept.
fn fresh(window: Window, start: i64) -> Tally {
    let is_own = window == Window::Own && start != 0;
    Tally { units: if is_own { start } else { 0 }, overage: 0, samples: i64::from(is_own) }
}

const fn overage_of_level(overage: &Overage) -> i64 {
    let [.., level] = overage;
    *level
}

/// Whether an entry turns `before` into `after`.
fn fits(entry: &Entry, before: &Tally, after: &Tally, overage: i64) -> bool {
    let moved = before.moved(entry.units, overage);
    match entry.kind {
        EntryKind::Take | EntryKind::Record if !entry.operation.is_releasable() => true,
        EntryKind::Take => *after == moved,
        EntryKind::Record | EntryKind::Release | EntryKind::Adjust => after == before || *after == moved,
        EntryKind::Correct => after.units == before.moved(entry.units, 0).units,
        EntryKind::Reset => after == before || *after == Tally::default(),
    }
}
