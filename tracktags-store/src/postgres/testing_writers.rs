//! What SQL users may do, and what they may not: revoked keys stay so, none is forged (T40), odd rows are refused, and the
//! role `tracktags_config` can do what it is for.

use super::tables::testing::keys_tests::{hash, make, of_business, of_customer, who, who_at};
use super::tables::testing::limits_tests::held;
use super::tables::testing::*;
use super::tables::{changes, keys};
use super::trail;
use diesel::connection::SimpleConnection;

#[test]
fn a_revoked_key_is_refused_for_good() {
    let by = [
        "UPDATE customer_keys SET revoked_at = '2026-01-01T00:00:00Z'",
        "UPDATE customers SET deleted_at = '2026-01-01T00:00:00Z' WHERE business_id = 'b1'",
        "DELETE FROM customers WHERE business_id = 'b1' AND customer_id = 'c1'",
        "UPDATE customers SET customer_id = 'c7' WHERE business_id = 'b1' AND customer_id = 'c1'",
        "UPDATE businesses SET deleted_at = '2026-01-01' WHERE business_id = 'b1'",
        "UPDATE customer_keys SET row_mac = NULL",
        "TRUNCATE customers CASCADE",
        "SET session_replication_role = replica; UPDATE customer_keys SET revoked_at = now(); RESET session_replication_role",
    ];
    for text in by {
        let conn = &mut two_businesses();
        let key = make(conn, of_customer("c1"));
        sql(conn, text);
        assert_eq!(who(conn, &key, Some("c1")), None, "{text}");
        sql(
            conn,
            "UPDATE businesses SET deleted_at = NULL; UPDATE customers SET deleted_at = NULL;
             INSERT INTO customers (business_id, customer_id) VALUES ('b1', 'c1') ON CONFLICT DO NOTHING;
             UPDATE customer_keys SET revoked_at = NULL, slot = NULL;",
        );
        assert_eq!(who(conn, &key, Some("c1")), None, "{text}, undone");
        let forged = conn.batch_execute("UPDATE customer_keys SET row_mac = sha256('x')");
        let left = count(conn, "customer_keys");
        assert!(forged.is_err() || left == 0, "{text}");
        let again = make(conn, of_customer("c1"));
        assert!(who(conn, &again, Some("c1")).is_some(), "{text}, a new key");
    }
    let conn = &mut two_businesses();
    let key = make(conn, of_business());
    keys::revoke_key(conn, day(1), &of_business(), &key.record.id).unwrap();
    sql(conn, "UPDATE business_keys SET revoked_at = NULL");
    assert_eq!(who(conn, &key, None), None);
}

#[test]
fn t40_a_sql_writer_forges_no_keys() {
    let forge = [
        // Another customer's hash or row, another business's, a longer life, another id.
        "UPDATE customer_keys SET customer_id = 'c2'",
        "UPDATE customer_keys SET business_id = 'b2'",
        "UPDATE customer_keys SET expires_at = '2099-01-01'",
        "UPDATE customer_keys SET id = 'key_other'",
        "INSERT INTO business_keys (id, business_id, key_name, key_hash, hash_alg, hint, row_mac)
            SELECT id, business_id, key_name, key_hash, hash_alg, hint, row_mac FROM customer_keys;
         DELETE FROM customer_keys;",
    ];
    for text in forge {
        let conn = &mut two_businesses();
        let key = make(conn, of_customer("c1"));
        assert!(who(conn, &key, Some("c1")).is_some());
        sql(conn, text);
        for claimed in [Some("c1"), Some("c2"), None] {
            assert_eq!(who(conn, &key, claimed), None, "{text}, {claimed:?}");
        }
    }
    // A hash of one's own choice, without the server's pepper or with it.
    let conn = &mut two_businesses();
    let donor = make(conn, of_customer("c1"));
    let chosen = hash(&make(conn, of_customer("c1")));
    sql(conn, "DELETE FROM customer_keys WHERE slot = 2");
    let bytes: String = chosen.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    for mac in ["NULL", "sha256('x')", "(SELECT row_mac FROM customer_keys WHERE slot = 1)"] {
        sql(
            conn,
            &format!(
                "DELETE FROM customer_keys WHERE id = 'forged';
                 INSERT INTO customer_keys (id, business_id, customer_id, key_name, key_hash, hash_alg, hint, row_mac)
                 VALUES ('forged', 'b1', 'c1', 'k', '\\x{bytes}', 'blake3', 'h', {mac})"
            ),
        );
        assert_eq!(who_at(conn, day(1), &secrets(), chosen, Some("c1")), None, "{mac}");
    }
    assert!(who(conn, &donor, Some("c1")).is_some());
}

