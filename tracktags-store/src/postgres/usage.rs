//! Rows of usage: counters as they are read, the ledger, and the history it folds into.

use super::dialect::Conn;
use super::error::store_error;
use super::locked::{Names, names_of};
use super::schema::{counters, usage_ledger};
use super::statement::{Bind, statement};
use crate::LedgerError;
use crate::ledger::{open_row, unpack_counter};
use diesel::prelude::*;
use diesel::sql_types::{Binary, Text};
use std::collections::BTreeMap;
use tracktags_core::accounts::{Account, BusinessId, CustomerId, MetricName};
use tracktags_core::error::StoreError;
use tracktags_core::history::Gain;
use tracktags_core::metrics::Operation;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, CounterMap};

/// Hours written in one statement at most.
const HOURS_MAX: usize = 2_000;

const READ: &str = "SELECT r.business_id, r.customer_id, r.metric_name, r.state \
    FROM unnest(?, ?, ?) AS k(b, c, m) JOIN counters AS r ON r.business_id = k.b COLLATE \"C\" \
        AND r.customer_id = k.c COLLATE \"C\" AND r.metric_name = k.m COLLATE \"C\"";
/// What hours gained goes to what they have, as [`Gain::merged`] says; a sum beyond all units is the largest.
const FOLD: &str = "INSERT INTO usage_history AS h \
        (business_id, customer_id, metric_name, bucket, operation, units, samples, overage, denied) \
    SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?) AS k(b, c, m, bucket, o, units, samples, overage, denied) \
    ORDER BY b COLLATE \"C\", c COLLATE \"C\", m COLLATE \"C\", bucket \
    ON CONFLICT (business_id, customer_id, metric_name, bucket) DO UPDATE SET \
        operation = excluded.operation, \
        units = CASE \
            WHEN excluded.operation IN ('SUM', 'COUNT', 'AVG') THEN greatest(least(h.units::numeric + excluded.units, \
                9223372036854775807), -9223372036854775808)::bigint \
            WHEN excluded.samples = 0 THEN h.units \
            WHEN h.samples = 0 THEN excluded.units \
            WHEN excluded.operation = 'MAX' THEN greatest(h.units, excluded.units) \
            WHEN excluded.operation = 'MIN' THEN least(h.units, excluded.units) \
            ELSE excluded.units END, \
        samples = least(h.samples::numeric + excluded.samples, 9223372036854775807)::bigint, \
        overage = least(h.overage::numeric + excluded.overage, 9223372036854775807)::bigint, \
        denied = least(h.denied::numeric + excluded.denied, 9223372036854775807)::bigint";

/// What an hour of a counter gained.
pub(super) type Hours = BTreeMap<(CounterKey, Timestamp), (Operation, Gain)>;

/// A batch's row, as folds and checks read it.
#[derive(Queryable, Selectable, Debug)]
#[diesel(table_name = usage_ledger)]
pub(super) struct LedgerRow {
    pub(super) boot: String,
    pub(super) lane: i32,
    pub(super) batch: i64,
    pub(super) written_at: i64,
    pub(super) entries: Vec<u8>,
}

pub(super) fn corrupt(error: LedgerError) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

/// A counter's key from its columns; an empty customer is the business's own account.
pub(super) fn key_of(business: &str, customer: &str, metric: &str) -> Result<CounterKey, StoreError> {
    let bad = |_name| StoreError::Corrupt("a counter's row has a malformed id".to_owned());
    let business = BusinessId::parse(business).map_err(bad)?;
    let customer = if customer.is_empty() { None } else { Some(CustomerId::parse(customer).map_err(bad)?) };
    Ok(CounterKey::new(Account { business, customer }, MetricName::parse(metric).map_err(bad)?))
}

/// The counter that a row holds.
pub(super) fn counter_of(names: [&str; 3], row: &[u8]) -> Result<Counter, StoreError> {
    open_row(names, row).and_then(unpack_counter).map_err(corrupt)
}

