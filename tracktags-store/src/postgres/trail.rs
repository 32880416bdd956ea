//! Which changes a row of the trail explains: all rows of `config_changes` of its own transaction. Transactions of several
//! nodes end in no order, so what SQL changed is written down only below the oldest one that still runs: nothing can come
//! in between any more.

use super::dialect::{Conn, Time};
use super::error::store_error;
use super::schema::{audit_logs, config_changes, server_state};
use super::statement::statement;
use super::tables::audit::{self, Action, ChangeRow};
use crate::secrets::Secrets;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use std::collections::HashSet;
use tracktags_core::audit::Author;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;

/// Changes explained in one step at most.
const STEP_ROWS: i64 = 500;
/// Up to which change, by transaction and number, `config_changes` is explained.
const AUDITED_CHANGE: &str = "audited_change";
const OWN_TRANSACTION: &str = "SELECT pg_current_xact_id()::text::bigint";
/// Every transaction of this database with a smaller number has ended. Those of other databases on the server do not
/// count; one of which it is not known whose it is does.
const OLDEST_RUNNING: &str = "SELECT coalesce( \
        (SELECT min(running::text::bigint) FROM pg_snapshot_xip(taken) AS running \
            LEFT JOIN pg_locks AS l ON l.locktype = 'transactionid' AND l.granted AND l.mode = 'ExclusiveLock' \
                AND l.transactionid = running::xid \
            LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid \
            WHERE a.datid IS NULL OR a.datid = (SELECT oid FROM pg_database WHERE datname = current_database())), \
        pg_snapshot_xmax(taken)::text::bigint) \
    FROM (SELECT pg_current_snapshot() AS taken) AS snapshot";

/// The transaction whose changes a row explains; none where it is about none.
#[derive(Queryable, Selectable, Insertable, Clone, Copy, Debug, Default)]
#[diesel(table_name = audit_logs)]
pub(crate) struct Explains {
    transaction_id: Option<i64>,
}

impl Explains {
    /// What a row's proof binds of it.
    pub(crate) fn facts(&self) -> [[u8; 8]; 2] {
        [self.transaction_id.unwrap_or_default().to_le_bytes(), [0; 8]]
    }
}

/// Where a change of ours begins: its transaction says that by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark;

/// Where a change of ours begins.
pub(crate) const fn begin(_conn: &mut Conn) -> Result<Mark, StoreError> {
    Ok(Mark)
}

/// Notes a change of the configuration, which is all that this transaction changed. What changed nothing leaves no row.
pub(crate) fn note_change(
    conn: &mut Conn,
    secrets: &Secrets,
    now: Timestamp,
    by: &Author,
    action: Action,
    _mark: Mark,
) -> Result<(), StoreError> {
    let own: i64 = statement::<BigInt>(OWN_TRANSACTION, &[]).get_result(conn).map_err(store_error)?;
    let rows = move || config_changes::table.filter(config_changes::transaction_id.eq(own)).into_boxed();
    let is_changed: bool = diesel::select(diesel::dsl::exists(
        config_changes::table.filter(config_changes::transaction_id.eq(own)),
    ))
    .get_result(conn)
    .map_err(store_error)?;
    if !is_changed {
        return Ok(());
    }
    audit::note_rows(conn, secrets, now, by, action, rows, Explains { transaction_id: Some(own) })
}

/// Writes down what SQL changed, so many rows at a time; whether there may be more.
pub(crate) fn sweep(conn: &mut Conn, secrets: &Secrets) -> Result<bool, StoreError> {
    let oldest: i64 = statement::<BigInt>(OLDEST_RUNNING, &[]).get_result(conn).map_err(store_error)?;
    sweep_below(conn, secrets, oldest)
}

fn sweep_below(conn: &mut Conn, secrets: &Secrets, oldest: i64) -> Result<bool, StoreError> {
    let position = position(conn)?;
    let rows = config_changes::table
        .filter(
            config_changes::transaction_id.gt(position.transaction).or(config_changes::transaction_id
                .eq(position.transaction)
                .and(config_changes::id.gt(position.change))),
        )
        .filter(config_changes::transaction_id.lt(oldest))
        .order((config_changes::transaction_id, config_changes::id))
        .select((config_changes::transaction_id, ChangeRow::as_select()))
        .limit(STEP_ROWS)
        .load::<(i64, ChangeRow)>(conn)
        .map_err(store_error)?;
    let Some((transaction, change)) = rows.last().map(|(transaction, row)| (*transaction, row.id)) else {
        return Ok(false);
    };
    let transactions: HashSet<i64> = rows.iter().map(|(transaction, _)| *transaction).collect();
    let explained = explained(conn, transactions, position.since)?;
    let more = i64::try_from(rows.len()).is_ok_and(|count| count == STEP_ROWS);
    let unexplained = rows.into_iter().filter(|(of, _)| !explained.contains(of)).map(|(_, row)| row);
    audit::note_sql(conn, secrets, unexplained, |_, _| Explains::default())?;
    set_position(conn, Position { transaction, change, ..position })?;
    Ok(more)
}

