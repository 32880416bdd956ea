//! Rows of usage: the ledger, the counters and the history it folds into, and how far the folds are.

use super::error::store_error;
use super::folded::{self, CounterRow, HourRow};
use super::live::{Unfolded, corrupt};
use super::schema::{counters, ledger_position, usage_ledger};
use crate::ledger::{open_row, seal_row, unpack_counter};
use diesel::prelude::*;
use tracktags_core::accounts::{Account, BusinessId, CustomerId, MetricName};
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey};

/// A batch's row.
#[derive(Queryable, Insertable, Debug)]
#[diesel(table_name = usage_ledger)]
pub(crate) struct LedgerRow {
    pub(crate) batch: i64,
    pub(crate) boot: String,
    pub(crate) lane: i32,
    pub(crate) written_at: i64,
    pub(crate) open_calls: i64,
    pub(crate) open_units: i64,
    pub(crate) entries: Vec<u8>,
}

fn customer_of(key: &CounterKey) -> &str {
    key.account().customer.as_ref().map_or("", |customer| customer.as_str())
}

/// Appends a batch.
pub(crate) fn append(conn: &mut SqliteConnection, row: &LedgerRow) -> Result<(), StoreError> {
    diesel::insert_into(usage_ledger::table).values(row).execute(conn).map(drop).map_err(store_error)
}

/// Whether the batch committed: its row is the marker.
pub(crate) fn is_committed(conn: &mut SqliteConnection, boot: &str, batch: i64) -> Result<bool, StoreError> {
    let row = usage_ledger::table.filter(usage_ledger::batch.eq(batch)).filter(usage_ledger::boot.eq(boot));
    diesel::select(diesel::dsl::exists(row)).get_result(conn).map_err(store_error)
}

/// The latest batch.
pub(crate) fn last_row(conn: &mut SqliteConnection) -> Result<Option<LedgerRow>, StoreError> {
    usage_ledger::table
        .order(usage_ledger::batch.desc())
        .limit(1)
        .get_result(conn)
        .optional()
        .map_err(store_error)
}

/// Batches after `batch`, in order, at most `count_max`.
pub(crate) fn rows_after(
    conn: &mut SqliteConnection,
    batch: i64,
    count_max: i64,
) -> Result<Vec<LedgerRow>, StoreError> {
    usage_ledger::table
        .filter(usage_ledger::batch.gt(batch))
        .order(usage_ledger::batch)
        .limit(count_max)
        .load(conn)
        .map_err(store_error)
}

/// The last batches up to one of them, the latest first.
pub(crate) fn rows_upto(
    conn: &mut SqliteConnection,
    upto: i64,
    count_max: i64,
) -> Result<Vec<LedgerRow>, StoreError> {
    usage_ledger::table
        .filter(usage_ledger::batch.le(upto))
        .order(usage_ledger::batch.desc())
        .limit(count_max)
        .load(conn)
        .map_err(store_error)
}

/// A counter as last folded, packed.
pub(crate) fn counter_row(
    conn: &mut SqliteConnection,
    key: &CounterKey,
) -> Result<Option<Vec<u8>>, StoreError> {
    let account = key.account();
    let row: Option<Vec<u8>> = counters::table
        .filter(counters::business_id.eq(account.business.as_str()))
        .filter(counters::customer_id.eq(customer_of(key)))
        .filter(counters::metric_name.eq(key.metric().as_str()))
        .select(counters::state)
        .get_result(conn)
        .optional()
        .map_err(store_error)?;
    row.map(|row| open_row(names_of(key), &row).map(<[u8]>::to_vec).map_err(corrupt)).transpose()
}

