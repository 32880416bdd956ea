//! kill -9 at any instant: nothing acknowledged is lost, nothing is sold twice, nothing is counted that nobody had.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracktags_tests::load::{Load, Tally};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{Node, NodeOptions, TestApp, call, envelope, seed, wait_until};

const KILLS: usize = 30;
const CUSTOMERS: usize = 16;
/// Small enough to be reached, so that overselling would show.
const LIMIT: i64 = 1_500;

/// What the ledger says of each customer, read from the files as they are: by a store of our own would be a second
/// server, so the entries are replayed to the last state.
fn counters(node: &Node) -> HashMap<String, i64> {
    let mut levels = HashMap::new();
    let each = &mut |line: tracktags_store::LedgerLine| {
        if let Some(customer) = &line.entry.counter.account().customer {
            levels.insert(customer.to_string(), line.entry.state.level.units);
        }
    };
    tracktags_store::read_ledger(&node.store_url(), each).unwrap();
    levels
}

/// Answers by customer, over all runs.
#[derive(Default)]
struct Answers {
    allowed: [AtomicI64; CUSTOMERS],
    unknown: [AtomicI64; CUSTOMERS],
}

fn load(app: &TestApp, keys: &Arc<Vec<String>>, target: &str, answers: &Arc<Answers>) -> Load {
    let (keys, answers, body) = (Arc::clone(keys), Arc::clone(answers), envelope(target, 1));
    Load::start(app.node.address, 64, usize::MAX, move |number, client| {
        let customer = number % CUSTOMERS;
        let answer = call(client, &keys[customer], &body);
        let mut one = Tally::default();
        one.note(answer.status, &answer.code());
        answers.allowed[customer].fetch_add(i64::try_from(one.allowed).unwrap(), Ordering::SeqCst);
        answers.unknown[customer].fetch_add(i64::try_from(one.unknown).unwrap(), Ordering::SeqCst);
        (answer.status, answer.code())
    })
}

#[test]
fn thirty_kills_lose_nothing_and_sell_nothing_twice() {
    // Counted at the target by customer, and compared with the ledger on arrival (counted before it is seen).
    let seen: Arc<Mutex<HashMap<String, i64>>> = Arc::default();
    let counting = Arc::clone(&seen);
    let target = Upstream::peeking(move |arrival| {
        let customer = arrival.headers.get("x-tracktags-customer-id").cloned().unwrap_or_default();
        *counting.lock().unwrap().entry(customer).or_default() += 1;
    });
    let options = NodeOptions::default().set("STORE__FOLD_EVERY_MS", "50");
    let mut app = TestApp::with(options.clone());
    let _id = app.limit("api_calls", LIMIT, "yearly");
    let keys: Arc<Vec<String>> =
        Arc::new((0..CUSTOMERS).map(|customer| app.customer_key(&format!("customer_{customer}"))).collect());
    let answers = Arc::new(Answers::default());
    let mut rng = StdRng::seed_from_u64(seed());
    for kill in 0..KILLS {
        let load = load(&app, &keys, &target.url("/echo"), &answers);
        let calls = rng.random_range(20..900);
        wait_until("the load runs", Duration::from_secs(30), || load.begun() > calls);
        app.node.kill();
        let _tally = load.stop();
        check(&app, &seen, &answers, kill);
        if kill % 3 == 0 {
            // Killed again while it starts, at a random instant.
            let folder = Arc::clone(app.node.folder());
            kill_while_starting(&folder, rng.random_range(0..60));
        }
        // In turn with everything pruned that is folded, so that kills fall into pruning too.
        let days = if kill % 2 == 0 { "0" } else { "7" };
        app.node = app.node.restart_with(options.clone().set("STORE__LEDGER_RETENTION_DAYS", days));
    }
    let used: i64 = (0..CUSTOMERS).map(|customer| app.usage(&format!("customer_{customer}"))).sum();
    println!("{KILLS} kills, {used} units counted, {} arrived", target.count());
    assert!(used > 1_000, "the load did something: {used}");
}

