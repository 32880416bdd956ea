//! Folds: what the ledger gained goes into the history, by whichever node gets the lock of the pass. Also the ledger's
//! retention, and the boots that are over.
//!
//! Batches of several lanes commit in no common order, so how far the folds are is kept for each boot and lane, and by
//! the batch's number: within one lane a later number never commits before an earlier one. Rows of a pass are taken in
//! the order of their times, so that what is said last of a counter is folded last.

use super::boots;
use super::dialect::Conn;
use super::error::store_error;
use super::schema::ledger_position;
use super::sessions::Session;
use super::statement::{Bind, statement};
use super::tables::audit;
use super::usage::{self, Hours, LedgerRow, corrupt};
use crate::StoreLimits;
use crate::ledger::unpack_entries;
use crate::secrets::Secrets;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Integer, Text};
use std::collections::HashMap;
use tracktags_core::audit::Author;
use tracktags_core::error::StoreError;
use tracktags_core::history::Gain;
use tracktags_core::time::Timestamp;

/// Held by the transaction of a step, never by a session: one of a node that stopped would keep it. The number is ours
/// alone by chance.
const TRY_PASS: &str = "SELECT pg_try_advisory_xact_lock(7236451920433616)";
/// Batches of each lane taken in one step.
const LANE_ROWS: i64 = 256;
/// Steps of one pass at most; the rest waits for the next one.
const STEPS_MAX: usize = 1_000;
/// Batches removed in one step.
const PRUNE_ROWS: i64 = 2_048;

const UNFOLDED: &str = "SELECT l.boot, l.lane, l.batch, l.written_at, l.entries FROM ledger_position AS p \
    CROSS JOIN LATERAL (SELECT * FROM usage_ledger WHERE boot = p.boot AND lane = p.lane AND batch > p.folded_to \
        ORDER BY batch LIMIT ?) AS l ORDER BY l.boot, l.lane, l.batch";
/// About how many bytes the ledger's entries take, by a hundredth of its pages: what was removed leaves its room behind.
const LEDGER_BYTES: &str =
    "SELECT coalesce(sum(octet_length(entries)) * 100, 0)::bigint FROM usage_ledger TABLESAMPLE SYSTEM (1)";

/// Folds all that there is to fold, unless another node is at it; whether everything was folded.
pub(super) fn pass(session: &mut Session) -> Result<bool, StoreError> {
    for _step in 0..STEPS_MAX {
        match session.write(|conn, _| step(conn))? {
            Step::More => {}
            Step::Done => return Ok(true),
            Step::NotOurs => return Ok(false),
        }
    }
    Ok(false)
}

enum Step {
    More,
    Done,
    /// Another node is at it.
    NotOurs,
}

fn is_ours(conn: &mut Conn) -> Result<bool, StoreError> {
    statement::<Bool>(TRY_PASS, &[]).get_result(conn).map_err(store_error)
}

fn step(conn: &mut Conn) -> Result<Step, StoreError> {
    if !is_ours(conn)? {
        return Ok(Step::NotOurs);
    }
    let rows = statement::<(Text, Integer, BigInt, BigInt, Binary)>(UNFOLDED, &[Bind::Number(LANE_ROWS)])
        .load::<LedgerRow>(conn)
        .map_err(store_error)?;
    if rows.is_empty() {
        return Ok(Step::Done);
    }
    let (rows, more) = in_order(rows);
    let mut entries = Vec::new();
    let mut positions: HashMap<(&str, i32), i64> = HashMap::new();
    for row in &rows {
        entries
            .extend(unpack_entries(&row.entries, Timestamp::from_micros(row.written_at)).map_err(corrupt)?);
        let position = positions.entry((row.boot.as_str(), row.lane)).or_default();
        *position = row.batch.max(*position);
    }
    // Of one counter in its own order.
    entries.sort_by_key(|entry| entry.number);
    let mut hours = Hours::new();
    for entry in entries {
        let gained = hours.entry((entry.counter.clone(), entry.bucket));
        let (operation, gain) = gained.or_insert_with(|| (entry.operation, Gain::default()));
        *operation = entry.operation;
        gain.add(&entry);
    }
    usage::fold(conn, &hours)?;
    for ((boot, lane), folded_to) in positions {
        diesel::update(ledger_position::table.find((boot, lane)))
            .set(ledger_position::folded_to.eq(folded_to))
            .execute(conn)
            .map_err(store_error)?;
    }
    Ok(if more { Step::More } else { Step::Done })
}

