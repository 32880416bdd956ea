//! The counters in use, in memory, and what of the ledger is not folded yet.
//!
//! They are a cache of what this writer alone writes: a counter is read from its row at first touch, changed by
//! committed batches only, and dropped again once folded when there are too many.

use super::table::CounterTable;
use super::usage;
use crate::holds::Holds;
use crate::ledger::{LedgerError, Packed, unpack_counter};
use diesel::SqliteConnection;
use smallvec::SmallVec;
use tracktags_core::accounts::{BusinessId, MetricName};
use tracktags_core::batch::Counters;
use tracktags_core::error::StoreError;
use tracktags_core::history::Gain;
use tracktags_core::metrics::Operation;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, CounterMap, Entry};

/// Denials noted between two folds at most; more are not counted, since they are best effort.
const DENIED_MAX: usize = 100_000;

/// What of a counter is not folded yet.
#[derive(Clone, Debug)]
pub(crate) struct Unfolded {
    /// Its state after the last batch; `None` when it was only denied.
    pub(crate) state: Option<Packed>,
    pub(crate) hours: SmallVec<[(Timestamp, Operation, Gain); 1]>,
}

impl Unfolded {
    pub(crate) fn new() -> Self {
        Self { state: None, hours: SmallVec::new() }
    }

    fn hour(&mut self, bucket: Timestamp, operation: Operation) -> Option<&mut Gain> {
        let place = match self.hours.iter().position(|(other, _, _)| *other == bucket) {
            Some(place) => place,
            None => {
                self.hours.push((bucket, operation, Gain::default()));
                self.hours.len() - 1
            }
        };
        self.hours.get_mut(place).map(|(_, _, gain)| gain)
    }

    /// Adds an entry's units to its hour.
    pub(crate) fn add(&mut self, entry: &Entry) {
        if let Some(gain) = self.hour(entry.bucket, entry.operation) {
            gain.add(entry);
        }
    }
}

/// Everything not folded yet, by counter.
pub(crate) type UnfoldedMap = CounterMap<Unfolded>;

#[derive(Default)]
pub(crate) struct Live {
    counters: CounterTable,
    pub(crate) unfolded: UnfoldedMap,
    /// Ledger entries behind `unfolded`.
    entries: usize,
    denied: usize,
    max: usize,
}

impl Live {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Takes in a committed entry and the state it packs to.
    pub(crate) fn commit(&mut self, entry: &Entry, state: Packed) {
        self.entries += 1;
        let unfolded = self.unfolded.entry(entry.counter.clone()).or_insert_with(Unfolded::new);
        unfolded.add(entry);
        self.counters.put(&entry.counter, &state);
        unfolded.state = Some(state);
    }

    /// The customers with a counter of this metric in memory; the business's own account is the empty one.
    pub(crate) fn customers_with(&self, business: &BusinessId, metric: &MetricName) -> Vec<String> {
        self.counters.customers_with(business, metric)
    }

    /// Notes a refused demand.
    pub(crate) fn deny(&mut self, key: &CounterKey, bucket: Timestamp, operation: Operation) {
        if self.denied >= DENIED_MAX {
            return;
        }
        self.denied += 1;
        let unfolded = self.unfolded.entry(key.clone()).or_insert_with(Unfolded::new);
        if let Some(gain) = unfolded.hour(bucket, operation) {
            gain.denied += 1;
        }
    }

    /// Ledger entries that wait for a fold.
    pub(crate) const fn unfolded_entries(&self) -> usize {
        self.entries
    }

    /// Hands out what is to be folded, and begins anew, with room for as much again: a map that grows under load stops
    /// every caller for as long as it moves.
    pub(crate) fn take_unfolded(&mut self) -> UnfoldedMap {
        self.denied = 0;
        self.entries = 0;
        let room = UnfoldedMap::with_capacity_and_hasher(self.unfolded.len(), Default::default());
        std::mem::replace(&mut self.unfolded, room)
    }

    /// A counter found in the ledger's tail at start.
    pub(crate) fn keep(&mut self, key: &CounterKey, unfolded: &Unfolded) {
        if let Some(state) = &unfolded.state {
            self.counters.put(key, state);
        }
    }

    /// Goes on with what the ledger's tail held at start, of so many entries.
    pub(crate) fn resume(&mut self, unfolded: UnfoldedMap, entries: usize) {
        self.unfolded = unfolded;
        self.entries = entries;
    }

    /// Drops counters that are folded and quiet while there are more than may be.
    pub(crate) fn evict(&mut self, folded: impl Iterator<Item = CounterKey>) {
        for key in folded {
            if self.counters.len() <= self.max {
                return;
            }
            if !self.unfolded.contains_key(&key) {
                self.counters.remove(&key);
            }
        }
    }

    /// The committed counter; a new one where there is none.
    pub(crate) fn load(
        &mut self,
        conn: &mut SqliteConnection,
        key: &CounterKey,
    ) -> Result<Counter, StoreError> {
        if let Some(packed) = self.counters.get(key) {
            return unpack_counter(packed).map_err(corrupt);
        }
        let Some(state) = usage::counter_row(conn, key)? else { return Ok(Counter::default()) };
        let counter = unpack_counter(&state).map_err(corrupt)?;
        // A full table takes in nothing more by being read; what is written comes in all the same.
        if self.counters.len() < self.max {
            self.counters.put(key, &state);
        }
        Ok(counter)
    }
}

pub(crate) fn corrupt(error: LedgerError) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

/// The counters as a batch finds them: the committed ones.
pub(crate) struct Running<'a> {
    pub(crate) live: &'a mut Live,
    pub(crate) conn: &'a mut SqliteConnection,
    pub(crate) holds: &'a Holds,
}

impl Counters for Running<'_> {
    fn load(&mut self, key: &CounterKey) -> Result<Counter, StoreError> {
        self.live.load(self.conn, key)
    }

    fn held(&self, key: &CounterKey) -> i64 {
        self.holds.of(key)
    }
}