fn kill_while_starting(folder: &Arc<tempfile::TempDir>, after_ms: u64) {
    let mut command = std::process::Command::new(tracktags_tests::node::program("node"));
    command.current_dir(folder.path()).env("TRACKTAGS__SERVER__BIND", "127.0.0.1:0");
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut process = command.spawn().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a random instant of a start")]
    let began = Instant::now();
    wait_until("a random instant", Duration::from_secs(5), || began.elapsed().as_millis() >= u128::from(after_ms));
    process.kill().unwrap();
    process.wait().unwrap();
}

/// INV1 to INV4 over everything so far, from the files that the kill left.
fn check(app: &TestApp, seen: &Mutex<HashMap<String, i64>>, answers: &Answers, kill: usize) {
    app.node.verify();
    // The ledger may be pruned: what a start would answer is the counter. Start one to ask.
    let levels = usage_after_restart(app);
    let seen = seen.lock().unwrap().clone();
    for customer in 0..CUSTOMERS {
        let name = format!("customer_{customer}");
        let counted = levels.get(&name).copied().unwrap_or_default();
        let allowed = answers.allowed[customer].load(Ordering::SeqCst);
        let unknown = answers.unknown[customer].load(Ordering::SeqCst);
        let arrived = seen.get(&name).copied().unwrap_or_default();
        let shown = format!("kill {kill}, {name}: counted {counted}, allowed {allowed}, unknown {unknown}, arrived {arrived}");
        assert!(counted >= allowed, "INV1, an acknowledged unit was lost. {shown}");
        assert!(counted <= LIMIT, "INV2, oversold. {shown}");
        assert!(counted <= allowed + unknown, "INV3, a phantom. {shown}");
        assert!(counted >= arrived, "INV4, seen before it was counted. {shown}");
    }
}

fn usage_after_restart(app: &TestApp) -> HashMap<String, i64> {
    let node = Node::try_start(app.node.folder(), NodeOptions::default()).unwrap_or_else(|(status, log)| panic!("{status:?}: {log}"));
    let mut client = node.client();
    let mut levels = HashMap::new();
    for customer in 0..CUSTOMERS {
        let name = format!("customer_{customer}");
        let usage = client.json("GET", &format!("/api/v1/usage?customer_id={name}"), &app.business_key, None).json();
        levels.insert(name, usage["metrics"][0]["current_value"].as_i64().unwrap_or_default());
    }
    levels
}

#[test]
fn the_first_answer_after_a_kill_with_a_hundred_thousand_counters_comes_within_a_second() {
    const COUNTERS: usize = 100_000;
    let mut app = TestApp::with(NodeOptions::default().set("STORE__DURABILITY", "process").set("STORE__FOLD_EVERY_MS", "600000"));
    let target = Upstream::start();
    let _id = app.limit("api_calls", 10, "yearly");
    // Customers by SQL, as an operator would load them; usage through the business's key, call by call.
    app.node.sql(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {COUNTERS}) \
         INSERT INTO customers (business_id, customer_id) SELECT '{}', 'c' || i FROM n",
        app.business_id
    ));
    let (key, url) = (app.business_key.clone(), target.url("/echo"));
    let tally = Load::start(app.node.address, 64, COUNTERS, move |number, client| {
        let body = json!({"metric_name": "api_calls", "customer_id": format!("c{number}"), "target_url": url});
        let answer = call(client, &key, &body);
        (answer.status, answer.code())
    })
    .wait();
    assert_eq!(tally.allowed, COUNTERS, "{tally:?}");
    let wal = PathBuf::from(format!("{}-wal", app.node.database().display()));
    println!("log at the kill: {} bytes", std::fs::metadata(wal).map_or(0, |data| data.len()));
    app.node.kill();
    app.node.verify();
    #[expect(clippy::disallowed_methods, reason = "measures the start")]
    let began = Instant::now();
    app.node = app.node.restart();
    let body = json!({"metric_name": "api_calls", "customer_id": "c5", "target_url": target.url("/echo")});
    let answer = call(&mut app.client(), &app.business_key, &body);
    let took = began.elapsed();
    println!("first answer after {took:?}");
    assert_eq!(answer.json()["breach_status"]["current_usage"], 2, "{}", answer.text());
    assert!(took <= Duration::from_secs(1), "{took:?}");
    assert_eq!(counters(&app.node).len(), COUNTERS);
}
