//! A node: takes what waits and does it in the real order of a batch, over the model store. What is planted, lies here.

use super::calls;
use super::locks::Holder;
use super::store::{Deed, Row};
use super::world::World;
use super::{Actor, Plant, Shared, give_way};
use std::cell::RefMut;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use tracktags_core::Outcome;
use tracktags_core::accounts::BusinessId;
use tracktags_core::batch::{Counters, CutCache};
use tracktags_core::demand::Operation;
use tracktags_core::error::StoreError;
use tracktags_core::group_commit::{self, Answer, CommitFault, Decided, Fate, LockFault, Steps, Work};
use tracktags_core::limits::Terms;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, CounterMap, Taken};
use tracktags_core::versions::{ChangeSource, Changes, VersionTable};

/// Operations in a batch at most.
const BATCH_MAX: usize = 8;
/// How often the lock is tried.
const LOCK_TRIES: usize = 12;
/// How often a commit's fate is asked for before callers are told that nobody knows.
const PATIENCE: usize = 2;

/// An operation on its way.
#[derive(Clone)]
pub(super) struct Op {
    pub(super) operation: Operation,
    pub(super) opens: bool,
    /// Whose it is.
    pub(super) call: usize,
    /// The node owes it, and nobody waits for it.
    pub(super) is_owed: bool,
}

impl Work for Op {
    fn operation(&self) -> &Operation {
        &self.operation
    }

    fn opens(&self) -> bool {
        self.opens
    }
}

/// A start of a node on the store as it is locked in this world.
pub(super) fn start(world: &Shared, place: usize) -> Actor {
    let row_locks = world.borrow().profile.row_locks;
    if row_locks { started::<false>(world, place) } else { started::<true>(world, place) }
}

fn started<const DECIDES_AHEAD: bool>(world: &Shared, place: usize) -> Actor {
    let boot = world.borrow().nodes[place].boot;
    let mut node = Node::<DECIDES_AHEAD> {
        world: Rc::clone(world),
        place,
        boot,
        next_batch: 1,
        versions: VersionTable::default(),
        cuts: CutCache::default(),
        live: CounterMap::default(),
        seen: world.borrow().store.commits_of_others(place),
        row: None,
        asked: 0,
        lies: Lies::default(),
    };
    Box::pin(async move {
        loop {
            give_way().await;
            let batch = node.close_membership();
            if !batch.is_empty() {
                group_commit::run(&mut node, batch).await;
                node.world.borrow_mut().nodes[place].is_busy = false;
            }
        }
    })
}

struct Node<const DECIDES_AHEAD: bool> {
    world: Shared,
    place: usize,
    boot: u64,
    next_batch: i64,
    versions: VersionTable,
    cuts: CutCache,
    /// Counters as last committed, or read.
    live: CounterMap<Counter>,
    /// Commits of others at the last look.
    seen: u64,
    /// What is written and not committed, or not known to be.
    row: Option<Row>,
    /// How often the fate of a commit was asked for.
    asked: usize,
    lies: Lies,
}

/// What a planted fault remembers.
#[derive(Default)]
struct Lies {
    clock: Timestamp,
    /// Versions as last read, and the businesses whose are read again.
    versions: HashMap<BusinessId, i64>,
    read_again: Vec<BusinessId>,
    batch: Vec<BusinessId>,
}

impl<const DECIDES_AHEAD: bool> Node<DECIDES_AHEAD> {
    fn close_membership(&self) -> Vec<Op> {
        let mut world = self.world.borrow_mut();
        let post = &mut world.nodes[self.place];
        let count = post.queue.len().min(BATCH_MAX);
        post.is_busy = count > 0;
        post.queue.drain(..count).collect()
    }

