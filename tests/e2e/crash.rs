//! kill -9 at any instant: nothing acknowledged is lost, nothing is sold twice, nothing is counted that nobody had,
//! and nothing arrives before it is counted (INV1 to INV4 of docs/RELIABILITY.md).

#![cfg(test)]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tracktags_tests::load::{Load, Tally};
use tracktags_tests::node::{kill_while_starting, sql_in, verify_in};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp, call, envelope, seed, wait_until};

const KILLS: usize = 30;
/// Customers with a limit that is reached in the course of the run, so that overselling would show.
const HOT: usize = 16;
/// Customers in all: far more counters than one chunk of a fold holds.
const CUSTOMERS: usize = 4_000;
/// After each kill, all hot customers and one in so many of the others are compared; after the last one, all.
const COMPARED: usize = 8;
/// The kill before which the ledger is pruned empty.
const EMPTIED: usize = 13;

/// What the load and the target saw of each customer, over all runs.
struct Books {
    allowed: Vec<AtomicI64>,
    unknown: Vec<AtomicI64>,
    arrived: Vec<AtomicI64>,
}

impl Books {
    fn new() -> Self {
        let zeros = || (0..CUSTOMERS).map(|_| AtomicI64::new(0)).collect();
        Self { allowed: zeros(), unknown: zeros(), arrived: zeros() }
    }
}

/// The limit of a hot customer.
fn limit_of(customer: usize) -> i64 {
    40 * (i64::try_from(customer).unwrap() + 1)
}

/// Whose an attempt is (half of them the hot ones'), and whether its target answers so that the unit is released.
fn attempt(number: usize) -> (usize, bool) {
    let turn = number / 2;
    let customer = if number.is_multiple_of(2) { turn % HOT } else { HOT + turn % (CUSTOMERS - HOT) };
    (customer, (number / 32) % 4 == 3)
}

fn load(app: &TestApp, target: &Upstream, books: &Arc<Books>) -> Load {
    let (key, books) = (app.business_key.clone(), Arc::clone(books));
    let (kept, released) = (target.url("/echo"), target.url("/status/500"));
    Load::start(app.node.address, 64, usize::MAX, move |number, client| {
        let (customer, is_released) = attempt(number);
        let mut body = envelope(if is_released { &released } else { &kept }, 1);
        body["customer_id"] = json!(format!("c{customer}"));
        let answer = call(client, &key, &body);
        let mut one = Tally::default();
        one.note(&answer);
        if one.allowed > 0 && !is_released {
            books.allowed[customer].fetch_add(1, Ordering::SeqCst);
        } else if one.unknown > one.unsent {
            books.unknown[customer].fetch_add(1, Ordering::SeqCst);
        }
        answer
    })
}

/// How a run is set up, so that its kill falls where it should.
fn options(kill: usize) -> NodeOptions {
    let options = NodeOptions::default();
    match kill % 5 {
        // Gathers what the next start folds.
        0 => options.set("STORE__FOLD_EVERY_MS", "600000"),
        // Folds all the while.
        1 => options.set("STORE__FOLD_EVERY_MS", "1"),
        // Prunes, once a second, everything that was folded.
        2 => options.set("STORE__FOLD_EVERY_MS", "20").set("STORE__LEDGER_RETENTION_DAYS", "0"),
        3 if kill == EMPTIED => {
            options.set("STORE__FOLD_EVERY_MS", "20").set("STORE__LEDGER_RETENTION_DAYS", "0")
        }
        // The writer checkpoints.
        3 => options.set("STORE__WAL_CHECKPOINT_MIB", "1"),
        // Killed again while it starts.
        _ => options,
    }
}

