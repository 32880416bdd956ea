//! What takes too long for every change: `scripts/test --soak` runs it, with longer fuzzing, more images and more runs
//! of the simulator.

#![cfg(test)]

use serde_json::json;
use std::time::Duration;
use tracktags_tests::http::request;
use tracktags_tests::overload::{Class, Pace, Plan, Tally, run};
use tracktags_tests::process::{descriptors, resident_bytes};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp};

const MINUTES: usize = 10;
/// Minutes in which caches and allocator fill.
const FILLING_MINUTES: usize = 3;
const CUSTOMERS: usize = 1_000;
const CONNECTIONS: usize = 64;
/// R44: what resident memory may grow by in a minute.
const GROWTH_BYTES_MAX: u64 = 1 << 20;

/// Half of them recorded, half of them proxied, by as many customers.
fn requests(app: &TestApp, target: &Upstream) -> Vec<Vec<u8>> {
    let authorization = format!("Bearer {}", app.business_key);
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let made = |customer: usize| {
        let mut body = json!({"metric_name": "api_calls", "customer_id": format!("c{customer}")});
        let path = if customer.is_multiple_of(2) { "/api/v1/track" } else { "/api/v1/proxy" };
        if path.ends_with("proxy") {
            body["target_url"] = json!(target.url("/echo"));
            body["scope"] = json!("customer");
        }
        request(app.node.address, "POST", path, &headers, body.to_string().as_bytes())
    };
    (0..CUSTOMERS).map(made).collect()
}

fn load(app: &TestApp, pace: Pace, requests: &[Vec<u8>], lasts: Duration) -> Tally {
    let class = Class {
        pace,
        requests: requests.to_vec(),
        connections: CONNECTIONS,
        connections_max: 8 * CONNECTIONS,
    };
    let plan = Plan {
        address: app.node.address,
        classes: vec![class],
        lasts,
        answers_within: Duration::from_secs(10),
    };
    run(&plan).unwrap().remove(0)
}

#[test]
fn ten_minutes_at_sixty_percent_leak_nothing() {
    let app = TestApp::with(NodeOptions::default());
    let _limit = app.limit("api_calls", 1_000_000_000, "yearly");
    for customer in 0..CUSTOMERS {
        let _key = app.customer_key(&format!("c{customer}"));
    }
    let target = Upstream::forgetful();
    let requests = requests(&app, &target);
    let capacity = load(&app, Pace::Closed, &requests, Duration::from_secs(10)).count(200) / 10;
    let pace = u32::try_from(capacity * 6 / 10).unwrap();
    println!("capacity: {capacity} calls a second, load: {pace}");
    let id = app.node.id().unwrap();
    let mut seen = Vec::new();
    for minute in 1..=MINUTES {
        let tally = load(&app, Pace::PerSecond(pace), &requests, Duration::from_secs(60));
        assert_eq!(tally.lost(), 0, "minute {minute}: {tally}");
        assert_eq!(tally.count(200), tally.answers.len(), "minute {minute}: {tally}");
        seen.push((resident_bytes(id), descriptors(id)));
        println!("minute {minute}: {tally}; {:?}", seen.last());
    }
    let (filled, held) = seen[FILLING_MINUTES - 1];
    let (resident, open) = seen[MINUTES - 1];
    let grown = resident.saturating_sub(filled) / (MINUTES - FILLING_MINUTES) as u64;
    println!("resident memory grew by {grown} bytes a minute");
    assert!(grown <= GROWTH_BYTES_MAX, "{seen:?}");
    // Connections to the target come and go with the load's own.
    assert!(open <= held + CONNECTIONS, "{seen:?}");
    app.node.verify();
}
