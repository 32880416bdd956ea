//! All that a run's actors share: its numbers, clock, store, queues, calls and books.

use super::Plant;
use super::Summary;
use super::calls::Call;
use super::check::{self, Books};
use super::locks::Holder;
use super::node::Op;
use super::store::{Caps, Row, Store};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;
use std::sync::Arc;
use tracktags_core::limits::Terms;
use tracktags_core::time::{MICROS_PER_SECOND, Timestamp};
use tracktags_core::usage::{CounterKey, CounterMap};

/// A little before an hour, and so before a minute, ends: 2026-01-15T11:58:20Z.
const BEGIN_SECONDS: i64 = 1_768_478_300;
/// How far the clock steps back.
const STEP_BACK_SECONDS: i64 = 10;

/// Which faults a run has.
#[derive(Clone, Copy)]
pub(super) struct Profile {
    /// Statements and commits fail, commits stay unknown.
    pub(super) failures: bool,
    pub(super) kills: bool,
    pub(super) changes: bool,
    steps_back: bool,
    /// Nodes lock the rows of counters, and what is configured may change while they do.
    pub(super) row_locks: bool,
}

/// What a node shares with its callers.
#[derive(Default)]
pub(super) struct Post {
    /// Names this start of the node.
    pub(super) boot: u64,
    pub(super) queue: VecDeque<Op>,
    /// It is about a batch.
    pub(super) is_busy: bool,
    pub(super) holds: CounterMap<i64>,
    /// Terms by account, as last read here.
    pub(super) known: Vec<Option<Arc<Terms>>>,
}

pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) profile: Profile,
    pub(super) plant: Option<Plant>,
    pub(super) clock: Timestamp,
    pub(super) store: Store,
    pub(super) nodes: Vec<Post>,
    pub(super) calls: Vec<Call>,
    pub(super) books: Books,
    pub(super) summary: Summary,
    boots: u64,
    trace: Option<fn(&str)>,
    violation: Option<String>,
}

impl World {
    pub(super) fn new(number: u64, plant: Option<Plant>, trace: Option<fn(&str)>) -> Self {
        let mut rng = StdRng::seed_from_u64(number);
        let nodes = [1, 1, 2, 3][rng.random_range(0..4)];
        let profile = Profile {
            failures: rng.random_bool(0.7),
            kills: rng.random_bool(0.3),
            changes: rng.random_bool(0.8),
            steps_back: rng.random_bool(0.3),
            row_locks: nodes > 1 && rng.random_bool(0.7),
        };
        let clock = Timestamp::from_seconds(BEGIN_SECONDS + rng.random_range(0..100));
        let store = Store::new(nodes, || caps(&mut rng));
        let mut world = Self {
            profile,
            plant,
            clock,
            nodes: Vec::new(),
            calls: Vec::new(),
            books: Books::default(),
            summary: Summary::default(),
            boots: 0,
            trace,
            violation: None,
            store,
            rng,
        };
        for _ in 0..nodes {
            let post = world.post();
            world.nodes.push(post);
        }
        world
    }

    fn post(&mut self) -> Post {
        self.boots += 1;
        Post { boot: self.boots, known: vec![None; self.store.accounts.len()], ..Post::default() }
    }