/// Looks at every counter as last folded, at start: a row whose key was damaged would not be found later, and its usage be
/// forgotten. `first` names the entries that the ledger's tail goes on with, in the order of their counters: each is the
/// next one of its counter.
pub(crate) fn check_counters(
    conn: &mut SqliteConnection,
    first: &[(CounterKey, u64)],
) -> Result<(), StoreError> {
    let rows = counters::table
        .order((counters::business_id, counters::customer_id, counters::metric_name))
        .select((counters::business_id, counters::customer_id, counters::metric_name, counters::state))
        .load_iter::<(String, String, String, Vec<u8>), diesel::connection::DefaultLoadingMode>(conn)
        .map_err(store_error)?;
    let mut first = first.iter().peekable();
    for row in rows {
        let (business, customer, metric, row) = row.map_err(store_error)?;
        let names = [business.as_str(), customer.as_str(), metric.as_str()];
        let state = open_row(names, &row).map_err(corrupt)?;
        while let Some((_, number)) = first.next_if(|(key, _)| names_of(key) < names) {
            goes_on(None, *number)?;
        }
        if let Some((_, number)) = first.next_if(|(key, _)| names_of(key) == names) {
            goes_on(Some(&unpack_counter(state).map_err(corrupt)?), *number)?;
        }
    }
    first.try_for_each(|(_, number)| goes_on(None, *number))
}

/// A counter's business, customer and metric, as its row is found by them.
pub(crate) fn names_of(key: &CounterKey) -> [&str; 3] {
    [key.account().business.as_str(), customer_of(key), key.metric().as_str()]
}

/// The tail's first entry of a counter follows its row without a gap, or something of the database is of another time than
/// the rest.
fn goes_on(folded: Option<&Counter>, number: u64) -> Result<(), StoreError> {
    if folded.map_or(0, |counter| counter.entry) + 1 == number { Ok(()) } else { Err(torn()) }
}

/// What damage to the order of things looks like.
pub(crate) fn torn() -> StoreError {
    StoreError::Corrupt("the ledger's tail does not go on from the counters".to_owned())
}

/// The customers with a folded counter of this metric; the business's own account is the empty one.
pub(crate) fn customers_with(
    conn: &mut SqliteConnection,
    business: &BusinessId,
    metric: &MetricName,
) -> Result<Vec<String>, StoreError> {
    counters::table
        .filter(counters::business_id.eq(business.as_str()))
        .filter(counters::metric_name.eq(metric.as_str()))
        .select(counters::customer_id)
        .load(conn)
        .map_err(store_error)
}

/// Writes what counters gained.
pub(crate) fn fold(conn: &mut SqliteConnection, gained: &[(CounterKey, Unfolded)]) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(gained.len());
    let mut hours = Vec::with_capacity(gained.len());
    for (key, unfolded) in gained {
        let names = names_of(key);
        rows.extend(unfolded.state.as_ref().map(|state| CounterRow { names, state: seal_row(names, state) }));
        let gains = unfolded.hours.iter();
        hours.extend(gains.map(|(bucket, operation, gain)| HourRow::new(names, *bucket, *operation, gain)));
    }
    folded::write(conn, &rows)?;
    folded::write(conn, &hours)
}

/// How far the folds are.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    /// Everything up to this batch is folded.
    pub(crate) folded_to: i64,
    /// A pass that was cut short: its last batch, and the last counter it wrote.
    pub(crate) pass: Option<(i64, CounterKey)>,
    /// The last stop was in order.
    pub(crate) clean_stop: bool,
}

impl Position {
    /// Whether the rows of this counter hold the batch already.
    pub(crate) fn is_folded(&self, batch: i64, key: &CounterKey) -> bool {
        batch <= self.folded_to || self.pass.as_ref().is_some_and(|(to, last)| batch <= *to && key <= last)
    }
}

#[derive(Queryable)]
struct PositionRow {
    folded_to: i64,
    pass_to: Option<i64>,
    business: Option<String>,
    customer: Option<String>,
    metric: Option<String>,
    clean_stop: i32,
}

