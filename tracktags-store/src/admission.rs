//! ⑤ The way into the batch: a bounded queue; what waited while one batch committed is the next batch.
//!
//! Callers push operations and wait on a slot. The engine takes everything that waits, up to a batch's size, round
//! robin over businesses, in arrival order within one. Answers for callers on a single-threaded runtime go through
//! one mailbox a thread, so that a batch wakes each worker once and not once per caller.
//!
//! A vanished caller changes nothing: its operation stays queued, is done, and its answer dropped; units it took
//! stay counted (`unsettled-stays-counted`).

use foldhash::fast::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracktags_core::accounts::BusinessId;
use tracktags_core::audit::{Author, Event};
use tracktags_core::batch::Outcome;
use tracktags_core::decide::Decision;
use tracktags_core::demand::{Demand, Operation};
use tracktags_core::error::StoreError;
use tracktags_core::group_commit::Work;
use tracktags_core::limits::Terms;
use tracktags_core::metrics::Units;
use tracktags_core::usage::Taken;

use crate::StoreLimits;
use crate::bell::Bell;
use crate::holds::Holds;
use crate::mailbox::{self, Slot};

/// The answer to one operation.
pub(crate) type Answer = Result<Outcome, StoreError>;

/// An operation on its way to the engine.
pub(crate) struct Waiting {
    pub(crate) operation: Operation,
    /// Whether what it takes stays open until settled.
    pub(crate) opens: bool,
    /// What the trail is to say of it, and of those that follow it.
    pub(crate) noted: Option<Noted>,
    pub(crate) slot: Slot,
}

/// Who corrects usage, and what the trail says of it. Rare, so it costs a demand no more than a pointer.
pub(crate) type Noted = Box<(Author, Event)>;

impl Waiting {
    /// An operation with a slot on the current thread, and the future of its answer.
    pub(crate) fn new(
        operation: Operation,
        opens: bool,
    ) -> (Self, impl Future<Output = Answer> + Send + use<>) {
        let (sender, receiver) = oneshot::channel();
        let waiting = Self { operation, opens, noted: None, slot: mailbox::slot(sender) };
        // The engine answers every slot; a dropped one means that it died with the batch open.
        (waiting, async move { receiver.await.unwrap_or(Err(StoreError::CommitUnknown)) })
    }
}

impl Work for Waiting {
    fn operation(&self) -> &Operation {
        &self.operation
    }

    fn opens(&self) -> bool {
        self.opens
    }
}

/// How long a closed queue's settlements are tried for where the store does not answer.
const CLOSING_MAX: Duration = Duration::from_secs(5);
/// Operations of few callers, for whom the engine stays awake.
const FEW: usize = 4;

/// What the engine finds when it looks.
pub(crate) enum Taking {
    /// Operations to decide.
    Some(Vec<Waiting>),
    /// None waits.
    Nothing,
    /// None waits, and none will: close.
    Closed,
}

