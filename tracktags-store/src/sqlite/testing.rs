//! A database in memory for tests of the configuration, and what only this engine does.

use super::tables::changes;
use super::tables::testing::*;
use super::{tables, versions};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use tracktags_core::accounts::CustomerId;

#[path = "testing_keys.rs"]
mod keys_tests;
#[path = "testing_limits.rs"]
mod limits_tests;
#[path = "testing_triggers.rs"]
mod triggers_tests;

/// The migrations that make configuration: up and down.
const MIGRATIONS: [(&str, &str); 6] = [
    (
        include_str!("../../migrations/sqlite/00000000000001_configuration/up.sql"),
        include_str!("../../migrations/sqlite/00000000000001_configuration/down.sql"),
    ),
    (
        include_str!("../../migrations/sqlite/00000000000003_metric_notes/up.sql"),
        include_str!("../../migrations/sqlite/00000000000003_metric_notes/down.sql"),
    ),
    (
        include_str!("../../migrations/sqlite/00000000000004_customer_keys_max/up.sql"),
        include_str!("../../migrations/sqlite/00000000000004_customer_keys_max/down.sql"),
    ),
    (
        include_str!("../../migrations/sqlite/00000000000005_audit/up.sql"),
        include_str!("../../migrations/sqlite/00000000000005_audit/down.sql"),
    ),
    (
        include_str!("../../migrations/sqlite/00000000000006_subscriptions/up.sql"),
        include_str!("../../migrations/sqlite/00000000000006_subscriptions/down.sql"),
    ),
    (
        include_str!("../../migrations/sqlite/00000000000007_key_scopes/up.sql"),
        include_str!("../../migrations/sqlite/00000000000007_key_scopes/down.sql"),
    ),
];

/// A database of its own.
pub(crate) type Testing = SqliteConnection;

/// A new database without anything in it.
pub(crate) fn database() -> Testing {
    let mut conn = SqliteConnection::establish(":memory:").unwrap();
    for (up, _) in MIGRATIONS {
        conn.batch_execute(up).unwrap();
    }
    conn
}

/// Whom the changes made by `act` concern, per business `b1` and `b2`: customer ids, `*` for everybody.
pub(crate) fn changed(
    conn: &mut SqliteConnection,
    act: impl FnOnce(&mut SqliteConnection),
) -> [Vec<String>; 2] {
    let before = ["b1", "b2"].map(|id| changes::version(conn, &business(id)).unwrap());
    act(conn);
    let mut of = |id: &str, before: i64| {
        let since = versions::since(conn, &business(id), before).unwrap();
        assert!(!since.pruned);
        let name = |customer: Option<CustomerId>| customer.map_or("*".to_owned(), |id| id.to_string());
        let mut whom: Vec<_> = since.rows.into_iter().map(|(_, customer)| name(customer)).collect();
        whom.sort();
        whom.dedup();
        whom
    };
    [of("b1", before[0]), of("b2", before[1])]
}

#[test]
fn up_down_up_leaves_the_same_schema() {
    let schema = |conn: &mut SqliteConnection| {
        #[derive(QueryableByName)]
        struct Line {
            #[diesel(sql_type = diesel::sql_types::Text)]
            sql: String,
        }
        let query = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
        diesel::sql_query(query)
            .load::<Line>(conn)
            .unwrap()
            .into_iter()
            .map(|line| line.sql)
            .collect::<Vec<_>>()
    };
    let conn = &mut database();
    let before = schema(conn);
    for (_, down) in MIGRATIONS.iter().rev() {
        sql(conn, down);
    }
    assert_eq!(count(conn, "sqlite_schema WHERE name NOT LIKE 'sqlite_%'"), 0);
    for (up, _) in MIGRATIONS {
        sql(conn, up);
    }
    assert_eq!(schema(conn), before);
}