/// Reads how far the folds are.
pub(crate) fn position(conn: &mut SqliteConnection) -> Result<Position, StoreError> {
    let row = ledger_position::table
        .select((
            ledger_position::folded_to,
            ledger_position::pass_to,
            ledger_position::pass_business,
            ledger_position::pass_customer,
            ledger_position::pass_metric,
            ledger_position::clean_stop,
        ))
        .get_result::<PositionRow>(conn)
        .map_err(store_error)?;
    let key = match (row.business, row.customer, row.metric) {
        (Some(business), Some(customer), Some(metric)) => Some(key_of(&business, &customer, &metric)?),
        _ => None,
    };
    Ok(Position { folded_to: row.folded_to, pass: row.pass_to.zip(key), clean_stop: row.clean_stop != 0 })
}

/// A counter's key from its columns; an empty customer is the business's own account.
pub(crate) fn key_of(business: &str, customer: &str, metric: &str) -> Result<CounterKey, StoreError> {
    let bad = |_name| StoreError::Corrupt("a counter's row has a malformed id".to_owned());
    let business = BusinessId::parse(business).map_err(bad)?;
    let customer = if customer.is_empty() { None } else { Some(CustomerId::parse(customer).map_err(bad)?) };
    Ok(CounterKey::new(Account { business, customer }, MetricName::parse(metric).map_err(bad)?))
}

/// A pass up to batch `to` has written the counters up to `last`.
pub(crate) fn set_pass(conn: &mut SqliteConnection, to: i64, last: &CounterKey) -> Result<(), StoreError> {
    diesel::update(ledger_position::table)
        .set((
            ledger_position::pass_to.eq(to),
            ledger_position::pass_business.eq(last.account().business.as_str()),
            ledger_position::pass_customer.eq(customer_of(last)),
            ledger_position::pass_metric.eq(last.metric().as_str()),
        ))
        .execute(conn)
        .map(drop)
        .map_err(store_error)
}

/// Everything up to `folded_to` is folded, and no pass runs.
pub(crate) fn set_position(conn: &mut SqliteConnection, folded_to: i64) -> Result<(), StoreError> {
    diesel::update(ledger_position::table)
        .set((ledger_position::folded_to.eq(folded_to), ledger_position::pass_to.eq(None::<i64>)))
        .execute(conn)
        .map(drop)
        .map_err(store_error)
}

/// Notes that the server runs (`false`) or stopped in order (`true`).
pub(crate) fn set_clean_stop(conn: &mut SqliteConnection, clean: bool) -> Result<(), StoreError> {
    diesel::update(ledger_position::table)
        .set(ledger_position::clean_stop.eq(i32::from(clean)))
        .execute(conn)
        .map(drop)
        .map_err(store_error)
}

/// Removes up to `count_max` folded batches written before `before`, the oldest first; how many went.
pub(crate) fn prune(
    conn: &mut SqliteConnection,
    folded_to: i64,
    before: Timestamp,
    count_max: i64,
) -> Result<usize, StoreError> {
    let oldest = usage_ledger::table
        .select(diesel::dsl::min(usage_ledger::batch))
        .get_result::<Option<i64>>(conn)
        .map_err(store_error)?;
    let Some(oldest) = oldest else { return Ok(0) };
    let upto = folded_to.min(oldest.saturating_add(count_max));
    // The range ends before the first that is too young: a clock that stepped must not leave a hole.
    let young = usage_ledger::table
        .filter(usage_ledger::batch.between(oldest, upto))
        .filter(usage_ledger::written_at.ge(before.as_micros()))
        .select(diesel::dsl::min(usage_ledger::batch))
        .get_result::<Option<i64>>(conn)
        .map_err(store_error)?;
    let upto = young.map_or(upto, |young| young.saturating_sub(1));
    diesel::delete(usage_ledger::table.filter(usage_ledger::batch.between(oldest, upto)))
        .execute(conn)
        .map_err(store_error)
}