/// The queue between callers and the engine.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    entries_max: usize,
    /// Operations in one batch at most.
    batch_max: usize,
    wait_ms_max: u64,
    bell: Bell,
    /// Operations taken last.
    taken: AtomicUsize,
    /// Smoothed time of a full batch in microseconds, for the estimate of a wait.
    batch_micros: AtomicU64,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Waiting>,
    by_business: HashMap<BusinessId, usize, RandomState>,
    closed: Option<Instant>,
    abrupt: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code of ours panics while it holds one of these locks; the data are whole either way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    pub(crate) fn new(limits: &StoreLimits) -> Self {
        Self {
            inner: Mutex::default(),
            entries_max: limits.queue_entries_max,
            batch_max: limits.batch_entries_max.max(1),
            wait_ms_max: limits.wait_ms_max,
            bell: Bell::new(),
            taken: AtomicUsize::new(0),
            batch_micros: AtomicU64::new(0),
        }
    }

    /// Queues operations next to each other; one that finds no place is answered with the reason.
    pub(crate) fn push_each(&self, operations: Vec<Waiting>) {
        let mut refused = mailbox::Deliveries::default();
        {
            let mut inner = lock(&self.inner);
            for one in operations {
                let business = &one.operation.terms().account.business;
                match self.admit(&inner, &one.operation) {
                    Ok(()) => {
                        match inner.by_business.get_mut(business) {
                            Some(count) => *count += 1,
                            None => drop(inner.by_business.insert(business.clone(), 1)),
                        }
                        inner.waiting.push_back(one);
                    }
                    Err(error) => refused.add(one.slot, Err(error)),
                }
            }
        }
        self.wake();
    }

    /// Whether there is a place. Settlements always find one: they are bounded by the calls that are open.
    fn admit(&self, inner: &Inner, operation: &Operation) -> Result<(), StoreError> {
        if inner.closed.is_some() {
            return Err(StoreError::Unavailable("the store is closing".into()));
        }
        if !matches!(operation, Operation::Take(_)) {
            return Ok(());
        }
        let business = &operation.terms().account.business;
        let busy = || StoreError::Busy { queue: "admission" };
        let waiting = inner.waiting.len();
        let half = self.entries_max / 2;
        if waiting >= self.entries_max {
            return Err(busy());
        }
        // One business may fill half the queue while others wait.
        if waiting >= half
            && inner.by_business.len() > 1
            && inner.by_business.get(business).is_some_and(|own| *own >= half)
        {
            return Err(busy());
        }
        if waiting < self.batch_max {
            return Ok(());
        }
        let ahead = inner.ahead_of(business);
        if ahead >= self.batch_max {
            // The one being committed, those ahead, and its own.
            let batches = (ahead / self.batch_max) as u64 + 2;
            let wait_micros = batches.saturating_mul(self.batch_micros.load(Ordering::Relaxed));
            if wait_micros > self.wait_ms_max.saturating_mul(1_000) {
                return Err(busy());
            }
        }
        Ok(())
    }

    /// Closes membership: everything that waits now, up to a batch's size. Later arrivals wait for the next batch.
    pub(crate) fn take(&self) -> Taking {
        let mut inner = lock(&self.inner);
        if inner.waiting.is_empty() {
            return if inner.closed.is_some() { Taking::Closed } else { Taking::Nothing };
        }
        self.taken.store(inner.waiting.len(), Ordering::Relaxed);
        if inner.waiting.len() <= self.batch_max {
            inner.by_business.clear();
            return Taking::Some(std::mem::take(&mut inner.waiting).into());
        }
        Taking::Some(inner.round_robin(self.batch_max))
    }

    /// Puts back what must not be lost: settlements whose batch failed. They go first.
    pub(crate) fn put_back(&self, waiting: Vec<Waiting>) {
        let mut inner = lock(&self.inner);
        for one in waiting.into_iter().rev() {
            *inner.by_business.entry(one.operation.terms().account.business.clone()).or_default() += 1;
            inner.waiting.push_front(one);
        }
    }

    /// Until something waits, or `timeout` passed. Only the engine's thread calls it.
    pub(crate) fn wait(&self, timeout: Duration) {
        let few = self.taken.load(Ordering::Relaxed) <= FEW;
        self.bell.wait(timeout, few);
    }

    /// Tells the engine to look round.
    pub(crate) fn wake(&self) {
        self.bell.ring();
    }

    /// Refuses the demands that wait, while the store does not answer. Settlements stay.
    pub(crate) fn refuse_demands(&self) {
        let refused: Vec<Waiting> = {
            let mut inner = lock(&self.inner);
            let is_demand = |one: &Waiting| matches!(one.operation, Operation::Take(_));
            let (refused, kept): (Vec<_>, Vec<_>) = inner.waiting.drain(..).partition(is_demand);
            inner.by_business = HashMap::default();
            for one in &kept {
                *inner.by_business.entry(one.operation.terms().account.business.clone()).or_default() += 1;
            }
            inner.waiting = kept.into();
            refused
        };
        let mut deliveries = mailbox::Deliveries::default();
        for one in refused {
            let error = StoreError::Unavailable("the store does not answer".into());
            deliveries.add(one.slot, Err(error));
        }
    }

    /// Whether it is closed, and whoever does what waits has tried for long enough.
    pub(crate) fn gives_up(&self) -> bool {
        let inner = lock(&self.inner);
        inner.abrupt || inner.closed.is_some_and(|since| since.elapsed() >= CLOSING_MAX)
    }

    /// No more operations; what waits is still done, unless the end is `abrupt`, as a kill is.
    #[expect(clippy::disallowed_methods, reason = "paces the end; decides nothing")]
    pub(crate) fn close(&self, abrupt: bool) {
        {
            let mut inner = lock(&self.inner);
            inner.closed = Some(Instant::now());
            inner.abrupt = abrupt;
            if abrupt {
                inner.waiting.clear();
            }
        }
        self.wake();
    }

    pub(crate) fn is_abrupt(&self) -> bool {
        lock(&self.inner).abrupt
    }

    /// Notes how long a batch of so many took, for the estimate of a wait.
    pub(crate) fn note_batch(&self, operations: usize, took: Duration) {
        let took = took.as_micros();
        let full = took.saturating_mul(self.batch_max as u128);
        // A small batch says little about a full one: its cost is mostly the commit.
        let says_much = operations > 0 && operations >= self.batch_max / 4;
        let estimate = if says_much { full / (operations as u128) } else { took };
        let micros = u64::try_from(estimate).unwrap_or(u64::MAX);
        let old = self.batch_micros.load(Ordering::Relaxed);
        self.batch_micros.store((old.saturating_mul(7).saturating_add(micros)) / 8, Ordering::Relaxed);
    }
}

