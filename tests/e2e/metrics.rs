//! Metrics by hand: what is measured, where an account stands, usage recorded and corrected.

#![cfg(test)]

use serde_json::{Value, json};
use std::time::Duration;
use tracktags_tests::load::Load;
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{TestApp, call, envelope, wait_until};

fn put(app: &TestApp, query: &str, body: &Value, status: u16) -> Value {
    app.business("PUT", &format!("/api/v1/metrics/api_calls?{query}"), Some(body), status)
}

#[test]
fn usage_is_recorded_taken_off_and_set() {
    let app = TestApp::new();
    let key = app.customer_key("customer_123");
    let id = app.limit("api_calls", 10, "monthly");
    let whose = "customer_id=customer_123";
    // It records, it does not ask: also beyond a limit.
    let updated = put(&app, whose, &json!({"value": 12}), 200);
    assert_eq!((&updated["status"], &updated["new_value"]), (&json!("updated"), &json!(12)));
    assert_eq!(
        (&updated["customer_id"], &updated["metric_name"]),
        (&json!("customer_123"), &json!("api_calls"))
    );
    assert_eq!(put(&app, whose, &json!({"value": -5}), 200)["new_value"], 7);
    assert_eq!(put(&app, whose, &json!({"set_to": 9}), 200)["new_value"], 9);
    assert_eq!(put(&app, whose, &json!({"set_to": 8}), 200)["new_value"], 8);
    assert_eq!(
        put(&app, "", &json!({"value": 3}), 200).get("customer_id"),
        None,
        "the business's own account"
    );

    let shown = app.client().json("GET", "/api/v1/metrics/api_calls", &key, None).json();
    let expected = json!({
        "metric_name": "api_calls", "business_id": app.business_id, "customer_id": "customer_123",
        "scope": "customer", "operation": "SUM", "metric_type": "reset", "flush_interval": "monthly",
        "cleanup_after": "1d", "tags": {}, "metadata": {}, "current_value": 8, "limit_value": 10,
        "limit_operator": "gte", "limit_breached": false, "breach_action": "deny",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&shown[field], value, "{field}: {shown}");
    }
    assert_eq!((&shown["limits"][0]["limit_id"], &shown["limits"][0]["remaining"]), (&json!(id), &json!(2)));
    let own = app.business("GET", "/api/v1/metrics/api_calls", None, 200);
    assert_eq!((&own["scope"], &own["current_value"]), (&json!("business"), &json!(3)));
    let defined = app.business("GET", "/api/v1/metrics/api_calls?scope=customer", None, 200);
    assert_eq!((&defined["current_value"], &defined["limits"]), (&Value::Null, &json!([])));

    let list =
        |query: &str| app.business("GET", &format!("/api/v1/metrics?{query}"), None, 200)["metrics"].clone();
    assert_eq!(list("").as_array().unwrap().len(), 2, "both definitions");
    assert_eq!(list(whose)[0]["current_value"], 8);
    assert_eq!(list("scope=customer")[0].get("current_value"), None);
    app.node.verify();
}

