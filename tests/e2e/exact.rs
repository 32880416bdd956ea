//! Exact under concurrency: N parallel calls against a limit of L let exactly through what may, and the target's own
//! log agrees.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::sync::Arc;
use tracktags_core::Operator;
use tracktags_tests::load::{Load, Tally};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{TestApp, call, envelope, seed};

/// What a limit admits of `calls` calls of `cost` units: taken in turn, each whole or not at all.
fn admitted(operator: Operator, limit: i64, cost: i64, calls: usize) -> usize {
    let mut usage = 0;
    (0..calls).filter(|_| {
        let fits = !operator.breaches(usage, limit, cost);
        usage += if fits { cost } else { 0 };
        fits
    }).count()
}

fn race(app: &TestApp, key: &str, target: &str, connections: usize, calls: usize, cost: i64) -> Tally {
    let (key, body) = (key.to_owned(), envelope(target, cost));
    Load::start(app.node.address, connections, calls, move |_, client| {
        let answer = call(client, &key, &body);
        (answer.status, answer.code())
    })
    .wait()
}

#[test]
fn exact_under_concurrency() {
    let app = TestApp::with(tracktags_tests::NodeOptions::default().set("STORE__DURABILITY", "process"));
    let target = Upstream::start();
    let mut rng = StdRng::seed_from_u64(seed());
    for trial in 0..200 {
        let calls = if trial % 20 == 0 { rng.random_range(500..=2_000) } else { rng.random_range(1..=120) };
        let limit = rng.random_range(0..=i64::try_from(calls).unwrap() + 5);
        let cost = rng.random_range(1..=5);
        let operator = Operator::ALL[trial % Operator::ALL.len()];
        let connections = if trial % 20 == 0 { 256 } else { 64 };
        let customer = format!("customer_{trial}");
        let key = app.customer_key(&customer);
        let fields = json!({"metric_name": "api_calls", "limit_value": limit, "limit_period": "yearly",
            "breach_operator": operator.as_str(), "customer_id": customer});
        let _id = app.limit_with(&fields);
        let before = target.count();
        let tally = race(&app, &key, &target.url("/echo"), connections, calls, cost);
        let expected = admitted(operator, limit, cost, calls);
        let shown = format!("trial {trial}: {operator} {limit}, {calls} calls of {cost}: {tally:?}");
        assert_eq!(tally.allowed, expected, "{shown}");
        assert_eq!(tally.denied, calls - expected, "{shown}");
        assert_eq!(target.count() - before, expected, "the target's log. {shown}");
        assert_eq!(app.usage(&customer), i64::try_from(expected).unwrap() * cost, "the counter. {shown}");
    }
    drop(target);
    app.node.verify();
}

#[test]
fn several_limits_at_once_take_all_or_none() {
    let app = TestApp::new();
    let target = Upstream::start();
    let limits = [("daily", 70), ("monthly", 40), ("yearly", 55), ("realtime", 90)];
    for (period, value) in limits {
        let _id = app.limit("api_calls", value, period);
    }
    let key = app.customer_key("customer_1");
    let tally = race(&app, &key, &target.url("/echo"), 64, 200, 3);
    // 13 calls of 3 fit below the tightest limit of 40.
    assert_eq!((tally.allowed, tally.denied), (13, 187), "{tally:?}");
    let usage = app.business("GET", "/api/v1/usage?customer_id=customer_1", None, 200);
    for limit in usage["metrics"][0]["limits"].as_array().unwrap() {
        assert_eq!(limit["current_usage"], 39, "{limit}");
    }
    assert_eq!(target.count(), 13);
    app.node.verify();
}

#[test]
fn a_limit_of_one_raced_for_a_thousand_customers_admits_one_each() {
    const CUSTOMERS: usize = 1_000;
    const RACERS: usize = 4;
    let app = TestApp::with(tracktags_tests::NodeOptions::default().set("STORE__DURABILITY", "process"));
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1, "yearly");
    let mut client = app.client();
    let keys: Arc<Vec<String>> = Arc::new(
        (0..CUSTOMERS)
            .map(|customer| {
                let path = format!("/api/v1/customers/customer_{customer}/keys");
                tracktags_tests::text(&client.json("POST", &path, &app.business_key, None).json(), "api_key")
            })
            .collect(),
    );
    let body = envelope(&target.url("/echo"), 1);
    let raced = Arc::clone(&keys);
    // Attempts 0 to 3 are of customer 0, and so on: four connections meet at each.
    let tally = Load::start(app.node.address, RACERS, CUSTOMERS * RACERS, move |number, client| {
        let answer = call(client, &raced[number / RACERS], &body);
        (answer.status, answer.code())
    })
    .wait();
    assert_eq!((tally.allowed, tally.denied), (CUSTOMERS, CUSTOMERS * (RACERS - 1)), "{tally:?}");
    assert_eq!(target.count(), CUSTOMERS);
    for customer in [0, 1, 499, 999] {
        assert_eq!(app.usage(&format!("customer_{customer}")), 1);
    }
    app.node.verify();
}