impl Inner {
    /// How many are decided before the next one of this business: its own, and in turn as many of each other. So one
    /// that floods the queue is refused, and its neighbours are not.
    fn ahead_of(&self, business: &BusinessId) -> usize {
        let own = self.by_business.get(business).copied().unwrap_or_default();
        let others = self.by_business.len().saturating_sub(usize::from(own > 0));
        self.waiting.len().min(own.saturating_add(others.saturating_mul(own.saturating_add(1))))
    }

    /// A full batch, filled in turn over the businesses, in arrival order within one.
    fn round_robin(&mut self, batch_max: usize) -> Vec<Waiting> {
        let mut queues: Vec<(BusinessId, VecDeque<Waiting>)> = Vec::new();
        let mut places: HashMap<BusinessId, usize> = HashMap::new();
        for one in self.waiting.drain(..) {
            let business = &one.operation.terms().account.business;
            let place = *places.entry(business.clone()).or_insert_with(|| {
                queues.push((business.clone(), VecDeque::new()));
                queues.len() - 1
            });
            if let Some((_, queue)) = queues.get_mut(place) {
                queue.push_back(one);
            }
        }
        let mut batch = Vec::with_capacity(batch_max);
        while batch.len() < batch_max {
            let before = batch.len();
            for (_, queue) in &mut queues {
                if batch.len() < batch_max {
                    batch.extend(queue.pop_front());
                }
            }
            if batch.len() == before {
                break;
            }
        }
        self.by_business = queues.iter().map(|(business, queue)| (business.clone(), queue.len())).collect();
        self.by_business.retain(|_, waiting| *waiting > 0);
        self.waiting = queues.into_iter().flat_map(|(_, queue)| queue).collect();
        batch
    }
}

/// Units taken for an open call, to be settled once: kept, released or adjusted. One never settled (panic, kill -9)
/// stays counted, since its request may have reached the target (`unsettled-stays-counted`).
#[must_use = "a reservation is settled, or its units stay counted"]
pub struct Reservation {
    terms: Arc<Terms>,
    place: usize,
    taken: Taken,
    links: Arc<Links>,
    settled: bool,
}

impl Reservation {
    /// What was taken.
    #[must_use]
    pub const fn taken(&self) -> &Taken {
        &self.taken
    }

    /// The place of its metric in the terms.
    #[must_use]
    pub const fn place(&self) -> usize {
        self.place
    }

