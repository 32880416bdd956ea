//! The books, checked: every state in the ledger follows from the one before it, numbers have no gaps, and counters
//! and history are what the ledger says. Works on a closed database and on one in use: it reads one snapshot.

use super::connection::{self, in_snapshot};
use super::error::store_error;
use super::live::{Unfolded, corrupt};
use super::schema::{counters, usage_history};
use super::usage::{self, Position};
use crate::ledger::{open_row, unpack_counter, unpack_entries};
use crate::{OpenError, database_path};
use diesel::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, Entry};

/// Ledger rows read at once.
const ROWS: i64 = 1_024;
/// Differences named at most; the rest is only counted.
const DIFFERENCES_MAX: usize = 100;

/// What `verify` found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// Counters compared.
    pub counters: u64,
    /// Entries followed.
    pub entries: u64,
    /// Batches read.
    pub batches: u64,
    /// What does not agree, in words; empty when the books do.
    pub differences: Vec<String>,
}

/// An entry of the ledger, and the batch that it committed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerLine {
    /// The batch's number.
    pub batch: i64,
    /// The entry.
    pub entry: Entry,
}

/// Checks the books of a database.
///
/// # Errors
/// [`OpenError`] when it cannot be read. Differences are no error: they are in the report.
pub fn verify(url: &str) -> Result<VerifyReport, OpenError> {
    let mut conn = open_existing(url)?;
    in_snapshot(&mut conn, check).map_err(super::to_open_error)
}

/// Hands out every entry the ledger keeps, in order.
///
/// # Errors
/// [`OpenError`] when it cannot be read.
pub fn read_ledger(url: &str, each: &mut dyn FnMut(LedgerLine)) -> Result<(), OpenError> {
    LedgerReader::open(url)?.read(each)
}

/// Follows the ledger of a database in use, with a connection that cannot write.
pub struct LedgerReader {
    conn: SqliteConnection,
    after: i64,
}

impl LedgerReader {
    /// Opens a database that is there.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be opened.
    pub fn open(url: &str) -> Result<Self, OpenError> {
        Ok(Self { conn: open_existing(url)?, after: 0 })
    }

    /// Hands out every entry that was committed since the last time, in order; the first time all that are kept.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be read.
    pub fn read(&mut self, each: &mut dyn FnMut(LedgerLine)) -> Result<(), OpenError> {
        let after = &mut self.after;
        in_snapshot(&mut self.conn, |conn| {
            walk(conn, *after, |batch, entry| {
                *after = batch;
                each(LedgerLine { batch, entry });
            })
        })
        .map(drop)
        .map_err(super::to_open_error)
    }
}

/// Opens a database that is there, to be read.
pub(super) fn open_existing(url: &str) -> Result<SqliteConnection, OpenError> {
    let path: &Path = database_path(url)?;
    // Opening would create it.
    std::fs::metadata(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    connection::open_reader(path)
}

/// Reads every batch after one of them, in order; how many there were.
fn walk(
    conn: &mut SqliteConnection,
    mut after: i64,
    mut each: impl FnMut(i64, Entry),
) -> Result<u64, StoreError> {
    let mut batches = 0_u64;
    loop {
        let rows = usage::rows_after(conn, after, ROWS)?;
        let Some(last) = rows.last() else { return Ok(batches) };
        after = last.batch;
        for row in &rows {
            batches = batches.saturating_add(1);
            for entry in
                unpack_entries(&row.entries, Timestamp::from_micros(row.written_at)).map_err(corrupt)?
            {
                each(row.batch, entry);
            }
        }
    }
}

/// What the ledger says of one counter.
struct Account {
    last: Counter,
    /// The last state that its row must hold; `None` while nothing kept is folded.
    folded: Option<Counter>,
    /// The whole history of it is kept: its first entry is number 1.
    whole: bool,
    history: Unfolded,
}

fn check(conn: &mut SqliteConnection) -> Result<VerifyReport, StoreError> {
    let position = usage::position(conn)?;
    let mut report = VerifyReport::default();
    let mut accounts: HashMap<CounterKey, Account> = HashMap::new();
    let mut entries = 0_u64;
    let mut found = Vec::new();
    report.batches = walk(conn, 0, |batch, entry| {
        entries = entries.saturating_add(1);
        follow(&mut accounts, &position, batch, &entry, &mut found);
    })?;
    report.entries = entries;
    report.counters = u64::try_from(accounts.len()).unwrap_or(u64::MAX);
    let folded: HashMap<CounterKey, Counter> = counter_rows(conn)?.into_iter().collect();
    for (key, account) in &accounts {
        if let Some(state) = &account.folded
            && folded.get(key) != Some(state)
        {
            found.push(format!("{key:?}: the counter's row is not the state of its last folded entry"));
        }
        if account.whole {
            compare_history(conn, key, account, &mut found)?;
        }
    }
    let more = found.len().saturating_sub(DIFFERENCES_MAX);
    found.truncate(DIFFERENCES_MAX);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    report.differences = found;
    Ok(report)
}

fn follow(
    accounts: &mut HashMap<CounterKey, Account>,
    position: &Position,
    batch: i64,
    entry: &Entry,
    found: &mut Vec<String>,
) {
    let key = &entry.counter;
    let whole = entry.number == 1;
    let account = match accounts.get_mut(key) {
        Some(account) => {
            if !account.last.leads_to(entry) {
                let number = entry.number;
                found.push(format!(
                    "{key:?}: entry {number} (batch {batch}) does not follow from the one before"
                ));
            }
            account
        }
        None => {
            if whole && !Counter::default().leads_to(entry) {
                found.push(format!("{key:?}: entry 1 (batch {batch}) does not follow from nothing"));
            }
            accounts.entry(key.clone()).or_insert(Account {
                last: Counter::default(),
                folded: None,
                whole,
                history: Unfolded::new(),
            })
        }
    };
    account.last = entry.state;
    if position.is_folded(batch, key) {
        account.folded = Some(entry.state);
        account.history.add(entry);
    }
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

fn compare_history(
    conn: &mut SqliteConnection,
    key: &CounterKey,
    account: &Account,
    found: &mut Vec<String>,
) -> Result<(), StoreError> {
    let customer = key.account().customer.as_ref().map_or("", |customer| customer.as_str());
    let rows: Vec<(i64, i64)> = usage_history::table
        .filter(usage_history::business_id.eq(key.account().business.as_str()))
        .filter(usage_history::customer_id.eq(customer))
        .filter(usage_history::metric_name.eq(key.metric().as_str()))
        .select((usage_history::bucket, usage_history::units))
        .load(conn)
        .map_err(store_error)?;
    let kept: HashMap<i64, i64> = rows.into_iter().collect();
    for (bucket, _, gain) in &account.history.hours {
        let units = kept.get(&bucket.as_seconds()).copied().unwrap_or_default();
        if units != gain.units {
            found.push(format!("{key:?}: history of {bucket} says {units}, the ledger {}", gain.units));
        }
    }
    Ok(())
}
