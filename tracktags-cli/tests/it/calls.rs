//! What the commands ask the API for, and how its answers are shown.

use crate::support::Canned;

const CREATED_LIMIT: &str = r#"{"status":"created","id":"0d0c6f0e","metric_name":"api_calls","limit_value":1000,"limit_period":"monthly","breach_operator":"gte","breach_action":"deny","metric_type":"reset","plan_id":null,"customer_id":null,"alert_thresholds":[80,100],"webhook_urls":null,"overage_meter":null,"created_at":"2026-01-05T09:00:00Z","updated_at":"2026-01-05T09:00:00Z"}"#;
const CREATED_KEY: &str = r#"{"status":"created","api_key":"ck_live_customer_123_placeholder","customer_id":"customer_123","key_id":"key_1","key_name":"key_1","expires_at":null,"warning":"Save this key securely. It will not be shown again"}"#;
const KEYS: &str = r#"{"keys":[{"id":"key_1","key_name":"laptop","key_type":"customer_api","is_active":true,"hint":"ck_live_cust…6789","description":null,"scopes":[],"created_at":"2026-01-05T09:00:00Z","expires_at":null,"last_used_at":null},{"id":"key_2","key_name":"server","key_type":"customer_api","is_active":true,"hint":"ck_live_cust…1234","description":"the \u001b[31mnew\u001b[0m one","scopes":[],"created_at":"2026-01-06T09:00:00Z","expires_at":"2026-02-01T00:00:00Z","last_used_at":null}],"count":2,"next_cursor":"b3BhcXVl"}"#;
const CUSTOMERS: &str = r#"{"customers":[{"business_id":"biz_1","customer_id":"customer_123","customer_name":"Ada","email":null,"description":null,"plan_id":"plan_1","plan_in_force":"plan_1","stripe_customer_id":null,"stripe_subscription_id":null,"stripe_price_id":null,"subscription_status":null,"subscription_ends_at":null,"billing_anchor_day":31,"metadata":{},"created_at":"2026-01-05T09:00:00Z","updated_at":"2026-01-05T09:00:00Z"}],"count":1,"next_cursor":null}"#;
const USAGE: &str = r#"{"customer_id":"customer_123","business_id":"biz_1","plan_id":null,"plan_in_force":null,"as_of":"2026-01-31T23:00:00Z","metrics":[{"metric_name":"api_calls","scope":"customer","operation":"SUM","current_value":234,"held":0,"limits":[{"metric_name":"api_calls","limit_id":"l2","source":"business","limit_period":"daily","limit_operator":"gte","breach_action":"allow_overage","limit_value":100,"current_usage":110,"remaining":0,"is_breached":true,"overage":10,"granted":0,"window_start":"2026-01-31T00:00:00Z","window_end":"2026-02-01T00:00:00Z"},{"metric_name":"api_calls","limit_id":"l1","source":"business","limit_period":"monthly","limit_operator":"gte","breach_action":"deny","limit_value":1000,"current_usage":234,"remaining":766,"is_breached":false,"overage":0,"granted":0,"window_start":"2026-01-01T00:00:00Z","window_end":"2026-02-01T00:00:00Z"}]},{"metric_name":"seats","scope":"customer","operation":"SUM","current_value":3,"held":0,"limits":[]}]}"#;
const BUSINESS: &str = r#"{"business_id":"biz_1","business_name":"Acme","email":"ops@acme.example","created_at":"2026-01-05T09:00:00Z"}"#;

#[test]
fn a_limit_is_created_and_shown() {
    let words = ["limits", "create", "--metric", "api_calls", "--value", "1000", "--period", "monthly"];
    let (ran, asked) = Canned::new(201, CREATED_LIMIT).asked_by(&words);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    insta::assert_snapshot!("limit_created", ran.out);
    insta::assert_snapshot!("limit_create_request", asked);
}