    fn end(&mut self) {
        self.settled = true;
        if let Some(entry) = self.terms.limits.get(self.place) {
            self.links.holds.close(entry.counter, self.taken.units);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.settled {
            self.end();
            tracing::error!("a call ended without settling its units; they stay counted");
        }
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("taken", &self.taken).finish_non_exhaustive()
    }
}

/// What became of a demand.
#[derive(Debug)]
pub enum Admitted {
    /// It may pass; the reservation is there when units were taken.
    Admitted(Decision, Option<Reservation>),
    /// A limit refuses.
    Denied(Decision),
    /// What it rests on is out of date: read afresh, from the key on.
    Stale,
    /// A sum would leave the range of units.
    OutOfRange,
}

/// The way into the batch. Cheap to clone; a thread of its own is better served by [`Admission::apart`].
#[derive(Clone)]
pub struct Admission {
    links: Arc<Links>,
}

/// What callers share with the engine.
pub(crate) struct Links {
    /// A queue for each lane of the engine. All that one account asks for goes through one of them, in order.
    lanes: Box<[Arc<Queue>]>,
    holds: Arc<Holds>,
    hasher: RandomState,
}

impl Links {
    /// The lane of an operation's account.
    pub(crate) fn lane(&self, operation: &Operation) -> usize {
        if let [_only] = &*self.lanes {
            return 0;
        }
        let hash = self.hasher.hash_one(&operation.terms().account);
        usize::try_from(hash).unwrap_or_default().checked_rem(self.lanes.len()).unwrap_or_default()
    }

    /// Whether both lead to the same queues.
    pub(crate) fn is_of_one_engine_with(&self, other: &Self) -> bool {
        self.lanes.iter().zip(&other.lanes).all(|(mine, theirs)| Arc::ptr_eq(mine, theirs))
    }

    /// Queues operations, those of each lane next to each other. All of them are this engine's.
    pub(crate) fn push_each(&self, mut operations: Vec<Waiting>) {
        if let [only] = &*self.lanes {
            return only.push_each(operations);
        }
        for (lane, queue) in self.lanes.iter().enumerate() {
            let of_lane: Vec<_> =
                operations.extract_if(.., |one| self.lane(&one.operation) == lane).collect();
            if !of_lane.is_empty() {
                queue.push_each(of_lane);
            }
        }
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admission")
    }
}

impl Admission {
    pub(crate) fn new(lanes: Box<[Arc<Queue>]>, holds: Arc<Holds>) -> Self {
        Self { links: Arc::new(Links { lanes, holds, hasher: RandomState::default() }) }
    }

    /// A handle with a count of references of its own: threads that share one count get in each other's way.
    #[must_use]
    pub fn apart(&self) -> Self {
        let Links { lanes, holds, hasher } = &*self.links;
        Self {
            links: Arc::new(Links { lanes: lanes.clone(), holds: Arc::clone(holds), hasher: hasher.clone() }),
        }
    }

    /// Takes the demand's units from every limit that applies, all or none. Durable on return. Keeps
    /// `counted-before-forwarded`: what is admitted is committed.
    ///
    /// # Errors
    /// `Busy`, `Unavailable`, `StorageFull`: nothing was counted. `CommitUnknown`: perhaps counted, and released once
    /// that is known; never to be forwarded.
    pub async fn reserve(&self, demand: Demand) -> Result<Admitted, StoreError> {
        let terms = Arc::clone(&demand.terms);
        let outcome = self.submit(Operation::Take(demand), true).await?;
        Ok(self.admitted(outcome, Some(terms)))
    }

    /// As [`reserve`](Self::reserve), but for good: there is no reservation, and nothing to settle. A demand that takes
    /// nothing only asks.
    ///
    /// # Errors
    /// As there.
    pub async fn take(&self, demand: Demand) -> Result<Admitted, StoreError> {
        let outcome = self.submit(Operation::Take(demand), false).await?;
        Ok(self.admitted(outcome, None))
    }

