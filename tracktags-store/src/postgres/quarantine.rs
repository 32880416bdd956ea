//! Businesses one of whose counters somebody holds: all that they ask for waits in a lane of its own, and nobody else
//! waits for it, until a batch of theirs succeeds.

use crate::admission::{Queue, Waiting};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracktags_core::accounts::BusinessId;

/// A business waits by itself for at least so long after it was last held up: one of its counters may still be held while
/// batches of others succeed.
const HELD_MIN: Duration = Duration::from_secs(1);

pub(super) struct Quarantine {
    queue: Arc<Queue>,
    /// Each with when it was last held up.
    businesses: Mutex<BTreeMap<BusinessId, Instant>>,
    /// Whether there are any, so that a batch mostly need not ask.
    any: AtomicBool,
}

fn business_of(one: &Waiting) -> &BusinessId {
    &one.operation.terms().account.business
}

impl Quarantine {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, businesses: Mutex::default(), any: AtomicBool::new(false) }
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    fn businesses(&self) -> MutexGuard<'_, BTreeMap<BusinessId, Instant>> {
        self.businesses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in work of businesses that are held up.
    pub(super) fn take_in(&self, blocked: Vec<Waiting>, now: Instant) {
        let held: BTreeSet<&BusinessId> = blocked.iter().map(business_of).collect();
        for business in held {
            self.note_held(business, now);
        }
        self.queue.push_each(blocked);
    }

    /// Somebody holds a counter of this business.
    pub(super) fn note_held(&self, business: &BusinessId, now: Instant) {
        let mut businesses = self.businesses();
        if businesses.insert(business.clone(), now).is_none() {
            tracing::warn!(%business, "somebody holds a counter: its business waits by itself");
        }
        self.any.store(true, Ordering::SeqCst);
    }

    /// Leaves of a batch what need not wait here.
    pub(super) fn sift(&self, waiting: Vec<Waiting>) -> Vec<Waiting> {
        if !self.any.load(Ordering::SeqCst) {
            return waiting;
        }
        let businesses = self.businesses();
        let (held, free): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|one| businesses.contains_key(business_of(one)));
        drop(businesses);
        if !held.is_empty() {
            self.queue.push_each(held);
        }
        free
    }

    /// A batch of this business succeeded: it waits here no longer, unless it was held up just before.
    pub(super) fn release(&self, business: &BusinessId, now: Instant) {
        let mut businesses = self.businesses();
        let is_over = |since: &Instant| now.duration_since(*since) >= HELD_MIN;
        if businesses.get(business).is_some_and(is_over) {
            businesses.remove(business);
            tracing::info!(%business, "nobody holds its counters any more");
        }
        self.any.store(!businesses.is_empty(), Ordering::SeqCst);
    }
}

/// The work of one business, the next one's after `last`, and what waits on.
pub(super) fn of_one_business(
    waiting: Vec<Waiting>,
    last: Option<&BusinessId>,
) -> Option<(BusinessId, Vec<Waiting>, Vec<Waiting>)> {
    let all: BTreeSet<&BusinessId> = waiting.iter().map(business_of).collect();
    let next = all.iter().find(|business| last.is_none_or(|last| **business > last)).or_else(|| all.first());
    let business: BusinessId = (**next?).clone();
    let (its, others) = waiting.into_iter().partition(|one| *business_of(one) == business);
    Some((business, its, others))
}
