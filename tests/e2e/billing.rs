//! What only the platform's admin does: subscriptions set by hand hold on the next request, and billing windows begin
//! again.

#![cfg(test)]

use serde_json::{Value, json};
use tracktags_tests::{TestApp, text};

fn admin(app: &TestApp, method: &str, path: &str, body: &Value, status: u16) -> Value {
    let path = path.replace("{bid}", &app.business_id);
    let body = (*body != Value::Null).then_some(body);
    let answer = app.client().admin(method, &path, &app.node.admin_key(), body);
    assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    answer.json()
}

fn track(app: &TestApp, customer: &str, units: i64) -> u16 {
    let body = json!({"customer_id": customer, "metric_name": "calls", "units": units});
    app.client().json("POST", "/api/v1/track", &app.business_key, Some(&body)).status
}

#[test]
fn a_subscription_set_by_hand_holds_on_the_next_request() {
    let app = TestApp::new();
    let free = app.plan("Free", true);
    let priced = json!({"plan_name": "Gold", "stripe_price_id": "price_gold"});
    let gold = text(&app.business("POST", "/api/v1/plans", Some(&priced), 201), "id");
    for (plan, value) in [(&free, 2), (&gold, 10)] {
        let _limit = app.limit_with(&json!({"metric_name": "calls", "limit_value": value, "plan_id": plan}));
    }
    let on_free = json!({"customer_id": "c1", "plan_id": free});
    let _customer = app.business("POST", "/api/v1/customers", Some(&on_free), 201);
    assert_eq!((track(&app, "c1", 2), track(&app, "c1", 1)), (200, 429));

    let path = "/admin/v1/customers/{bid}/c1/override";
    let active = json!({"status": "active", "price_id": "price_gold", "expires_in_days": 3});
    let set = admin(&app, "POST", path, &active, 200);
    assert_eq!(
        (&set["status"], &set["customer_id"], &set["subscription_status"]),
        (&json!("success"), &json!("c1"), &json!("active"))
    );
    assert_eq!((track(&app, "c1", 8), track(&app, "c1", 1)), (200, 429), "ten in all");
    let customer = app.business("GET", "/api/v1/customers/c1", None, 200);
    assert_eq!((&customer["plan_id"], &customer["plan_in_force"]), (&json!(gold), &json!(gold)));
    assert_eq!(customer["stripe_price_id"], "price_gold");
    let ends: jiff::Timestamp = text(&customer, "subscription_ends_at").parse().unwrap();
    let left = ends.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((3 * 86_400 - 60..=3 * 86_400).contains(&left), "{left} s");

    let _canceled = admin(&app, "POST", path, &json!({"status": "canceled"}), 200);
    let customer = app.business("GET", "/api/v1/customers/c1", None, 200);
    assert_eq!((&customer["plan_id"], &customer["plan_in_force"]), (&json!(gold), &json!(free)));
    assert_eq!(track(&app, "c1", 1), 429, "the free plan holds");
    let _active = admin(&app, "POST", path, &json!({"status": "active"}), 200);
    let customer = app.business("GET", "/api/v1/customers/c1", None, 200);
    assert_eq!((&customer["plan_in_force"], &customer["subscription_ends_at"]), (&json!(gold), &Value::Null));
    for (body, status, code) in [
        (json!({"status": "active", "price_id": "price_none"}), 404, "plan_not_found"),
        (json!({"status": "happy"}), 400, "validation_failed"),
        (json!({}), 400, "validation_failed"),
        (json!({"status": "active", "expires_in_days": 0}), 400, "validation_failed"),
        (json!({"status": "active", "expires_in_days": 3651}), 400, "validation_failed"),
    ] {
        assert_eq!(admin(&app, "POST", path, &body, status)["code"], code, "{body}");
    }
    let nobody = "/admin/v1/customers/{bid}/nobody/override";
    assert_eq!(admin(&app, "POST", nobody, &json!({"status": "active"}), 404)["code"], "customer_not_found");
    app.node.verify();
}

#[test]
fn billing_windows_begin_again_and_levels_go_on() {
    let app = TestApp::new();
    let free = app.plan("Free", true);
    let priced = json!({"plan_name": "Gold", "stripe_price_id": "price_gold"});
    let gold = text(&app.business("POST", "/api/v1/plans", Some(&priced), 201), "id");
    for (customer, plan) in [("c1", Some(&free)), ("c2", Some(&free)), ("c3", Some(&gold)), ("c4", None)] {
        let fields = json!({"customer_id": customer, "plan_id": plan});
        let _customer = app.business("POST", "/api/v1/customers", Some(&fields), 201);
    }
    let _window = app.limit("calls", 5, "monthly");
    let _level = app.limit("seats", 5, "realtime");
    let value = |customer: &str, metric: &str| {
        let path = format!("/api/v1/metrics/{metric}?customer_id={customer}");
        app.business("GET", &path, None, 200)["limits"][0]["current_usage"].as_i64().unwrap()
    };
    for customer in ["c1", "c2", "c3", "c4"] {
        assert_eq!(track(&app, customer, 5), 200);
        let seats = json!({"customer_id": customer, "metric_name": "seats", "units": 2});
        let _seats = app.business("POST", "/api/v1/track", Some(&seats), 200);
    }
    assert_eq!(track(&app, "c1", 1), 429);
    let reset = admin(&app, "POST", "/admin/v1/customers/{bid}/c1/reset-billing", &Value::Null, 200);
    assert_eq!((&reset["status"], &reset["customer_id"]), (&json!("success"), &json!("c1")));
    assert_eq!((value("c1", "calls"), value("c1", "seats"), value("c2", "calls")), (0, 2, 5));
    assert_eq!(track(&app, "c1", 5), 200, "it holds on the next request");
    // Every customer on a plan without a price.
    let all = admin(&app, "POST", "/admin/billing-cycle-reset?business_id={bid}", &Value::Null, 200);
    assert_eq!(all, json!({"status": "completed", "total_customers": 2, "successes": 2, "failures": 0}));
    let calls = ["c1", "c2", "c3", "c4"].map(|customer| value(customer, "calls"));
    assert_eq!(calls, [0, 0, 5, 5]);
    assert_eq!(value("c2", "seats"), 2);
    let nobody = admin(&app, "POST", "/admin/v1/customers/{bid}/nobody/reset-billing", &Value::Null, 404);
    assert_eq!(nobody["code"], "customer_not_found");
    app.node.verify();
}

#[test]
fn a_businesss_own_subscription_is_a_note() {
    let app = TestApp::new();
    let path = "/admin/v1/business/{bid}/override";
    let body = json!({"status": "past_due", "price_id": "price_x", "expires_in_days": 7});
    let set = admin(&app, "POST", path, &body, 200);
    assert_eq!(
        (&set["subscription_status"], &set["override_expires_in_days"]),
        (&json!("past_due"), &json!(7))
    );
    let billing = admin(&app, "GET", "/admin/v1/business/{bid}", &Value::Null, 200);
    assert_eq!(
        (&billing["business_id"], &billing["subscription_status"], &billing["deleted_at"]),
        (&json!(app.business_id), &json!("past_due"), &Value::Null)
    );
    let _limit = app.limit("calls", 1, "monthly");
    let _key = app.customer_key("c1");
    assert_eq!(track(&app, "c1", 1), 200, "no limit depends on it");
}
