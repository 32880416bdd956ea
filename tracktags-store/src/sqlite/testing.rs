//! A database for tests of the configuration: two businesses, `b1` with customers `c1` and `c2`, `b2` with `c1`.

use super::tables::changes;
use super::versions;
use crate::secrets::{MasterKey, Secrets};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use tracktags_core::accounts::{Account, BusinessId, CustomerId, MetricName};
use tracktags_core::time::Timestamp;

#[path = "testing_accounts.rs"]
mod accounts_tests;
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

/// A new database without anything in it.
pub(crate) fn database() -> SqliteConnection {
    let mut conn = SqliteConnection::establish(":memory:").unwrap();
    for (up, _) in MIGRATIONS {
        conn.batch_execute(up).unwrap();
    }
    conn
}

/// With two businesses and three customers.
pub(crate) fn two_businesses() -> SqliteConnection {
    let mut conn = database();
    sql(
        &mut conn,
        "INSERT INTO businesses (business_id, business_name, email) VALUES ('b1', 'One', 'one@x.y'), ('b2', 'Two', 'two@x.y');
         INSERT INTO customers (business_id, customer_id) VALUES ('b1', 'c1'), ('b1', 'c2'), ('b2', 'c1');",
    );
    conn
}

/// Runs what a SQL user would.
pub(crate) fn sql(conn: &mut SqliteConnection, text: &str) {
    conn.batch_execute(text).unwrap_or_else(|error| panic!("{text}: {error}"));
}

/// What the database says to a statement that it refuses.
pub(crate) fn refused(conn: &mut SqliteConnection, text: &str) -> String {
    match conn.batch_execute(text) {
        Ok(()) => panic!("taken: {text}"),
        Err(error) => error.to_string(),
    }
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

/// How many rows there are of something.
pub(crate) fn count(conn: &mut SqliteConnection, of: &str) -> i64 {
    diesel::sql_query(format!("SELECT count(*) AS n FROM {of}")).get_result::<Count>(conn).unwrap().n
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

pub(crate) fn secrets() -> Secrets {
    Secrets::derive(&[MasterKey::new([7; 32])]).unwrap()
}

pub(crate) fn business(id: &str) -> BusinessId {
    BusinessId::parse(id).unwrap()
}

pub(crate) fn customer(id: &str) -> CustomerId {
    CustomerId::parse(id).unwrap()
}

pub(crate) fn metric(name: &str) -> MetricName {
    MetricName::parse(name).unwrap()
}

pub(crate) fn account(id: &str) -> Account {
    Account::customer(business("b1"), customer(id))
}

/// Noon of the `day`th of January 2026.
pub(crate) fn day(day: i64) -> Timestamp {
    Timestamp::from_seconds(1_767_225_600 + (day - 1) * 86_400 + 43_200)
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
