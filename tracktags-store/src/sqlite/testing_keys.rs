//! Nobody who can write SQL makes or revives a key (T40).

use super::tables::testing::keys_tests::{hash, make, of_business, of_customer, who, who_at};
use super::tables::testing::*;
use crate::sqlite::tables::customers::{create_customer, delete_customer};
use crate::sqlite::tables::keys;
use diesel::connection::SimpleConnection;
use tracktags_core::traits::CustomerFields;

#[test]
fn a_revoked_key_is_refused_for_good() {
    let conn = &mut two_businesses();
    let by = [
        "UPDATE customer_keys SET revoked_at = '2026-01-01T00:00:00Z'",
        "UPDATE customers SET deleted_at = '2026-01-01T00:00:00Z' WHERE business_id = 'b1'",
        "DELETE FROM customers WHERE business_id = 'b1' AND customer_id = 'c1'",
        "UPDATE customers SET customer_id = 'c7' WHERE business_id = 'b1' AND customer_id = 'c1'",
        "UPDATE businesses SET deleted_at = '2026-01-01' WHERE business_id = 'b1'",
        "DELETE FROM businesses WHERE business_id = 'b1'",
        "UPDATE businesses SET business_id = 'b7' WHERE business_id = 'b1'",
        "UPDATE customer_keys SET row_mac = NULL",
    ];
    for text in by {
        let conn = &mut two_businesses();
        let key = make(conn, of_customer("c1"));
        sql(conn, text);
        assert_eq!(who(conn, &key, Some("c1")), None, "{text}");
        sql(
            conn,
            "UPDATE customer_keys SET revoked_at = NULL, slot = NULL;
             UPDATE businesses SET deleted_at = NULL; UPDATE customers SET deleted_at = NULL;
             INSERT OR IGNORE INTO businesses (business_id, business_name, email) VALUES ('b1', 'One', 'one@x.y');
             INSERT OR IGNORE INTO customers (business_id, customer_id) VALUES ('b1', 'c1');",
        );
        assert_eq!(who(conn, &key, Some("c1")), None, "{text}, undone");
        assert!(conn.batch_execute("UPDATE customer_keys SET row_mac = randomblob(32)").is_err(), "{text}");
        let again = make(conn, of_customer("c1"));
        assert!(who(conn, &again, Some("c1")).is_some(), "{text}, a new key");
    }
    let key = make(conn, of_customer("c1"));
    delete_customer(conn, day(1), &business("b1"), &customer("c1")).unwrap();
    assert_eq!(who(conn, &key, Some("c1")), None);
    create_customer(conn, day(1), &business("b1"), &customer("c1"), CustomerFields::default()).unwrap();
    assert_eq!(who(conn, &key, Some("c1")), None);
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
        "INSERT INTO customer_keys (id, business_id, customer_id, key_name, key_hash, hash_alg, hint, row_mac)
            SELECT id, 'b2', customer_id, key_name, randomblob(32), hash_alg, hint, row_mac FROM customer_keys;
         UPDATE OR REPLACE customer_keys SET key_hash = (SELECT key_hash FROM customer_keys WHERE business_id = 'b1')
            WHERE business_id = 'b2';",
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
    for mac in ["NULL", "zeroblob(32)", "(SELECT row_mac FROM customer_keys WHERE slot = 1)"] {
        sql(
            conn,
            &format!(
                "REPLACE INTO customer_keys (id, business_id, customer_id, key_name, key_hash, hash_alg, hint, row_mac)
                 VALUES ('forged', 'b1', 'c1', 'k', x'{bytes}', 'blake3', 'h', {mac})"
            ),
        );
        assert_eq!(who_at(conn, day(1), &secrets(), chosen, Some("c1")), None, "{mac}");
    }
    assert!(who(conn, &donor, Some("c1")).is_some());
}
