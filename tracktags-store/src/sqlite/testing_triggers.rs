//! What plain SQL does to the configuration: versions, references, metrics, refusals.

use super::*;
use crate::sqlite::tables::changes;
use crate::sqlite::versions;
use tracktags_core::versions::Changes;

fn nobody() -> Vec<String> {
    Vec::new()
}

fn everybody() -> Vec<String> {
    vec!["*".to_owned()]
}

fn only(customer: &str) -> Vec<String> {
    vec![customer.to_owned()]
}

#[test]
fn every_table_moves_the_version_of_its_business_and_says_whom_it_concerns() {
    let conn = &mut two_businesses();
    let key = "key_name, key_hash, hash_alg, hint) VALUES ('k1', 'b1'";
    let rest = "'k1', randomblob(32), 'x', 'h')";
    let cases = [
        ("INSERT INTO customers (business_id, customer_id) VALUES ('b1', 'c3')".to_owned(), only("c3")),
        ("UPDATE customers SET customer_name = 'Ada' WHERE business_id = 'b1' AND customer_id = 'c3'".to_owned(), only("c3")),
        ("UPDATE customers SET deleted_at = '2026-01-01' WHERE business_id = 'b1' AND customer_id = 'c3'".to_owned(), only("c3")),
        ("DELETE FROM customers WHERE business_id = 'b1' AND customer_id = 'c3'".to_owned(), only("c3")),
        ("INSERT INTO plans (id, business_id, plan_name) VALUES ('p1', 'b1', 'Pro')".to_owned(), everybody()),
        ("UPDATE plans SET is_free = 1 WHERE id = 'p1'".to_owned(), everybody()),
        ("INSERT INTO metrics (business_id, metric_name) VALUES ('b1', 'calls')".to_owned(), everybody()),
        ("UPDATE metrics SET metric_type = 'reset' WHERE business_id = 'b1'".to_owned(), everybody()),
        ("INSERT INTO plan_limits (id, business_id, metric_name, limit_value, plan_id) VALUES ('l1', 'b1', 'calls', 5, 'p1')".to_owned(), everybody()),
        ("UPDATE plan_limits SET limit_value = 6 WHERE id = 'l1'".to_owned(), everybody()),
        ("INSERT INTO plan_limits (id, business_id, metric_name, limit_value, customer_id) VALUES ('l2', 'b1', 'calls', 5, 'c1')".to_owned(), only("c1")),
        ("UPDATE plan_limits SET limit_value = 6 WHERE id = 'l2'".to_owned(), only("c1")),
        ("DELETE FROM plan_limits WHERE id = 'l2'".to_owned(), only("c1")),
        ("DELETE FROM plan_limits WHERE id = 'l1'".to_owned(), everybody()),
        ("DELETE FROM plans WHERE id = 'p1'".to_owned(), everybody()),
        ("DELETE FROM metrics WHERE business_id = 'b1'".to_owned(), everybody()),
        (format!("INSERT INTO customer_keys (id, business_id, customer_id, {key}, 'c1', {rest}"), only("c1")),
        ("UPDATE customer_keys SET revoked_at = '2026-01-01'".to_owned(), only("c1")),
        ("DELETE FROM customer_keys".to_owned(), only("c1")),
        (format!("INSERT INTO business_keys (id, business_id, {key}, {rest}"), everybody()),
        ("UPDATE business_keys SET revoked_at = '2026-01-01'".to_owned(), everybody()),
        ("DELETE FROM business_keys".to_owned(), everybody()),
        ("UPDATE businesses SET timezone = 'Europe/Berlin' WHERE business_id = 'b1'".to_owned(), everybody()),
        ("DELETE FROM businesses WHERE business_id = 'b1'".to_owned(), everybody()),
    ];
    for (text, whom) in cases {
        assert_eq!(changed(conn, |conn| sql(conn, &text)), [whom, nobody()], "{text}");
    }
    let before = changes::version(conn, &business("b1")).unwrap();
    sql(conn, "INSERT INTO businesses (business_id, business_name, email) VALUES ('b1', 'Again', 'x@y.z')");
    assert_eq!(changes::version(conn, &business("b1")).unwrap(), before + 1, "a version never begins again");
}

