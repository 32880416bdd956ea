//! Three nodes on one PostgreSQL: exact together, also while one is killed or stopped between two statements.

#![cfg(test)]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::process::Command;
use std::time::Duration;
use tracktags_tests::cluster::Cluster;
use tracktags_tests::load::{Load, Tally};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{call, envelope, seed, text, wait_until};

const NODES: usize = 3;
const TRIALS: usize = 10;

/// A customer with a limit of its own; its key.
fn customer(cluster: &Cluster, id: &str, limit: i64) -> String {
    let mut client = cluster.nodes[0].client();
    let made = client.json("POST", &format!("/api/v1/customers/{id}/keys"), &cluster.business_key, None);
    assert_eq!(made.status, 201, "{}", made.text());
    let fields = json!({"metric_name": "api_calls", "limit_value": limit, "limit_period": "yearly", "customer_id": id});
    let limited = client.json("POST", "/api/v1/plan_limits", &cluster.business_key, Some(&fields));
    assert_eq!(limited.status, 201, "{}", limited.text());
    text(&made.json(), "api_key")
}

/// So many calls of one unit at each node, from as many connections together as three nodes have.
fn race(cluster: &Cluster, key: &str, target: &Upstream, calls: usize) -> Vec<Load> {
    let start = |node: &tracktags_tests::Node| {
        let (key, body) = (key.to_owned(), envelope(&target.url("/echo"), 1));
        Load::start(node.address, 128 / NODES, calls, move |_, client| call(client, &key, &body))
    };
    cluster.nodes.iter().map(start).collect()
}

fn ended(loads: Vec<Load>) -> Tally {
    let mut sum = Tally::default();
    for load in loads {
        sum.add(&load.wait());
    }
    sum
}

fn counted(cluster: &Cluster, node: usize, id: &str) -> usize {
    let path = format!("/api/v1/usage?customer_id={id}");
    let usage = cluster.nodes[node].client().json("GET", &path, &cluster.business_key, None).json();
    usize::try_from(usage["metrics"][0]["current_value"].as_i64().unwrap_or_default()).unwrap()
}

#[test]
fn three_nodes_are_exact_together() {
    let cluster = Cluster::start(NODES);
    let target = Upstream::start();
    let mut rng = StdRng::seed_from_u64(seed());
    for trial in 0..TRIALS {
        let calls = rng.random_range(20..=300);
        let limit = rng.random_range(0..=calls * NODES + 5);
        let id = format!("trial_{trial}");
        let key = customer(&cluster, &id, i64::try_from(limit).unwrap());
        let before = target.count();
        let tally = ended(race(&cluster, &key, &target, calls));
        let expected = limit.min(calls * NODES);
        let shown = format!("trial {trial}: limit {limit}, {calls} calls at each node: {tally:?}");
        assert_eq!((tally.allowed, tally.denied), (expected, calls * NODES - expected), "{shown}");
        assert_eq!((target.count() - before, counted(&cluster, 1, &id)), (expected, expected), "{shown}");
    }
    cluster.verify();
}

#[test]
fn a_node_that_is_killed_or_stopped_sells_nothing_twice_and_holds_up_nobody() {
    let mut cluster = Cluster::start(NODES);
    let target = Upstream::start();
    for (trial, signal) in ["KILL", "STOP", "KILL", "STOP", "KILL", "KILL"].into_iter().enumerate() {
        let (id, limit) = (format!("trial_{trial}"), 2_000);
        let key = customer(&cluster, &id, i64::try_from(limit).unwrap());
        let before = target.count();
        let loads = race(&cluster, &key, &target, 1_200);
        wait_until("the load runs", Duration::from_secs(20), || loads.iter().all(|load| load.begun() > 100));
        let hit = cluster.nodes[0].id().unwrap().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &hit]).status().unwrap().success());
        // The others go on: what the stopped one holds is free after a second.
        let begun = || loads[1].begun() + loads[2].begun();
        let at = begun();
        wait_until("the others serve on", Duration::from_millis(2_500), || {
            begun() > at + 50 || begun() >= 2_400
        });
        if signal == "STOP" {
            wait_until("the others are done", Duration::from_secs(30), || begun() >= 2_400);
            assert!(Command::new("kill").args(["-CONT", &hit]).status().unwrap().success());
        }
        let tally = ended(loads);
        let (used, arrived) = (counted(&cluster, 1, &id), target.count() - before);
        let shown = format!("trial {trial}, {signal}: counted {used}, arrived {arrived}, {tally:?}");
        assert!(tally.allowed <= used, "INV1: {shown}");
        assert!(used <= limit, "INV2: {shown}");
        assert!(used <= tally.allowed + tally.unknown, "INV3: {shown}");
        assert!(arrived <= used, "INV4: {shown}");
        if signal == "KILL" {
            cluster.nodes[0].kill();
            cluster.replace(0);
        }
    }
    cluster.verify();
}

#[test]
fn a_change_at_one_node_or_by_sql_holds_on_the_next_request_at_another() {
    let cluster = Cluster::start(2);
    let target = Upstream::start();
    let key = customer(&cluster, "customer_1", 0);
    let body = envelope(&target.url("/echo"), 1);
    let mut clients = [cluster.nodes[0].client(), cluster.nodes[1].client()];
    let limits = clients[0].json("GET", "/api/v1/plan_limits", &cluster.business_key, None).json();
    let limit = text(&limits["plan_limits"][0], "id");
    for round in 0..40_i64 {
        let at = usize::try_from(round % 2).unwrap();
        if round % 4 < 2 {
            let change = json!({"limit_value": round + 1});
            let path = format!("/api/v1/plan_limits/{limit}");
            let put = clients[at].json("PUT", &path, &cluster.business_key, Some(&change));
            assert_eq!(put.status, 200, "{}", put.text());
        } else {
            cluster.sql(&format!("UPDATE plan_limits SET limit_value = {}", round + 1));
        }
        let answer = call(&mut clients[1 - at], &key, &body);
        assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        let answer = call(&mut clients[at], &key, &body);
        assert_eq!(answer.status, 429, "round {round}: {}", answer.text());
    }
    // What no database keeps is no name.
    let found = clients[0].json("GET", "/api/v1/plan_limits/%00", &cluster.business_key, None);
    assert_eq!(found.status, 404, "{}", found.text());
    let found = clients[0].json("GET", "/api/v1/plan_limits?plan_id=%00", &cluster.business_key, None);
    assert!(found.status < 500, "{}", found.text());
    // A key revoked at one node is unknown at the other.
    let keys =
        clients[0].json("GET", "/api/v1/customers/customer_1/keys", &cluster.business_key, None).json();
    let path = format!("/api/v1/customers/customer_1/keys/{}", text(&keys["keys"][0], "id"));
    let revoked = clients[0].json("DELETE", &path, &cluster.business_key, None);
    assert!((200..300).contains(&revoked.status), "{}", revoked.text());
    assert_eq!(call(&mut clients[1], &key, &body).status, 401);
}
