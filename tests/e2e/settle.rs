//! Settlement: what the target did decides whether the units are kept; a caller who leaves changes nothing.

#![cfg(test)]

use serde_json::json;
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;
use tracktags_tests::http::{connect, request};
use tracktags_tests::load::Load;
use tracktags_tests::upstream::{READ_AHEAD_BYTES, Upstream};
use tracktags_tests::{NodeOptions, TestApp, call, envelope, wait_until};

/// A behaviour of the target, the status and code that we answer with, and whether the unit is kept: the column
/// `success` of docs/RELIABILITY.md §2.
const CELLS: &[(&str, u16, &str, bool)] = &[
    // An answer below 500, also if its body then breaks or is too large.
    ("/echo", 200, "", true),
    ("/interim", 200, "", true),
    ("/close", 200, "", true),
    ("/status/200", 200, "", true),
    ("/status/204", 200, "", true),
    ("/status/301", 200, "", true),
    ("/status/404", 200, "", true),
    ("/status/429", 200, "", true),
    ("/status/499", 200, "", true),
    ("/short", 502, "upstream_incomplete", true),
    ("/chunk", 502, "upstream_incomplete", true),
    ("/large", 502, "response_too_large", true),
    ("/slow", 504, "upstream_timeout", true),
    // An answer from 500 on.
    ("/status/500", 200, "", false),
    ("/status/503", 200, "", false),
    ("/status/599", 200, "", false),
    // Reset or closed before an answer head, or no valid head.
    ("/reset", 502, "upstream_unreachable", false),
    ("/gone", 502, "upstream_unreachable", false),
    ("/cut", 502, "", false),
    ("/garbage", 502, "upstream_invalid_response", false),
    // Our time limit, after the request was sent.
    ("/hang", 504, "upstream_timeout", true),
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
        let mut body = envelope(&target.url(path), 1);
        // More than the target reads at once: what is left unread makes it a reset.
        body["body"] = json!("x".repeat(20 * READ_AHEAD_BYTES));
        let before = target.count();
        let answer = call(&mut client, &key, &body);
        counted += i64::from(*kept);
        let shown = format!("{path}: {}", answer.text().chars().take(500).collect::<String>());
        assert_eq!(answer.status, *status, "{shown}");
        assert!(code.is_empty() || answer.code() == *code, "{shown}");
        let state = if *status == 200 { "allowed" } else { "failed" };
        assert_eq!(answer.json()["status"], state, "{shown}");
        assert_eq!(answer.header("x-tracktags-status"), Some(state), "{shown}");
        assert_eq!(answer.json()["breach_status"]["current_usage"], counted, "{shown}");
        assert_eq!(answer.json()["breach_status"]["remaining"], 1_000 - counted, "{shown}");
        assert_eq!(app.usage("customer_1"), counted, "{shown}");
        assert_eq!(app.usage_of("customer_1", "held"), 0, "{shown}");
        assert_eq!(target.count(), before + 1, "sent once, never again: {shown}");
    }
    app.node.verify();
}

#[test]
fn what_was_never_sent_is_not_counted() {
    let app =
        TestApp::with(quick().set("PROXY__CONNECT_TIMEOUT_MS", "300").set("PROXY__TLS_TIMEOUT_MS", "300"));
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1_000, "monthly");
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Accepts by its backlog and never speaks, so TLS gets no answer.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let cases = [
        ("nobody listens", format!("http://{free}/"), "upstream_unreachable"),
        ("no such name", "http://no-such-name.invalid/".to_owned(), ""),
        ("no TLS there", target.url("/echo").replace("http:", "https:"), "upstream_unreachable"),
        ("TLS without an answer", format!("https://{}/", silent.local_addr().unwrap()), "upstream_timeout"),
    ];
    for (case, url, code) in cases {
        let answer = call(&mut client, &key, &envelope(&url, 3));
        let shown = format!("{case}: {}", answer.text());
        assert!(matches!(answer.status, 502 | 504), "{shown}");
        assert!(code.is_empty() || answer.code() == code, "{shown}");
        assert_eq!(answer.json()["status"], "failed", "{shown}");
        assert_eq!(answer.json()["breach_status"]["current_usage"], 0, "{shown}");
        assert_eq!((app.usage("customer_1"), app.usage_of("customer_1", "held")), (0, 0), "{shown}");
    }
    // Blocked by policy.
    let answer = call(&mut client, &key, &envelope("http://169.254.169.254/", 3));
    assert_eq!((answer.status, answer.code().as_str()), (403, "upstream_blocked"), "{}", answer.text());
    assert_eq!(app.usage("customer_1"), 0);
    app.node.verify();
}

