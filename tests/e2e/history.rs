//! History: steps in the business's zone, equal to what the hours of the books add up to.

#![cfg(test)]

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Unit};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tracktags_tests::{TestApp, seed, wait_until};

fn history(app: &TestApp, query: &str) -> Value {
    app.business("GET", &format!("/api/v1/metrics/api_calls/history?{query}"), None, 200)
}

fn sum(shown: &Value, field: &str) -> i64 {
    shown["points"].as_array().unwrap().iter().map(|point| point[field].as_i64().unwrap()).sum()
}

#[test]
fn what_was_counted_is_told_by_hour_day_and_month() {
    let app = TestApp::new();
    let key = app.customer_key("customer_123");
    let _other = app.customer_key("another");
    let _id =
        app.limit_with(&json!({"metric_name": "api_calls", "limit_value": 10, "limit_period": "yearly"}));
    let track = |customer: Option<&str>, units: i64, status: u16| {
        let body = json!({"metric_name": "api_calls", "customer_id": customer, "units": units});
        let answer = app.client().json("POST", "/api/v1/track", &app.business_key, Some(&body));
        assert_eq!(answer.status, status, "{}", answer.text());
    };
    track(Some("customer_123"), 7, 200);
    track(Some("customer_123"), 4, 429);
    track(Some("customer_123"), 4, 429);
    track(Some("another"), 2, 200);
    track(None, 5, 200);
    wait_until("the books are folded", Duration::from_secs(20), || {
        sum(&history(&app, "scope=total"), "value") == 14
            && sum(&history(&app, "customer_id=customer_123"), "denied") == 2
    });
    for (step, count) in [("hour", 25), ("day", 31), ("month", 13)] {
        let shown = history(&app, &format!("customer_id=customer_123&step={step}"));
        assert_eq!(
            (sum(&shown, "value"), sum(&shown, "overage"), sum(&shown, "denied")),
            (7, 0, 2),
            "{shown}"
        );
        assert_eq!((&shown["step"], &shown["scope"]), (&json!(step), &json!("customer")));
        // The range begins and ends within a step, so both ends are there; on an edge one of them is not.
        let points = shown["points"].as_array().unwrap();
        assert_eq!(shown["count"], points.len());
        assert!(points.len() == count || points.len() + 1 == count, "{step}: {}", points.len());
        assert!(points.windows(2).all(|pair| pair[0]["end"] == pair[1]["start"]), "no gap: {shown}");
    }
    assert_eq!(sum(&history(&app, "scope=business"), "value"), 5);
    let mut client = app.client();
    let own = client.json("GET", "/api/v1/metrics/api_calls/history", &key, None);
    assert_eq!((own.status, sum(&own.json(), "value")), (200, 7));
    for (key, query, status, code) in [
        (&key, "customer_id=another", 403, "customer_mismatch"),
        (&key, "scope=total", 403, "customer_mismatch"),
        (&key, "scope=business", 403, "customer_mismatch"),
        (&app.business_key, "customer_id=nobody", 404, "customer_not_found"),
        (&app.business_key, "customer_id=", 404, "customer_not_found"),
        (&app.business_key, "step=week", 400, "validation_failed"),
        (&app.business_key, "scope=customer", 400, "validation_failed"),
        (&app.business_key, "scope=total&customer_id=another", 400, "validation_failed"),
        (&app.business_key, "from=yesterday", 400, "validation_failed"),
        (&app.business_key, "from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", 400, "validation_failed"),
        (&app.business_key, "step=hour&from=2026-01-01T00:00:00Z", 400, "range_too_large"),
        (&app.business_key, "from=2020-01-01T00:00:00Z", 400, "range_too_large"),
    ] {
        let answer = client.json("GET", &format!("/api/v1/metrics/api_calls/history?{query}"), key, None);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{query}: {}", answer.text());
    }
    for name in ["nothing", "not%20a%20name"] {
        let answer = client.json("GET", &format!("/api/v1/metrics/{name}/history"), &app.business_key, None);
        assert_eq!((answer.status, answer.code().as_str()), (404, "metric_not_found"));
    }
}

#[test]
fn a_year_in_zones_with_summer_time_adds_up() {
    let app = TestApp::new();
    let _key = app.customer_key("customer_123");
    let _id = app.limit("api_calls", 1, "yearly");
    let mut rng = StdRng::seed_from_u64(seed());
    let last = Timestamp::now().round(Unit::Hour).unwrap();
    let first = last.checked_sub((366 * 24).hours()).unwrap();
    for name in ["UTC", "America/New_York", "Australia/Lord_Howe"] {
        let zone = TimeZone::get(name).unwrap();
        let _settings = app.business("PATCH", "/api/v1/settings", Some(&json!({"timezone": name})), 200);
        // The books of a year, an hour each, and their sums by local date and month, made without our windows.
        let (mut days, mut months) = (BTreeMap::new(), BTreeMap::new());
        let mut rows = Vec::new();
        let mut hour = first;
        while hour < last {
            let units = rng.random_range(0..100_i64);
            let local = zone.to_datetime(hour);
            *days.entry(local.date().to_string()).or_insert(0) += units;
            *months.entry((local.year(), local.month())).or_insert(0) += units;
            let (business, second) = (&app.business_id, hour.as_second());
            rows.push(format!("('{business}','customer_123','api_calls',{second},'SUM',{units},0,1,2)"));
            hour = hour.checked_add(1.hour()).unwrap();
        }
        let _none = app.node.sql("DELETE FROM usage_history");
        for some in rows.chunks(1_000) {
            let _none = app.node.sql(&format!("INSERT INTO usage_history VALUES {}", some.join(",")));
        }
        let range = format!("customer_id=customer_123&from={first}&to={last}");
        let shown = history(&app, &format!("{range}&step=day"));
        assert_eq!(shown["timezone"], name);
        assert_eq!(values(&shown), days.values().copied().collect::<Vec<i64>>(), "{name}, days");
        let shown = history(&app, &format!("{range}&step=month"));
        assert_eq!(values(&shown), months.values().copied().collect::<Vec<i64>>(), "{name}, months");
        let whole: i64 = days.values().sum();
        assert_eq!(
            (sum(&shown, "value"), sum(&shown, "overage") * 2),
            (whole, sum(&shown, "denied")),
            "{name}"
        );
        // Two days by the hour add up to the same rows.
        let from = last.checked_sub(48.hours()).unwrap();
        let hours = history(&app, &format!("customer_id=customer_123&step=hour&from={from}&to={last}"));
        let kept = app.node.sql(&format!(
            "SELECT sum(units) FROM usage_history WHERE bucket >= {}",
            hours["points"][0]["start"].as_str().unwrap().parse::<Timestamp>().unwrap().as_second()
        ));
        assert_eq!(sum(&hours, "value").to_string(), kept, "{name}, hours");
    }
}

fn values(shown: &Value) -> Vec<i64> {
    shown["points"].as_array().unwrap().iter().map(|point| point["value"].as_i64().unwrap()).collect()
}
