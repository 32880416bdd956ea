//! Units and calls that are open: admitted, not yet settled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracktags_core::usage::{CounterKey, CounterMap};

/// Units and calls that are open on this node: admitted, not yet settled.
#[derive(Default)]
pub(crate) struct Holds {
    shards: [Mutex<CounterMap<i64>>; HOLD_SHARDS],
    calls: AtomicU64,
    units: AtomicU64,
}

const HOLD_SHARDS: usize = 16;

impl Holds {
    fn shard(&self, key: &CounterKey) -> MutexGuard<'_, CounterMap<i64>> {
        let [first, ..] = &self.shards;
        let shard = self.shards.get(key.shard(HOLD_SHARDS)).unwrap_or(first);
        // No code of ours panics while it holds one; the data are whole either way.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, key: &CounterKey) -> i64 {
        self.shard(key).get(key).copied().unwrap_or_default()
    }

    pub(crate) fn open(&self, key: &CounterKey, units: i64) {
        *self.shard(key).entry(key.clone()).or_default() += units;
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.units.fetch_add(units.unsigned_abs(), Ordering::Relaxed);
    }

    pub(crate) fn close(&self, key: &CounterKey, units: i64) {
        let mut shard = self.shard(key);
        if let Some(held) = shard.get_mut(key) {
            *held -= units;
            if *held <= 0 {
                shard.remove(key);
            }
        }
        self.calls.fetch_sub(1, Ordering::Relaxed);
        self.units.fetch_sub(units.unsigned_abs(), Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.units.load(Ordering::Relaxed))
    }
}