#[test]
fn bad_updates_and_reads_are_refused_and_change_nothing() {
    let app = TestApp::new();
    let key = app.customer_key("customer_123");
    let _other = app.customer_key("another");
    let _id = app.limit("api_calls", 10, "monthly");
    put(&app, "customer_id=customer_123", &json!({"value": 4}), 200);
    for (query, body, status, code) in [
        ("customer_id=customer_123", json!({"value": -5}), 400, "usage_below_zero"),
        ("customer_id=customer_123", json!({"value": 9_007_199_254_740_990_i64}), 400, "validation_failed"),
        ("customer_id=customer_123", json!({"value": 0.5}), 400, "not_integral"),
        ("customer_id=customer_123", json!({"set_to": -1}), 400, "validation_failed"),
        ("customer_id=customer_123", json!({"value": 1, "set_to": 1}), 400, "validation_failed"),
        ("customer_id=customer_123", json!({}), 400, "validation_failed"),
        ("customer_id=customer_123", json!({"units": 1}), 400, "unknown_field"),
        ("customer_id=customer_123&scope=business", json!({"value": 1}), 400, "validation_failed"),
        ("scope=customer", json!({"value": 1}), 400, "validation_failed"),
        ("scope=total", json!({"value": 1}), 400, "validation_failed"),
        ("customer_id=nobody", json!({"value": 1}), 404, "customer_not_found"),
    ] {
        let path = format!("/api/v1/metrics/api_calls?{query}");
        let answer = app.client().json("PUT", &path, &app.business_key, Some(&body));
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{query} {body}: {}",
            answer.text()
        );
    }
    for (path, key, status, code) in [
        ("/api/v1/metrics/nothing", &app.business_key, 404, "metric_not_found"),
        ("/api/v1/metrics/not%20a%20name", &app.business_key, 404, "metric_not_found"),
        ("/api/v1/metrics/api_calls?customer_id=nobody", &app.business_key, 404, "customer_not_found"),
        ("/api/v1/metrics/api_calls?customer_id=another", &key, 403, "customer_mismatch"),
        ("/api/v1/metrics/api_calls?scope=business", &key, 403, "customer_mismatch"),
        ("/api/v1/metrics?customer_id=another", &key, 403, "customer_mismatch"),
        ("/api/v1/metrics?customer_id=nobody", &app.business_key, 404, "customer_not_found"),
    ] {
        let answer = app.client().json("GET", path, key, None);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}: {}", answer.text());
    }
    let refused = app.client().json("PUT", "/api/v1/metrics/api_calls", &key, Some(&json!({"value": 1})));
    assert_eq!((refused.status, refused.code().as_str()), (403, "forbidden"));
    let shown = app.client().json("GET", "/api/v1/metrics/api_calls", &key, None).json();
    assert_eq!(shown["current_value"], 4);
    app.node.verify();
}

/// Corrections while calls are counted: what was asked adds up to the counter, to the ledger and to the history.
#[test]
fn corrections_under_load_lose_nothing() {
    const CALLS: usize = 2_000;
    const CORRECTIONS: i64 = 100;
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 100_000_000, "yearly");
    let key = app.customer_key("customer_123");
    let body = envelope(&target.url("/echo"), 1);
    let load = Load::start(app.node.address, 64, CALLS, move |_, client| call(client, &key, &body));
    for n in 1..=CORRECTIONS {
        put(&app, "customer_id=customer_123", &json!({"value": n}), 200);
        put(&app, "customer_id=customer_123", &json!({"value": -n + 1}), 200);
    }
    let tally = load.wait();
    let counted = i64::try_from(tally.allowed).unwrap() + CORRECTIONS;
    let shown = app.business("GET", "/api/v1/metrics/api_calls?customer_id=customer_123", None, 200);
    assert_eq!((&shown["current_value"], tally.unknown), (&json!(counted), 0), "{tally:?}");
    wait_until("the books are folded", Duration::from_secs(20), || {
        let path = "/api/v1/metrics/api_calls/history?customer_id=customer_123&step=month";
        let points = app.business("GET", path, None, 200)["points"].clone();
        points.as_array().unwrap().iter().map(|point| point["value"].as_i64().unwrap()).sum::<i64>()
            == counted
    });
    app.node.verify();
}

/// A call about metrics, at a path below theirs.
fn ask(app: &TestApp, method: &str, path: &str, body: &Value, status: u16) -> Value {
    let body = (*body != Value::Null).then_some(body);
    app.business(method, &format!("/api/v1/metrics{path}"), body, status)
}

