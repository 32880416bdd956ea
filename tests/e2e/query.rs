//! `check` and `track`: a demand without a call. One asks and takes nothing, the other counts for good.

#![cfg(test)]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tracktags_tests::http::{Client, Response};
use tracktags_tests::load::Load;
use tracktags_tests::{TestApp, seed};

const CHECK: &str = "/api/v1/check";
const TRACK: &str = "/api/v1/track";

fn post(client: &mut Client, path: &str, key: &str, body: &Value) -> Response {
    client.json("POST", path, key, Some(body))
}

#[test]
fn a_check_says_what_a_call_would_meet_and_takes_nothing() {
    let app = TestApp::new();
    let key = app.customer_key("customer_123");
    let _id = app.limit("api_calls", 3, "monthly");
    let mut client = app.client();
    for (units, allowed) in [(0, true), (1, true), (3, true), (4, false)] {
        let answer = post(&mut client, CHECK, &key, &json!({"metric_name": "api_calls", "units": units}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let word = if allowed { "allowed" } else { "denied" };
        assert_eq!(answer.header("x-tracktags-status"), Some(word));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some("3"));
        let shown = answer.json();
        assert_eq!((&shown["allowed"], &shown["status"]), (&json!(allowed), &json!(word)), "{shown}");
        assert_eq!((&shown["units"], &shown["breach_status"]["current_usage"]), (&json!(units), &json!(0)));
        // Four units never fit a limit of three: time cures nothing.
        assert!(shown.get("retry_after").is_none(), "{shown}");
    }
    let tracked = json!({"customer_id": "customer_123", "metric_name": "api_calls", "units": 3});
    let answer = post(&mut client, TRACK, &app.business_key, &tracked);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = answer.json();
    assert_eq!(shown["status"], "allowed");
    assert_eq!((&shown["metric_name"], &shown["customer_id"]), (&json!("api_calls"), &json!("customer_123")));
    assert_eq!((&shown["units"], &shown["breach_status"]["remaining"]), (&json!(3), &json!(0)));
    // Full: even nothing more would be in breach, and the window's end is when to come back.
    for units in [0, 1] {
        let shown =
            post(&mut client, CHECK, &key, &json!({"metric_name": "api_calls", "units": units})).json();
        assert_eq!(shown["allowed"], false, "{shown}");
        assert!(shown["retry_after"].as_i64().is_some_and(|seconds| seconds > 0), "{shown}");
    }
    // All limits at once, with a business key too; nothing of it was counted.
    for (key, body) in [(&key, json!({})), (&app.business_key, json!({"customer_id": "customer_123"}))] {
        assert_eq!(post(&mut client, CHECK, key, &body).json()["allowed"], false);
    }
    assert_eq!(app.usage("customer_123"), 3);
    let denied = post(&mut client, TRACK, &app.business_key, &tracked);
    assert_eq!((denied.status, denied.code().as_str()), (429, "limit_exceeded"));
    assert!(denied.header("retry-after").is_some(), "three units fit once the window has ended");
    app.node.verify();
}

#[test]
fn a_business_has_an_account_of_its_own() {
    let app = TestApp::new();
    let _id = app.limit("jobs", 10, "daily");
    let mut client = app.client();
    let shown =
        post(&mut client, TRACK, &app.business_key, &json!({"metric_name": "jobs", "units": 4})).json();
    assert_eq!((&shown["customer_id"], &shown["breach_status"]["current_usage"]), (&json!(null), &json!(4)));
    let shown =
        post(&mut client, CHECK, &app.business_key, &json!({"metric_name": "jobs", "scope": "business"}))
            .json();
    assert_eq!((&shown["allowed"], &shown["breach_status"]["remaining"]), (&json!(true), &json!(6)));
}

#[test]
fn what_cannot_be_asked_is_refused_and_counts_nothing() {
    let app = TestApp::new();
    let key = app.customer_key("customer_123");
    let _other = app.customer_key("another");
    let _id = app.limit("api_calls", 3, "monthly");
    let mut client = app.client();
    let business = app.business_key.clone();
    for (path, key, body, status, code) in [
        (TRACK, &key, json!({"metric_name": "api_calls"}), 403, "forbidden"),
        (TRACK, &business, json!({}), 400, "validation_failed"),
        (TRACK, &business, json!({"metric_name": "api_calls", "units": 0}), 400, "validation_failed"),
        (TRACK, &business, json!({"metric_name": "api_calls", "units": 0.5}), 400, "not_integral"),
        (TRACK, &business, json!({"metric_name": "api_calls", "units": "1"}), 400, "validation_failed"),
        (TRACK, &business, json!({"metric_name": "api_calls", "unit": 1}), 400, "unknown_field"),
        (TRACK, &business, json!({"metric_name": "nothing"}), 404, "metric_not_found"),
        (
            TRACK,
            &business,
            json!({"metric_name": "api_calls", "customer_id": "nobody"}),
            404,
            "customer_not_found",
        ),
        (
            TRACK,
            &business,
            json!({"metric_name": "api_calls", "scope": "customer"}),
            400,
            "validation_failed",
        ),
        (CHECK, &key, json!({"metric_name": "nothing"}), 404, "metric_not_found"),
        (CHECK, &key, json!({"customer_id": "another"}), 403, "customer_mismatch"),
        (CHECK, &key, json!({"scope": "business"}), 403, "customer_mismatch"),
        (CHECK, &key, json!({"units": -1}), 400, "validation_failed"),
        (CHECK, &key, json!({"units": 9_007_199_254_740_992_i64}), 400, "validation_failed"),
    ] {
        let answer = post(&mut client, path, key, &body);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path} {body}");
        assert_eq!(answer.header("x-tracktags-status"), Some("error"), "{path} {body}");
    }
    let authorization = format!("Bearer {business}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("idempotency-key", "job-1"),
    ];
    let answer = client.send("POST", TRACK, &headers, br#"{"metric_name":"api_calls"}"#);
    assert_eq!((answer.status, answer.code().as_str()), (400, "validation_failed"));
    let admin =
        client.admin("POST", TRACK, &app.node.admin_key(), Some(&json!({"metric_name": "api_calls"})));
    assert_eq!((admin.status, admin.code().as_str()), (403, "forbidden"));
    assert_eq!((app.usage("customer_123"), app.usage("another")), (0, 0));
}

#[test]
fn tracks_with_mixed_costs_fill_a_limit_exactly() {
    const CALLS: usize = 3_000;
    let app = TestApp::new();
    let mut rng = StdRng::seed_from_u64(seed());
    let _key = app.customer_key("customer_1");
    for round in 0..4 {
        let metric = format!("tokens_{round}");
        let limit = rng.random_range(1_000..=6_000);
        let _id = app.limit(&metric, limit, "yearly");
        let costs: Vec<i64> = (0..CALLS).map(|_| rng.random_range(1..=5)).collect();
        let key = app.business_key.clone();
        let sent = costs.clone();
        let name = metric.clone();
        let tally = Load::start(app.node.address, 256, CALLS, move |number, client| {
            let body = json!({"metric_name": name, "customer_id": "customer_1", "units": sent[number]});
            post(client, TRACK, &key, &body)
        })
        .wait();
        assert_eq!(tally.allowed + tally.denied, CALLS, "{tally:?}");
        // A demand of one unit fits while anything is free, and there were enough of them: it is full to the unit,
        // unless all demands together asked for less.
        let demanded: i64 = costs.iter().sum();
        let usage = app.business("GET", "/api/v1/usage?customer_id=customer_1", None, 200);
        let of_metric = |shown: &Value| {
            let metrics = shown["metrics"].as_array().unwrap().clone();
            metrics.into_iter().find(|shown| shown["metric_name"] == metric.as_str()).unwrap()
        };
        let counted = of_metric(&usage)["current_value"].as_i64().unwrap();
        assert_eq!(counted, demanded.min(limit), "round {round}: {tally:?}");
    }
    app.node.verify();
}
