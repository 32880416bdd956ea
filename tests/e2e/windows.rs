//! Windows as callers see them: start, end and `retry_after` in zones and from billing anchors; and a minutely limit
//! that opens again at its edge, never before.

#![cfg(test)]

use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use tracktags_core::{Calendar, Period, Timestamp};
use tracktags_tests::http::Response;
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{TestApp, call, envelope, wait_until};

const PERIODS: [&str; 5] = ["hourly", "daily", "weekly", "monthly", "yearly"];

#[expect(
    clippy::disallowed_methods,
    reason = "compares with the clock of the server, which is this machine's"
)]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
}

fn at(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

fn settings(app: &TestApp, zone: &str) {
    let _settings = app.business("PATCH", "/api/v1/settings", Some(&json!({"timezone": zone})), 200);
}

/// A customer with this anchor; its key.
fn anchored(app: &TestApp, customer: &str, anchor: Option<u8>) -> String {
    let key = app.customer_key(customer);
    let fields = json!({"billing_anchor_day": anchor});
    let _customer = app.business("PUT", &format!("/api/v1/customers/{customer}"), Some(&fields), 200);
    key
}

/// A call that no hour's edge fell into, and when it began.
fn undivided(mut made: impl FnMut() -> Response) -> (Timestamp, Response) {
    loop {
        let (before, answer, after) = (now(), made(), now());
        if Calendar::utc().window_of(Period::Minutely, before)
            == Calendar::utc().window_of(Period::Minutely, after)
        {
            return (before, answer);
        }
    }
}

#[test]
fn windows_and_retry_after_follow_zone_and_anchor() {
    let app = TestApp::new();
    let target = Upstream::start();
    let body = envelope(&target.url("/echo"), 1);
    let cases = [
        ("UTC", None),
        ("America/New_York", Some(15)),
        ("Asia/Kathmandu", Some(31)),
        ("Europe/Berlin", None),
        ("Pacific/Chatham", Some(1)),
    ];
    for (number, (zone, anchor)) in cases.into_iter().enumerate() {
        settings(&app, zone);
        let calendar = Calendar::in_zone(zone).unwrap().anchored(anchor).unwrap();
        for period in PERIODS {
            // One limit at a time, of a customer who used it up.
            let customer = format!("customer_{number}_{period}");
            let key = anchored(&app, &customer, anchor);
            let _id = app
                .limit_with(&json!({"metric_name": "api_calls", "limit_value": 1, "limit_period": period,
                "customer_id": customer}));
            let mut client = app.client();
            let (before, answer) = undivided(|| {
                let _first = call(&mut client, &key, &body);
                call(&mut client, &key, &body)
            });
            let shown = format!("{zone}, anchor {anchor:?}, {period}, {before}: {}", answer.text());
            assert_eq!(answer.status, 429, "{shown}");
            let status = &answer.json()["breach_status"];
            let window = calendar.window_of(Period::from_word(period).unwrap(), before).unwrap();
            assert_eq!(
                (at(&status["window_start"]), at(&status["window_end"])),
                (window.start, window.end),
                "{shown}"
            );
            plausible(zone, anchor, period, &window.start.to_string(), &window.end.to_string());
            let retry = answer.json()["retry_after"].as_i64().unwrap();
            // Rounded up from the batch's clock, which lies between the call's begin and now.
            assert!(retry <= window.end.seconds_after(before) + 1, "{shown}");
            assert!(retry >= window.end.seconds_after(now()), "{shown}");
            assert_eq!(answer.header("retry-after"), Some(retry.to_string().as_str()), "{shown}");
            let reset = window.end.as_seconds().to_string();
            assert_eq!(answer.header("x-ratelimit-reset"), Some(reset.as_str()), "{shown}");
        }
    }
}

/// What the system's own `date` says of a window's edges: local midnight, and the day it should be.
fn plausible(zone: &str, anchor: Option<u8>, period: &str, start: &str, end: &str) {
    let local = |instant: &str, format: &str| {
        let run = std::process::Command::new("date")
            .env("TZ", zone)
            .args(["-d", instant, format])
            .output()
            .unwrap();
        assert!(run.status.success(), "date: {run:?}");
        String::from_utf8(run.stdout).unwrap().trim().to_owned()
    };
    let length = |day: &str| local(day, "+%d").parse::<u8>().unwrap();
    for edge in [start, end] {
        let shown = format!("{zone}, {anchor:?}, {period}: {}", local(edge, "+%F %T %Z"));
        // A zone's offset may have quarters of hours, not minutes.
        assert_eq!(
            local(edge, if period == "hourly" { "+%M:%S" } else { "+%H:%M:%S" }).trim_start_matches("00:"),
            "00",
            "{shown}"
        );
        match period {
            "weekly" => assert_eq!(local(edge, "+%u"), "1", "{shown}"),
            "monthly" | "yearly" => {
                // An anchor beyond the month's end is its last day.
                let next = length(&format!("{} +1 day", local(edge, "+%F")));
                let day = length(edge);
                let wanted = anchor.unwrap_or(1);
                assert!(day == wanted || (day < wanted && next == 1), "{shown}");
                assert!(period == "monthly" || local(edge, "+%m") == "01", "{shown}");
            }
            _ => {}
        }
    }
}

#[test]
fn retry_after_is_the_latest_end_among_the_windows_that_deny() {
    let app = TestApp::new();
    let target = Upstream::start();
    for (period, value) in [("hourly", 1), ("daily", 1), ("yearly", 100)] {
        let _id = app.limit("api_calls", value, period);
    }
    // Where it is not the day's last hour, whose end both windows share.
    let apart = |zone: &&str| {
        let calendar = Calendar::in_zone(zone).unwrap();
        let ends = |period| calendar.window_of(period, now()).unwrap().end;
        ends(Period::Hourly) != ends(Period::Daily)
    };
    let zone = ["Asia/Kolkata", "America/Caracas"].into_iter().find(apart).unwrap();
    settings(&app, zone);
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    let body = envelope(&target.url("/echo"), 1);
    let (before, denied) = undivided(|| {
        let _first = call(&mut client, &key, &body);
        call(&mut client, &key, &body)
    });
    assert_eq!(denied.status, 429, "{}", denied.text());
    let answered = denied.json();
    let calendar = Calendar::in_zone(zone).unwrap();
    let end = calendar.window_of(Period::Daily, before).unwrap().end;
    let left = end.seconds_after(before) - answered["retry_after"].as_i64().unwrap();
    assert!((-1..=1).contains(&left), "{answered}");
    assert_eq!(denied.header("retry-after"), Some(answered["retry_after"].to_string().as_str()));
    assert_eq!(answered["breach_status"]["limit_period"], "daily");
    assert_eq!(answered["limits"].as_array().unwrap().len(), 3);
    assert_eq!(denied.header("x-ratelimit-limit"), Some("1"));
    assert_eq!(denied.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(denied.header("x-ratelimit-reset"), Some(end.as_seconds().to_string().as_str()));
    let policy = denied.header("ratelimit-policy").unwrap();
    assert!(policy.contains("\"api_calls-daily\";q=1;w=86400"), "{policy}");
}

#[test]
fn what_time_cannot_cure_names_no_time() {
    let app = TestApp::new();
    let target = Upstream::start();
    let body = envelope(&target.url("/echo"), 3);
    // An empty window would refuse it too; and a level is never reset.
    for (customer, value, period) in [("customer_1", 2, "monthly"), ("customer_2", 2, "realtime")] {
        let key = app.customer_key(customer);
        let _id = app
            .limit_with(&json!({"metric_name": "api_calls", "limit_value": value, "limit_period": period,
            "customer_id": customer}));
        let answer = call(&mut app.client(), &key, &body);
        assert_eq!(answer.status, 429, "{}", answer.text());
        assert!(answer.json().get("retry_after").is_none(), "{}", answer.text());
        assert!(answer.header("retry-after").is_none());
    }
}

#[test]
fn a_minutely_limit_opens_at_its_edge_and_never_before() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 3, "minutely");
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    let body = envelope(&target.url("/echo"), 1);
    let minute = |instant| Calendar::utc().window_of(Period::Minutely, instant).unwrap();
    // Used up within one minute, whose end is then known.
    let edge = loop {
        let window = minute(now());
        let allowed = (0..4).filter(|_| call(&mut client, &key, &body).status == 200).count();
        if minute(now()) == window {
            assert_eq!(allowed, 3);
            break window.end;
        }
    };
    let mut refused = 0;
    wait_until("the limit opens", Duration::from_secs(75), || {
        let before = now();
        let answer = call(&mut client, &key, &body);
        let after = now();
        if answer.status == 200 {
            assert!(after >= edge, "it opened at {after}, before {edge}");
            assert_eq!(answer.json()["breach_status"]["current_usage"], 1, "and begins anew");
            return true;
        }
        refused += 1;
        assert!(before < edge, "still closed at {before}, after {edge}");
        let retry = answer.json()["retry_after"].as_i64().unwrap();
        assert!(
            retry >= edge.seconds_after(after) && retry <= edge.seconds_after(before) + 1,
            "{retry} s at {before}"
        );
        false
    });
    println!("{refused} refused until {edge}");
}