#[test]
fn a_row_that_moves_concerns_where_it_was_and_where_it_is() {
    let conn = &mut two_businesses();
    sql(
        conn,
        "INSERT INTO plan_limits (id, business_id, metric_name, limit_value, customer_id) VALUES ('l1', 'b1', 'calls', 5, 'c1');
         INSERT INTO plans (id, business_id, plan_name) VALUES ('p1', 'b1', 'Pro');
         INSERT INTO metrics (business_id, metric_name) VALUES ('b2', 'calls'), ('b1', 'seats');",
    );
    let cases = [
        ("UPDATE plan_limits SET customer_id = 'c2'", [vec!["c1".to_owned(), "c2".to_owned()], nobody()]),
        ("UPDATE plan_limits SET business_id = 'b2', customer_id = 'c1'", [only("c2"), only("c1")]),
        ("UPDATE plans SET business_id = 'b2'", [everybody(), everybody()]),
        ("UPDATE metrics SET business_id = 'b2' WHERE metric_name = 'seats'", [everybody(), everybody()]),
        ("UPDATE customers SET business_id = 'b2' WHERE customer_id = 'c2'", [only("c2"), only("c2")]),
        ("UPDATE businesses SET business_id = 'b3' WHERE business_id = 'b2'", [nobody(), everybody()]),
    ];
    for (text, whom) in cases {
        assert_eq!(changed(conn, |conn| sql(conn, text)), whom, "{text}");
    }
    assert_eq!(changes::version(conn, &business("b3")).unwrap(), 1);
}

#[test]
fn replace_moves_the_version_of_whoever_is_displaced() {
    let conn = &mut two_businesses();
    sql(
        conn,
        "INSERT INTO metrics (business_id, metric_name) VALUES ('b1', 'calls'), ('b2', 'calls');
         INSERT INTO plan_limits (id, business_id, metric_name, limit_value) VALUES ('wide', 'b1', 'calls', 5);
         INSERT INTO plans (id, business_id, plan_name) VALUES ('p1', 'b1', 'Pro');
         INSERT INTO customer_keys (id, business_id, customer_id, key_name, key_hash, hash_alg, hint)
            VALUES ('k1', 'b2', 'c1', 'k1', zeroblob(32), 'x', 'h');
         INSERT INTO business_keys (id, business_id, key_name, key_hash, hash_alg, hint)
            VALUES ('k1', 'b2', 'k1', zeroblob(32), 'x', 'h');",
    );
    let cases = [
        (
            "INSERT OR REPLACE INTO customers (business_id, customer_id, customer_name) VALUES ('b1', 'c1', 'Ada')",
            [only("c1"), nobody()],
        ),
        (
            "INSERT OR REPLACE INTO plan_limits (id, business_id, metric_name, limit_value, customer_id)
             VALUES ('wide', 'b1', 'calls', 9, 'c2')",
            [vec!["*".to_owned(), "c2".to_owned()], nobody()],
        ),
        (
            "INSERT OR REPLACE INTO plans (id, business_id, plan_name) VALUES ('p2', 'b1', 'Pro')",
            [everybody(), nobody()],
        ),
        (
            "REPLACE INTO customer_keys (id, business_id, customer_id, key_name, key_hash, hash_alg, hint)
             VALUES ('k9', 'b1', 'c2', 'k1', zeroblob(32), 'x', 'h')",
            [only("c2"), only("c1")],
        ),
        (
            "REPLACE INTO business_keys (id, business_id, key_name, key_hash, hash_alg, hint)
             VALUES ('k9', 'b1', 'k1', zeroblob(32), 'x', 'h')",
            [everybody(), everybody()],
        ),
        (
            "REPLACE INTO businesses (business_id, business_name, email) VALUES ('b1', 'New', 'x@y.z')",
            [everybody(), nobody()],
        ),
        (
            "REPLACE INTO metrics (business_id, metric_name, operation) VALUES ('b1', 'calls', 'COUNT')",
            [everybody(), nobody()],
        ),
    ];
    for (text, whom) in cases {
        assert_eq!(changed(conn, |conn| sql(conn, text)), whom, "{text}");
    }
    assert_eq!(count(conn, "customer_keys"), 1);
}