#[test]
fn a_metric_is_defined_once_and_begins_where_it_is_said_to() {
    let app = TestApp::new();
    let _key = (app.customer_key("c1"), app.customer_key("c2"));
    let seats =
        json!({"metric_name": "seats", "initial_value": 3, "limit_value": 5, "tags": {"team": "blue"}});
    let made = ask(&app, "POST", "?customer_id=c1", &seats, 201);
    for (field, value) in [
        ("status", json!("created")),
        ("initial_value", json!(3)),
        ("current_value", json!(3)),
        ("scope", json!("customer")),
        ("operation", json!("SUM")),
        ("metric_type", json!("checkpoint")),
        ("flush_interval", json!("1h")),
        ("cleanup_after", json!("1d")),
        ("tags", json!({"team": "blue"})),
        ("metadata", json!({})),
        ("limit_value", json!(5)),
        ("breach_action", json!("disabled")),
        ("customer_id", json!("c1")),
    ] {
        assert_eq!(made[field], value, "{field}: {made}");
    }
    // For another customer the definition is there; what is sent must agree with it, and the value is its own.
    let other = ask(
        &app,
        "POST",
        "?customer_id=c2",
        &json!({"metric_name": "seats", "metric_type": "checkpoint"}),
        201,
    );
    assert_eq!((&other["current_value"], &other["limits"]), (&json!(0), &json!([])));
    // Again for the first: added.
    let again =
        ask(&app, "POST", "?customer_id=c1", &json!({"metric_name": "seats", "initial_value": 1}), 201);
    assert_eq!(again["current_value"], 4);
    for (differing, told) in [
        (json!({"operation": "MAX"}), "operation SUM"),
        (json!({"metric_type": "reset"}), "metric_type checkpoint"),
        (json!({"flush_interval": "1d"}), "flush_interval 1h"),
        (json!({"cleanup_after": "never"}), "cleanup_after 1d"),
        (json!({"tags": {}}), "other tags"),
        (json!({"metadata": {"a": 1}}), "other metadata"),
    ] {
        let mut body = json!({"metric_name": "seats"});
        body.as_object_mut().unwrap().extend(differing.as_object().unwrap().clone());
        let refused = ask(&app, "POST", "?customer_id=c1", &body, 409);
        assert_eq!(refused["code"], "metric_conflict");
        assert!(refused["message"].as_str().unwrap().contains(told), "what differs is told: {refused}");
    }
    // The limit was shown only; made to hold, it holds: a level of 5, 4 of which are there.
    let holds = json!({"metric_name": "seats", "limit_value": 5, "breach_action": "deny"});
    let _changed = ask(&app, "POST", "?customer_id=c1", &holds, 201);
    let track = |units: i64| {
        let body = json!({"customer_id": "c1", "metric_name": "seats", "units": units});
        app.client().json("POST", "/api/v1/track", &app.business_key, Some(&body)).status
    };
    assert_eq!((track(2), track(1), track(1)), (429, 200, 429));
    assert_eq!(
        ask(&app, "GET", "/seats?customer_id=c1", &Value::Null, 200)["limits"].as_array().unwrap().len(),
        1
    );
    app.node.verify();
}

#[test]
fn an_interval_starts_from_the_accounts_initial_value() {
    let app = TestApp::new();
    let _keys = (app.customer_key("c1"), app.customer_key("c2"));
    let slots = json!({
        "metric_name": "slots", "metric_type": "reset", "flush_interval": "5s", "initial_value": 3,
        "limit_value": 100, "limit_period": "daily", "breach_action": "deny",
    });
    let _made = ask(&app, "POST", "?customer_id=c1", &slots, 201);
    let _later =
        ask(&app, "POST", "?customer_id=c2", &json!({"metric_name": "slots", "initial_value": 4}), 201);
    let _used = ask(&app, "PUT", "/slots?customer_id=c1", &json!({"value": 2}), 200);
    let shown =
        |customer: &str| ask(&app, "GET", &format!("/slots?customer_id={customer}"), &Value::Null, 200);
    wait_until("the interval ends", Duration::from_secs(15), || {
        (&shown("c1")["current_value"], &shown("c2")["current_value"]) == (&json!(3), &json!(0))
    });
    assert_eq!(shown("c1")["limits"][0]["current_usage"], 5, "what it starts from was counted once");
    let taken = json!({"customer_id": "c1", "metric_name": "slots", "units": 95});
    let _taken = app.business("POST", "/api/v1/track", Some(&taken), 200);
    assert_eq!(shown("c1")["limits"][0]["remaining"], 0);
    let app = TestApp { node: app.node.restart(), ..app };
    let shown =
        |customer: &str| ask(&app, "GET", &format!("/slots?customer_id={customer}"), &Value::Null, 200);
    wait_until("the next one too", Duration::from_secs(15), || shown("c1")["current_value"] == 3);
    app.node.verify();
}

