//! Crash images: what a disk may hold after the power fails at any instant of a run, and what a start makes of it.
//!
//! [`record`] runs a server under strace with a load on it and kills it. [`Recording`] plays that back: at any instant it
//! knows what was synced, what was written since, and what callers and the target had heard ([`trace`], [`disk`],
//! [`calls`]). [`Recording::images`] makes images at random instants and reads each through the store ([`store`]);
//! [`Recording::order`] checks that nobody heard of anything before it was synced ([`order`]).

pub mod calls;
pub mod disk;
pub mod order;
pub mod store;
pub mod trace;

use crate::load::{Load, Tally};
use crate::node::Node;
use crate::upstream::Upstream;
use crate::{NodeOptions, TestApp, call, envelope, wait_until};
use calls::{Book, Books, Step};
use disk::{Disk, Image, Kept};
use order::{BatchRow, Order};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use store::{MASTER_KEY, METRIC, Opener};
use trace::Trace;

/// Customers, and those among them that reach a limit in the course of a run.
const CUSTOMERS: usize = 128;
const HOT: usize = 8;
const CONNECTIONS: usize = 48;
/// For how many of those writes that were not synced an image keeps, in turn.
const SHARES: [f64; 5] = [0.0, 0.05, 0.5, 0.95, 1.0];
/// How many of the writes are torn, where a share is neither all nor nothing.
const TORN: f64 = 0.1;
const LOAD: Duration = Duration::from_secs(120);

/// Whose an attempt is (half of them the hot ones'), and whether its target answers so that the unit is released.
const fn attempt(number: usize) -> (usize, bool) {
    let turn = number / 2;
    let customer = if number.is_multiple_of(2) { turn % HOT } else { HOT + turn % (CUSTOMERS - HOT) };
    (customer, (number / 32) % 4 == 3)
}

/// The limit of a customer.
fn cap(customer: &str) -> i64 {
    let number: usize = customer.trim_start_matches('c').parse().unwrap_or(CUSTOMERS);
    if number < HOT { i64::try_from(100 * (number + 1)).unwrap_or(i64::MAX) } else { i64::MAX }
}

/// Runs a server under strace with at least so many calls on it, kills it, and hands it back with its files as they lay
/// then. `durability` is the server's setting.
///
/// # Panics
/// Where it does not run.
#[must_use]
pub fn record(durability: &str, calls: usize, trace: &Path) -> (Node, Tally) {
    let options = NodeOptions::default()
        .set("STORE__DURABILITY", durability)
        // Folds and checkpoints come all the while.
        .set("STORE__FOLD_EVERY_MS", "100")
        .set("STORE__WAL_CHECKPOINT_MIB", "1")
        .set("SECRETS__MASTER_KEY", MASTER_KEY)
        .traced(trace);
    let mut app = TestApp::with(options);
    let target = Upstream::start();
    let _id = app.limit(METRIC, 1_000_000_000, "yearly");
    for customer in (0..CUSTOMERS).map(|number| format!("c{number}")) {
        let _made = app.business("POST", "/api/v1/customers", Some(&json!({"customer_id": customer})), 201);
        if cap(&customer) < i64::MAX {
            let _id = app.limit_with(&json!({"metric_name": METRIC, "limit_value": cap(&customer),
                "limit_period": "yearly", "customer_id": customer}));
        }
    }
    let key = app.business_key.clone();
    let (kept, released) = (target.url("/echo"), target.url("/status/500"));
    let load = Load::start(app.node.address, CONNECTIONS, usize::MAX, move |number, client| {
        let (customer, is_released) = attempt(number);
        let mut body = envelope(if is_released { &released } else { &kept }, 1);
        body["customer_id"] = json!(format!("c{customer}"));
        call(client, &key, &body)
    });
    wait_until("the load runs", LOAD, || load.begun() > calls);
    let process = app.node.id().unwrap_or_default();
    app.node.kill();
    let tally = load.stop();
    wait_until("strace ends", Duration::from_secs(30), || trace::is_ended(trace, process));
    (app.node, tally)
}

/// What the images showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Images that were opened.
    pub images: usize,
    /// Of these, with fewer units than were acknowledged or than the target had seen (INV1, INV4).
    pub lost: usize,
    /// With more than a limit (INV2).
    pub oversold: usize,
    /// With more than anybody could have had (INV3).
    pub phantom: usize,
    /// That no start takes, or whose books do not agree.
    pub refused: usize,
    /// The most units that one image had lost.
    pub units_lost_max: i64,
    /// The first violation, in words.
    pub first: Option<String>,
}

