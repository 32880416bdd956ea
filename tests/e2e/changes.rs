//! A change holds on the very next request: by the API, by plain SQL from another process, under load; and no change
//! loses usage.

#![cfg(test)]

use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracktags_tests::load::Load;
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{TestApp, call, envelope, text, wait_until};

/// Calls of other customers, all the while.
fn background(app: &TestApp, target: &str, connections: usize) -> Load {
    let key = app.customer_key("background");
    let body = envelope(target, 1);
    Load::start(app.node.address, connections, usize::MAX, move |_, client| call(client, &key, &body))
}

#[test]
fn a_changed_limit_holds_on_the_next_request() {
    let app = TestApp::new();
    let target = Upstream::start();
    let id = app.limit("api_calls", 1_000_000, "yearly");
    let load = background(&app, &target.url("/echo"), 16);
    let key = app.customer_key("customer_1");
    let (mut caller, mut admin) = (app.client(), app.client());
    let body = envelope(&target.url("/echo"), 1);
    let path = format!("/api/v1/plan_limits/{id}");
    let mut held = 0;
    for change in 0..1_000 {
        // Closed and open in turn: 0 refuses everything, a million nothing.
        let value = if change % 2 == 0 { 0 } else { 1_000_000 };
        if change % 4 < 2 {
            let fields = json!({"limit_value": value});
            assert_eq!(admin.json("PUT", &path, &app.business_key, Some(&fields)).status, 200);
        } else {
            app.node.sql(&format!("UPDATE plan_limits SET limit_value = {value} WHERE id = '{id}'"));
        }
        let answer = call(&mut caller, &key, &body);
        let expected = if value == 0 { 429 } else { 200 };
        assert_eq!(answer.status, expected, "change {change}: {}", answer.text());
        held += 1;
    }
    assert_eq!(held, 1_000);
    let tally = load.stop();
    assert_eq!(tally.unknown + tally.refused, 0, "{tally:?}");
    app.node.verify();
}

#[test]
fn revoked_keys_plans_and_subscriptions_hold_on_the_next_request() {
    let app = TestApp::new();
    let target = Upstream::start();
    let mut caller = app.client();
    let body = envelope(&target.url("/echo"), 1);
    let plan = |name: &str, free: bool, value: i64| {
        let id = app.plan(name, free);
        let _limit = app.limit_with(&json!({"metric_name": "api_calls", "limit_value": value,
            "limit_period": "yearly", "plan_id": id}));
        id
    };
    let (free, paid) = (plan("Free", true, 0), plan("Paid", false, 1_000));
    let load = background(&app, &target.url("/echo"), 8);
    for round in 0..25 {
        let customer = format!("customer_{round}");
        let key = app.customer_key(&customer);
        let first = call(&mut caller, &key, &body);
        assert_eq!(first.status, 200, "no plan, no limit: {}", first.text());
        let mut status = || call(&mut caller, &key, &body).status;
        app.node.sql(&format!("UPDATE customers SET plan_id = '{free}' WHERE customer_id = '{customer}'"));
        assert_eq!(status(), 429, "the free plan admits nothing");
        let fields = json!({"plan_id": paid});
        let _changed = app.business("PUT", &format!("/api/v1/customers/{customer}"), Some(&fields), 200);
        assert_eq!(status(), 200, "the paid plan");
        app.node.sql(&format!("UPDATE customers SET subscription_ends_at = '2020-01-01 00:00:00' WHERE customer_id = '{customer}'"));
        assert_eq!(status(), 429, "the subscription ended");
        let fields = json!({"subscription_ends_at": "2100-01-01T00:00:00Z"});
        let _changed = app.business("PUT", &format!("/api/v1/customers/{customer}"), Some(&fields), 200);
        assert_eq!(status(), 200, "a later date restores the plan");
        if round % 2 == 0 {
            let keys = app.business("GET", &format!("/api/v1/customers/{customer}/keys"), None, 200);
            let path = format!("/api/v1/customers/{customer}/keys/{}", text(&keys["keys"][0], "id"));
            let _revoked = app.business("DELETE", &path, None, 200);
        } else {
            app.node.sql(&format!(
                "UPDATE customer_keys SET revoked_at = datetime('now') WHERE customer_id = '{customer}'"
            ));
        }
        assert_eq!(status(), 401, "the key is revoked");
        let read = app.client().json("GET", "/api/v1/usage", &key, None);
        assert_eq!((read.status, read.code().as_str()), (401, "invalid_key"), "for reads too");
    }
    let tally = load.stop();
    assert_eq!(tally.unknown + tally.refused, 0, "{tally:?}");
}