#[test]
fn every_flag_of_a_limit_goes_into_the_body() {
    let words = [
        "limits",
        "create",
        "--metric",
        "seats",
        "--value",
        "5",
        "--period",
        "realtime",
        "--operator",
        "gt",
        "--action",
        "webhook",
        "--metric-type",
        "checkpoint",
        "--alert-thresholds",
        "80, 100",
        "--customer",
        "customer_123",
    ];
    let (_, asked) = Canned::new(201, CREATED_LIMIT).asked_by(&words);
    insta::assert_snapshot!("limit_create_request_whole", asked);
}

#[test]
fn json_is_the_apis_own_answer() {
    let (ran, _) = Canned::new(200, USAGE).asked_by(&["--output", "json", "usage"]);
    assert_eq!((ran.code, ran.out), (0, format!("{USAGE}\n")));
}

#[test]
fn csv_has_the_tables_columns_and_the_apis_values() {
    let (ran, _) = Canned::new(200, USAGE).asked_by(&["--output", "csv", "usage"]);
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!("usage_csv", ran.out);
    let told = r#"{"plans":[{"id":"p1","plan_name":"Pro, \"big\"\nplan","stripe_price_id":null,"is_free":false}],"next_cursor":"abc"}"#;
    let (ran, _) = Canned::new(200, told).asked_by(&["--output", "csv", "plans", "list"]);
    assert_eq!(
        ran.out,
        "id,plan_name,stripe_price_id,is_free,created_at\np1,\"Pro, \"\"big\"\"\nplan\",,false,\n"
    );
    assert_eq!((ran.code, ran.err.as_str()), (0, "There are more: --cursor abc\n"));
    let (ran, _) = Canned::new(201, CREATED_LIMIT).asked_by(&["--output", "csv", "limits", "get", "x"]);
    insta::assert_snapshot!("limit_csv", ran.out);
}

#[test]
fn history_shows_a_row_for_each_step() {
    let told = r#"{"metric_name":"api_calls","customer_id":"customer_123","scope":"customer","step":"day","timezone":"UTC","points":[{"start":"2026-01-30T00:00:00Z","end":"2026-01-31T00:00:00Z","value":120,"overage":0,"denied":3},{"start":"2026-01-31T00:00:00Z","end":"2026-02-01T00:00:00Z","value":0,"overage":0,"denied":0}],"count":2}"#;
    let command = [
        "history",
        "api_calls",
        "--customer",
        "customer_123",
        "--step",
        "day",
        "--from",
        "2026-01-30T00:00:00Z",
    ];
    let (ran, asked) = Canned::new(200, told).asked_by(&command);
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!("history", ran.out);
    let query = "customer_id=customer_123&step=day&from=2026-01-30T00%3A00%3A00Z";
    assert!(asked.starts_with(&format!("GET /api/v1/metrics/api_calls/history?{query}\n")), "{asked}");
}

