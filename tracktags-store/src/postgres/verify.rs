//! The books as this engine reads them, in one snapshot: the counters are of the last batch, the history is as far as the
//! folds are.

use super::dialect::Conn;
use super::error::store_error;
use super::locked::names_of;
use super::schema::{counters, ledger_position, usage_history};
use super::sessions::Session;
use super::source::{Purpose, Source};
use super::statement::{Bind, statement};
use super::usage::{LedgerRow, corrupt, counter_of, key_of};
use super::{Connections, apart, to_open_error};
use crate::books::{Books, LedgerLine, Standing, VerifyReport};
use crate::ledger::unpack_entries;
use crate::{Durability, OpenError};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Integer, Text};
use std::collections::HashMap;
use tracktags_core::error::StoreError;
use tracktags_core::time::{MICROS_PER_SECOND, Timestamp};
use tracktags_core::usage::{Counter, CounterKey, Entry};

/// Ledger rows read at once.
const ROWS: i64 = 1_024;

/// In the order of their times, which is that of the entries of a counter where no clock went back.
const AFTER: &str = "SELECT boot, lane, batch, written_at, entries FROM usage_ledger \
    WHERE (written_at, boot, lane, batch) > (?, ?, ?::int, ?) ORDER BY written_at, boot, lane, batch LIMIT ?";

/// A place in the ledger: time, boot, lane, batch.
type Place = (i64, String, i32, i64);

/// A session on a database that is there, and what drives it.
struct Open {
    session: Session,
    _connections: Connections,
}

impl Open {
    fn new(url: &str) -> Result<Self, OpenError> {
        let source = Source::parse(url, Durability::PowerLoss)?;
        let connections = Connections::start()?;
        let session = Session::for_purpose(Purpose::Books, source, connections.handle()?);
        Ok(Self { session, _connections: connections })
    }

    fn read<T: Send>(
        &mut self,
        read: impl FnMut(&mut Conn, Timestamp) -> Result<T, StoreError> + Send,
    ) -> Result<T, OpenError> {
        apart(|| self.session.read(read).map_err(to_open_error))
    }
}

pub(crate) fn verify(url: &str) -> Result<VerifyReport, OpenError> {
    Open::new(url)?.read(|conn, _| check(conn))
}

/// A batch commits so long after its time at most: the server ends what takes longer.
const LATE_MICROS_MAX: i64 = 10 * MICROS_PER_SECOND;

/// Follows the ledger. Batches do not commit in the order of their times, those of one lane do in that of their numbers.
pub(crate) struct Follower {
    open: Open,
    after: HashMap<(String, i32), i64>,
    latest: i64,
}

impl Follower {
    pub(crate) fn open(url: &str) -> Result<Self, OpenError> {
        let mut open = Open::new(url)?;
        // Whether it is there, and may be read.
        open.read(|conn, _| walk(conn, (i64::MAX, String::new(), 0, 0), |_row, _entries| {}))?;
        Ok(Self { open, after: HashMap::new(), latest: i64::MIN })
    }

    pub(crate) fn read(&mut self, each: &mut dyn FnMut(LedgerLine)) -> Result<(), OpenError> {
        let from = (self.latest.saturating_sub(LATE_MICROS_MAX), String::new(), 0, 0);
        let rows = self.open.read(|conn, _| {
            let mut rows = Vec::new();
            walk(conn, from.clone(), |row, entries| {
                rows.push(((row.boot.clone(), row.lane), row.batch, row.written_at, entries));
            })?;
            Ok(rows)
        })?;
        for (lane, batch, written_at, entries) in rows {
            let after = self.after.entry(lane).or_insert(0);
            if batch > *after {
                *after = batch;
                self.latest = self.latest.max(written_at);
                entries.into_iter().for_each(|entry| each(LedgerLine { batch, entry }));
            }
        }
        Ok(())
    }
}

/// Reads every batch after a place.
fn walk(
    conn: &mut Conn,
    mut after: Place,
    mut each: impl FnMut(&LedgerRow, Vec<Entry>),
) -> Result<(), StoreError> {
    loop {
        let (at, boot, lane, batch) = &after;
        let binds = [
            Bind::Number(*at),
            Bind::Text(boot),
            Bind::Number((*lane).into()),
            Bind::Number(*batch),
            Bind::Number(ROWS),
        ];
        let rows = statement::<(Text, Integer, BigInt, BigInt, Binary)>(AFTER, &binds)
            .load::<LedgerRow>(conn)
            .map_err(store_error)?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = (last.written_at, last.boot.clone(), last.lane, last.batch);
        for row in &rows {
            let at = Timestamp::from_micros(row.written_at);
            each(row, unpack_entries(&row.entries, at).map_err(corrupt)?);
        }
    }
}

fn check(conn: &mut Conn) -> Result<VerifyReport, StoreError> {
    let positions: HashMap<(String, i32), i64> = ledger_position::table
        .select((ledger_position::boot, ledger_position::lane, ledger_position::folded_to))
        .load::<(String, i32, i64)>(conn)
        .map_err(store_error)?
        .into_iter()
        .map(|(boot, lane, folded_to)| ((boot, lane), folded_to))
        .collect();
    let mut books = Books::default();
    walk(conn, (i64::MIN, String::new(), 0, 0), |_row, entries| {
        entries.iter().for_each(|entry| books.expect(entry));
    })?;
    walk(conn, (i64::MIN, String::new(), 0, 0), |row, entries| {
        books.count_batch();
        // A boot without a position is over, and all of it folded.
        let position = positions.get(&(row.boot.clone(), row.lane));
        let in_history = position.is_none_or(|folded_to| row.batch <= *folded_to);
        for entry in entries {
            books.follow(row.batch, entry, Standing { in_row: true, in_history });
        }
    })?;
    let rows = counter_rows(conn)?;
    books.finish(&rows, |key| history_of(conn, key))
}

fn counter_rows(conn: &mut Conn) -> Result<HashMap<CounterKey, Counter>, StoreError> {
    let rows: Vec<(String, String, String, Vec<u8>)> = counters::table
        .select((counters::business_id, counters::customer_id, counters::metric_name, counters::state))
        .load(conn)
        .map_err(store_error)?;
    rows.iter()
        .map(|(business, customer, metric, row)| {
            Ok((key_of(business, customer, metric)?, counter_of([business, customer, metric], row)?))
        })
        .collect()
}

/// The units of each hour of a counter.
fn history_of(conn: &mut Conn, key: &CounterKey) -> Result<HashMap<i64, i64>, StoreError> {
    let [business, customer, metric] = names_of(key);
    let rows: Vec<(i64, i64)> = usage_history::table
        .filter(usage_history::business_id.eq(business))
        .filter(usage_history::customer_id.eq(customer))
        .filter(usage_history::metric_name.eq(metric))
        .select((usage_history::bucket, usage_history::units))
        .load(conn)
        .map_err(store_error)?;
    Ok(rows.into_iter().collect())
}
