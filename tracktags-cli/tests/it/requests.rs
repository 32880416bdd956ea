//! What each command sends, and how the environment and flags configure it.

use crate::support::{Canned, Ran, program};
use serde_json::{Value, json};

/// A command line; method and target of the request; its body.
type Case<'a> = (&'a [&'a str], &'a str, Value);

fn assert_sent(cases: &[Case<'_>]) {
    assert_asked(cases, Canned::asked_by);
}

fn assert_asked(cases: &[Case<'_>], ask: impl Fn(Canned, &[&str]) -> (Ran, String)) {
    for (arguments, line, body) in cases {
        let (ran, asked) = ask(Canned::new(200, "{}"), arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
        let mut parts = asked.splitn(3, '\n');
        assert_eq!(parts.next(), Some(*line), "{arguments:?}");
        let found = parts.nth(1).map_or(Value::Null, |body| serde_json::from_str(body).unwrap());
        assert_eq!(found, *body, "{arguments:?}");
    }
}

#[test]
fn customers_and_keys_are_asked_for_as_the_api_reads_it() {
    assert_sent(&[
        (
            &["customers", "create", "customer_123", "--plan", "", "--metadata", r#"{"team":"blue"}"#],
            "POST /api/v1/customers",
            json!({"customer_id": "customer_123", "plan_id": null, "metadata": {"team": "blue"}}),
        ),
        (&["customers", "get", "a.b"], "GET /api/v1/customers/a.b", Value::Null),
        (
            &["customers", "list", "--plan", "p", "--query", "a&b c", "--limit", "5", "--cursor", "x="],
            "GET /api/v1/customers?plan_id=p&q=a%26b%20c&limit=5&cursor=x%3D",
            Value::Null,
        ),
        (
            &["customers", "update", "c", "--subscription-ends-at", "2026-02-01T01:00:00+01:00"],
            "PUT /api/v1/customers/c",
            json!({"subscription_ends_at": "2026-02-01T00:00:00Z"}),
        ),
        (&["customers", "delete", "c"], "DELETE /api/v1/customers/c", Value::Null),
        (
            &["keys", "create", "--customer", "c", "--name", "n", "--description", "d"],
            "POST /api/v1/customers/c/keys",
            json!({"key_name": "n", "credentials": {"description": "d"}}),
        ),
        (&["keys", "create"], "POST /api/v1/keys", json!({})),
        (
            &["keys", "create", "--scope", "read", "--scope", "proxy"],
            "POST /api/v1/keys",
            json!({"scopes": ["read", "proxy"]}),
        ),
        (&["keys", "list"], "GET /api/v1/keys", Value::Null),
        (
            &["keys", "rotate", "k", "--customer", "c", "--grace-seconds", "60"],
            "POST /api/v1/customers/c/keys/k/rotate",
            json!({"grace_seconds": 60}),
        ),
        (&["keys", "rotate", "my key/1"], "POST /api/v1/keys/business/my%20key%2F1/rotate", json!({})),
        (&["keys", "revoke", "my key/1"], "DELETE /api/v1/keys/business/my%20key%2F1", Value::Null),
        (&["keys", "revoke", "k", "--customer", "c"], "DELETE /api/v1/customers/c/keys/k", Value::Null),
    ]);
}

#[test]
fn metrics_are_asked_for_as_the_api_reads_it() {
    assert_sent(&[
        (
            &[
                "metrics",
                "define",
                "seats",
                "--type",
                "checkpoint",
                "--customer",
                "c",
                "--initial",
                "3",
                "--limit",
                "5",
                "--action",
                "deny",
                "--tags",
                r#"{"a":"b"}"#,
            ],
            "POST /api/v1/metrics?customer_id=c",
            json!({"metric_name": "seats", "metric_type": "checkpoint", "initial_value": 3, "limit_value": 5,
                "breach_action": "deny", "tags": {"a": "b"}}),
        ),
        (
            &["metrics", "change", "seats", "--operation", "MAX", "--scope", "customer"],
            "PATCH /api/v1/metrics/seats?scope=customer",
            json!({"operation": "MAX"}),
        ),
        (
            &["metrics", "delete", "seats", "--customer", "c"],
            "DELETE /api/v1/metrics/seats?customer_id=c",
            Value::Null,
        ),
    ]);
}

#[test]
fn a_watch_looks_as_often_as_it_is_told_to() {
    let (ran, asked) = Canned::new(200, "{}").asked_by(&["watch", "--customer", "c", "--times", "1"]);
    assert_eq!((ran.code, asked.lines().next()), (0, Some("GET /api/v1/usage?customer_id=c")));
}

#[test]
fn the_trail_and_billing_are_asked_for_as_the_api_reads_it() {
    assert_sent(&[(
        &["audit", "--action", "limit.update", "--from", "2026-01-01T00:00:00Z", "--limit", "5"],
        "GET /api/v1/audit_logs?action=limit.update&from=2026-01-01T00%3A00%3A00Z&limit=5",
        Value::Null,
    )]);
    let of_admin: &[Case<'_>] = &[
        (
            &["audit", "--everyone", "--resource", "key"],
            "GET /admin/audit-logs?resource_type=key",
            Value::Null,
        ),
        (&["billing", "get", "biz_1"], "GET /admin/v1/business/biz_1", Value::Null),
        (
            &["billing", "override", "biz_1", "--status", "active"],
            "POST /admin/v1/business/biz_1/override",
            json!({"status": "active"}),
        ),
        (
            &[
                "billing",
                "override",
                "biz_1",
                "--customer",
                "c",
                "--status",
                "canceled",
                "--price",
                "p",
                "--days",
                "3",
            ],
            "POST /admin/v1/customers/biz_1/c/override",
            json!({"status": "canceled", "price_id": "p", "expires_in_days": 3}),
        ),
        (&["billing", "reset", "biz_1", "c"], "POST /admin/v1/customers/biz_1/c/reset-billing", json!({})),
        (
            &["billing", "reset-all", "--of", "biz_1"],
            "POST /admin/billing-cycle-reset?business_id=biz_1",
            json!({}),
        ),
    ];
    assert_asked(of_admin, |canned, arguments| canned.asked_by_admin(None, arguments));
}

#[test]
fn plans_limits_and_settings_are_asked_for_as_the_api_reads_it() {
    assert_sent(&[
        (
            &["plans", "create", "Pro", "--free", "false"],
            "POST /api/v1/plans",
            json!({"plan_name": "Pro", "is_free": false}),
        ),
        (&["plans", "delete", "p", "--force"], "DELETE /api/v1/plans/p?force=true", Value::Null),
        (&["plans", "delete", "p"], "DELETE /api/v1/plans/p", Value::Null),
        (
            &[
                "limits",
                "create",
                "--metric",
                "m",
                "--value",
                "0",
                "--plan",
                "p",
                "--alert-thresholds",
                "80,100",
            ],
            "POST /api/v1/plan_limits",
            json!({"metric_name": "m", "limit_value": 0, "plan_id": "p", "alert_thresholds": [80, 100]}),
        ),
        (
            &["limits", "update", "l", "--value", "9007199254740991", "--action", "allow_overage"],
            "PUT /api/v1/plan_limits/l",
            json!({"limit_value": 9_007_199_254_740_991_u64, "breach_action": "allow_overage"}),
        ),
        (&["limits", "delete", "l"], "DELETE /api/v1/plan_limits/l", Value::Null),
        (&["settings", "get"], "GET /api/v1/settings", Value::Null),
        (
            &["settings", "set", "--timezone", "Europe/Berlin", "--default-metric", ""],
            "PATCH /api/v1/settings",
            json!({"timezone": "Europe/Berlin", "default_metric": null}),
        ),
        (&["usage", "--metric", "m"], "GET /api/v1/usage?metric_name=m", Value::Null),
    ]);
}

#[test]
fn an_own_key_needs_no_business_and_the_admins_key_waits_for_one() {
    let (_, asked) = Canned::new(200, "{}").asked_by(&["--admin-key", "ak_placeholder", "customers", "list"]);
    assert_eq!(asked, "GET /api/v1/customers\nauthorization: Bearer tk_live_placeholder");
    let words = ["--admin-key", "ak_placeholder", "--business", "biz_1", "customers", "list"];
    let (_, asked) = Canned::new(200, "{}").asked_by(&words);
    assert_eq!(asked, "GET /api/v1/customers?business_id=biz_1\nx-admin-key: ak_placeholder");
}

#[test]
fn the_environment_configures_and_flags_override() {
    let server = Canned::new(200, "{}");
    let url = format!("{}/below/", server.url);
    let environment = [("TRACKTAGS_URL", url.as_str()), ("TRACKTAGS_KEY", "tk_live_of_the_environment\n")];
    assert!(program(&["settings", "get"], &environment).status.success());
    assert_eq!(
        server.asked(),
        "GET /below/api/v1/settings\nauthorization: Bearer tk_live_of_the_environment"
    );
    let server = Canned::new(200, "{}");
    let words = ["--url", &server.url, "--key", "tk_live_of_a_flag", "settings", "get"];
    assert!(program(&words, &environment).status.success());
    assert_eq!(server.asked(), "GET /api/v1/settings\nauthorization: Bearer tk_live_of_a_flag");
}
