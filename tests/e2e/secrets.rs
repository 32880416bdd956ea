//! What callers entrust to us is in no log, however talkative, in no file and in no refusal.

#![cfg(test)]

use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tracktags_tests::http::Response;
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp, envelope, wait_until};

/// Stands in everything that is planted, so that one search finds each of them.
const MARK: &str = "PlantedSecret";

fn planted(place: &str) -> String {
    format!("{MARK}-{place}")
}

/// Whether a file of the server's holds these bytes.
fn holds(folder: &Path, bytes: &str) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    // Keys that the first start made lie in files of their own, readable by their owner alone.
    let files = files.filter(|file| !file.file_name().to_string_lossy().ends_with(".key"));
    files
        .filter(|file| {
            let held = std::fs::read(file.path()).unwrap_or_default();
            held.windows(bytes.len()).any(|window| window == bytes.as_bytes())
        })
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn what_is_planted_is_found_nowhere_at_trace() {
    let mut app =
        TestApp::with(NodeOptions::default().set("LOG__LEVEL", "trace").set("STORE__FOLD_EVERY_MS", "20"));
    let target = Upstream::start();
    let customer = app.customer_key("customer_123");
    let _id = app.limit("api_calls", 100, "monthly");
    let admin = app.node.admin_key();
    let mut client = app.client();
    let mut answers: Vec<(String, Response)> = Vec::new();

    // Through the proxy: to a target that answers, to one that nobody listens at, to one that is no target.
    let unreachable = format!("http://127.0.0.1:1/{}?token={}", planted("path"), planted("query"));
    let userinfo = format!("http://user:{}@127.0.0.1/", planted("userinfo"));
    let answering = format!("{}?token={}", target.url("/status/201"), planted("query"));
    for url in [&answering, &unreachable, &userinfo, &planted("no_url")] {
        let mut call = envelope(url, 1);
        call["headers"] =
            json!({"Authorization": format!("Bearer {}", planted("header")), "Cookie": planted("cookie")});
        call["body"] = json!(planted("body"));
        call["method"] = json!("POST");
        answers.push((url.clone(), client.json("POST", "/api/v1/proxy", &customer, Some(&call))));
    }
    // As keys, in headers of every other kind, in a path, a query and bodies that are refused.
    let bearer = format!("Bearer {}", planted("bearer"));
    let genuine = format!("Bearer {}", app.business_key);
    let json_type = ("content-type", "application/json");
    let broken = format!("{{\"metric_name\": \"{}", planted("broken"));
    let wrong =
        format!("{{\"limit_value\": \"{}\", \"metric_name\": \"!{}\"}}", planted("number"), planted("name"));
    let path = format!("/api/v1/{}?secret={}", planted("route"), planted("route_query"));
    let (admin_wrong, cookie, api_key) = (planted("admin"), planted("cookie"), planted("api_key"));
    for (name, method, path, headers, body) in [
        ("bearer", "GET", "/api/v1/usage", vec![("authorization", bearer.as_str())], ""),
        ("api key", "GET", "/api/v1/usage", vec![("x-api-key", api_key.as_str())], ""),
        ("admin", "GET", "/api/v1/businesses", vec![("x-admin-key", admin_wrong.as_str())], ""),
        ("cookie", "GET", "/api/v1/plans", vec![("authorization", &genuine), ("cookie", &cookie)], ""),
        ("route", "GET", path.as_str(), vec![("authorization", genuine.as_str())], ""),
        ("broken", "POST", "/api/v1/plan_limits", vec![("authorization", &genuine), json_type], &broken),
        ("wrong", "POST", "/api/v1/plan_limits", vec![("authorization", &genuine), json_type], &wrong),
    ] {
        answers.push((name.to_owned(), client.send(method, path, &headers, body.as_bytes())));
    }
    let raw = format!("GET /{0} HTTP/1.1\r\nhost: x\r\n{0}: a\u{1}{0}\r\n\r\n", planted("raw"));
    answers.push(("raw".to_owned(), client.raw(raw.as_bytes(), false)));
    // The genuine keys were all used.
    assert_eq!(app.client().admin("GET", "/api/v1/businesses", &admin, None).status, 200);

    let statuses: Vec<_> = answers.iter().map(|(_, answer)| answer.status).collect();
    assert_eq!(
        statuses,
        [200, 502, 400, 400, 401, 401, 401, 200, 404, 400, 400, 400],
        "each was what it was to be"
    );
    for (name, answer) in &answers {
        assert!(!answer.text().contains(MARK), "{name}: {}", answer.text());
    }
    wait_until("it logs at trace", Duration::from_secs(20), || app.node.log().contains(" TRACE "));
    assert_eq!(app.node.stop("TERM").and_then(|status| status.code()), Some(0));
    let log = app.node.log();
    assert!(!holds(app.node.folder().path(), "customer_123").is_empty(), "the search finds what is there");
    for secret in [MARK, &app.business_key, &customer, &admin] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{lines:#?}");
        assert_eq!(holds(app.node.folder().path(), secret), Vec::<String>::new());
    }
}
