//! Refused demands by counter and hour, best effort: noted in memory by the lanes, written with the folds.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tracktags_core::metrics::Operation;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{CounterKey, CounterMap};

/// Counters noted between two folds at most; more are not counted.
const COUNTERS_MAX: usize = 100_000;

pub(super) type Noted = CounterMap<HashMap<Timestamp, (Operation, i64)>>;

#[derive(Default)]
pub(super) struct Denied(Mutex<Noted>);

impl Denied {
    pub(super) fn note(&self, counter: &CounterKey, bucket: Timestamp, operation: Operation) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < COUNTERS_MAX || noted.contains_key(counter) {
            noted.entry(counter.clone()).or_default().entry(bucket).or_insert((operation, 0)).1 += 1;
        }
    }

    /// Hands out what was noted, and begins anew.
    pub(super) fn take(&self) -> Noted {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
