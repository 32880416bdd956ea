//! The books as this engine reads them: on a closed database and on one in use, in one snapshot.

use super::connection::{self, in_snapshot};
use super::error::store_error;
use super::live::corrupt;
use super::schema::{counters, usage_history};
use super::usage;
use crate::OpenError;
use crate::books::{Books, LedgerLine, Standing, VerifyReport};
use crate::ledger::{open_row, unpack_counter, unpack_entries};
use diesel::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, Entry};

/// Ledger rows read at once.
const ROWS: i64 = 1_024;

pub(crate) fn verify(path: &Path) -> Result<VerifyReport, OpenError> {
    let mut conn = open_existing(path)?;
    in_snapshot(&mut conn, check).map_err(super::to_open_error)
}

/// Follows the ledger.
pub(crate) struct Follower {
    conn: SqliteConnection,
    after: i64,
}

impl Follower {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { conn: open_existing(path)?, after: 0 })
    }

    pub(crate) fn read(&mut self, each: &mut dyn FnMut(LedgerLine)) -> Result<(), OpenError> {
        let after = &mut self.after;
        in_snapshot(&mut self.conn, |conn| {
            walk(conn, *after, |batch, entries| {
                *after = batch;
                entries.into_iter().for_each(|entry| each(LedgerLine { batch, entry }));
            })
        })
        .map_err(super::to_open_error)
    }
}

/// Opens a database that is there, to be read.
pub(super) fn open_existing(path: &Path) -> Result<SqliteConnection, OpenError> {
    // Opening would create it.
    std::fs::metadata(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    connection::open_reader(path)
}

/// Reads every batch after one of them, in order.
fn walk(
    conn: &mut SqliteConnection,
    mut after: i64,
    mut each: impl FnMut(i64, Vec<Entry>),
) -> Result<(), StoreError> {
    loop {
        let rows = usage::rows_after(conn, after, ROWS)?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.batch;
        for row in &rows {
            let at = Timestamp::from_micros(row.written_at);
            each(row.batch, unpack_entries(&row.entries, at).map_err(corrupt)?);
        }
    }
}

fn check(conn: &mut SqliteConnection) -> Result<VerifyReport, StoreError> {
    let position = usage::position(conn)?;
    let mut books = Books::default();
    walk(conn, 0, |batch, entries| {
        books.count_batch();
        for entry in entries {
            let is_folded = position.is_folded(batch, &entry.counter);
            books.follow(batch, entry, Standing { in_row: is_folded, in_history: is_folded });
        }
    })?;
    let rows = counter_rows(conn)?.into_iter().collect();
    books.finish(&rows, |key| history_of(conn, key))
}

fn counter_rows(conn: &mut SqliteConnection) -> Result<Vec<(CounterKey, Counter)>, StoreError> {
    let rows: Vec<(String, String, String, Vec<u8>)> = counters::table
        .select((counters::business_id, counters::customer_id, counters::metric_name, counters::state))
        .load(conn)
        .map_err(store_error)?;
    rows.into_iter()
        .map(|(business, customer, metric, state)| {
            let packed = open_row([&business, &customer, &metric], &state).map_err(corrupt)?;
            Ok((usage::key_of(&business, &customer, &metric)?, unpack_counter(packed).map_err(corrupt)?))
        })
        .collect()
}

/// The units of each hour of a counter.
fn history_of(conn: &mut SqliteConnection, key: &CounterKey) -> Result<HashMap<i64, i64>, StoreError> {
    let customer = key.account().customer.as_ref().map_or("", |customer| customer.as_str());
    let rows: Vec<(i64, i64)> = usage_history::table
        .filter(usage_history::business_id.eq(key.account().business.as_str()))
        .filter(usage_history::customer_id.eq(customer))
        .filter(usage_history::metric_name.eq(key.metric().as_str()))
        .select((usage_history::bucket, usage_history::units))
        .load(conn)
        .map_err(store_error)?;
    Ok(rows.into_iter().collect())
}