#[test]
fn a_plan_that_goes_takes_its_limits_along_and_frees_its_customers() {
    let goes = [
        "DELETE FROM plans WHERE id = 'p1'",
        "INSERT OR REPLACE INTO plans (id, business_id, plan_name) VALUES ('p2', 'b1', 'Pro')",
        "UPDATE OR REPLACE plans SET plan_name = 'Pro' WHERE id = 'p9'",
        "UPDATE plans SET id = 'p5' WHERE id = 'p1'",
        "UPDATE plans SET business_id = 'b2' WHERE id = 'p1'",
    ];
    let stays = [
        "INSERT OR IGNORE INTO plans (id, business_id, plan_name) VALUES ('p2', 'b1', 'Pro')",
        "INSERT INTO plans (business_id, plan_name) VALUES ('b1', 'Pro')
            ON CONFLICT (business_id, plan_name) DO UPDATE SET stripe_price_id = 'price_1'",
        "REPLACE INTO plans (id, business_id, plan_name) VALUES ('p1', 'b1', 'Pro')",
        "UPDATE plans SET plan_name = 'Best' WHERE id = 'p1'",
    ];
    for (text, left) in goes.map(|text| (text, 0)).into_iter().chain(stays.map(|text| (text, 1))) {
        let conn = &mut two_businesses();
        sql(
            conn,
            "INSERT INTO plans (id, business_id, plan_name) VALUES ('p1', 'b1', 'Pro'), ('p9', 'b1', 'Other');
             UPDATE customers SET plan_id = 'p1' WHERE business_id = 'b1' AND customer_id = 'c1';
             INSERT INTO plan_limits (business_id, metric_name, limit_value, plan_id) VALUES ('b1', 'calls', 5, 'p1');",
        );
        sql(conn, text);
        assert_eq!(count(conn, "plan_limits"), left, "{text}");
        assert_eq!(count(conn, "customers WHERE plan_id = 'p1'"), left, "{text}");
    }
}

#[test]
fn a_limit_by_sql_creates_its_metric_and_leaves_a_known_one_alone() {
    let conn = &mut two_businesses();
    let limit = "INSERT OR REPLACE INTO plan_limits (business_id, metric_name, limit_value, limit_period, customer_id)";
    sql(conn, &format!("{limit} VALUES ('b1', 'calls', 5, 'daily', 'c1')"));
    assert_eq!(count(conn, "metrics"), 1);
    let made = "metrics WHERE operation = 'SUM' AND metric_type = 'reset' AND flush_interval = 'daily' AND scope = 'customer'";
    assert_eq!(count(conn, made), 1);
    sql(conn, &format!("{limit} VALUES ('b1', 'seats', 5, 'realtime', NULL)"));
    assert_eq!(count(conn, "metrics WHERE metric_name = 'seats' AND metric_type = 'checkpoint'"), 2);
    sql(conn, "INSERT INTO metrics (business_id, metric_name, operation) VALUES ('b1', 'posts', 'COUNT')");
    sql(conn, &format!("{limit} VALUES ('b1', 'posts', 5, 'daily', NULL)"));
    assert_eq!(count(conn, "metrics WHERE metric_name = 'posts' AND operation = 'COUNT'"), 1);
    sql(conn, "UPDATE plan_limits SET metric_name = 'moved' WHERE metric_name = 'posts'");
    assert_eq!(count(conn, "metrics WHERE metric_name = 'moved'"), 2);
}