#[test]
fn metrics_are_listed_recorded_and_set() {
    let told = r#"{"metrics":[{"metric_name":"api_calls","scope":"customer","operation":"SUM","metric_type":"reset","flush_interval":"monthly","current_value":234}],"next_cursor":null}"#;
    let (ran, asked) = Canned::new(200, told).asked_by(&["metrics", "list", "--customer", "customer_123"]);
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!("metrics", ran.out);
    assert!(asked.starts_with("GET /api/v1/metrics?customer_id=customer_123\n"), "{asked}");
    let told = r#"{"status":"updated","business_id":"biz_1","customer_id":"customer_123","metric_name":"api_calls","new_value":229,"timestamp":"2026-01-31T23:00:00Z"}"#;
    let words = ["metrics", "record", "api_calls", "-5", "--customer", "customer_123"];
    let (ran, asked) = Canned::new(200, told).asked_by(&words);
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!("metric_recorded", ran.out);
    assert!(asked.starts_with("PUT /api/v1/metrics/api_calls?customer_id=customer_123\n"), "{asked}");
    assert!(asked.contains(r#"{"value":-5}"#), "{asked}");
    let (_, asked) = Canned::new(200, told).asked_by(&["metrics", "set", "api_calls", "229"]);
    assert!(asked.contains(r#"{"set_to":229}"#), "{asked}");
}

#[test]
fn usage_shows_a_row_for_each_limit() {
    let (ran, asked) = Canned::new(200, USAGE).asked_by(&["usage", "--customer", "customer_123"]);
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!("usage", ran.out);
    assert_eq!(
        asked,
        "GET /api/v1/usage?customer_id=customer_123\nauthorization: Bearer tk_live_placeholder"
    );
}

#[test]
fn a_new_key_is_shown_with_its_warning() {
    let words = ["keys", "create", "--customer", "customer_123", "--expires-at", "2026-12-31T01:00:00+01:00"];
    let (ran, asked) = Canned::new(201, CREATED_KEY).asked_by(&words);
    insta::assert_snapshot!("key_created", ran.out);
    insta::assert_snapshot!("key_create_request", asked);
}

#[test]
fn a_list_is_a_table_without_control_characters_and_says_how_to_go_on() {
    let (ran, asked) =
        Canned::new(200, KEYS).asked_by(&["keys", "list", "--customer", "customer_123", "--limit", "2"]);
    insta::assert_snapshot!("keys", ran.out);
    assert!(asked.starts_with("GET /api/v1/customers/customer_123/keys?limit=2\n"), "{asked}");
}

#[test]
fn customers_are_listed_and_an_empty_list_says_so() {
    let (ran, asked) = Canned::new(200, CUSTOMERS).asked_by(&["customers", "list", "--query", "a&b=c"]);
    insta::assert_snapshot!("customers", ran.out);
    assert!(asked.starts_with("GET /api/v1/customers?q=a%26b%3Dc\n"), "{asked}");
    let none = r#"{"plan_limits":[],"count":0,"next_cursor":null}"#;
    let (ran, _) = Canned::new(200, none).asked_by(&["limits", "list"]);
    assert_eq!(ran.out, "no plan limits\n");
}

#[test]
fn an_empty_value_clears_a_field() {
    let words =
        ["customers", "update", "customer_123", "--plan", "", "--subscription-ends-at", "", "--name", "Ada"];
    let (_, asked) = Canned::new(200, r#"{"status":"updated"}"#).asked_by(&words);
    insta::assert_snapshot!("customer_update_request", asked);
}

#[test]
fn the_admin_creates_businesses_and_acts_for_one() {
    let words = ["businesses", "create", "--name", "Acme", "--email", "ops@acme.example"];
    let (ran, asked) = Canned::new(201, BUSINESS).asked_by_admin(None, &words);
    insta::assert_snapshot!("business_created", ran.out);
    insta::assert_snapshot!("business_create_request", asked);
    let (_, asked) = Canned::new(201, CREATED_KEY).asked_by_admin(Some("biz_1"), &["keys", "create"]);
    assert_eq!(asked, "POST /api/v1/keys?business_id=biz_1\nx-admin-key: ak_placeholder\n{}");
    let words = ["keys", "revoke", "key/1"];
    let (_, asked) =
        Canned::new(200, r#"{"status":"revoked","key_id":"key_1"}"#).asked_by_admin(Some("biz_1"), &words);
    assert!(asked.starts_with("DELETE /api/v1/keys/business/key%2F1?business_id=biz_1\n"), "{asked}");
}

#[test]
fn plans_are_changed_and_deleted_by_force() {
    let (_, asked) = Canned::new(200, "{}").asked_by(&["plans", "update", "p1", "--free", "true"]);
    assert!(asked.ends_with("\n{\"is_free\":true}"), "{asked}");
    let (ran, asked) = Canned::new(200, r#"{"status":"deleted","plan_id":"p1"}"#)
        .asked_by(&["plans", "delete", "p1", "--force"]);
    assert!(asked.starts_with("DELETE /api/v1/plans/p1?force=true\n"), "{asked}");
    assert_eq!(ran.out, "status   deleted\nplan_id  p1\n");
}
