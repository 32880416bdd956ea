//! Settlement: what the target did decides whether the units are kept; a caller who leaves changes nothing.

use serde_json::json;
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp, call, envelope, wait_until};

/// A behaviour of the target, the status and code we answer with, and whether the unit is kept.
const CELLS: &[(&str, u16, &str, bool)] = &[
    ("/echo", 200, "", true),
    ("/status/200", 200, "", true),
    ("/status/301", 200, "", true),
    ("/status/404", 200, "", true),
    ("/status/429", 200, "", true),
    ("/status/499", 200, "", true),
    ("/status/500", 200, "", false),
    ("/status/503", 200, "", false),
    ("/status/599", 200, "", false),
    ("/reset", 502, "upstream_unreachable", false),
    ("/gone", 502, "upstream_unreachable", false),
    ("/garbage", 502, "upstream_invalid_response", false),
    ("/short", 502, "upstream_incomplete", true),
    ("/large", 502, "response_too_large", true),
    ("/hang", 504, "upstream_timeout", true),
    ("/slow", 504, "upstream_timeout", true),
];

fn quick() -> NodeOptions {
    NodeOptions::default().set("PROXY__FIRST_BYTE_TIMEOUT_MS", "500").set("PROXY__TOTAL_TIMEOUT_MS", "900")
}

#[test]
fn every_outcome_keeps_or_releases_as_it_must() {
    let app = TestApp::with(quick());
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1_000, "monthly");
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    let mut counted = 0;
    for (path, status, code, kept) in CELLS {
        counted += i64::from(*kept);
        let answer = call(&mut client, &key, &envelope(&target.url(path), 1));
        let shown = format!("{path}: {}", answer.text());
        assert_eq!(answer.status, *status, "{shown}");
        assert_eq!(answer.code(), *code, "{shown}");
        let state = if *status == 200 { "allowed" } else { "failed" };
        assert_eq!(answer.json()["status"], state, "{shown}");
        assert_eq!(answer.header("x-tracktags-status"), Some(state), "{shown}");
        assert_eq!(answer.json()["breach_status"]["current_usage"], counted, "{shown}");
        assert_eq!(app.usage("customer_1"), counted, "{shown}");
        assert_eq!(app.usage_of("customer_1", "held"), 0, "{shown}");
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = call(&mut client, &key, &envelope(&format!("http://{free}/"), 1));
    assert_eq!((refused.status, refused.code().as_str()), (502, "upstream_unreachable"));
    let unresolved = call(&mut client, &key, &envelope("http://no-such-name.invalid/", 1));
    assert!(matches!(unresolved.status, 502 | 504), "{}", unresolved.text());
    let tls = call(&mut client, &key, &envelope(&target.url("/echo").replace("http:", "https:"), 1));
    assert!(matches!(tls.status, 502 | 504), "{}", tls.text());
    assert_eq!(app.usage("customer_1"), counted, "what was never sent is not counted");
    app.node.verify();
}

#[test]
fn a_denied_or_refused_call_reaches_nobody() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 0, "monthly");
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    for body in [
        envelope(&target.url("/echo"), 1),
        json!({"metric_name": "unknown_metric", "target_url": target.url("/echo")}),
        json!({"metric_name": "API_CALLS", "target_url": target.url("/echo")}),
        json!({"metric_name": "api_calls", "target_url": target.url("/echo"), "scope": "business"}),
        json!({"metric_name": "api_calls", "target_url": target.url("/echo"), "units": 0}),
        json!({"metric_name": "api_calls", "target_url": target.url("/echo"), "units": -1}),
        json!({"metric_name": "api_calls", "target_url": target.url("/echo"), "units": 1.5}),
        json!({"metric_name": "api_calls", "target_url": target.url("/echo"), "units": 9_007_199_254_740_992_i64}),
        json!({"metric_name": "api_calls", "target_url": target.url("/echo"), "method": "TRACE"}),
        json!({"metric_name": "api_calls", "target_url": target.url("/echo"), "headers": {"a\r\nb": "c"}}),
        json!({"metric_name": "api_calls", "target_url": target.url("/echo"), "headers": {"a": "b\r\nc: d"}}),
    ] {
        let answer = call(&mut client, &key, &body);
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.text());
    }
    assert_eq!(target.count(), 0);
    assert_eq!(app.usage("customer_1"), 0);
}

#[test]
fn a_caller_who_leaves_at_any_point_changes_nothing() {
    const POINTS: usize = 20;
    let app = TestApp::with(quick());
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1_000, "monthly");
    let key = app.customer_key("customer_1");
    let body = envelope(&target.url("/echo"), 1).to_string();
    let request = format!(
        "POST /api/v1/proxy HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    for point in 0..POINTS {
        let mut stream = tracktags_tests::http::connect(app.node.address).unwrap();
        // The first ten points cut the request itself; later ones leave at once after it was sent whole.
        let cut = if point < 10 { request.len() * point / 10 } else { request.len() };
        stream.get_mut().write_all(&request.as_bytes()[..cut]).unwrap();
        drop(stream);
    }
    let settled = || app.usage_of("customer_1", "held") == 0 && app.usage("customer_1") == i64::try_from(target.count()).unwrap();
    wait_until("everything settles", Duration::from_secs(5), settled);
    let whole = app.usage("customer_1");
    assert!(whole <= 10, "at most the ten that were sent whole: {whole}");
    app.node.verify();
}

#[test]
fn nothing_is_unsettled_a_second_after_load() {
    let app = TestApp::with(quick());
    let target = Upstream::start();
    let _id = app.limit("api_calls", 100_000, "monthly");
    let key = app.customer_key("customer_1");
    let paths = ["/echo", "/status/500", "/gone", "/short", "/status/404"];
    let bodies: Vec<_> = paths.iter().map(|path| envelope(&target.url(path), 2)).collect();
    let tally = tracktags_tests::load::Load::start(app.node.address, 64, 2_000, move |number, client| {
        let answer = call(client, &key, &bodies[number % bodies.len()]);
        (answer.status, answer.code())
    })
    .wait();
    assert_eq!(tally.unknown, 0, "{tally:?}");
    wait_until("none is open", Duration::from_secs(1), || app.usage_of("customer_1", "held") == 0);
    // Echo, short and 404 are kept: three of five, two units each.
    assert_eq!(app.usage("customer_1"), 2_000 / 5 * 3 * 2);
    app.node.verify();
}