    /// Begins a step: first come all others that are to come.
    async fn step(&self, what: &str) -> RefMut<'_, World> {
        give_way().await;
        let mut world = self.world.borrow_mut();
        world.meanwhile();
        world.say(|| format!("node {}: {what}", self.place));
        world
    }

    const fn holder(&self) -> Holder {
        Holder::Boot(self.boot)
    }

    fn is_planted(&self, plant: Plant) -> bool {
        self.world.borrow().plant == Some(plant)
    }

    fn holds_lock(&self) -> bool {
        self.world.borrow().store.locks.has(self.holder())
    }

    /// Tries to get a lock for as long as anybody would; `false`: somebody else has it.
    async fn got(&self, mut attempt: impl FnMut(&mut World) -> bool) -> Result<bool, StoreError> {
        for _ in 0..LOCK_TRIES {
            let mut world = self.step("locks").await;
            if world.fails(2) {
                return Err(StoreError::Unavailable("the connection is gone".into()));
            }
            if attempt(&mut world) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Locks the counters of a batch in the order of their keys.
    async fn lock_rows(&self, waiting: &[Op]) -> Result<(), LockFault> {
        let rows: BTreeSet<CounterKey> = waiting.iter().flat_map(rows_of).collect();
        for row in rows {
            if self.is_planted(Plant::RowNotLocked) {
                self.world.borrow_mut().lock_nothing(self.holder());
                continue;
            }
            if !self.got(|world| world.try_lock_row(self.holder(), &row)).await? {
                let is_blocked =
                    |(place, one): (usize, &Op)| rows_of(one).any(|its| its == row).then_some(place);
                return Err(LockFault::Blocked(waiting.iter().enumerate().filter_map(is_blocked).collect()));
            }
        }
        Ok(())
    }

    fn deeds(waiting: &[Op], decided: &Decided) -> Vec<Deed> {
        let deed = |(one, outcome): (&Op, &Outcome)| match (&one.operation, outcome) {
            (Operation::Take(demand), Outcome::Decided(decision)) => Some(Deed::Take {
                call: one.call,
                taken: decision.taken?.1,
                version: decision.version,
                terms: Arc::clone(&demand.terms),
                key_expires_at: demand.key_expires_at,
            }),
            (Operation::Settle { units, .. }, Outcome::Done { .. }) => {
                Some(Deed::Settle { call: one.call, units: units.get() })
            }
            _nothing_done => None,
        };
        waiting.iter().zip(decided.outcomes()).filter_map(deed).collect()
    }

    /// The operations as they are decided.
    fn as_decided(&self, waiting: &[Op], now: Timestamp) -> Vec<Op> {
        let mut waiting = waiting.to_vec();
        if self.is_planted(Plant::ReleaseIntoNewWindow) {
            for one in &mut waiting {
                if let Operation::Settle { taken, .. } = &mut one.operation {
                    taken.at = taken.at.max(now);
                }
            }
        }
        waiting
    }
}

/// The counters that an operation needs.
fn rows_of(one: &Op) -> impl Iterator<Item = CounterKey> {
    one.operation.terms().limits.metrics().map(|entry| entry.counter.clone())
}

impl<const DECIDES_AHEAD: bool> Steps for Node<DECIDES_AHEAD> {
    type Work = Op;
    const DECIDES_AHEAD: bool = DECIDES_AHEAD;

    async fn clock(&mut self) -> Result<Timestamp, StoreError> {
        let clock = self.step("reads the clock").await.clock;
        if self.is_planted(Plant::TimeNotReadAgain) && self.holds_lock() {
            return Ok(self.lies.clock);
        }
        self.lies.clock = clock;
        Ok(clock)
    }

    async fn decide(&mut self, waiting: &[Op], now: Timestamp) -> Result<Decided, StoreError> {
        drop(self.step("decides").await);
        if DECIDES_AHEAD && self.holds_lock() {
            self.world.borrow_mut().summary.decided_again += 1;
        }
        let takes = waiting.iter().filter(|one| matches!(one.operation, Operation::Take(_)));
        self.lies.batch = takes.map(|one| one.operation.terms().account.business.clone()).collect();
        let mut source = Source { world: &self.world, lies: &mut self.lies };
        self.versions.learn(waiting, &mut source)?;
        let waiting = self.as_decided(waiting, now);
        let mut found = Found { world: &self.world, place: self.place, live: &mut self.live };
        Decided::new(&waiting, now, &mut found, &self.versions, &mut self.cuts)
    }

    async fn others_committed(&mut self) -> Result<bool, StoreError> {
        let (commits, is_alone) = {
            let world = self.step("looks for others").await;
            (world.store.commits_of_others(self.place), world.nodes.len() == 1)
        };
        let moved = std::mem::replace(&mut self.seen, commits) != commits;
        if DECIDES_AHEAD && !moved {
            return Ok(false);
        }
        self.versions.doubt();
        if !is_alone && !self.is_planted(Plant::CountersNotReadAgain) {
            self.live.clear();
        }
        self.lies.read_again = self.lies.batch.clone();
        Ok(true)
    }

    async fn lock(&mut self, waiting: &[Op]) -> Result<(), LockFault> {
        if !DECIDES_AHEAD {
            return self.lock_rows(waiting).await;
        }
        match self.got(|world| world.try_lock(self.holder())).await? {
            true => Ok(()),
            false => Err(StoreError::Unavailable("the store is locked".into()).into()),
        }
    }

    fn set_aside(&mut self, blocked: Vec<Op>) {
        let mut world = self.world.borrow_mut();
        world.summary.set_aside += blocked.len() as u64;
        world.nodes[self.place].queue.extend(blocked);
    }

    async fn write(&mut self, waiting: &[Op], decided: &Decided) -> Result<(), StoreError> {
        if self.step("writes").await.fails(3) {
            return Err(StoreError::StorageFull);
        }
        let (boot, batch) = (self.boot, self.next_batch);
        let deeds = Self::deeds(waiting, decided);
        self.row = Some(Row { boot, batch, entries: decided.entries().to_vec(), deeds });
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), CommitFault> {
        let mut world = self.step("commits").await;
        if world.fails(4) {
            return Err(CommitFault::RolledBack(StoreError::StorageFull));
        }
        let Some(row) = self.row.clone() else { return Ok(()) };
        if world.fails(20) {
            world.lose_connection(self.place, row);
            return Err(CommitFault::Unknown(StoreError::CommitUnknown));
        }
        world.append(Some(self.place), row);
        world.unlock(self.holder());
        Ok(())
    }

    async fn roll_back(&mut self) {
        self.step("rolls back").await.unlock(self.holder());
        self.row = None;
    }

    async fn fate(&mut self) -> Fate {
        self.asked += 1;
        let mut world = self.step("asks for a commit's fate").await;
        if world.fails(50) {
            return Fate::Unknown;
        }
        let batch = (self.boot, self.next_batch);
        if world.store.may_still_come(batch) && world.plant != Some(Plant::MarkerLookedUpEarly) {
            return Fate::Unknown;
        }
        let mut is_marked = world.store.is_marked(batch);
        match world.plant {
            Some(Plant::MarkerIgnored) => is_marked = false,
            Some(Plant::RunAgain) => {
                if !world.try_lock(self.holder()) {
                    return Fate::Unknown;
                }
                if let Some(row) = self.row.clone() {
                    world.append(Some(self.place), row);
                }
                world.unlock(self.holder());
                is_marked = true;
            }
            _honest => {}
        }
        let seen = world.store.commits_of_others(self.place);
        drop(world);
        self.seen = seen;
        self.asked = 0;
        self.next_batch += i64::from(is_marked);
        self.versions.doubt();
        self.live.clear();
        if is_marked { Fate::Committed } else { Fate::Lost }
    }

    fn is_patience_over(&mut self) -> bool {
        self.asked >= PATIENCE
    }

    async fn pause(&mut self) {
        drop(self.step("waits").await);
    }

    fn publish(&mut self, decided: &Decided) {
        if decided.entries().is_empty() {
            return;
        }
        self.next_batch += 1;
        for entry in decided.entries() {
            self.live.insert(entry.counter.clone(), entry.state);
        }
    }

    fn failed(&mut self, error: &StoreError) {
        self.world.borrow().say(|| format!("a batch failed: {error}"));
    }

    fn hold(&mut self, key: &CounterKey, units: i64) {
        *self.world.borrow_mut().nodes[self.place].holds.entry(key.clone()).or_default() += units;
    }

    fn note_denied(&mut self, _terms: &Arc<Terms>, _place: usize, _at: Timestamp) {}

    fn release(one: &Op, place: usize, taken: Taken) -> Op {
        let operation = group_commit::release_of(one, place, taken);
        Op { operation, opens: false, call: one.call, is_owed: true }
    }

    fn put_back(&mut self, waiting: Vec<Op>) {
        let queue = &mut self.world.borrow_mut().nodes[self.place].queue;
        for one in waiting.into_iter().rev() {
            queue.push_front(one);
        }
    }

    fn answer(&mut self, answers: impl Iterator<Item = (Op, Answer)>) {
        for (one, answer) in answers.filter(|(one, _)| !one.is_owed) {
            let mut world = self.world.borrow_mut();
            let result = calls::answered(&mut world, &one, answer);
            world.note(result);
        }
    }
}

/// Counters as a node finds them.
struct Found<'a> {
    world: &'a Shared,
    place: usize,
    live: &'a mut CounterMap<Counter>,
}

