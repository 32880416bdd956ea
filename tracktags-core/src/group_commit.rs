//! ⑤ The order of a batch: from its closed membership to its last answer. It stands here once, and everything rests
//! on it (docs/RELIABILITY.md, "The batch").
//!
//! [`run`] is the order, [`Steps`] is what a store does in it. Nothing here does I/O: a store whose steps block is done
//! at the first poll, one behind a network awaits them, and the simulator gives way between any two. Keeps
//! `counted-before-forwarded`: nothing is answered before its commit was heard, or its marker found.

use crate::batch::{Batch, Counters, CutCache, Outcome, Versions};
use crate::demand::Operation;
use crate::error::StoreError;
use crate::limits::Terms;
use crate::metrics::Units;
use crate::time::Timestamp;
use crate::usage::{Counter, CounterKey, CounterMap, Entry, Taken};
use std::sync::Arc;

/// An operation that waits, with whatever finds its caller again.
pub trait Work {
    /// What is to be done.
    fn operation(&self) -> &Operation;

    /// Whether what it takes stays open until settled.
    fn opens(&self) -> bool;
}

/// The answer to one operation.
pub type Answer = Result<Outcome, StoreError>;

/// A batch as decided on a scratch copy: not written, seen by nobody.
#[derive(Debug)]
pub struct Decided {
    batch: Batch,
    outcomes: Vec<Outcome>,
}

impl Decided {
    /// Decides everything in order at the instant `now`.
    ///
    /// # Errors
    /// Whatever `counters` says.
    pub fn new(
        waiting: &[impl Work],
        now: Timestamp,
        counters: &mut impl Counters,
        versions: &impl Versions,
        cuts: &mut CutCache,
    ) -> Result<Self, StoreError> {
        let mut batch = Batch::with_room(now, waiting.len());
        let mut outcomes = Vec::with_capacity(waiting.len());
        let mut running = Running { counters, opened: CounterMap::default() };
        for one in waiting {
            let outcome = batch.apply(one.operation(), &mut running, versions, cuts)?;
            if let Some((key, units)) = opened(one, &outcome) {
                let held = running.opened.entry(key.clone()).or_default();
                *held = held.saturating_add(units);
            }
            outcomes.push(outcome);
        }
        Ok(Self { batch, outcomes })
    }

    /// The clock it was decided by.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.batch.now()
    }

    /// What is to be written, in order. Empty: nothing is to be committed.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.batch.entries()
    }

    /// What each operation came to, in the order in which they waited.
    #[must_use]
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }
}

/// The counters as a batch sees them: with what its own demands hold open besides.
struct Running<'a, C> {
    counters: &'a mut C,
    opened: CounterMap<i64>,
}

impl<C: Counters> Counters for Running<'_, C> {
    fn load(&mut self, key: &CounterKey) -> Result<Counter, StoreError> {
        self.counters.load(key)
    }

    fn held(&self, key: &CounterKey) -> i64 {
        self.counters.held(key).saturating_add(self.opened.get(key).copied().unwrap_or_default())
    }
}

/// A commit that did not succeed.
#[derive(Debug)]
pub enum CommitFault {
    /// A known roll-back.
    RolledBack(StoreError),
    /// Its result was not heard: nobody knows yet.
    Unknown(StoreError),
}

/// What became of a commit that was not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its marker is there.
    Committed,
    /// Its marker is not there, and can no longer come.
    Lost,
    /// The store cannot be asked, or not be believed yet.
    Unknown,
}

/// A lock that was not got.
#[derive(Debug)]
pub enum LockFault {
    /// Somebody holds what the work at these places needs, and only that: the rest need not wait for it.
    Blocked(Vec<usize>),
    /// Anything else.
    Failed(StoreError),
}

impl From<StoreError> for LockFault {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// What a store does for a batch. Each step is one thing done to it; their order is [`run`]'s.
pub trait Steps {
    /// What waits.
    type Work: Work;

