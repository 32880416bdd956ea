//! What the server measures of itself.

#![cfg(test)]

use serde_json::json;
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp, call, envelope};

#[test]
fn requests_decisions_targets_and_batches_are_measured() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 3, "monthly");
    let key = app.customer_key("customer_of_whom_nothing_is_told");
    let mut client = app.client();
    for expected in [200, 200, 200, 429, 429] {
        assert_eq!(call(&mut client, &key, &envelope(&target.url("/echo"), 1)).status, expected);
    }
    assert_eq!(call(&mut client, &key, &json!({"target_url": 1})).status, 400);
    assert_eq!(client.send("GET", "/no/such/path", &[], b"").status, 404);
    let answer = client.admin("GET", "/metrics", &app.node.admin_key(), None);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let text = answer.text();
    let proxy = |status: u16, decision: &str| {
        format!(
            "tracktags_http_requests_total{{route=\"/api/v1/proxy\",method=\"POST\",status=\"{status}\",decision=\"{decision}\"}}"
        )
    };
    for (line, count) in [
        (proxy(200, "allowed"), 3),
        (proxy(429, "denied"), 2),
        (proxy(400, "error"), 1),
        ("tracktags_upstream_calls_total{outcome=\"answered\"}".to_owned(), 3),
        ("tracktags_ready".to_owned(), 1),
        ("tracktags_unsettled_calls".to_owned(), 0),
        ("tracktags_admission_queue_waiting".to_owned(), 0),
    ] {
        assert!(text.contains(&format!("{line} {count}\n")), "{line} {count}: {text}");
    }
    for name in [
        "route=\"/api/v1/plan_limits\"",
        "route=\"none\"",
        "tracktags_store_batch_seconds_count",
        "tracktags_store_batch_operations_sum",
        "tracktags_store_wal_bytes",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
    for secret in ["customer_of_whom", &app.business_id, &key] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[test]
fn what_is_measured_is_the_admins_unless_it_is_made_public() {
    let app = TestApp::new();
    let mut client = app.client();
    assert_eq!(client.send("GET", "/metrics", &[], b"").status, 401);
    assert_eq!(client.json("GET", "/metrics", &app.business_key, None).status, 403);
    let app = TestApp::with(NodeOptions::default().set("SERVER__METRICS_PUBLIC", "true"));
    assert_eq!(app.client().send("GET", "/metrics", &[], b"").status, 200);
}
