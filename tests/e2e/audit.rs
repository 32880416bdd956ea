//! The trail of changes: one row for every operation that changes something, in its transaction; one for every row that
//! SQL changes; none for what was refused.

#![cfg(test)]

use serde_json::{Value, json};
use std::collections::BTreeSet;
use tracktags_server::operations;
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{TestApp, text};

/// The data plane leaves entries in the ledger.
const DATA_PLANE: [&str; 3] = ["/api/v1/proxy", "/api/v1/check", "/api/v1/track"];

/// Every operation of the control plane that changes something, in an order in which each can: as the table of routes
/// has it, its body, and what the trail calls it. Words in braces are filled in from what was made before.
const STEPS: &[(&str, &str, &str, &str)] = &[
    ("POST", "/api/v1/plans", r#"{"plan_name":"One"}"#, "plan.create"),
    ("PUT", "/api/v1/plans/{id}", r#"{"plan_name":"Two"}"#, "plan.update"),
    ("POST", "/api/v1/customers", r#"{"customer_id":"c1","plan_id":"{id}"}"#, "customer.create"),
    ("PUT", "/api/v1/customers/{cid}", r#"{"customer_name":"Ada"}"#, "customer.update"),
    ("POST", "/api/v1/plan_limits", r#"{"metric_name":"calls","limit_value":5}"#, "limit.create"),
    ("PUT", "/api/v1/plan_limits/{id}", r#"{"limit_value":6}"#, "limit.update"),
    ("PUT", "/api/v1/metrics/{name}", r#"{"set_to":7}"#, "usage.correct"),
    ("POST", "/api/v1/metrics", r#"{"metric_name":"mine"}"#, "metric.create"),
    ("PATCH", "/api/v1/metrics/{name}", r#"{"metadata":{"a":1}}"#, "metric.update"),
    ("DELETE", "/api/v1/metrics/{name}", "", "metric.delete"),
    ("POST", "/admin/v1/customers/{bid}/{cid}/reset-billing", "{}", "usage.reset_billing"),
    ("POST", "/admin/billing-cycle-reset", "{}", "usage.reset_billing"),
    ("POST", "/admin/v1/customers/{bid}/{cid}/override", r#"{"status":"canceled"}"#, "customer.update"),
    ("POST", "/admin/v1/business/{bid}/override", r#"{"status":"active"}"#, "business.override"),
    ("DELETE", "/api/v1/plan_limits/{id}", "", "limit.delete"),
    ("POST", "/api/v1/customers/{cid}/keys", r#"{"key_name":"k1"}"#, "key.create"),
    ("POST", "/api/v1/customers/{cid}/keys/{key}/rotate", r#"{"grace_seconds":0}"#, "key.rotate"),
    ("DELETE", "/api/v1/customers/{cid}/keys/{key}", "", "key.revoke"),
    ("POST", "/api/v1/keys", r#"{"key_name":"k1"}"#, "key.create"),
    ("POST", "/api/v1/keys/{type}/{name}/rotate", r#"{"grace_seconds":0}"#, "key.rotate"),
    ("DELETE", "/api/v1/keys/{type}/{name}", "", "key.revoke"),
    ("PATCH", "/api/v1/settings", r#"{"timezone":"Europe/Paris"}"#, "settings.update"),
    ("DELETE", "/api/v1/customers/{cid}", "", "customer.delete"),
    ("DELETE", "/api/v1/plans/{id}", "", "plan.delete"),
    ("POST", "/api/v1/businesses/{bid}/customers", r#"{"customer_id":"c2"}"#, "customer.create"),
    ("PUT", "/api/v1/businesses/{bid}/customers/{cid}", r#"{"customer_name":"Bo"}"#, "customer.update"),
    ("POST", "/api/v1/businesses/{bid}/customers/{cid}/keys", r#"{"key_name":"k1"}"#, "key.create"),
    (
        "POST",
        "/api/v1/businesses/{bid}/customers/{cid}/keys/{key}/rotate",
        r#"{"grace_seconds":0}"#,
        "key.rotate",
    ),
    ("DELETE", "/api/v1/businesses/{bid}/customers/{cid}/keys/{key}", "", "key.revoke"),
    ("POST", "/api/v1/businesses/{bid}/keys", r#"{"key_name":"k1"}"#, "key.create"),
    ("POST", "/api/v1/businesses/{bid}/keys/{type}/{name}/rotate", r#"{"grace_seconds":0}"#, "key.rotate"),
    ("DELETE", "/api/v1/businesses/{bid}/keys/{type}/{name}", "", "key.revoke"),
    ("PATCH", "/api/v1/businesses/{bid}/settings", r#"{"timezone":"Asia/Tokyo"}"#, "settings.update"),
    ("DELETE", "/api/v1/businesses/{bid}/customers/{cid}", "", "customer.delete"),
    ("PUT", "/api/v1/businesses/{bid}", r#"{"business_name":"New"}"#, "business.update"),
    ("DELETE", "/api/v1/keys/self", "", "key.revoke"),
    ("DELETE", "/api/v1/businesses/{bid}", "", "business.delete"),
    ("POST", "/api/v1/businesses/{bid}/restore", "{}", "business.restore"),
    ("POST", "/api/v1/businesses", r#"{"business_name":"B","email":"b@x.y"}"#, "business.create"),
];

/// The whole trail as the admin reads it, newest first.
fn trail(app: &TestApp) -> Vec<Value> {
    let answer = app.client().admin("GET", "/admin/audit-logs?limit=500", &app.node.admin_key(), None);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["audit_logs"].as_array().unwrap().clone()
}

fn is_admins(path: &str) -> bool {
    path.contains("{bid}") || path.starts_with("/admin") || path.starts_with("/api/v1/businesses")
}

/// What `{name}` stands for: a metric, or a key.
fn name_in(method: &str, path: &str) -> &'static str {
    match (path.contains("/metrics"), method) {
        (true, "PUT") => "calls?scope=business",
        (true, _) => "mine?scope=business",
        (false, _) => "k1",
    }
}

#[test]
fn every_operation_that_changes_something_leaves_one_row() {
    let app = TestApp::new();
    let changing: BTreeSet<_> = operations()
        .filter(|operation| operation.method != "GET" && !DATA_PLANE.contains(&operation.path))
        .map(|operation| (operation.method, operation.path))
        .collect();
    let told: BTreeSet<_> = STEPS.iter().map(|(method, path, ..)| (*method, *path)).collect();
    assert_eq!(told, changing, "the steps are those of the table of routes");

    let (mut plan, mut limit, mut customer) = (String::new(), String::new(), "c1".to_owned());
    for (method, path, body, action) in STEPS {
        let fill = |text: &str| {
            text.replace("{bid}", &app.business_id)
                .replace("{cid}", &customer)
                .replace("{id}", if path.contains("plan_limits") { &limit } else { &plan })
                .replace("{type}", "business")
                .replace("{key}", "k1")
                .replace("{name}", name_in(method, path))
        };
        let body: Option<Value> = (!body.is_empty()).then(|| serde_json::from_str(&fill(body)).unwrap());
        let before = trail(&app);
        let mut client = app.client();
        let sent = if is_admins(path) {
            client.admin(method, &fill(path), &app.node.admin_key(), body.as_ref())
        } else {
            client.json(method, &fill(path), &app.business_key, body.as_ref())
        };
        assert!(sent.status < 300, "{method} {path}: {}", sent.text());
        let after = trail(&app);
        assert_eq!(
            after.len(),
            before.len() + 1,
            "{method} {path}: {:?}",
            &after[..after.len() - before.len()]
        );
        let row = &after[0];
        assert_eq!(row["action"], *action, "{method} {path}");
        assert_eq!(row["resource_type"], action.split('.').next().unwrap());
        assert_eq!(row["request_id"], sent.header("x-request-id").unwrap(), "{row}");
        let kind = if is_admins(path) { "admin" } else { "business" };
        assert_eq!(row["actor"]["type"], kind, "{row}");
        assert_eq!(
            row["actor"]["id"].is_null(),
            is_admins(path),
            "a key's id, and the admin has none: {row}"
        );
        if *action != "business.create" {
            assert_eq!(row["business_id"], app.business_id, "{row}");
        }
        match *action {
            "plan.create" => plan = text(&sent.json(), "id"),
            "limit.create" => limit = text(&sent.json(), "id"),
            "customer.create" => customer = text(&sent.json(), "customer_id"),
            _ => {}
        }
    }
}

#[test]
fn what_changed_stands_in_the_row() {
    let app = TestApp::new();
    let limit = app.limit("calls", 10, "monthly");
    let _changed =
        app.business("PUT", &format!("/api/v1/plan_limits/{limit}"), Some(&json!({"limit_value": 11})), 200);
    let corrected = json!({"set_to": 4});
    let _corrected = app.business("PUT", "/api/v1/metrics/calls", Some(&corrected), 200);
    let _corrected = app.business("PUT", "/api/v1/metrics/calls", Some(&json!({"value": -1})), 200);
    let logs = app.business("GET", "/api/v1/audit_logs?limit=4", None, 200);
    let rows = logs["audit_logs"].as_array().unwrap();
    let shown = |row: &Value| {
        (row["action"].clone(), row["resource_id"].clone(), row["before"].clone(), row["after"].clone())
    };
    assert_eq!(
        shown(&rows[0]),
        (json!("usage.correct"), json!("calls"), json!({"value": 4}), json!({"value": 3}))
    );
    assert_eq!(
        shown(&rows[1]),
        (json!("usage.correct"), json!("calls"), json!({"value": 0}), json!({"value": 4}))
    );
    let (was, is) = (json!({"limit_value": 10}), json!({"limit_value": 11}));
    assert_eq!(shown(&rows[2]), (json!("limit.update"), json!(limit), was, is));
    assert_eq!(rows[3]["before"], Value::Null);
    assert_eq!(rows[3]["after"]["limit_value"], 10);
    // Filters, and pages in between.
    let of = |query: &str| app.business("GET", &format!("/api/v1/audit_logs?{query}"), None, 200);
    assert_eq!(of("action=limit.update")["count"], 1);
    assert_eq!(of("resource_type=limit")["count"], 2);
    assert_eq!(of("to=2020-01-01T00:00:00Z")["count"], 0);
    let first = of("limit=2&resource_type=usage");
    assert_eq!((&first["count"], &first["next_cursor"]), (&json!(2), &Value::Null));
    let first = of("limit=1&resource_type=usage");
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(
        of(&format!("limit=1&resource_type=usage&cursor={cursor}"))["audit_logs"][0]["before"],
        json!({"value": 0})
    );
    let refused = app.business("GET", "/api/v1/audit_logs?from=yesterday", None, 400);
    assert_eq!(refused["code"], "validation_failed");
    // Another business sees none of it.
    let (_, other) = tracktags_tests::new_business(&app.node);
    let seen = app.client().json("GET", "/api/v1/audit_logs?resource_type=limit", &other, None).json();
    assert_eq!(seen["count"], 0);
}

#[test]
fn every_change_by_sql_leaves_one_row_with_the_actor_sql() {
    let app = TestApp::new();
    let _key = app.customer_key("c1");
    let plan = app.plan("Gold", false);
    let limit = app.limit("calls", 10, "monthly");
    let b = &app.business_id;
    for (sql, action, resource) in [
        ("UPDATE plan_limits SET limit_value = 99".to_owned(), "limit.update", limit.as_str()),
        ("UPDATE customers SET email = 'a@b.c'".to_owned(), "customer.update", "c1"),
        (
            format!("INSERT INTO customers (business_id, customer_id) VALUES ('{b}', 'c2')"),
            "customer.create",
            "c2",
        ),
        (
            format!("INSERT INTO plans (business_id, id, plan_name) VALUES ('{b}', 'p2', 'Two')"),
            "plan.create",
            "p2",
        ),
        ("UPDATE plans SET plan_name = 'Three' WHERE id = 'p2'".to_owned(), "plan.update", "p2"),
        ("DELETE FROM plans WHERE id = 'p2'".to_owned(), "plan.delete", "p2"),
        ("UPDATE businesses SET enforcement = 'observe'".to_owned(), "business.update", b.as_str()),
        (
            "UPDATE metrics SET tags = '{\"a\":\"b\"}' WHERE scope = 'business'".to_owned(),
            "metric.update",
            "calls",
        ),
        (
            "UPDATE customer_keys SET revoked_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')".to_owned(),
            "key.update",
            "",
        ),
        ("DELETE FROM plan_limits".to_owned(), "limit.delete", limit.as_str()),
    ] {
        let before = trail(&app);
        let _done = app.node.sql(&sql);
        let after = trail(&app);
        assert_eq!(after.len(), before.len() + 1, "{sql}: {:?}", &after[..after.len() - before.len()]);
        assert_eq!(
            (&after[0]["actor"]["type"], &after[0]["action"]),
            (&json!("sql"), &json!(action)),
            "{sql}"
        );
        assert!(resource.is_empty() || after[0]["resource_id"] == resource, "{}", after[0]);
        assert_eq!(after[0]["request_id"], Value::Null);
    }
    // A change of ours among theirs is still ours alone, and each of many rows has its own.
    let _sql = app.node.sql(&format!(
        "INSERT INTO plans (business_id, plan_name) VALUES ('{b}', 'A'), ('{b}', 'B'), ('{b}', 'C')"
    ));
    let _ours = app.business("DELETE", &format!("/api/v1/plans/{plan}"), None, 200);
    let after = trail(&app);
    let of = |kind: &str| {
        after.iter().filter(|row| row["actor"]["type"] == kind && row["resource_type"] == "plan").count()
    };
    assert_eq!((of("sql"), of("business")), (6, 2));
}

#[test]
fn rows_that_sql_writes_into_the_trail_are_shown_as_such_and_none_is_rewritten() {
    let app = TestApp::new();
    let forged = format!(
        "INSERT INTO audit_logs (business_id, at, actor_type, action, resource_id, row_mac)
         VALUES ('{}', '2026-01-01T00:00:00.000000Z', 'admin', 'key.create', 'key_1', zeroblob(32))",
        app.business_id
    );
    let _done = app.node.sql(&forged);
    let row = trail(&app)[0].clone();
    assert_eq!((&row["actor"]["type"], &row["resource_id"]), (&json!("sql"), &json!("key_1")), "{row}");
    let refused = std::panic::catch_unwind(|| app.node.sql("UPDATE audit_logs SET actor_type = 'sql'"));
    assert!(refused.is_err(), "the trail is not rewritten");
}

#[test]
fn an_unclean_stop_is_noted_with_what_was_open() {
    let app = TestApp::new();
    let target = Upstream::start();
    let key = app.customer_key("c1");
    let _limit = app.limit("calls", 10, "monthly");
    let body = json!({"metric_name": "calls", "target_url": target.url("/echo"), "method": "GET"});
    let answer = app.client().json("POST", "/api/v1/proxy", &key, Some(&body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let TestApp { mut node, business_id, business_key } = app;
    node.kill();
    let app = TestApp { node: node.restart(), business_id, business_key };
    let row = trail(&app)[0].clone();
    assert_eq!(
        (&row["action"], &row["actor"]["type"]),
        (&json!("store.unclean_stop"), &json!("server")),
        "{row}"
    );
    assert!(row["after"]["open_calls"].is_u64(), "{row}");
}