    /// Whether a batch is decided before the lock is taken, and once more only if something moved. So where the lock
    /// keeps everybody out, and what is read cannot change meanwhile but by those whom [`others_committed`] sees; not
    /// where it is the lock that makes what is read one's own.
    ///
    /// [`others_committed`]: Self::others_committed
    const DECIDES_AHEAD: bool;

    /// Reads the clock that counts for this store.
    fn clock(&mut self) -> impl Future<Output = Result<Timestamp, StoreError>>;

    /// Decides on a scratch copy ([`Decided::new`]), with versions that are known as of the last look.
    fn decide(
        &mut self,
        waiting: &[Self::Work],
        now: Timestamp,
    ) -> impl Future<Output = Result<Decided, StoreError>>;

    /// Whether anybody else committed since the last look. If so, all that is known of what they may change is in
    /// doubt, of *every* business, and is read again before it is relied on (`version-checked-in-batch`).
    fn others_committed(&mut self) -> impl Future<Output = Result<bool, StoreError>>;

    /// Begins the transaction: from here to its end nobody else commits what this batch reads.
    fn lock(&mut self, waiting: &[Self::Work]) -> impl Future<Output = Result<(), LockFault>>;

    /// Takes work aside that waits for what somebody holds, so that it holds up nobody else.
    fn set_aside(&mut self, blocked: Vec<Self::Work>);

    /// Appends the entries as one row, which is the batch's marker.
    fn write(
        &mut self,
        waiting: &[Self::Work],
        decided: &Decided,
    ) -> impl Future<Output = Result<(), StoreError>>;

    /// Commits.
    fn commit(&mut self) -> impl Future<Output = Result<(), CommitFault>>;

    /// Ends the transaction without a trace.
    fn roll_back(&mut self) -> impl Future<Output = ()>;

    /// Asks what became of the commit that was not heard: over a new connection, by its marker. Once it is known, the
    /// running values have been read anew.
    fn fate(&mut self) -> impl Future<Output = Fate>;

    /// Whether callers have waited long enough to hear the fate of a commit.
    fn is_patience_over(&mut self) -> bool;

    /// Whether the engine is to end, and has waited long enough for a store that does not answer: what is not settled by
    /// now stays counted.
    fn gives_up(&mut self) -> bool {
        false
    }

    /// Waits a little before the store is asked again.
    fn pause(&mut self) -> impl Future<Output = ()>;

    /// The batch is done: its scratch copy becomes visible.
    fn publish(&mut self, decided: &Decided);

    /// The batch was rolled back.
    fn failed(&mut self, error: &StoreError);

    /// Units stay open until they are settled.
    fn hold(&mut self, key: &CounterKey, units: i64);

    /// A demand was denied by the metric at this place of its terms.
    fn note_denied(&mut self, terms: &Arc<Terms>, place: usize, at: Timestamp);

    /// The release of what a demand took that nobody acted upon; no caller waits for it.
    fn release(one: &Self::Work, place: usize, taken: Taken) -> Self::Work;

    /// Puts back what must not be lost. It goes first in the next batch.
    fn put_back(&mut self, waiting: Vec<Self::Work>);

