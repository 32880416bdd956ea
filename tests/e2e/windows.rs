//! Windows as callers see them: start, end and `retry_after` in three zones and from billing anchors; and a minutely
//! limit that opens again at its edge, never before.

use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tracktags_core::{Calendar, Period, Timestamp};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{TestApp, call, envelope, wait_until};

#[expect(clippy::disallowed_methods, reason = "compares with the clock of the server, which is this machine's")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
}

fn at(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn windows_and_retry_after_follow_zone_and_anchor() {
    let app = TestApp::new();
    let target = Upstream::start();
    for period in ["hourly", "daily", "weekly", "monthly", "yearly"] {
        let _id = app.limit("api_calls", 0, period);
    }
    let _id = app.limit("storage_mb", 0, "realtime");
    for (zone, anchor) in [("UTC", None), ("America/New_York", Some(15)), ("Asia/Kathmandu", Some(31)), ("Europe/Berlin", None)] {
        let _settings = app.business("PATCH", "/api/v1/settings", Some(&json!({"timezone": zone})), 200);
        let key = app.customer_key("customer_1");
        let fields = json!({"billing_anchor_day": anchor});
        let _customer = app.business("PUT", "/api/v1/customers/customer_1", Some(&fields), 200);
        let calendar = Calendar::in_zone(zone).unwrap().anchored(anchor).unwrap();
        // An hour's end may pass between asking and comparing: then ask again.
        let (before, answer, after) = loop {
            let (before, answer, after) =
                (now(), call(&mut app.client(), &key, &envelope(&target.url("/echo"), 1)), now());
            if calendar.window_of(Period::Hourly, before) == calendar.window_of(Period::Hourly, after) {
                break (before, answer, after);
            }
        };
        assert_eq!(answer.status, 429, "{}", answer.text());
        let body = answer.json();
        let limits = body["limits"].as_array().unwrap();
        assert_eq!(limits.len(), 5);
        for limit in limits {
            let period = Period::from_word(limit["limit_period"].as_str().unwrap()).unwrap();
            let window = calendar.window_of(period, before).unwrap();
            assert_eq!((at(&limit["window_start"]), at(&limit["window_end"])), (window.start, window.end), "{zone}: {limit}");
        }
        // Each denies; an empty window would refuse the call too (a limit of 0), so time cures nothing.
        assert!(body.get("retry_after").is_none_or(Value::is_null), "{body}");
        let _revoked = app.business("DELETE", &format!("/api/v1/customers/customer_1/keys/{}", key_id(&app)), None, 200);
        let _ = after;
    }
}

fn key_id(app: &TestApp) -> String {
    let keys = app.business("GET", "/api/v1/customers/customer_1/keys", None, 200);
    tracktags_tests::text(&keys["keys"][0], "id")
}

#[test]
fn retry_after_is_the_latest_end_among_the_windows_that_deny() {
    let app = TestApp::new();
    let target = Upstream::start();
    for (period, value) in [("hourly", 1), ("daily", 1), ("yearly", 100)] {
        let _id = app.limit("api_calls", value, period);
    }
    let _settings = app.business("PATCH", "/api/v1/settings", Some(&json!({"timezone": "Asia/Kolkata"})), 200);
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    let body = envelope(&target.url("/echo"), 1);
    assert_eq!(call(&mut client, &key, &body).status, 200);
    let denied = call(&mut client, &key, &body);
    assert_eq!(denied.status, 429, "{}", denied.text());
    let answered = denied.json();
    let calendar = Calendar::in_zone("Asia/Kolkata").unwrap();
    let end = calendar.window_of(Period::Daily, now()).unwrap().end;
    let left = answered["retry_after"].as_i64().unwrap() - end.seconds_after(now());
    assert!((0..=2).contains(&left), "{answered}");
    assert_eq!(denied.header("retry-after"), Some(answered["retry_after"].to_string().as_str()));
    assert_eq!(answered["breach_status"]["limit_period"], "daily");
    assert_eq!(denied.header("x-ratelimit-limit"), Some("1"));
    assert_eq!(denied.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(denied.header("x-ratelimit-reset"), Some(end.as_seconds().to_string().as_str()));
    let policy = denied.header("ratelimit-policy").unwrap();
    assert!(policy.contains("\"api_calls-daily\";q=1;w=86400"), "{policy}");
}

#[test]
fn a_minutely_limit_opens_at_its_edge_and_never_before() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 3, "minutely");
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    let body = envelope(&target.url("/echo"), 1);
    let mut spend = || {
        let began = now();
        while call(&mut client, &key, &body).status == 200 {}
        began
    };
    // Use the minute up, wherever in it we are; its end is then known.
    let edge = Calendar::utc().window_of(Period::Minutely, spend()).unwrap().end;
    let edge = if now() >= edge { Calendar::utc().window_of(Period::Minutely, spend()).unwrap().end } else { edge };
    let mut client = app.client();
    wait_until("the limit opens", Duration::from_secs(75), || {
        let before = now();
        let answer = call(&mut client, &key, &body);
        if answer.status == 200 {
            assert!(now() >= edge, "it opened before {edge}");
            return true;
        }
        assert!(before < edge.plus_seconds(1), "still closed a second after {edge}");
        let retry = answer.json()["retry_after"].as_i64().unwrap();
        assert!((edge.seconds_after(before) - retry).abs() <= 1, "{retry} s were named at {before}");
        std::thread::sleep(Duration::from_millis(20));
        false
    });
}