/// Which of these transactions a row of the trail, one after `since`, stands for already.
fn explained(conn: &mut Conn, transactions: HashSet<i64>, since: i64) -> Result<HashSet<i64>, StoreError> {
    let wanted: Vec<i64> = transactions.into_iter().collect();
    let found = audit_logs::table
        .filter(audit_logs::transaction_id.eq_any(wanted))
        .filter(audit_logs::id.gt(since))
        .select(audit_logs::transaction_id.assume_not_null())
        .load::<i64>(conn)
        .map_err(store_error)?;
    Ok(found.into_iter().collect())
}

/// Whether changes made before a time wait to be written down: then none of them is forgotten.
pub(crate) fn is_behind(conn: &mut Conn, before: Timestamp) -> Result<bool, StoreError> {
    let position = position(conn)?;
    let waiting = config_changes::table
        .filter(config_changes::transaction_id.gt(position.transaction))
        .filter(config_changes::changed_at.lt(Time::of(before)));
    diesel::select(diesel::dsl::exists(waiting)).get_result(conn).map_err(store_error)
}

/// Begins anew where the database came from another server, by a dump: transactions have smaller numbers here than those
/// that were explained, and would pass for them.
pub(crate) fn settle_in(conn: &mut Conn, secrets: &Secrets) -> Result<(), StoreError> {
    let own: i64 = statement::<BigInt>(OWN_TRANSACTION, &[]).get_result(conn).map_err(store_error)?;
    if position(conn)?.transaction < own {
        return Ok(());
    }
    tracing::warn!("the database comes from another server; its trail goes on with the numbers of this one");
    while sweep_below(conn, secrets, i64::MAX)? {}
    diesel::update(config_changes::table)
        .set(config_changes::transaction_id.eq(0))
        .execute(conn)
        .map_err(store_error)?;
    let latest = audit_logs::table.select(diesel::dsl::max(audit_logs::id)).get_result::<Option<i64>>(conn);
    let since = latest.map_err(store_error)?.unwrap_or_default();
    set_position(conn, Position { since, ..Position::default() })
}

/// How far the trail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// Up to this transaction,
    transaction: i64,
    /// and this change of it, everything is explained;
    change: i64,
    /// by rows of the trail after this one, where transactions are told by their numbers.
    since: i64,
}

impl Default for Position {
    fn default() -> Self {
        Self { transaction: 0, change: i64::MAX, since: 0 }
    }
}

impl Position {
    /// `transaction`, or `transaction change since`; a transaction by itself is explained whole.
    fn parse(text: &str) -> Self {
        let mut numbers = text.split(' ').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        let whole = Self::default();
        Self {
            transaction: next().unwrap_or(whole.transaction),
            change: next().unwrap_or(whole.change),
            since: next().unwrap_or(whole.since),
        }
    }

    fn text(self) -> String {
        format!("{} {} {}", self.transaction, self.change, self.since)
    }
}

/// The position, locked: whoever sweeps at the same moment comes after.
fn position(conn: &mut Conn) -> Result<Position, StoreError> {
    let state = server_state::table.find(AUDITED_CHANGE).select(server_state::value).for_update();
    state.get_result::<String>(conn).map(|text| Position::parse(&text)).map_err(store_error)
}

fn set_position(conn: &mut Conn, position: Position) -> Result<(), StoreError> {
    diesel::update(server_state::table.find(AUDITED_CHANGE))
        .set(server_state::value.eq(position.text()))
        .execute(conn)
        .map(drop)
        .map_err(store_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_transaction_and_perhaps_a_row_of_it() {
        let whole = Position::parse("812");
        assert_eq!(whole, Position { transaction: 812, change: i64::MAX, since: 0 });
        let part = Position { transaction: 812, change: 7, since: 3 };
        assert_eq!(Position::parse(&part.text()), part);
    }
}