#[test]
fn a_denied_or_refused_call_reaches_nobody() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 0, "monthly");
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    let with = |field: &str, value: serde_json::Value| {
        let mut body = envelope(&target.url("/echo"), 1);
        body[field] = value;
        body
    };
    for body in [
        envelope(&target.url("/echo"), 1),
        with("metric_name", json!("unknown_metric")),
        with("metric_name", json!("API_CALLS")),
        with("metric_name", json!("api_calls\u{200b}")),
        with("metric_name", json!("")),
        with("scope", json!("business")),
        with("scope", json!("Customer")),
        with("units", json!(0)),
        with("units", json!(-1)),
        with("units", json!(1.5)),
        with("units", json!("1")),
        with("units", json!(9_007_199_254_740_992_i64)),
        with("method", json!("TRACE")),
        with("method", json!("GET / HTTP/1.1\r\nx: y")),
        with("headers", json!({"a\r\nb": "c"})),
        with("headers", json!({"a": "b\r\nc: d"})),
        with("headers", json!({"a": "b\u{0}"})),
        with("headers", json!({"a": 1})),
        with("target_url", json!(null)),
        with("target_url", json!("ftp://example.com/")),
    ] {
        let answer = call(&mut client, &key, &body);
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.text());
        assert!(!answer.code().is_empty(), "{body}: {}", answer.text());
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
    let authorization = format!("Bearer {key}");
    let mut kept = 0;
    // Ten points within the request: it never became a call. Ten in the exchange, from its arrival on: what the
    // target does afterwards decides as if the caller were there.
    let targets =
        ["/delay/50/echo", "/delay/50/status/500", "/delay/20/status/404", "/delay/30/gone", "/hang"];
    for point in 0..POINTS {
        let path = targets[point % targets.len()];
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let body = envelope(&target.url(path), 1).to_string();
        let bytes = request(app.node.address, "POST", "/api/v1/proxy", &headers, body.as_bytes());
        let mut stream = connect(app.node.address).unwrap();
        if point < POINTS / 2 {
            stream.get_mut().write_all(&bytes[..bytes.len() * point / (POINTS / 2)]).unwrap();
        } else {
            let before = target.count();
            stream.get_mut().write_all(&bytes).unwrap();
            // Gone at different instants of the wait for the answer, once the call has arrived.
            wait_until("the call arrives", Duration::from_secs(5), || target.count() > before);
            kept += i64::from(matches!(path, "/delay/50/echo" | "/delay/20/status/404" | "/hang"));
        }
        drop(stream);
    }
    assert_eq!(target.count(), POINTS / 2, "a request cut short is no call");
    let settled = || app.usage_of("customer_1", "held") == 0 && app.usage("customer_1") == kept;
    wait_until("everything settles as if the callers were there", Duration::from_secs(5), settled);
    app.node.verify();
}

#[test]
fn a_caller_who_leaves_as_soon_as_all_is_sent_is_counted_as_the_target_saw_it() {
    let app = TestApp::with(quick());
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1_000, "monthly");
    let authorization = format!("Bearer {}", app.customer_key("customer_1"));
    let body = envelope(&target.url("/echo"), 1).to_string();
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let bytes = request(app.node.address, "POST", "/api/v1/proxy", &headers, body.as_bytes());
    for _ in 0..200 {
        let mut stream = connect(app.node.address).unwrap();
        stream.get_mut().write_all(&bytes).unwrap();
    }
    let agree = || {
        app.usage_of("customer_1", "held") == 0
            && app.usage("customer_1") == i64::try_from(target.count()).unwrap()
    };
    wait_until("the counter is what arrived", Duration::from_secs(5), agree);
    app.node.verify();
}

#[test]
fn nothing_is_unsettled_a_second_after_load() {
    const CALLS: usize = 4_000;
    let app = TestApp::with(quick());
    let target = Upstream::start();
    let _id = app.limit("api_calls", 100_000, "monthly");
    let key = app.customer_key("customer_1");
    let paths = ["/echo", "/status/500", "/gone", "/short", "/status/404"];
    let bodies: Vec<_> = paths.iter().map(|path| envelope(&target.url(path), 2)).collect();
    let tally = Load::start(app.node.address, 64, CALLS, move |number, client| {
        call(client, &key, &bodies[number % bodies.len()])
    })
    .wait();
    assert_eq!((tally.unknown, tally.refused), (0, 0), "{tally:?}");
    wait_until("none is open", Duration::from_secs(1), || app.usage_of("customer_1", "held") == 0);
    // Echo, short and 404 are kept: three of five, two units each.
    assert_eq!(app.usage("customer_1"), i64::try_from(CALLS / 5 * 3 * 2).unwrap());
    app.node.verify();
}
