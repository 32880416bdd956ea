//! What is no JSON: each of the texts that no reader may take, as a body and inside one, is refused with 400.

#![cfg(test)]

use serde_json::Value;
use tracktags_tests::http::Client;
use tracktags_tests::{TestApp, text};

const SUITE: &str = include_str!("../fixtures/json_must_reject.json");
const CASES: usize = 188;

/// Each case's name and bytes.
fn cases() -> Vec<(String, Vec<u8>)> {
    let suite: Vec<Value> = serde_json::from_str(SUITE).unwrap();
    let read = |case: &Value| {
        let bytes = match (case["hex"].as_str(), case["text"].as_str()) {
            (Some(hex), _) => (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect(),
            (None, Some(text)) => {
                let times = case["times"].as_u64().unwrap_or(1);
                text.repeat(usize::try_from(times).unwrap()).into_bytes()
            }
            (None, None) => panic!("{case} has neither hex nor text"),
        };
        (text(case, "name"), bytes)
    };
    suite.iter().map(read).collect()
}

#[test]
fn what_is_no_json_is_refused_on_every_kind_of_route() {
    let app = TestApp::new();
    let customer = app.customer_key("customer_123");
    let _id = app.limit("api_calls", 10, "monthly");
    let cases = cases();
    assert_eq!(cases.len(), CASES);
    let business = &app.business_key;
    let mut client = app.client();
    for (name, body) in &cases {
        for (method, path, key) in [
            ("POST", "/api/v1/plan_limits", business),
            ("PUT", "/api/v1/metrics/api_calls", business),
            ("POST", "/api/v1/track", business),
            ("POST", "/api/v1/proxy", &customer),
        ] {
            refused(&mut client, (method, path), key, name, body);
        }
        // The same as the value of a field that is known to each of them.
        for (path, before) in [
            ("/api/v1/plan_limits", r#"{"limit_value":1,"metric_name":"#),
            ("/api/v1/track", r#"{"units":1,"metric_name":"#),
        ] {
            let body = [before.as_bytes(), body, b"}"].concat();
            refused(&mut client, ("POST", path), business, name, &body);
        }
    }
    assert_eq!(client.send("GET", "/health", &[], b"").status, 200);
    let usage = app.business("GET", "/api/v1/metrics/api_calls", None, 200);
    assert_eq!(usage["current_value"], 0, "nothing was counted");
    app.node.verify();
}

/// Bytes that are no UTF-8: alone, cut short, too long for what they say, a surrogate, beyond the last character.
const NO_UTF8: &[&[u8]] = &[
    b"\xff",
    b"\x80",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
];

#[test]
fn what_is_no_utf8_is_refused_wherever_it_stands() {
    let app = TestApp::new();
    let customer = app.customer_key("customer_123");
    let _id = app.limit("api_calls", 10, "monthly");
    let business = &app.business_key;
    let mut client = app.client();
    for (number, bad) in NO_UTF8.iter().enumerate() {
        for (path, key) in
            [("/api/v1/plan_limits", business), ("/api/v1/track", business), ("/api/v1/proxy", &customer)]
        {
            for (place, before, after) in [
                ("a value", r#"{"metric_name":"api_"#, r#"calls"}"#),
                ("a name", r#"{"metric_"#, r#"name":"api_calls"}"#),
                ("a field that means nothing", r#"{"metric_name":"api_calls","x":{"y":["#, r#""]}}"#),
                ("between two fields", r#"{"metric_name":"api_calls","#, r#""units":1}"#),
            ] {
                let body = [
                    before.as_bytes(),
                    if place.starts_with("a field") { b"\"" } else { b"" },
                    bad,
                    after.as_bytes(),
                ]
                .concat();
                refused(&mut client, ("POST", path), key, &format!("{place}, case {number}"), &body);
            }
        }
    }
    let usage = app.business("GET", "/api/v1/metrics/api_calls", None, 200);
    assert_eq!(usage["current_value"], 0, "nothing was counted");
}

fn refused(client: &mut Client, (method, path): (&str, &str), key: &str, name: &str, body: &[u8]) {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let answer = client.send(method, path, &headers, body);
    assert_eq!(answer.status, 400, "{name} at {path}: {}", answer.text());
    // An empty body is taken for an empty object, in which fields are missing.
    let code = if body.is_empty() { "validation_failed" } else { "invalid_json" };
    assert_eq!(answer.code(), code, "{name} at {path}: {}", answer.text());
}