/// These counters, as far as there are rows.
pub(super) fn counters<'a>(
    conn: &mut Conn,
    keys: impl Iterator<Item = &'a CounterKey>,
) -> Result<CounterMap<Counter>, StoreError> {
    let names: Names<'_> = keys.collect();
    let binds = names.binds();
    let rows = statement::<(Text, Text, Text, Binary)>(READ, &binds)
        .load::<(String, String, String, Vec<u8>)>(conn)
        .map_err(store_error)?;
    rows.iter()
        .map(|(business, customer, metric, row)| {
            Ok((key_of(business, customer, metric)?, counter_of([business, customer, metric], row)?))
        })
        .collect()
}

/// The customers that have a value of this metric; the business's own account is the empty one. A row that no entry wrote
/// to was made for a demand that was denied.
pub(super) fn customers_with(
    conn: &mut Conn,
    business: &BusinessId,
    metric: &MetricName,
) -> Result<Vec<String>, StoreError> {
    let rows: Vec<(String, Vec<u8>)> = counters::table
        .filter(counters::business_id.eq(business.as_str()))
        .filter(counters::metric_name.eq(metric.as_str()))
        .select((counters::customer_id, counters::state))
        .load(conn)
        .map_err(store_error)?;
    let mut customers = Vec::with_capacity(rows.len());
    for (customer, row) in rows {
        if counter_of([business.as_str(), &customer, metric.as_str()], &row)?.entry > 0 {
            customers.push(customer);
        }
    }
    Ok(customers)
}

/// Adds to the history what hours gained.
pub(super) fn fold(conn: &mut Conn, hours: &Hours) -> Result<(), StoreError> {
    let hours: Vec<_> = hours.iter().collect();
    for hours in hours.chunks(HOURS_MAX) {
        let names: Names<'_> = hours.iter().map(|((key, _), _)| key).collect();
        let operations: Vec<&str> = hours.iter().map(|(_, (operation, _))| operation.as_str()).collect();
        let column =
            |of: fn(&Gain) -> i64| -> Vec<i64> { hours.iter().map(|(_, (_, gain))| of(gain)).collect() };
        let buckets: Vec<i64> = hours.iter().map(|((_, bucket), _)| bucket.as_seconds()).collect();
        let (units, samples) = (column(|gain| gain.units), column(|gain| gain.samples));
        let (overage, denied) = (column(|gain| gain.overage), column(|gain| gain.denied));
        let [businesses, customers, metrics] = names.binds();
        let binds = [
            businesses,
            customers,
            metrics,
            Bind::Numbers(&buckets),
            Bind::Texts(&operations),
            Bind::Numbers(&units),
            Bind::Numbers(&samples),
            Bind::Numbers(&overage),
            Bind::Numbers(&denied),
        ];
        statement::<()>(FOLD, &binds).execute(conn).map_err(store_error)?;
    }
    Ok(())
}

/// The names of a counter beside its row's state.
pub(super) fn sealed(key: &CounterKey, packed: &[u8]) -> Vec<u8> {
    crate::ledger::seal_row(names_of(key), packed)
}

#[cfg(test)]
mod tests {
    use super::super::schema::usage_history;
    use super::super::testing::database;
    use super::*;

    #[test]
    fn a_sum_beyond_all_units_is_the_largest_and_no_error() {
        let mut conn = database();
        let key = key_of("b1", "c1", "api_calls").unwrap();
        let most = Gain { units: i64::MAX, samples: i64::MAX, overage: i64::MAX, denied: i64::MAX };
        let hours = Hours::from([((key, Timestamp::from_seconds(3_600)), (Operation::Sum, most))]);
        for _ in 0..2 {
            fold(&mut conn, &hours).unwrap();
        }
        let columns =
            (usage_history::units, usage_history::samples, usage_history::overage, usage_history::denied);
        let kept: (i64, i64, i64, i64) = usage_history::table.select(columns).first(&mut *conn).unwrap();
        assert_eq!(kept, (i64::MAX, i64::MAX, i64::MAX, i64::MAX));
    }
}
