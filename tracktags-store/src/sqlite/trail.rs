//! Which changes a row of the trail explains: a range of the numbers of `config_changes`. One writer at a time gives
//! them out, so what a change of ours caused stands between two of them.

use super::error::store_error;
use super::schema::{audit_logs, config_changes, server_state};
use super::tables::audit::{self, Action, ChangeRow};
use crate::secrets::Secrets;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use tracktags_core::audit::Author;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;

/// Changes explained in one step at most.
const STEP_ROWS: i64 = 500;
/// Up to which row `config_changes` is explained.
const AUDITED_CHANGE: &str = "audited_change";

/// The first and the last change that a row explains; neither where it is about none.
#[derive(Queryable, Selectable, Insertable, Clone, Copy, Debug, Default)]
#[diesel(table_name = audit_logs)]
pub(crate) struct Explains {
    change_first: Option<i64>,
    change_last: Option<i64>,
}

impl Explains {
    const fn range(first: i64, last: i64) -> Self {
        Self { change_first: Some(first), change_last: Some(last) }
    }

    /// What a row's proof binds of it.
    pub(crate) fn facts(&self) -> [[u8; 8]; 2] {
        [self.change_first, self.change_last].map(|change| change.unwrap_or_default().to_le_bytes())
    }
}

/// The number of the latest change before one of ours began; 0 before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(i64);

/// Where a change of ours begins.
pub(crate) fn begin(conn: &mut SqliteConnection) -> Result<Mark, StoreError> {
    #[derive(QueryableByName)]
    struct Sequence {
        #[diesel(sql_type = BigInt)]
        seq: i64,
    }
    let found = diesel::sql_query("SELECT seq FROM sqlite_sequence WHERE name = 'config_changes'")
        .get_result::<Sequence>(conn)
        .optional()
        .map_err(store_error)?;
    Ok(Mark(found.map_or(0, |sequence| sequence.seq)))
}

/// Notes a change of the configuration that began at `mark`. What changed nothing leaves no row.
pub(crate) fn note_change(
    conn: &mut SqliteConnection,
    secrets: &Secrets,
    now: Timestamp,
    by: &Author,
    action: Action,
    mark: Mark,
) -> Result<(), StoreError> {
    let last = begin(conn)?;
    if last == mark {
        return Ok(());
    }
    let rows = move || config_changes::table.filter(config_changes::id.gt(mark.0)).into_boxed();
    let explains = Explains::range(mark.0.saturating_add(1), last.0);
    audit::note_rows(conn, secrets, now, by, action, rows, explains)
}

/// Writes down what SQL changed, so many rows at a time; whether there may be more.
pub(crate) fn sweep(conn: &mut SqliteConnection, secrets: &Secrets) -> Result<bool, StoreError> {
    let state = server_state::table.find(AUDITED_CHANGE);
    let position: String = state.select(server_state::value).get_result(conn).map_err(store_error)?;
    let position: i64 = position.parse().unwrap_or_default();
    let changes = config_changes::table
        .filter(config_changes::id.gt(position))
        .order(config_changes::id)
        .select(ChangeRow::as_select())
        .limit(STEP_ROWS)
        .load(conn)
        .map_err(store_error)?;
    let Some(last) = changes.last().map(|change| change.id) else { return Ok(false) };
    let explained = explained(conn, position, last)?;
    let is_explained = |id: i64| {
        let next = explained.partition_point(|(_, last)| *last < id);
        explained.get(next).is_some_and(|(first, _)| *first <= id)
    };
    let more = i64::try_from(changes.len()).is_ok_and(|count| count == STEP_ROWS);
    let unexplained = changes.into_iter().filter(|change| !is_explained(change.id));
    audit::note_sql(conn, secrets, unexplained, Explains::range)?;
    diesel::update(server_state::table.find(AUDITED_CHANGE))
        .set(server_state::value.eq(last.to_string()))
        .execute(conn)
        .map_err(store_error)?;
    Ok(more)
}

/// The changes between `position` and `last` that rows of the trail stand for already: each row's first and last one, in
/// order. One writer makes them, so no two rows share any; what comes later is not read.
fn explained(conn: &mut SqliteConnection, position: i64, last: i64) -> Result<Vec<(i64, i64)>, StoreError> {
    let spans = audit_logs::table
        .filter(audit_logs::change_last.gt(position))
        .order(audit_logs::change_last)
        .select((audit_logs::change_first.assume_not_null(), audit_logs::change_last.assume_not_null()))
        .load_iter::<(i64, i64), diesel::connection::DefaultLoadingMode>(conn)
        .map_err(store_error)?;
    let not_later = |span: &QueryResult<(i64, i64)>| span.as_ref().map_or(true, |(first, _)| *first <= last);
    spans.take_while(not_later).collect::<QueryResult<_>>().map_err(store_error)
}