/// How a key ends.
const ENDS: [&str; 3] = ["revoked", "revoked by SQL", "rotated"];

#[test]
fn a_key_that_ended_admits_and_reads_nothing_from_the_next_request_on() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1_000_000, "yearly");
    let load = background(&app, &target.url("/echo"), 16);
    let calls = Upstream::start();
    let (mut caller, mut admin) = (app.client(), app.client());
    let body = envelope(&calls.url("/echo"), 1);
    let keys = "/api/v1/customers/customer_1/keys";
    let (mut ended, mut admitted) = (0, 0);
    for turn in 0..1_000 {
        let made = admin.json("POST", keys, &app.business_key, None).json();
        let (id, key) = (text(&made, "key_id"), text(&made, "api_key"));
        // The node knows it, and the next call would be decided by what it knows.
        assert_eq!(call(&mut caller, &key, &body).status, 200);
        admitted += 1;
        assert_eq!(caller.json("GET", "/api/v1/usage", &key, None).status, 200);
        let mut successor = None;
        match ENDS[turn % 3] {
            "revoked" => {
                let gone = admin.json("DELETE", &format!("{keys}/{id}"), &app.business_key, None);
                assert_eq!(gone.status, 200, "{}", gone.text());
            }
            "rotated" => {
                let at_once = json!({"grace_seconds": 0});
                let path = format!("{keys}/{id}/rotate");
                let rotated = admin.json("POST", &path, &app.business_key, Some(&at_once));
                assert_eq!(rotated.status, 201, "{}", rotated.text());
                successor = Some((text(&rotated.json(), "key_id"), text(&rotated.json(), "api_key")));
            }
            _ => drop(
                app.node
                    .sql(&format!("UPDATE customer_keys SET revoked_at = datetime('now') WHERE id = '{id}'")),
            ),
        }
        let refused = call(&mut caller, &key, &body);
        assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_key"), "turn {turn}");
        assert_eq!(caller.json("GET", "/api/v1/usage", &key, None).status, 401, "turn {turn}");
        ended += 1;
        if let Some((id, key)) = successor {
            assert_eq!(call(&mut caller, &key, &body).status, 200, "turn {turn}");
            admitted += 1;
            let gone = admin.json("DELETE", &format!("{keys}/{id}"), &app.business_key, None);
            assert_eq!(gone.status, 200, "{}", gone.text());
        }
    }
    let tally = load.stop();
    println!("{ended} keys ended, {admitted} calls admitted before, beside {} others", tally.allowed);
    assert_eq!(calls.count(), admitted, "the target saw none besides");
    assert_eq!(
        app.usage("customer_1"),
        i64::try_from(admitted).unwrap(),
        "all keys share the customer's usage"
    );
    app.node.verify();
}

#[test]
fn a_key_expires_at_its_time() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1_000_000, "yearly");
    let body = envelope(&target.url("/echo"), 1);
    let mut client = app.client();
    for turn in 0..20 {
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(300);
        let fields = json!({"expires_at": end.to_string()});
        let made = app.business("POST", &format!("/api/v1/customers/c{turn}/keys"), Some(&fields), 201);
        let key = text(&made, "api_key");
        wait_until("it has expired", Duration::from_secs(5), || {
            let (before, answer) = (jiff::Timestamp::now(), call(&mut client, &key, &body));
            let after = jiff::Timestamp::now();
            match answer.status {
                200 => assert!(before < end, "admitted after its end"),
                401 => assert!(after >= end, "refused before its end"),
                other => panic!("{other}: {}", answer.text()),
            }
            answer.status == 401
        });
        assert_eq!(client.json("GET", "/api/v1/usage", &key, None).status, 401);
    }
}

#[test]
fn a_subscription_ends_between_two_calls() {
    let app = TestApp::new();
    let target = Upstream::start();
    let (free, paid) = (app.plan("Free", true), app.plan("Paid", false));
    for (plan, value) in [(&free, 0), (&paid, 1_000)] {
        let _limit =
            app.limit_with(&json!({"metric_name": "api_calls", "limit_value": value, "plan_id": plan}));
    }
    let key = app.customer_key("customer_1");
    // Times are whole seconds in SQL: two seconds from now at most.
    let ends = app.node.sql("SELECT strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '+2 seconds')");
    let fields = json!({"plan_id": paid, "subscription_ends_at": ends});
    let _customer = app.business("PUT", "/api/v1/customers/customer_1", Some(&fields), 200);
    let mut caller = app.client();
    let body = envelope(&target.url("/echo"), 1);
    let mut before = 0;
    wait_until("the free plan holds", Duration::from_secs(5), || {
        let status = call(&mut caller, &key, &body).status;
        before += usize::from(status == 200);
        status == 429
    });
    assert!(before > 0, "the paid plan held until then");
}