/// How many calls and how long a run lasts at least.
fn until(kill: usize, rng: &mut StdRng) -> (usize, Duration) {
    let milliseconds = Duration::from_millis;
    match kill % 5 {
        0 => (rng.random_range(2_000..4_000), Duration::ZERO),
        // Pruning comes a second after a start.
        2 => (1, milliseconds(rng.random_range(950..1_100))),
        _ => (rng.random_range(20..900), Duration::ZERO),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a kill at an instant since the start")]
fn thirty_kills_lose_nothing_and_sell_nothing_twice() {
    let books = Arc::new(Books::new());
    let counting = Arc::clone(&books);
    let target = Upstream::peeking(move |arrival| {
        let customer: usize = arrival.header("x-tracktags-customer-id")[1..].parse().unwrap();
        if arrival.path() == "/echo" {
            counting.arrived[customer].fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut app = TestApp::with(options(0));
    let _id = app.limit("api_calls", 1_000_000, "yearly");
    customers_by_sql(&app, CUSTOMERS);
    for customer in 0..HOT {
        let _id = app.limit_with(&json!({"metric_name": "api_calls", "limit_value": limit_of(customer),
            "limit_period": "yearly", "customer_id": format!("c{customer}")}));
    }
    let mut rng = StdRng::seed_from_u64(seed());
    let (mut in_fold, mut in_prune, mut tally) = (0, 0, Tally::default());
    for kill in 0..KILLS {
        let began = Instant::now();
        let oldest_before = app.node.sql("SELECT coalesce(min(batch), 0) FROM usage_ledger");
        let load = load(&app, &target, &books);
        let (calls, time) = until(kill, &mut rng);
        let reached = || load.begun() > calls && began.elapsed() >= time;
        wait_until("the load runs", Duration::from_secs(60), reached);
        if kill == EMPTIED {
            tally.add(&load.stop());
            let is_empty = || app.node.sql("SELECT count(*) FROM usage_ledger") == "0";
            wait_until("the ledger is pruned empty", Duration::from_secs(10), is_empty);
            app.node.kill();
        } else {
            app.node.kill();
            tally.add(&load.stop());
        }
        let pruned = format!("SELECT coalesce(min(batch), 0) <> {oldest_before} FROM usage_ledger");
        in_prune += usize::from(left_behind(&app, &pruned));
        // Killed again, and what the first one left is taken up by a third start: once in its first fold, a pass of many
        // chunks that is spread over most of the time between two, once while it reads the ledger.
        if kill % 5 == 0 {
            app.node = app.node.restart_with(NodeOptions::default().set("STORE__FOLD_EVERY_MS", "500"));
            let in_a_fold = "SELECT pass_to IS NOT NULL FROM ledger_position";
            wait_until("a fold is under way", Duration::from_secs(10), || app.node.sql(in_a_fold) == "1");
            let (seen, after) = (Instant::now(), Duration::from_millis(rng.random_range(0..200)));
            wait_until("the fold goes on", Duration::from_secs(10), || seen.elapsed() >= after);
            app.node.kill();
            in_fold += usize::from(left_behind(&app, in_a_fold));
        } else if kill % 5 == 4 {
            kill_while_starting(app.node.folder().path(), Duration::from_millis(rng.random_range(0..60)));
            let _any = left_behind(&app, "SELECT 1");
        }
        app.node = app.node.restart_with(options(kill + 1));
        let compared = if kill + 1 == KILLS { 1 } else { COMPARED };
        check(&app, &books, kill, &|customer| customer < HOT || (customer + kill) % compared == 0);
    }
    println!(
        "{KILLS} kills, {in_fold} within a fold, {in_prune} within or after pruning, {} arrived, {tally:?}",
        target.count()
    );
    assert!(in_fold > 0 && in_prune > 0 && tally.unknown > tally.unsent, "the kills fell where they should");
    assert!(tally.denied > 0, "limits were reached");
    assert_eq!(tally.refused + tally.failed, 0, "{tally:?}");
}

/// Checks the books that a kill left, and asks a yes-or-no question of them.
fn left_behind(app: &TestApp, question: &str) -> bool {
    let left = app.node.copied();
    verify_in(left.path());
    sql_in(left.path(), question) == "1"
}

/// Customers `c0`, `c1` … by SQL, as an operator would load them.
fn customers_by_sql(app: &TestApp, count: usize) {
    app.node.sql(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count}) \
         INSERT INTO customers (business_id, customer_id) SELECT '{}', 'c' || i FROM n",
        app.business_id
    ));
}

/// INV1 to INV4 over everything so far, as the next start answers.
fn check(app: &TestApp, books: &Books, kill: usize, is_compared: &dyn Fn(usize) -> bool) {
    let mut client = app.client();
    for customer in (0..CUSTOMERS).filter(|customer| is_compared(*customer)) {
        let path = format!("/api/v1/usage?customer_id=c{customer}&metric_name=api_calls");
        let usage = client.json("GET", &path, &app.business_key, None);
        assert_eq!(usage.status, 200, "{}", usage.text());
        let metric = &usage.json()["metrics"][0];
        let counted = metric["current_value"].as_i64().unwrap();
        let count = |counts: &[AtomicI64]| counts[customer].load(Ordering::SeqCst);
        let (allowed, unknown, arrived) =
            (count(&books.allowed), count(&books.unknown), count(&books.arrived));
        let shown = format!(
            "kill {kill}, c{customer}: counted {counted}, allowed {allowed}, unknown {unknown}, arrived {arrived}"
        );
        assert!(counted >= allowed, "INV1, an acknowledged unit was lost. {shown}");
        assert!(customer >= HOT || counted <= limit_of(customer), "INV2, oversold. {shown}");
        assert!(counted <= allowed + unknown, "INV3, a phantom. {shown}");
        assert!(counted >= arrived, "INV4, seen before it was counted. {shown}");
        assert_eq!(metric["limits"][0]["current_usage"], counted, "the window is the level. {shown}");
        assert_eq!(metric["held"], 0, "what died in flight is no longer open. {shown}");
    }
}

#[test]
fn every_unit_is_counted_before_it_arrives() {
    const CALLS: usize = 2_000;
    type Book = (OnceLock<(std::net::SocketAddr, String)>, AtomicI64, AtomicUsize);
    let book: Arc<Book> = Arc::default();
    let reading = Arc::clone(&book);
    // On every arrival: the counter holds at least what arrived, this call included.
    let target = Upstream::peeking(move |_| {
        let (node, arrived, late) = &*reading;
        let arrived = arrived.fetch_add(1, Ordering::SeqCst) + 1;
        let (address, key) = node.get().unwrap();
        let mut client = tracktags_tests::http::Client::new(*address);
        let usage = client.json("GET", "/api/v1/usage?customer_id=customer_1", key, None).json();
        let counted = usage["metrics"][0]["current_value"].as_i64().unwrap_or_default();
        late.fetch_add(usize::from(counted < arrived), Ordering::SeqCst);
    });
    let app = TestApp::new();
    book.0.set((app.node.address, app.business_key.clone())).unwrap();
    let _id = app.limit("api_calls", i64::try_from(CALLS).unwrap(), "yearly");
    let (key, body) = (app.customer_key("customer_1"), envelope(&target.url("/echo"), 1));
    let tally = Load::start(app.node.address, 64, CALLS, move |_, client| call(client, &key, &body)).wait();
    assert_eq!(tally.allowed, CALLS, "{tally:?}");
    assert_eq!(book.1.load(Ordering::SeqCst), i64::try_from(CALLS).unwrap());
    assert_eq!(book.2.load(Ordering::SeqCst), 0, "arrivals that were not counted yet");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures a start")]
fn the_first_answer_after_a_kill_comes_soon_with_a_hundred_thousand_counters() {
    const COUNTERS: usize = 100_000;
    // The promise is of what operators run; a build without optimisation reads the ledger several times slower.
    const WITHIN: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });
    // Nothing is folded: the start has the whole ledger before it, which is the slower case.
    let options =
        NodeOptions::default().set("STORE__DURABILITY", "process").set("STORE__FOLD_EVERY_MS", "600000");
    let mut app = TestApp::with(options);
    let target = Upstream::start();
    let _id = app.limit("api_calls", 10, "yearly");
    customers_by_sql(&app, COUNTERS);
    let (key, url) = (app.business_key.clone(), target.url("/echo"));
    let tally = Load::start(app.node.address, 64, COUNTERS, move |number, client| {
        let body =
            json!({"metric_name": "api_calls", "customer_id": format!("c{number}"), "target_url": url});
        call(client, &key, &body)
    })
    .wait();
    assert_eq!(tally.allowed, COUNTERS, "{tally:?}");
    let wal_bytes = app.node.wal_bytes();
    app.node.kill();
    let left = app.node.copied();
    let body = json!({"metric_name": "api_calls", "customer_id": "c5", "target_url": target.url("/echo")});
    let began = Instant::now();
    app.node = app.node.restart();
    let answer = call(&mut app.client(), &app.business_key, &body);
    let took = began.elapsed();
    println!("{COUNTERS} counters, write-ahead log {wal_bytes} bytes: first allowed answer after {took:?}");
    assert_eq!(answer.json()["breach_status"]["current_usage"], 2, "{}", answer.text());
    assert!(took <= WITHIN, "{took:?}");
    verify_in(left.path());
    let mut customers = std::collections::HashSet::new();
    let store_url = format!("sqlite:{}", left.path().join("tracktags.db").display());
    tracktags_store::read_ledger(&store_url, &mut |line| {
        customers.insert(line.entry.counter.account().customer.clone());
    })
    .unwrap();
    assert_eq!(customers.len(), COUNTERS);
    app.node.verify();
}
