//! Exact under concurrency: N parallel calls against a limit of L let exactly through what may, and the target's own
//! log agrees.

#![cfg(test)]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use tracktags_tests::http::Client;
use tracktags_tests::load::{Load, Tally};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{TestApp, call, envelope, new_business, seed, text};

const TRIALS: usize = 200;
const OPERATORS: [&str; 5] = ["gte", "gt", "lte", "lt", "eq"];

/// What an operator admits at most, in units, as docs/RELIABILITY.md §1 says; `None` has no end.
fn cap(operator: &str, limit: i64) -> Option<i64> {
    match operator {
        "gte" | "eq" => Some(limit),
        "gt" => Some(limit + 1),
        "lt" if limit == 0 => None,
        _ => Some(0),
    }
}

/// How many of `calls` calls of `cost` units pass: c·⌊min(N, cap)/c⌋ units.
fn admitted(operator: &str, limit: i64, cost: i64, calls: usize) -> usize {
    let demanded = i64::try_from(calls).unwrap() * cost;
    usize::try_from(cap(operator, limit).unwrap_or(demanded).min(demanded) / cost).unwrap()
}

fn race(app: &TestApp, key: &str, target: &str, connections: usize, calls: usize, cost: i64) -> Tally {
    let (key, body) = (key.to_owned(), envelope(target, cost));
    Load::start(app.node.address, connections, calls, move |_, client| call(client, &key, &body)).wait()
}

/// A business's request that must succeed.
fn made(client: &mut Client, key: &str, path: &str, fields: &serde_json::Value) -> serde_json::Value {
    let answer = client.json("POST", path, key, Some(fields));
    assert_eq!(answer.status, 201, "{path}: {}", answer.text());
    answer.json()
}

#[test]
fn exact_under_concurrency() {
    let app = TestApp::new();
    let target = Upstream::start();
    let mut rng = StdRng::seed_from_u64(seed());
    let (mut calls_made, mut passed) = (0, 0);
    for trial in 0..TRIALS {
        let is_large = trial % 10 == 0;
        let calls = if is_large { rng.random_range(500..=2_000) } else { rng.random_range(1..=200) };
        let cost = rng.random_range(1..=5);
        // Up to what all calls together demand, and a little beyond.
        let reach = i64::try_from(calls).unwrap() * rng.random_range(1..=cost);
        let limit = rng.random_range(0..=reach + 5);
        let operator = OPERATORS[trial % OPERATORS.len()];
        let connections = if trial % 4 == 0 { 256 } else { 64 };
        // A business of its own, with a limit for all its customers, for one customer or for a plan.
        let (_, business) = new_business(&app.node);
        let mut client = app.client();
        let key = text(&made(&mut client, &business, "/api/v1/customers/racer/keys", &json!({})), "api_key");
        let mut fields = json!({"metric_name": "api_calls", "limit_value": limit, "limit_period": "yearly",
            "breach_operator": operator});
        if trial % 3 == 1 {
            fields["customer_id"] = json!("racer");
        } else if trial % 3 == 2 {
            let plan = made(&mut client, &business, "/api/v1/plans", &json!({"plan_name": "Raced"}));
            fields["plan_id"] = plan["id"].clone();
            let put = client.json(
                "PUT",
                "/api/v1/customers/racer",
                &business,
                Some(&json!({"plan_id": plan["id"]})),
            );
            assert_eq!(put.status, 200, "{}", put.text());
        }
        made(&mut client, &business, "/api/v1/plan_limits", &fields);
        let before = target.count();
        let tally = race(&app, &key, &target.url("/echo"), connections, calls, cost);
        let expected = admitted(operator, limit, cost, calls);
        let shown = format!("trial {trial}: {operator} {limit}, {calls} calls of {cost}: {tally:?}");
        assert_eq!((tally.allowed, tally.denied), (expected, calls - expected), "{shown}");
        assert_eq!(target.count() - before, expected, "the target's log. {shown}");
        let usage = client.json("GET", "/api/v1/usage?customer_id=racer", &business, None).json();
        let counted = usage["metrics"][0]["current_value"].as_i64().unwrap();
        assert_eq!(counted, i64::try_from(expected).unwrap() * cost, "the counter. {shown}");
        calls_made += calls;
        passed += expected;
    }
    println!("{TRIALS} trials, {calls_made} calls, {passed} passed, deviation 0");
    app.node.verify();
}