impl Findings {
    /// All violations.
    #[must_use]
    pub const fn violations(&self) -> usize {
        self.lost + self.oversold + self.phantom + self.refused
    }

    fn note(&mut self, cut: usize, books: &Books, read: Result<BTreeMap<String, i64>, String>) {
        self.images += 1;
        let counters = match read {
            Ok(counters) => counters,
            Err(why) => {
                self.refused += 1;
                self.first.get_or_insert(format!("cut at {cut}: {why}"));
                return;
            }
        };
        let (mut lost, mut oversold, mut phantom, mut units) = (false, false, false, 0);
        for (customer, book) in books {
            let counted = counters.get(customer).copied().unwrap_or_default();
            let bad = [counted < book.least(), counted > cap(customer), counted > book.most()];
            lost |= bad[0];
            oversold |= bad[1];
            phantom |= bad[2];
            units += (book.least() - counted).max(0);
            if bad != [false; 3] {
                self.first.get_or_insert(format!("cut at {cut}: {customer} has {counted}, {book:?}"));
            }
        }
        self.lost += usize::from(lost);
        self.oversold += usize::from(oversold);
        self.phantom += usize::from(phantom);
        self.units_lost_max = self.units_lost_max.max(units);
    }
}

/// A run that was recorded.
pub struct Recording {
    /// What strace saw.
    pub trace: Trace,
    /// The steps of its calls.
    pub steps: Vec<Step>,
    /// Its ledger, as the kill left it.
    pub rows: Vec<BatchRow>,
    business: String,
}

impl Recording {
    /// Reads one.
    ///
    /// # Errors
    /// In words: the file cannot be read, or shows no server at work.
    pub fn read(path: &Path) -> Result<Self, String> {
        let trace = Trace::read(path).map_err(|error| error.to_string())?;
        let steps = calls::steps(&trace);
        let mut disk = Disk::new(&trace);
        trace.events.iter().for_each(|event| disk.play(*event));
        let (business, rows) = store::ledger(&disk.after_kill(false))?;
        Ok(Self { trace, steps, rows, business })
    }

    /// The files of the database as the kill left them: what was written, synced or not, with the call that the kill cut
    /// off or without it.
    #[must_use]
    pub fn after_kill(&self, acted: bool) -> Image {
        let mut disk = Disk::new(&self.trace);
        self.trace.events.iter().for_each(|event| disk.play(*event));
        disk.after_kill(acted).into_iter().filter(|(name, _)| store::is_of_database(name)).collect()
    }

    /// Cuts the power at so many random instants of the load, and reads what a disk may hold then.
    ///
    /// # Errors
    /// In words: there was no load.
    pub fn images(&self, cuts: usize, seed: u64) -> Result<Findings, String> {
        let mut rng = StdRng::seed_from_u64(seed);
        let first = self.steps.first().ok_or("no call was recorded")?.event;
        let mut at: Vec<_> = (0..cuts).map(|_| rng.random_range(first..self.trace.events.len())).collect();
        at.sort_unstable();
        let customers: Vec<_> = (0..CUSTOMERS).map(|number| format!("c{number}")).collect();
        let opener = Opener::new(&self.business, &customers)?;
        let (mut findings, mut books) = (Findings::default(), Books::new());
        let mut disk = Disk::new(&self.trace);
        let (mut played, mut steps) = (0, self.steps.iter().peekable());
        for (turn, cut) in at.into_iter().enumerate() {
            self.trace.events[played..cut].iter().for_each(|event| disk.play(*event));
            played = cut;
            while let Some(step) = steps.next_if(|step| step.event < cut) {
                books.entry(step.customer.clone()).or_insert_with(Book::default).enter(step.seen);
            }
            let share = SHARES[turn % SHARES.len()];
            let torn = if share > 0.0 && share < 1.0 { TORN } else { 0.0 };
            let image = disk.image(&mut || match (rng.random_bool(torn), rng.random_bool(share)) {
                (true, _) => Kept::Torn,
                (false, true) => Kept::Whole,
                (false, false) => Kept::Nothing,
            });
            findings.note(cut, &books, opener.counters(&image));
        }
        Ok(findings)
    }

    /// Checks that nobody heard of anything before it was synced.
    #[must_use]
    pub fn order(&self) -> Order {
        order::check(&self.trace, &self.steps, &self.rows)
    }
}