impl Counters for Found<'_> {
    fn load(&mut self, key: &CounterKey) -> Result<Counter, StoreError> {
        let stored = || self.world.borrow().store.counters.get(key).copied().unwrap_or_default();
        Ok(*self.live.entry(key.clone()).or_insert_with(stored))
    }

    fn held(&self, key: &CounterKey) -> i64 {
        self.world.borrow().nodes[self.place].holds.get(key).copied().unwrap_or_default()
    }
}

/// Versions as a node reads them. Each read is a statement of its own, between which others may commit.
struct Source<'a> {
    world: &'a Shared,
    lies: &'a mut Lies,
}

impl ChangeSource for Source<'_> {
    fn version(&mut self, business: &BusinessId) -> Result<i64, StoreError> {
        let mut world = self.world.borrow_mut();
        world.meanwhile();
        if world.plant != Some(Plant::OtherBusinessesForgotten) {
            return Ok(world.store.version(business));
        }
        let old = self.lies.versions.get(business).copied();
        let old = old.filter(|_| !self.lies.read_again.contains(business));
        let version = old.unwrap_or_else(|| world.store.version(business));
        self.lies.versions.insert(business.clone(), version);
        Ok(version)
    }

    fn changes(&mut self, business: &BusinessId, since: i64) -> Result<Changes, StoreError> {
        let mut world = self.world.borrow_mut();
        world.meanwhile();
        Ok(world.store.changes(business, since))
    }
}
