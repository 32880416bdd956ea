//! What tests of the configuration share: two businesses, `b1` with customers `c1` and `c2`, `b2` with `c1`.

use super::dialect::Conn;
pub(crate) use super::engine::{Testing, database};
use crate::secrets::{MasterKey, Secrets};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use tracktags_core::accounts::{Account, BusinessId, CustomerId, MetricName};
use tracktags_core::time::Timestamp;

#[path = "testing_accounts.rs"]
mod accounts_tests;
#[path = "testing_keys.rs"]
pub(crate) mod keys_tests;
#[path = "testing_limits.rs"]
pub(crate) mod limits_tests;

/// With two businesses and three customers.
pub(crate) fn two_businesses() -> Testing {
    let mut conn = database();
    sql(
        &mut conn,
        "INSERT INTO businesses (business_id, business_name, email) VALUES ('b1', 'One', 'one@x.y'), ('b2', 'Two', 'two@x.y');
         INSERT INTO customers (business_id, customer_id) VALUES ('b1', 'c1'), ('b1', 'c2'), ('b2', 'c1');",
    );
    conn
}

/// Runs what a SQL user would.
pub(crate) fn sql(conn: &mut Conn, text: &str) {
    conn.batch_execute(text).unwrap_or_else(|error| panic!("{text}: {error}"));
}

/// What the database says to a statement that it refuses.
pub(crate) fn refused(conn: &mut Conn, text: &str) -> String {
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
pub(crate) fn count(conn: &mut Conn, of: &str) -> i64 {
    diesel::sql_query(format!("SELECT count(*) AS n FROM {of}")).get_result::<Count>(conn).unwrap().n
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