#[test]
fn rows_that_make_no_sense_are_refused() {
    let conn = &mut two_businesses();
    for text in [
        "INSERT INTO plan_limits (business_id, metric_name, limit_value) VALUES ('b1', 'calls', -1)",
        "INSERT INTO plan_limits (business_id, metric_name, limit_value, limit_period) VALUES ('b1', 'calls', 1, 'soon')",
        "INSERT INTO plan_limits (business_id, metric_name, limit_value, customer_id) VALUES ('b1', 'calls', 1, 'c9')",
        "INSERT INTO plan_limits (business_id, metric_name, limit_value) VALUES ('b9', 'calls', 1)",
        "INSERT INTO plan_limits (business_id, metric_name, limit_value, alert_thresholds) VALUES ('b1', 'calls', 1, '[0]')",
        "UPDATE customers SET billing_anchor_day = 32",
        "UPDATE customers SET metadata = '[]'",
        "UPDATE customers SET plan_id = 'p9'",
        "UPDATE businesses SET default_metric = 'none_such'",
        "UPDATE audit_logs SET actor_type = 'admin'; TRUNCATE audit_logs",
    ] {
        let said = refused(conn, text);
        assert!(
            said.contains("violates") || said.contains("no such") || said.contains("not rewritten"),
            "{text}: {said}"
        );
    }
}

#[test]
fn the_role_for_configuration_changes_limits_and_touches_nothing_else() {
    let conn = &mut two_businesses();
    sql(
        conn,
        "INSERT INTO plan_limits (id, business_id, metric_name, limit_value, customer_id) VALUES ('l1', 'b1', 'calls', 5, 'c1');
         SET ROLE tracktags_config;
         UPDATE plan_limits SET limit_value = 6 WHERE id = 'l1';
         UPDATE customers SET customer_name = 'Ada' WHERE business_id = 'b1' AND customer_id = 'c1';",
    );
    for text in [
        "UPDATE counters SET state = ''",
        "DELETE FROM usage_ledger",
        "UPDATE businesses SET business_name = 'x'",
        "UPDATE config_versions SET version = 0",
        "DELETE FROM config_changes",
        "UPDATE customer_keys SET row_mac = NULL",
        "SELECT key_hash FROM customer_keys",
        "DELETE FROM audit_logs",
        "ALTER TABLE plan_limits DISABLE TRIGGER ALL",
    ] {
        let said = refused(conn, text);
        assert!(said.contains("permission denied") || said.contains("must be owner"), "{text}: {said}");
    }
    sql(conn, "RESET ROLE");
    let terms = held(conn, day(1), &account("c1"));
    assert_eq!(terms.version, changes::version(conn, &business("b1")).unwrap());
    let calls = terms.limits.get(terms.limits.find("calls").unwrap()).unwrap();
    assert_eq!(calls.limits[0].value.get(), 6);
}

#[test]
fn the_trail_goes_on_where_a_dump_is_restored_on_another_server() {
    let conn = &mut two_businesses();
    while trail::sweep(conn, &secrets()).unwrap() {}
    let told = count(conn, "audit_logs WHERE actor_type = 'sql'");
    assert!(told > 0);
    // As it looks on a server that has not counted so far.
    sql(
        conn,
        "UPDATE config_changes SET transaction_id = transaction_id + 1000000;
         UPDATE server_state SET value = (1000000 + split_part(value, ' ', 1)::bigint)::text WHERE name = 'audited_change'",
    );
    trail::settle_in(conn, &secrets()).unwrap();
    assert_eq!(count(conn, "audit_logs WHERE actor_type = 'sql'"), told);
    sql(conn, "UPDATE customers SET customer_name = 'Eve' WHERE business_id = 'b1' AND customer_id = 'c1'");
    while trail::sweep(conn, &secrets()).unwrap() {}
    assert_eq!(count(conn, "audit_logs WHERE actor_type = 'sql'"), told + 1);
}

#[test]
fn the_trail_waits_for_transactions_of_this_database_and_for_no_others() {
    let (conn, here) = (&mut two_businesses(), &mut two_businesses());
    while trail::sweep(conn, &secrets()).unwrap() {}
    let told = count(conn, "audit_logs");
    // The other database's transaction is older, and goes on.
    sql(here, "BEGIN; UPDATE customers SET customer_name = 'Ada'");
    sql(conn, "UPDATE customers SET customer_name = 'Eve' WHERE business_id = 'b1' AND customer_id = 'c1'");
    assert!(!trail::sweep(conn, &secrets()).unwrap());
    assert_eq!(count(conn, "audit_logs"), told + 1);
}