#[test]
fn bad_definitions_are_refused_and_change_nothing() {
    let app = TestApp::new();
    let _key = app.customer_key("c1");
    let dump = "SELECT * FROM metrics; SELECT * FROM plan_limits; SELECT count(*) FROM audit_logs;";
    let before = app.node.sql(dump);
    for (path, body, status, code) in [
        ("", json!({}), 400, "validation_failed"),
        ("", json!({"metric_name": "a b"}), 400, "validation_failed"),
        ("?scope=customer", json!({"metric_name": "m", "initial_value": 1}), 400, "validation_failed"),
        ("", json!({"metric_name": "m", "initial_value": 0.5}), 400, "not_integral"),
        ("", json!({"metric_name": "m", "limit_operator": "gte"}), 400, "validation_failed"),
        ("", json!({"metric_name": "m", "tags": {"a": 1}}), 400, "validation_failed"),
        ("", json!({"metric_name": "m", "metadata": []}), 400, "validation_failed"),
        ("", json!({"metric_name": "m", "operation": "MEDIAN"}), 400, "validation_failed"),
        ("", json!({"metric_name": "m", "nonsense": 1}), 400, "unknown_field"),
        ("?customer_id=nobody", json!({"metric_name": "m"}), 404, "customer_not_found"),
        // A limit on a maximum, and one whose window nobody can tell.
        ("", json!({"metric_name": "m", "operation": "MAX", "limit_value": 1}), 409, "metric_conflict"),
        (
            "",
            json!({"metric_name": "m", "metric_type": "reset", "flush_interval": "5m", "limit_value": 1}),
            409,
            "metric_conflict",
        ),
    ] {
        assert_eq!(ask(&app, "POST", path, &body, status)["code"], code, "{path} {body}");
    }
    assert_eq!(app.node.sql(dump), before);
}

#[test]
fn a_definition_changes_and_goes_with_its_values() {
    let app = TestApp::new();
    let _keys = (app.customer_key("c1"), app.customer_key("c2"));
    let jobs = json!({"metric_name": "jobs", "metric_type": "reset", "flush_interval": "daily"});
    let _made = ask(&app, "POST", "?scope=customer", &jobs, 201);
    let changed =
        ask(&app, "PATCH", "/jobs?scope=customer", &json!({"operation": "MAX", "tags": {"a": "b"}}), 200);
    assert_eq!((&changed["operation"], &changed["tags"]), (&json!("MAX"), &json!({"a": "b"})));
    let _back = ask(&app, "PATCH", "/jobs?scope=customer", &json!({"operation": "SUM"}), 200);
    for customer in ["c1", "c2"] {
        let _used = ask(&app, "PUT", &format!("/jobs?customer_id={customer}"), &json!({"value": 7}), 200);
    }
    let refused = ask(&app, "PATCH", "/jobs?scope=customer", &json!({"operation": "LAST"}), 409);
    assert_eq!(refused["code"], "metric_conflict");
    let _type = ask(&app, "PATCH", "/jobs?scope=customer", &json!({"metric_type": "checkpoint"}), 200);
    assert_eq!(ask(&app, "PATCH", "/nothing?scope=customer", &json!({}), 404)["code"], "metric_not_found");
    // One customer's value, then all of it.
    let value = |customer: &str| {
        ask(&app, "GET", &format!("/jobs?customer_id={customer}"), &Value::Null, 200)["current_value"].clone()
    };
    let deleted = ask(&app, "DELETE", "/jobs?customer_id=c1", &Value::Null, 200);
    assert_eq!((&deleted["status"], &deleted["metric_name"]), (&json!("deleted"), &json!("jobs")));
    assert_eq!((value("c1"), value("c2")), (json!(0), json!(7)));
    let limit = app.limit_with(&json!({"metric_name": "jobs", "limit_value": 9, "customer_id": "c2"}));
    assert_eq!(ask(&app, "DELETE", "/jobs?scope=customer", &Value::Null, 409)["code"], "metric_in_use");
    assert_eq!(value("c2"), json!(7), "nothing is reset where the deletion is refused");
    let _gone = app.business("DELETE", &format!("/api/v1/plan_limits/{limit}"), None, 200);
    let _gone = ask(&app, "DELETE", "/jobs?scope=customer", &Value::Null, 200);
    assert_eq!(ask(&app, "GET", "/jobs?customer_id=c2", &Value::Null, 404)["code"], "metric_not_found");
    // Defined again it begins at 0; the history is still there.
    let _made = ask(&app, "POST", "?scope=customer", &jobs, 201);
    assert_eq!((value("c1"), value("c2")), (json!(0), json!(0)));
    app.node.verify();
}
