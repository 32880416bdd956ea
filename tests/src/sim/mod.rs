//! The admission stage in a model world, all of it from one number: the real order of a batch
//! ([`tracktags_core::group_commit`]), the real decision and the real table of versions, over a store, a clock, callers
//! and faults that are models.
//!
//! A world has one to three nodes on one store, which is locked as a whole (SQLite), or by rows of counters while
//! configuration goes on changing (PostgreSQL). Nodes are futures that give way between any two steps, so whoever comes
//! next is the run's choice: another node, an outside writer that changes limits, a caller, the clock, a kill. Commits
//! succeed, fail, or stay unknown. `check` keeps books of its own and says what was broken.

mod calls;
mod check;
mod locks;
mod node;
mod outsider;
mod store;
mod world;

use rand::RngExt;
use std::cell::RefCell;
use std::future::Future;
use std::ops::AddAssign;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use world::World;

/// A fault that is planted, so that it is seen whether the simulator finds it. Each is a lie of the model to the real
/// code; none is in the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// An unknown commit is treated as failed: its marker is never found.
    MarkerIgnored,
    /// An unknown commit's marker is looked up while the commit may still come.
    MarkerLookedUpEarly,
    /// An unknown commit is run again blindly.
    RunAgain,
    /// The time is not read again after the lock.
    TimeNotReadAgain,
    /// After a commit of somebody else, only the versions of the businesses in the batch are read again.
    OtherBusinessesForgotten,
    /// A release is booked into the window it is made in, and not into that of its take.
    ReleaseIntoNewWindow,
    /// A counter's row is written without its lock.
    RowNotLocked,
    /// Where rows are locked, counters are not read again under their locks.
    CountersNotReadAgain,
}

/// What happened in runs: shows that they were about something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Calls that began.
    pub calls: u64,
    /// Demands that were admitted.
    pub admitted: u64,
    /// Demands that were denied.
    pub denied: u64,
    /// Demands that rested on old configuration.
    pub stale: u64,
    /// Demands answered as not counted: no lock, no room, a lost commit.
    pub refused: u64,
    /// Demands whose callers were told that nobody knows.
    pub unknown: u64,
    /// Settlements that were committed.
    pub settled: u64,
    /// Settlements in another window than their take.
    pub settled_late: u64,
    /// Transactions that were committed with entries.
    pub commits: u64,
    /// Commits that were not heard.
    pub unheard: u64,
    /// Batches that were decided again under the lock.
    pub decided_again: u64,
    /// Operations that were set aside, since somebody held a counter's row.
    pub set_aside: u64,
    /// Changes of configuration.
    pub changes: u64,
    /// Nodes that were killed.
    pub kills: u64,
    /// Steps back of the clock.
    pub steps_back: u64,
    /// Windows of a minute with units.
    pub windows: u64,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.admitted += other.admitted;
        self.denied += other.denied;
        self.stale += other.stale;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.settled += other.settled;
        self.settled_late += other.settled_late;
        self.commits += other.commits;
        self.unheard += other.unheard;
        self.decided_again += other.decided_again;
        self.set_aside += other.set_aside;
        self.changes += other.changes;
        self.kills += other.kills;
        self.steps_back += other.steps_back;
        self.windows += other.windows;
    }
}

/// A run that broke an invariant.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The run's number.
    pub number: u64,
    /// What was planted.
    pub plant: Option<Plant>,
    /// What was broken.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, plant, what } = self;
        write!(
            f,
            "run {number}: {what}\n  again: cargo run -p tracktags-tests --bin simulate -- --run {number}"
        )?;
        if let Some(plant) = plant.as_ref().and_then(clap::ValueEnum::to_possible_value) {
            write!(f, " --plant {}", plant.get_name())?;
        }
        f.write_str(" --trace")
    }
}

/// Acts of a run before it comes to rest.
const ACTS: usize = 300;
/// Acts in which it must have come to rest.
const REST_ACTS_MAX: usize = 4_000;

type Shared = Rc<RefCell<World>>;

/// A node or the outsider, as the run wakes it.
type Actor = Pin<Box<dyn Future<Output = ()>>>;

struct Stage {
    world: Shared,
    nodes: Vec<Actor>,
    outsider: Actor,
}

/// Does one run; `trace` hears every step.
///
/// # Errors
/// The first [`Violation`].
pub fn run(number: u64, plant: Option<Plant>, trace: Option<fn(&str)>) -> Result<Summary, Violation> {
    let world = Rc::new(RefCell::new(World::new(number, plant, trace)));
    let count = world.borrow().nodes.len();
    let mut stage = Stage {
        nodes: (0..count).map(|place| node::start(&world, place)).collect(),
        outsider: outsider::start(&world),
        world,
    };
    let what = stage.play().err();
    let world = stage.world.borrow();
    match what {
        None => Ok(world.summary),
        Some(what) => Err(Violation { number, plant, what }),
    }
}

impl Stage {
    fn play(&mut self) -> Result<(), String> {
        for _ in 0..ACTS {
            self.act();
            self.world.borrow_mut().take_violation()?;
        }
        self.world.borrow_mut().end_faults();
        for _ in 0..REST_ACTS_MAX {
            self.act_towards_rest();
            let mut world = self.world.borrow_mut();
            world.take_violation()?;
            if world.is_at_rest() {
                return check::at_rest(&mut world);
            }
        }
        Err("the run does not come to rest: somebody waits for ever".to_owned())
    }

    fn act(&mut self) {
        let choice = self.world.borrow_mut().rng.random_range(0..100);
        match choice {
            0..45 => self.wake_a_node(),
            45..66 => calls::begin(&mut self.world.borrow_mut()),
            66..82 => calls::end_one(&mut self.world.borrow_mut()),
            82..88 => wake(&mut self.outsider),
            88..90 => self.world.borrow_mut().end_late(),
            90..97 => self.world.borrow_mut().tick(),
            97..99 => self.world.borrow_mut().step_back(),
            _ => self.kill_a_node(),
        }
    }

    /// No more calls and changes; those that are there end.
    fn act_towards_rest(&mut self) {
        self.world.borrow_mut().end_late();
        wake(&mut self.outsider);
        calls::end_one(&mut self.world.borrow_mut());
        self.wake_a_node();
    }

    fn wake_a_node(&mut self) {
        let place = self.world.borrow_mut().rng.random_range(0..self.nodes.len());
        wake(&mut self.nodes[place]);
    }

    /// A kill: whatever the node was about, it does not go on.
    fn kill_a_node(&mut self) {
        if !self.world.borrow().profile.kills {
            return;
        }
        let place = self.world.borrow_mut().rng.random_range(0..self.nodes.len());
        self.world.borrow_mut().kill(place);
        self.nodes[place] = node::start(&self.world, place);
    }
}

fn wake(actor: &mut Actor) {
    let mut context = Context::from_waker(Waker::noop());
    // No actor ends.
    let _given_way = actor.as_mut().poll(&mut context);
}

/// Lets the others come first.
async fn give_way() {
    let mut gave = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut gave, true) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