#[test]
fn no_change_loses_the_windows_usage() {
    let app = TestApp::new();
    let target = Upstream::start();
    let key = app.customer_key("customer_1");
    let mut caller = app.client();
    let body = envelope(&target.url("/echo"), 1);
    let first = app.limit("api_calls", 1_000, "yearly");
    for _ in 0..7 {
        assert_eq!(call(&mut caller, &key, &body).status, 200);
    }
    // A limit that SQL inserts in the middle of a window sees all of it.
    app.node.sql(&format!(
        "INSERT INTO plan_limits (business_id, metric_name, limit_value, limit_period, breach_operator, breach_action) \
         VALUES ('{}', 'api_calls', 8, 'monthly', 'gte', 'deny')",
        app.business_id
    ));
    let eighth = call(&mut caller, &key, &body);
    assert_eq!((eighth.status, eighth.json()["breach_status"]["current_usage"].as_i64()), (200, Some(8)));
    assert_eq!(call(&mut caller, &key, &body).status, 429);
    // Deleted and made again.
    let _deleted = app.business("DELETE", &format!("/api/v1/plan_limits/{first}"), None, 200);
    let again = app.limit("api_calls", 8, "yearly");
    let denied = call(&mut caller, &key, &body);
    assert_eq!((denied.status, denied.json()["limits"][1]["current_usage"].as_i64()), (429, Some(8)));
    let _deleted = app.business("DELETE", &format!("/api/v1/plan_limits/{again}"), None, 200);
    app.node.sql("DELETE FROM plan_limits WHERE limit_period = 'monthly'");
    // A plan changed and changed back.
    let mut plans = Vec::new();
    for (name, value) in [("A", 10), ("B", 100)] {
        let plan = app.plan(name, false);
        let _limit =
            app.limit_with(&json!({"metric_name": "api_calls", "limit_value": value, "plan_id": plan}));
        plans.push(plan);
    }
    for (plan, remaining) in [(&plans[0], 1), (&plans[1], 90), (&plans[0], 0)] {
        let _changed =
            app.business("PUT", "/api/v1/customers/customer_1", Some(&json!({"plan_id": plan})), 200);
        let answer = call(&mut caller, &key, &body);
        if answer.status == 200 {
            assert_eq!(
                answer.json()["breach_status"]["remaining"].as_i64(),
                Some(remaining),
                "{}",
                answer.text()
            );
        } else {
            assert_eq!(remaining, 0, "{}", answer.text());
            assert_eq!(answer.json()["breach_status"]["current_usage"].as_i64(), Some(10));
        }
    }
    app.node.verify();
}

#[test]
fn plain_sql_gets_through_a_saturated_engine() {
    const UPDATES: usize = 100;
    const PASSED_BETWEEN: usize = 10;
    let app = TestApp::new();
    let target = Upstream::start();
    let id = app.limit("api_calls", 100_000_000, "yearly");
    let keys: Arc<Vec<String>> =
        Arc::new((0..64).map(|n| app.customer_key(&format!("customer_{n}"))).collect());
    let body = envelope(&target.url("/echo"), 1);
    let load = Load::start(app.node.address, 256, usize::MAX, move |number, client| {
        call(client, &keys[number % keys.len()], &body)
    });
    let (mut waits, mut largest) = (Vec::new(), 0);
    for update in 0..UPDATES {
        #[expect(clippy::disallowed_methods, reason = "measures an update")]
        let began = Instant::now();
        let value = 100_000_000 + update;
        app.node.sql(&format!("UPDATE plan_limits SET limit_value = {value} WHERE id = '{id}'"));
        waits.push(began.elapsed());
        largest = largest.max(app.node.wal_bytes());
        // Calls get through between any two updates, however fast those follow each other on this machine.
        let before = target.count();
        wait_until("calls get through", Duration::from_secs(20), || {
            target.count() >= before + PASSED_BETWEEN
        });
    }
    let tally = load.stop();
    waits.sort();
    let p99 = waits[UPDATES - 2];
    println!("{UPDATES} updates, p50 {:?}, p99 {p99:?}, log {largest} bytes, {tally:?}", waits[UPDATES / 2]);
    assert!(p99 <= Duration::from_secs(2), "{p99:?}");
    assert!(largest < 64 << 20, "{largest}");
    assert!(tally.allowed >= UPDATES * PASSED_BETWEEN && tally.unknown == 0, "{tally:?}");
    app.node.verify();
}