#[test]
fn rows_that_make_no_sense_are_refused() {
    let conn = &mut two_businesses();
    sql(
        conn,
        "INSERT INTO plans (id, business_id, plan_name, is_free) VALUES ('p1', 'b1', 'Pro', 1), ('p2', 'b2', 'Pro', 0);
         INSERT INTO plan_limits (id, business_id, metric_name, limit_value, plan_id) VALUES ('l1', 'b1', 'calls', 5, 'p1');
         INSERT INTO metrics (business_id, metric_name, operation) VALUES ('b1', 'peak', 'MAX'), ('b1', 'latest', 'LAST');
         INSERT INTO plan_limits (business_id, metric_name, limit_value, limit_period) VALUES ('b1', 'latest', 5, 'realtime');",
    );
    let limit = "INSERT INTO plan_limits (business_id, metric_name, limit_value";
    let key = "INSERT INTO customer_keys (id, business_id, customer_id, key_name, hash_alg, hint, key_hash";
    let cases: Vec<String> = vec![
        "UPDATE plan_limits SET limit_value = -1".to_owned(),
        "UPDATE plan_limits SET limit_value = 9007199254740992".to_owned(),
        "UPDATE plan_limits SET limit_value = 1.5".to_owned(),
        "UPDATE plan_limits SET limit_value = 'many'".to_owned(),
        "UPDATE plan_limits SET limit_period = 'fortnightly'".to_owned(),
        "UPDATE plan_limits SET breach_operator = '>='".to_owned(),
        "UPDATE plan_limits SET breach_action = 'explode'".to_owned(),
        "UPDATE plan_limits SET customer_id = 'c1'".to_owned(),
        "UPDATE plan_limits SET plan_id = 'p2'".to_owned(),
        "UPDATE plan_limits SET plan_id = ''".to_owned(),
        "UPDATE plan_limits SET metric_name = 'peak'".to_owned(),
        "UPDATE plan_limits SET metric_name = 'a b'".to_owned(),
        "UPDATE plan_limits SET metric_name = ''".to_owned(),
        "UPDATE plan_limits SET alert_thresholds = '[80,80]'".to_owned(),
        "UPDATE plan_limits SET alert_thresholds = '[0]'".to_owned(),
        "UPDATE plan_limits SET alert_thresholds = '[\"80\"]'".to_owned(),
        "UPDATE plan_limits SET alert_thresholds = '80'".to_owned(),
        "UPDATE plan_limits SET alert_thresholds = '[80'".to_owned(),
        "UPDATE plan_limits SET business_id = 'b9'".to_owned(),
        "UPDATE plan_limits SET limit_period = 'daily' WHERE metric_name = 'latest'".to_owned(),
        format!("{limit}, plan_id) VALUES ('b1', 'calls', 9, 'p1')"),
        format!("{limit}, customer_id) VALUES ('b1', 'calls', 9, 'c9')"),
        format!("{limit}, customer_id) VALUES ('b2', 'calls', 9, 'c2')"),
        format!("{limit}) VALUES ('b9', 'calls', 9)"),
        "UPDATE customers SET plan_id = 'p2' WHERE business_id = 'b1'".to_owned(),
        "UPDATE customers SET billing_anchor_day = 0".to_owned(),
        "UPDATE customers SET billing_anchor_day = 32".to_owned(),
        "UPDATE customers SET subscription_ends_at = 'soon'".to_owned(),
        "UPDATE customers SET subscription_ends_at = 'now'".to_owned(),
        "UPDATE customers SET subscription_ends_at = '12:00'".to_owned(),
        "UPDATE customers SET subscription_ends_at = '2026-01-32'".to_owned(),
        "UPDATE customers SET metadata = '[]'".to_owned(),
        "UPDATE customers SET customer_id = '_x' WHERE customer_id = 'c2'".to_owned(),
        "INSERT INTO customers (business_id, customer_id) VALUES ('b9', 'c1')".to_owned(),
        "INSERT OR REPLACE INTO customers (seq, business_id, customer_id) VALUES (1, 'b2', 'c9')".to_owned(),
        "UPDATE OR REPLACE customers SET seq = 1 WHERE business_id = 'b2'".to_owned(),
        "UPDATE OR REPLACE customers SET rowid = 1 WHERE business_id = 'b2'".to_owned(),
        "INSERT INTO plans (business_id, plan_name) VALUES ('b1', 'Pro')".to_owned(),
        "INSERT INTO plans (business_id, plan_name, is_free) VALUES ('b1', 'Free', 1)".to_owned(),
        "INSERT INTO plans (business_id, plan_name) VALUES ('b9', 'Pro')".to_owned(),
        "UPDATE businesses SET enforcement = 'maybe'".to_owned(),
        "UPDATE businesses SET target_policy = 'open'".to_owned(),
        "UPDATE businesses SET default_metric = 'unknown'".to_owned(),
        "UPDATE metrics SET operation = 'MEDIAN'".to_owned(),
        "UPDATE metrics SET scope = 'world'".to_owned(),
        "UPDATE metrics SET flush_interval = '2h'".to_owned(),
        format!("{key}) VALUES ('k', 'b1', 'c9', 'k', 'x', 'h', zeroblob(32))"),
        format!("{key}) VALUES ('k', 'b1', 'c1', 'k', 'x', 'h', zeroblob(31))"),
        format!("{key}, row_mac) VALUES ('k', 'b1', 'c1', 'k', 'x', 'h', zeroblob(32), 'text')"),
    ];
    for text in &cases {
        refused(conn, text);
    }
    for text in ["'2026-01-31T23:00:00.000Z'", "'2026-01-31 23:00:00'", "NULL"] {
        sql(conn, &format!("UPDATE customers SET subscription_ends_at = {text}"));
    }
}