    /// `opened`: the terms of a demand whose units stay open.
    fn admitted(&self, outcome: Outcome, opened: Option<Arc<Terms>>) -> Admitted {
        match outcome {
            Outcome::Decided(decision) if decision.admitted => {
                let reservation = opened.zip(decision.taken).map(|(terms, (place, taken))| {
                    let links = Arc::clone(&self.links);
                    Reservation { terms, place, taken, links, settled: false }
                });
                Admitted::Admitted(decision, reservation)
            }
            Outcome::Decided(decision) => Admitted::Denied(decision),
            Outcome::OutOfRange => Admitted::OutOfRange,
            Outcome::Stale | Outcome::Done { .. } => Admitted::Stale,
        }
    }

    /// Ends a reservation whose units stay. Writes nothing.
    pub fn keep(&self, mut reservation: Reservation) {
        reservation.end();
    }

    /// Ends a reservation with `units` of it kept; 0 releases it. Durable on return; goes on without the caller.
    ///
    /// # Errors
    /// `Unavailable` when the store is closing: the units stay counted.
    pub async fn settle(&self, mut reservation: Reservation, units: Units) -> Result<(), StoreError> {
        let operation = Operation::Settle {
            terms: Arc::clone(&reservation.terms),
            place: reservation.place,
            taken: reservation.taken,
            units,
        };
        let done = self.submit(operation, false);
        reservation.end();
        done.await.map(|_done| ())
    }

    /// Operations that wait for a batch.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.links.lanes.iter().map(|queue| lock(&queue.inner).waiting.len()).sum()
    }

    /// Calls and units open on this node.
    #[must_use]
    pub fn open(&self) -> (u64, u64) {
        self.links.holds.totals()
    }

    /// Queues an operation; the future only waits.
    pub(crate) fn submit(
        &self,
        operation: Operation,
        opens: bool,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let (waiting, answer) = Waiting::new(operation, opens);
        mailbox::submit(&self.links, waiting);
        answer
    }

    /// Queues operations next to each other, so that they fall into one batch where they fit. The first carries what
    /// the trail is to say.
    pub(crate) fn submit_all(
        &self,
        operations: Vec<Operation>,
        noted: Option<Noted>,
    ) -> Vec<impl Future<Output = Answer> + Send + use<>> {
        let (mut waiting, answers): (Vec<_>, Vec<_>) =
            operations.into_iter().map(|operation| Waiting::new(operation, false)).unzip();
        if let Some(first) = waiting.first_mut() {
            first.noted = noted;
        }
        self.links.push_each(waiting);
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracktags_core::accounts::Account;

    fn push(queue: &Queue, business: &str) -> impl Future<Output = Answer> + use<> {
        let account = Account::business(BusinessId::parse(business).unwrap());
        let demand = Demand::new(Arc::new(Terms::new(account, [])), 0, Units::ZERO);
        let (waiting, answer) = Waiting::new(Operation::Take(demand), false);
        queue.push_each(vec![waiting]);
        answer
    }

    fn is_refused(answer: impl Future<Output = Answer>) -> bool {
        let polled =
            std::pin::pin!(answer).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        matches!(polled, std::task::Poll::Ready(Err(StoreError::Busy { .. })))
    }

    #[test]
    fn each_business_is_refused_by_its_own_wait() {
        let limits = StoreLimits { batch_entries_max: 4, wait_ms_max: 100, ..StoreLimits::default() };
        let queue = Queue::new(&limits);
        // A batch takes 30 ms, smoothed.
        for _ in 0..100 {
            queue.note_batch(4, Duration::from_millis(30));
        }
        // Three fit into 100 ms: the one being committed, and two that wait.
        let flood: Vec<_> = (0..20).map(|_| push(&queue, "flood")).collect();
        let refused = flood.into_iter().map(is_refused).filter(|refused| *refused).count();
        assert_eq!(refused, 12);
        assert!(!is_refused(push(&queue, "quiet")), "its turn is in the next batch");
        assert!(is_refused(push(&queue, "flood")));
        let Taking::Some(batch) = queue.take() else { panic!("nothing waits") };
        let quiet = |one: &Waiting| one.operation.terms().account.business.as_str() == "quiet";
        assert_eq!((batch.len(), batch.iter().filter(|one| quiet(one)).count()), (4, 1));
    }
}