/// Rows in the order of their times, up to where every lane is known; whether there are more. A lane's own time does not
/// run back, whatever the clock did.
fn in_order(rows: Vec<LedgerRow>) -> (Vec<LedgerRow>, bool) {
    let mut lanes: HashMap<(String, i32), (i64, usize)> = HashMap::new();
    let timed = rows.into_iter().map(|row| {
        let (latest, count) = lanes.entry((row.boot.clone(), row.lane)).or_insert((i64::MIN, 0));
        *latest = row.written_at.max(*latest);
        *count = count.saturating_add(1);
        (*latest, row)
    });
    let mut timed: Vec<_> = timed.collect();
    let is_full = |count: usize| i64::try_from(count).is_ok_and(|count| count >= LANE_ROWS);
    let known_to = lanes.values().filter(|(_, count)| is_full(*count)).map(|(latest, _)| *latest).min();
    timed.sort_by_key(|(at, _)| *at);
    timed.retain(|(at, _)| known_to.is_none_or(|known_to| *at <= known_to));
    (timed.into_iter().map(|(_, row)| row).collect(), known_to.is_some())
}

/// Removes folded batches that are old enough, or the oldest while the ledger is too large, and what is left of boots
/// that are over; whether that is all.
pub(super) fn prune(
    session: &mut Session,
    secrets: &Secrets,
    limits: &StoreLimits,
) -> Result<bool, StoreError> {
    session.write(|conn, now| {
        if !is_ours(conn)? {
            return Ok(true);
        }
        let bytes: i64 = statement::<BigInt>(LEDGER_BYTES, &[]).get_result(conn).map_err(store_error)?;
        let kept = i64::from(limits.ledger_retention_seconds);
        let too_large = bytes > limits.ledger_bytes_max;
        let before = if too_large { now } else { now.plus_seconds(-kept) };
        let pruned = prune_before(conn, before)?;
        for event in boots::retire(conn, now)? {
            audit::note_event(conn, secrets, now, &Author::server(), &event, None)?;
        }
        Ok(pruned < PRUNE_ROWS)
    })
}

/// Removes folded batches of before a time, in the order of `seq` and up to the first that stays: what is left of a
/// counter's entries has no gap.
fn prune_before(conn: &mut Conn, before: Timestamp) -> Result<i64, StoreError> {
    const PRUNE: &str = "WITH old AS (SELECT l.seq, l.written_at < ? AND (p.boot IS NULL OR l.batch <= p.folded_to) AS goes \
            FROM (SELECT * FROM usage_ledger ORDER BY seq LIMIT ?) AS l \
            LEFT JOIN ledger_position AS p ON p.boot = l.boot AND p.lane = l.lane) \
        DELETE FROM usage_ledger WHERE seq IN (SELECT seq FROM old) \
            AND seq < coalesce((SELECT min(seq) FROM old WHERE NOT goes), 9223372036854775807)";
    let binds = [Bind::Number(before.as_micros()), Bind::Number(PRUNE_ROWS)];
    let gone = statement::<()>(PRUNE, &binds).execute(conn).map_err(store_error)?;
    Ok(i64::try_from(gone).unwrap_or(i64::MAX))
}

/// Whether everything that a boot wrote is folded.
pub(super) fn is_folded(conn: &mut Conn, boot: &str) -> Result<bool, StoreError> {
    const UNFOLDED: &str = "SELECT EXISTS (SELECT FROM usage_ledger AS l JOIN ledger_position AS p \
        ON p.boot = l.boot AND p.lane = l.lane WHERE l.boot = ? AND l.batch > p.folded_to)";
    let is_any: bool =
        statement::<Bool>(UNFOLDED, &[Bind::Text(boot)]).get_result(conn).map_err(store_error)?;
    Ok(!is_any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(boot: &str, batch: i64, written_at: i64) -> LedgerRow {
        LedgerRow { boot: boot.to_owned(), lane: 0, batch, written_at, entries: Vec::new() }
    }

    #[test]
    fn rows_are_folded_in_the_order_of_their_times_as_far_as_all_lanes_are_known() {
        let (rows, more) = in_order(vec![row("a", 1, 10), row("a", 2, 5), row("b", 1, 7)]);
        let order: Vec<_> = rows.iter().map(|row| (row.boot.as_str(), row.batch)).collect();
        // The clock went back between two batches of `a`: they keep their order.
        assert_eq!((order.as_slice(), more), ([("b", 1), ("a", 1), ("a", 2)].as_slice(), false));

        let full = (1..=LANE_ROWS).map(|batch| row("a", batch, batch));
        let (rows, more) = in_order(full.chain([row("b", 1, 10), row("b", 2, LANE_ROWS + 1)]).collect());
        assert!(more);
        assert!(rows.iter().all(|row| row.written_at <= LANE_ROWS), "more of `a` may come before");
        assert_eq!(rows.iter().filter(|row| row.boot == "b").count(), 1);
    }
}