#[test]
fn changes_tell_before_and_after_without_secrets() {
    let conn = &mut two_businesses();
    sql(
        conn,
        "INSERT INTO plan_limits (id, business_id, metric_name, limit_value) VALUES ('l1', 'b1', 'calls', 5);
         UPDATE plan_limits SET limit_value = 10;
         INSERT INTO customer_keys (id, business_id, customer_id, key_name, key_hash, hash_alg, hint, row_mac)
            VALUES ('k1', 'b1', 'c1', 'k1', zeroblob(32), 'algorithm', 'h', zeroblob(32));",
    );
    let told = "config_changes WHERE table_name = 'plan_limits' AND row_id = 'l1' AND columns = '{\"limit_value\":[5,10]}'";
    assert_eq!(count(conn, told), 1);
    assert_eq!(
        count(
            conn,
            "config_changes WHERE columns LIKE '%hash%' OR columns LIKE '%mac%' OR columns LIKE '%algorithm%'"
        ),
        0
    );
    assert_eq!(
        count(
            conn,
            "config_changes WHERE table_name = 'customer_keys' AND columns LIKE '%\"key_name\":[null,\"k1\"]%'"
        ),
        1
    );
}

#[test]
fn a_change_by_sql_shows_in_updated_at() {
    let conn = &mut two_businesses();
    sql(
        conn,
        "UPDATE customers SET created_at = '2020-01-01', updated_at = '2020-01-01';
         UPDATE customers SET customer_name = 'Ada' WHERE business_id = 'b1' AND customer_id = 'c1';",
    );
    assert_eq!(count(conn, "customers WHERE updated_at > '2026'"), 1);
}

#[test]
fn changes_are_read_and_what_is_missing_is_told() {
    let conn = &mut two_businesses();
    let b1 = business("b1");
    let version = changes::version(conn, &b1).unwrap();
    assert_eq!(versions::since(conn, &b1, version).unwrap(), Changes::default());
    assert_eq!(changes::version(conn, &business("unknown")).unwrap(), 0);
    sql(conn, "UPDATE customers SET customer_name = 'Ada' WHERE business_id = 'b1' AND customer_id = 'c2'");
    let rows = vec![(version + 1, Some(customer("c2")))];
    assert_eq!(versions::since(conn, &b1, version).unwrap(), Changes { rows, pruned: false });
    // By hand, and backwards.
    sql(conn, "UPDATE config_versions SET version = version + 5 WHERE business_id = 'b1'");
    assert!(versions::since(conn, &b1, version).unwrap().pruned);
    assert!(versions::since(conn, &b1, version + 100).unwrap().pruned);
}

#[test]
fn changes_are_kept_for_a_day() {
    let conn = &mut two_businesses();
    sql(conn, "UPDATE config_changes SET changed_at = '2026-01-01T12:00:00.000Z' WHERE business_id = 'b1'");
    sql(conn, "UPDATE config_changes SET changed_at = '2026-01-02T11:00:00.000Z' WHERE business_id = 'b2'");
    let kept = count(conn, "config_changes WHERE business_id = 'b2'");
    assert!(!changes::prune_changes(conn, day(1)).unwrap());
    assert!(!versions::since(conn, &business("b1"), 0).unwrap().pruned);
    assert!(!changes::prune_changes(conn, day(2).plus_seconds(1)).unwrap());
    assert!(versions::since(conn, &business("b1"), 0).unwrap().pruned);
    assert_eq!(count(conn, "config_changes"), kept);
}