    /// Says what happens, if anybody listens.
    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = self.trace {
            trace(&format!("{} {}", self.clock, what()));
        }
    }

    /// Notes the first thing that was broken.
    pub(super) fn note(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.violation.get_or_insert(what);
        }
    }

    pub(super) fn take_violation(&mut self) -> Result<(), String> {
        self.violation.take().map_or(Ok(()), Err)
    }

    /// Whether something goes wrong now, with this probability in per cent, in a run where things do.
    pub(super) fn fails(&mut self, per_cent: u32) -> bool {
        self.profile.failures && self.rng.random_range(0..100) < per_cent
    }

    fn set_clock(&mut self, clock: Timestamp) {
        self.clock = clock;
        self.store.locks.note_clock(clock);
    }

    /// Time passes, sometimes just up to a window's edge.
    pub(super) fn tick(&mut self) {
        let to_edge = 60 - self.clock.as_seconds().rem_euclid(60);
        let clock = match self.rng.random_range(0..4) {
            0 => self.clock.plus_micros(self.rng.random_range(1..MICROS_PER_SECOND)),
            1 => self.clock.plus_seconds(self.rng.random_range(1..20)),
            2 => Timestamp::from_seconds(self.clock.as_seconds() + to_edge).plus_micros(-1),
            _ => Timestamp::from_seconds(self.clock.as_seconds() + to_edge),
        };
        self.set_clock(clock);
    }

    /// The clock is set back.
    pub(super) fn step_back(&mut self) {
        if self.profile.steps_back {
            self.set_clock(self.clock.plus_seconds(-STEP_BACK_SECONDS));
            self.summary.steps_back += 1;
            self.say(|| "the clock was set back".to_owned());
        }
    }

    /// What may happen while a node does something else: time passes; where nobody keeps others out, limits are changed.
    pub(super) fn meanwhile(&mut self) {
        match self.rng.random_range(0..40) {
            0 => self.tick(),
            1 if self.profile.row_locks || self.store.locks.is_free() => self.change_configuration(),
            _ => {}
        }
    }

    /// Limits of one account or of a whole business are changed by an outside writer.
    pub(super) fn change_configuration(&mut self) {
        if !self.profile.changes {
            return;
        }
        let place = self.rng.random_range(0..self.store.accounts.len());
        let whole = self.rng.random_range(0..4) == 0;
        let rng = &mut self.rng;
        self.store.configure(place, whole, || caps(rng));
        if self.rng.random_range(0..10) == 0 {
            self.store.prune_changes(place);
        }
        self.summary.changes += 1;
        self.say(|| {
            let Caps { minute, hour } = self.store.accounts[place].caps;
            format!("outside: account {place} {whole}: {minute} a minute, {hour} an hour")
        });
    }

    /// All of the store, if it is free.
    pub(super) fn try_lock(&mut self, holder: Holder) -> bool {
        self.store.locks.try_all(holder, self.clock)
    }

    /// A counter's row, if it is free.
    pub(super) fn try_lock_row(&mut self, holder: Holder, row: &CounterKey) -> bool {
        self.store.locks.try_row(holder, row, self.clock)
    }

    /// A lock by name only.
    pub(super) fn lock_nothing(&mut self, holder: Holder) {
        self.store.locks.pretend(holder, self.clock);
    }

    pub(super) fn unlock(&mut self, holder: Holder) {
        self.store.locks.release(holder);
    }

    /// The outside writer's lock: of everything, or of some counter's row.
    pub(super) fn let_the_outsider_in(&mut self) -> bool {
        if !self.profile.row_locks {
            return self.try_lock(Holder::Outsider);
        }
        let place = self.rng.random_range(0..self.store.accounts.len());
        let row = self.store.accounts[place].key.clone();
        self.try_lock_row(Holder::Outsider, &row)
    }

    /// Commits a batch, and looks what that breaks.
    pub(super) fn append(&mut self, node: Option<usize>, row: Row) {
        let mut running = self.store.counters.clone();
        let mut before = Vec::with_capacity(row.entries.len());
        for entry in &row.entries {
            before.push(running.insert(entry.counter.clone(), entry.state).unwrap_or_default());
        }
        self.store.append(node, row.clone());
        let result = check::committed(self, &before, &row);
        self.note(result);
    }

    /// A node's connection is lost in its commit: that is done, or undone, or not even decided yet.
    pub(super) fn lose_connection(&mut self, node: usize, row: Row) {
        self.summary.unheard += 1;
        let fate = self.rng.random_range(0..3);
        self.say(|| format!("the commit is not heard; it is {}", ["lost", "done", "late"][fate]));
        let holder = Holder::Boot(row.boot);
        match fate {
            0 => self.unlock(holder),
            1 => {
                self.append(Some(node), row);
                self.unlock(holder);
            }
            // Its locks stay with it.
            _ => self.store.late.push(row),
        }
    }

    /// A commit that is late comes, or does not.
    pub(super) fn end_late(&mut self) {
        if self.store.late.is_empty() {
            return;
        }
        let row = self.store.late.remove(self.rng.random_range(0..self.store.late.len()));
        let holder = Holder::Boot(row.boot);
        let comes = self.rng.random_bool(0.5);
        self.say(|| format!("the late commit comes: {comes}"));
        if comes {
            self.append(None, row);
        }
        self.unlock(holder);
    }

    /// A node is gone, with its queue and its transaction; another start takes its place.
    pub(super) fn kill(&mut self, place: usize) {
        self.say(|| format!("node {place} is killed"));
        let boot = self.nodes[place].boot;
        if self.nodes.len() == 1 {
            // The store is in its process: what it had not committed is gone with it.
            self.store.late.clear();
        }
        if !self.store.late.iter().any(|row| row.boot == boot) {
            self.unlock(Holder::Boot(boot));
        }
        for call in self.calls.iter_mut().filter(|call| call.boot == boot) {
            call.lose();
        }
        let post = self.post();
        self.nodes[place] = post;
        self.summary.kills += 1;
    }

    /// From here on nothing goes wrong.
    pub(super) fn end_faults(&mut self) {
        self.say(|| "no more faults".to_owned());
        self.profile.failures = false;
        self.profile.changes = false;
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.nodes.iter().all(|node| node.queue.is_empty() && !node.is_busy)
            && self.calls.iter().all(Call::is_over)
            && self.store.locks.is_free()
    }
}

fn caps(rng: &mut StdRng) -> Caps {
    Caps { minute: rng.random_range(0..9), hour: rng.random_range(4..24) }
}
