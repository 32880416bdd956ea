//! History as it is read: the folded hours of one account, or of all of a business added up.

use super::dialect::{Conn, HOURS_OF_ALL};
use super::error::store_error;
use super::schema::usage_history;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use tracktags_core::error::StoreError;
use tracktags_core::history::{Gain, Hour};
use tracktags_core::metrics::Operation;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{Accounts, HistoryQuery};

/// An hour as it is kept, or as many of them add up.
#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = usage_history)]
struct HourRow {
    #[diesel(sql_type = BigInt)]
    bucket: i64,
    #[diesel(sql_type = Text)]
    operation: String,
    #[diesel(sql_type = BigInt)]
    units: i64,
    #[diesel(sql_type = BigInt)]
    samples: i64,
    #[diesel(sql_type = BigInt)]
    overage: i64,
    #[diesel(sql_type = BigInt)]
    denied: i64,
}

/// The hours that begin in the span asked for, oldest first.
pub(crate) fn hours(conn: &mut Conn, query: &HistoryQuery) -> Result<Vec<Hour>, StoreError> {
    let rows: Vec<HourRow> = match &query.accounts {
        Accounts::Own => of_account(conn, query, "")?,
        Accounts::Customer(customer) => of_account(conn, query, customer.as_str())?,
        Accounts::All => of_all(conn, query)?,
    };
    rows.into_iter().map(read).collect()
}

fn of_account(conn: &mut Conn, query: &HistoryQuery, customer: &str) -> Result<Vec<HourRow>, StoreError> {
    usage_history::table
        .filter(usage_history::business_id.eq(query.business.as_str()))
        .filter(usage_history::customer_id.eq(customer))
        .filter(usage_history::metric_name.eq(query.metric.as_str()))
        .filter(usage_history::bucket.ge(query.span.start.as_seconds()))
        .filter(usage_history::bucket.lt(query.span.end.as_seconds()))
        .order(usage_history::bucket)
        .select(HourRow::as_select())
        .load(conn)
        .map_err(store_error)
}

fn of_all(conn: &mut Conn, query: &HistoryQuery) -> Result<Vec<HourRow>, StoreError> {
    diesel::sql_query(HOURS_OF_ALL)
        .bind::<Text, _>(query.business.as_str())
        .bind::<Text, _>(query.metric.as_str())
        .bind::<BigInt, _>(query.span.start.as_seconds())
        .bind::<BigInt, _>(query.span.end.as_seconds())
        .load(conn)
        .map_err(store_error)
}

fn read(row: HourRow) -> Result<Hour, StoreError> {
    let unknown = || StoreError::Corrupt(format!("an hour of history has the operation {:?}", row.operation));
    Ok(Hour {
        start: Timestamp::from_seconds(row.bucket),
        operation: Operation::from_word(&row.operation).ok_or_else(unknown)?,
        gain: Gain { units: row.units, samples: row.samples, overage: row.overage, denied: row.denied },
    })
}