#[test]
fn mixed_costs_fill_a_limit_and_never_pass_it() {
    const LIMIT: i64 = 500;
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", LIMIT, "yearly");
    let key = app.customer_key("customer_1");
    let bodies: Vec<_> = (1..=5).map(|cost| envelope(&target.url("/echo"), cost)).collect();
    let tally = Load::start(app.node.address, 64, 1_000, move |number, client| {
        call(client, &key, &bodies[number % bodies.len()])
    })
    .wait();
    assert_eq!(tally.allowed + tally.denied, 1_000, "{tally:?}");
    // While anything is free a call of one unit fits, and 200 were made: nothing stays free.
    assert_eq!(app.usage("customer_1"), LIMIT);
    assert_eq!(target.count(), tally.allowed);
    app.node.verify();
}

#[test]
fn several_limits_at_once_take_all_or_none() {
    let app = TestApp::new();
    let target = Upstream::start();
    let mut rng = StdRng::seed_from_u64(seed());
    let periods = ["daily", "weekly", "monthly", "yearly", "realtime"];
    for round in 0..20 {
        // Each round, customer and limits of its own; the tightest decides, whichever it is.
        let customer = format!("customer_{round}");
        let key = app.customer_key(&customer);
        let mut limits = HashMap::new();
        for period in periods {
            let value = rng.random_range(0..=150);
            let _id = app.limit_with(&json!({"metric_name": "api_calls", "limit_value": value,
                "limit_period": period, "customer_id": customer}));
            limits.insert(period, value);
        }
        let cost = rng.random_range(1..=5);
        let before = target.count();
        let tally = race(&app, &key, &target.url("/echo"), 64, 200, cost);
        let tightest = limits.values().copied().min().unwrap();
        let expected = admitted("gte", tightest, cost, 200);
        let shown = format!("round {round}: {limits:?}, cost {cost}: {tally:?}");
        assert_eq!((tally.allowed, tally.denied), (expected, 200 - expected), "{shown}");
        assert_eq!(target.count() - before, expected, "{shown}");
        let usage = app.business("GET", &format!("/api/v1/usage?customer_id={customer}"), None, 200);
        let shown_limits = usage["metrics"][0]["limits"].as_array().unwrap();
        assert_eq!(shown_limits.len(), periods.len());
        for limit in shown_limits {
            // A window that ended meanwhile is entered anew; a level never is.
            let used = limit["current_usage"].as_i64().unwrap();
            assert_eq!(used, i64::try_from(expected).unwrap() * cost, "{shown}: {limit}");
        }
    }
    app.node.verify();
}

#[test]
fn a_limit_of_one_raced_for_a_thousand_customers_admits_one_each() {
    const CUSTOMERS: usize = 1_000;
    const RACERS: usize = 4;
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1, "yearly");
    let mut client = app.client();
    let mut key_of = |customer: usize| {
        let path = format!("/api/v1/customers/customer_{customer}/keys");
        text(&made(&mut client, &app.business_key, &path, &json!({})), "api_key")
    };
    let keys: Arc<Vec<String>> = Arc::new((0..CUSTOMERS).map(&mut key_of).collect());
    let body = envelope(&target.url("/echo"), 1);
    let raced = Arc::clone(&keys);
    // Attempts 0 to 3 are of customer 0, and so on: four connections meet at each.
    let tally = Load::start(app.node.address, RACERS, CUSTOMERS * RACERS, move |number, client| {
        call(client, &raced[number / RACERS], &body)
    })
    .wait();
    assert_eq!((tally.allowed, tally.denied), (CUSTOMERS, CUSTOMERS * (RACERS - 1)), "{tally:?}");
    let mut arrived: HashMap<String, usize> = HashMap::new();
    for arrival in target.arrivals() {
        *arrived.entry(arrival.header("x-tracktags-customer-id").to_owned()).or_default() += 1;
    }
    assert_eq!(arrived.len(), CUSTOMERS);
    assert!(arrived.values().all(|count| *count == 1), "exactly one each");
    let counters = app.node.sql("SELECT count(*) FROM customers");
    assert_eq!(counters, CUSTOMERS.to_string());
    for customer in (0..CUSTOMERS).step_by(97) {
        assert_eq!(app.usage(&format!("customer_{customer}")), 1);
    }
    app.node.verify();
}