    /// Answers callers.
    fn answer(&mut self, answers: impl Iterator<Item = (Self::Work, Answer)>);
}

/// How a batch's transaction ended, if not by a known roll-back.
enum Ending {
    /// Nothing of it was to be written, or everything was committed.
    Done(Decided),
    /// The commit's result was not heard.
    Unheard(Decided),
}

/// Does a batch and answers it. Membership is closed: what arrives from here on waits for the next one.
pub async fn run<S: Steps>(steps: &mut S, mut waiting: Vec<S::Work>) {
    match transact(steps, &mut waiting).await {
        Ok(Ending::Done(decided)) => {
            steps.publish(&decided);
            for (one, outcome) in waiting.iter().zip(&decided.outcomes) {
                hold(steps, one, outcome);
                note_denied(steps, one, outcome, decided.now());
            }
            steps.answer(waiting.into_iter().zip(decided.outcomes.into_iter().map(Ok)));
        }
        Ok(Ending::Unheard(decided)) => find_out(steps, waiting, decided).await,
        Err(error) => fail(steps, waiting, &error).await,
    }
}

async fn transact<S: Steps>(steps: &mut S, waiting: &mut Vec<S::Work>) -> Result<Ending, StoreError> {
    let ahead = if S::DECIDES_AHEAD { Some(decide_ahead(steps, waiting).await?) } else { None };
    let ahead = match ahead {
        Some(decided) if decided.entries().is_empty() => return Ok(Ending::Done(decided)),
        ahead => ahead,
    };
    lock(steps, waiting).await?;
    let decided = match under_lock(steps, waiting, ahead).await {
        Ok(decided) => decided,
        Err(error) => {
            steps.roll_back().await;
            return Err(error);
        }
    };
    if decided.entries().is_empty() {
        steps.roll_back().await;
        return Ok(Ending::Done(decided));
    }
    match steps.commit().await {
        Ok(()) => Ok(Ending::Done(decided)),
        Err(CommitFault::RolledBack(error)) => {
            steps.roll_back().await;
            Err(error)
        }
        Err(CommitFault::Unknown(_)) => Ok(Ending::Unheard(decided)),
    }
}

async fn decide_ahead<S: Steps>(steps: &mut S, waiting: &[S::Work]) -> Result<Decided, StoreError> {
    let now = steps.clock().await?;
    let decided = steps.decide(waiting, now).await?;
    // Where nothing is written nothing is locked: others are looked for now, after membership closed.
    if decided.entries().is_empty() && steps.others_committed().await? {
        let now = steps.clock().await?;
        return steps.decide(waiting, now).await;
    }
    Ok(decided)
}

/// Locks what the batch needs; what waits for somebody is taken out of it. Each round leaves less, so it ends.
async fn lock<S: Steps>(steps: &mut S, waiting: &mut Vec<S::Work>) -> Result<(), StoreError> {
    loop {
        let Err(fault) = steps.lock(waiting).await else { return Ok(()) };
        steps.roll_back().await;
        let blocked = match fault {
            LockFault::Blocked(places) if !places.is_empty() => places,
            LockFault::Blocked(_) => return Err(StoreError::Unavailable("a lock was not got".into())),
            LockFault::Failed(error) => return Err(error),
        };
        let mut place = 0..;
        let is_blocked = |_: &mut S::Work| place.next().is_some_and(|place| blocked.contains(&place));
        let aside: Vec<S::Work> = waiting.extract_if(.., is_blocked).collect();
        steps.set_aside(aside);
    }
}

/// Decides, or decides again if others committed or the clock moved, then writes what there is to write.
async fn under_lock<S: Steps>(
    steps: &mut S,
    waiting: &[S::Work],
    ahead: Option<Decided>,
) -> Result<Decided, StoreError> {
    let moved = steps.others_committed().await?;
    let now = steps.clock().await?;
    let decided = match ahead {
        Some(decided) if !moved && decided.batch.holds_at(now) => decided,
        _ => steps.decide(waiting, now).await?,
    };
    if !decided.entries().is_empty() {
        steps.write(waiting, &decided).await?;
    }
    Ok(decided)
}

/// A known roll-back: demands are told, settlements wait for the store.
async fn fail<S: Steps>(steps: &mut S, waiting: Vec<S::Work>, error: &StoreError) {
    steps.failed(error);
    let gives_up = steps.gives_up();
    let (settlements, others): (Vec<_>, Vec<_>) =
        waiting.into_iter().partition(|one| is_settlement(one) && !gives_up);
    steps.put_back(settlements);
    steps.answer(others.into_iter().map(|one| (one, Err(again(error)))));
    steps.pause().await;
}

/// A commit that was not heard: its marker says what happened. It is never run again blindly and never called failed.
async fn find_out<S: Steps>(steps: &mut S, waiting: Vec<S::Work>, decided: Decided) {
    let mut waiting: Vec<(S::Work, Outcome)> = waiting.into_iter().zip(decided.outcomes).collect();
    let mut owed = None;
    let committed = loop {
        match steps.fate().await {
            Fate::Committed => break true,
            Fate::Lost => break false,
            Fate::Unknown => {}
        }
        if owed.is_none() && steps.is_patience_over() {
            owed = Some(tell_unknown(steps, &mut waiting));
        }
        if steps.gives_up() {
            steps.answer(waiting.into_iter().map(|(one, _)| (one, Err(StoreError::CommitUnknown))));
            return;
        }
        steps.pause().await;
    };
    if committed {
        steps.put_back(owed.unwrap_or_default());
        for (one, outcome) in &waiting {
            hold(steps, one, outcome);
        }
        steps.answer(waiting.into_iter().map(|(one, outcome)| (one, Ok(outcome))));
    } else {
        let waiting = waiting.into_iter().map(|(one, _)| one);
        let (settlements, others): (Vec<_>, Vec<_>) = waiting.partition(is_settlement);
        steps.put_back(settlements);
        let lost = || StoreError::Unavailable("the commit was lost".into());
        steps.answer(others.into_iter().map(|one| (one, Err(lost()))));
    }
}

/// Tells callers that nobody knows, and hands back what is owed if the batch turns out to be committed: the release
/// of what their demands took, since nobody acted upon it. Settlements go on waiting for the batch's fate.
fn tell_unknown<S: Steps>(steps: &mut S, waiting: &mut Vec<(S::Work, Outcome)>) -> Vec<S::Work> {
    let all = std::mem::take(waiting).into_iter();
    let (settlements, told): (Vec<_>, Vec<_>) = all.partition(|(one, _)| is_settlement(one));
    *waiting = settlements;
    let owed = told.iter().filter_map(|(one, outcome)| {
        let (place, taken) = taken(outcome)?;
        Some(S::release(one, place, taken))
    });
    let owed = owed.collect();
    steps.answer(told.into_iter().map(|(one, _)| (one, Err(StoreError::CommitUnknown))));
    owed
}

/// The operation that releases what this one took.
#[must_use]
pub fn release_of(one: &impl Work, place: usize, taken: Taken) -> Operation {
    Operation::Settle { terms: Arc::clone(one.operation().terms()), place, taken, units: Units::ZERO }
}

fn is_settlement(one: &impl Work) -> bool {
    matches!(one.operation(), Operation::Settle { .. })
}

fn taken(outcome: &Outcome) -> Option<(usize, Taken)> {
    let Outcome::Decided(decision) = outcome else { return None };
    decision.taken
}

/// What an admitted demand holds open until it is settled.
fn opened<'a>(one: &'a impl Work, outcome: &Outcome) -> Option<(&'a CounterKey, i64)> {
    let (place, taken) = taken(outcome).filter(|_| one.opens())?;
    let entry = one.operation().terms().limits.get(place)?;
    Some((entry.counter, taken.units))
}

fn hold<S: Steps>(steps: &mut S, one: &S::Work, outcome: &Outcome) {
    if let Some((key, units)) = opened(one, outcome) {
        steps.hold(key, units);
    }
}

fn note_denied<S: Steps>(steps: &mut S, one: &S::Work, outcome: &Outcome, at: Timestamp) {
    let Outcome::Decided(decision) = outcome else { return };
    let denying = decision.denied_by.and_then(|(metric, _)| decision.metrics.get(metric));
    if let Some(metric) = denying {
        steps.note_denied(one.operation().terms(), metric.place, at);
    }
}

/// The same error for each caller of a batch.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::StorageFull => StoreError::StorageFull,
        StoreError::CommitUnknown => StoreError::CommitUnknown,
        StoreError::Corrupt(detail) => StoreError::Corrupt(detail.clone()),
        StoreError::NotFound { .. }
        | StoreError::Conflict { .. }
        | StoreError::Busy { .. }
        | StoreError::Unavailable(_)
        | StoreError::Backend(_) => StoreError::Unavailable(error.to_string().into()),
    }
}
