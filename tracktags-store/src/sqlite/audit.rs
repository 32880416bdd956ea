//! The trail of changes: a row for every change, in its transaction (`no-change-without-its-row`).
//!
//! A change of ours notes which rows of `config_changes` it caused. Those that nobody notes were caused by SQL: a sweep
//! writes them down with the actor `sql`, before they are pruned and before the trail is read. Each row carries a proof
//! under the master key, so that SQL writers forge none; one without it is shown as theirs.

use super::error::store_error;
use super::rows::{page_of, time_or_start, time_text};
use super::schema::{audit_logs, config_changes, server_state};
use crate::secrets::{AuditFacts, Secrets};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use serde_json::{Map, Value};
use tracktags_core::accounts::BusinessId;
use tracktags_core::audit::{ActorKind, AuditQuery, AuditRecord, Author, Event};
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::Page;

/// Rows that one change leaves of one resource at most.
const PARTS_MAX: i64 = 16;
/// Changes explained in one step at most.
const STEP_ROWS: i64 = 500;
/// The column that every row of the configuration has.
const TENANT: &str = "business_id";
/// Up to which row `config_changes` is explained.
const AUDITED_CHANGE: &str = "audited_change";

/// A change of the configuration as the trail names it: `resource.verb`, and the tables that hold the resource, the one
/// that names it best first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action {
    pub(crate) name: &'static str,
    pub(crate) tables: &'static [&'static str],
}

/// The tables of the configuration, and what the trail calls what is in them.
const RESOURCES: [(&str, &str); 7] = [
    ("businesses", "business"),
    ("customers", "customer"),
    ("business_keys", "key"),
    ("customer_keys", "key"),
    ("plans", "plan"),
    ("plan_limits", "limit"),
    ("metrics", "metric"),
];

#[derive(Queryable, Selectable, Insertable, Debug)]
#[diesel(table_name = audit_logs)]
struct AuditRow {
    business_id: Option<String>,
    at: String,
    actor_type: String,
    actor_id: Option<String>,
    action: String,
    resource_id: String,
    before: Option<String>,
    after: Option<String>,
    request_id: Option<String>,
    change_first: Option<i64>,
    change_last: Option<i64>,
    row_mac: Option<Vec<u8>>,
}

impl AuditRow {
    fn facts(&self) -> AuditFacts<'_> {
        let changes =
            [self.change_first, self.change_last].map(|change| change.unwrap_or_default().to_le_bytes());
        AuditFacts {
            texts: [
                self.business_id.as_deref(),
                Some(&self.at),
                Some(&self.actor_type),
                self.actor_id.as_deref(),
                Some(&self.action),
                Some(&self.resource_id),
                self.before.as_deref(),
                self.after.as_deref(),
                self.request_id.as_deref(),
            ],
            changes,
        }
    }

    fn insert(mut self, conn: &mut SqliteConnection, secrets: &Secrets) -> Result<(), StoreError> {
        self.row_mac = Some(secrets.audit_mac(&self.facts()).to_vec());
        diesel::insert_into(audit_logs::table).values(self).execute(conn).map(drop).map_err(store_error)
    }

    fn read(self, id: i64, secrets: &Secrets) -> AuditRecord {
        let proved = self.row_mac.as_deref().is_some_and(|mac| secrets.proves_audit(mac, &self.facts()));
        let actor = ActorKind::from_word(&self.actor_type).filter(|_| proved).unwrap_or(ActorKind::Sql);
        AuditRecord {
            id,
            business: self.business_id.and_then(|id| BusinessId::parse(&id).ok()),
            at: time_or_start(&self.at),
            actor,
            actor_id: self.actor_id,
            action: self.action,
            resource_id: self.resource_id,
            before: self.before,
            after: self.after,
            request_id: self.request_id,
        }
    }
}

/// A row of `config_changes`.
#[derive(Queryable, Selectable)]
#[diesel(table_name = config_changes)]
struct ChangeRow {
    id: i64,
    business_id: String,
    table_name: String,
    row_id: String,
    changed_columns: String,
    changed_at: String,
}

impl ChangeRow {
    /// Whether one statement caused both: a trigger that changes the row once more leaves a row of its own.
    fn is_one_with(&self, next: &Self) -> bool {
        (&self.table_name, &self.row_id, &self.changed_at)
            == (&next.table_name, &next.row_id, &next.changed_at)
    }

    /// What SQL did, by what is left of it: `columns` of one statement's changes of the row, of which this is the last.
    fn of_sql(self, first: i64, columns: &[String]) -> AuditRow {
        let (before, after) = sides(columns);
        let verb = match (&before, &after) {
            (None, Some(_)) => "create",
            (Some(_), None) => "delete",
            (_, _) => "update",
        };
        let resource = RESOURCES.iter().find(|(table, _)| *table == self.table_name);
        let resource = resource.map_or(self.table_name.as_str(), |(_, resource)| resource);
        AuditRow {
            action: format!("{resource}.{verb}"),
            business_id: Some(self.business_id),
            at: self.changed_at,
            actor_type: ActorKind::Sql.as_str().to_owned(),
            actor_id: None,
            resource_id: self.row_id,
            before,
            after,
            request_id: None,
            change_first: Some(first),
            change_last: Some(self.id),
            row_mac: None,
        }
    }
}

/// The columns of a row that changed, as they were first and as they are at last; `None` where there was no row.
fn sides(parts: &[String]) -> (Option<String>, Option<String>) {
    let (mut was, mut is) = (Map::new(), Map::new());
    for part in parts {
        let columns: Map<String, Value> = serde_json::from_str(part).unwrap_or_default();
        for (name, pair) in columns {
            let side = |place: usize| pair.get(place).cloned().unwrap_or_default();
            was.entry(name.clone()).or_insert_with(|| side(0));
            is.insert(name, side(1));
        }
    }
    // A row that comes or goes brings its tenant along; one that changes keeps it.
    let there = |side: &Map<String, Value>| side.get(TENANT).is_none_or(|tenant| !tenant.is_null());
    let told = |side: Map<String, Value>| there(&side).then(|| Value::Object(side).to_string());
    (told(was), told(is))
}

/// The number of the latest change; 0 before the first.
pub(crate) fn latest_change(conn: &mut SqliteConnection) -> Result<i64, StoreError> {
    #[derive(QueryableByName)]
    struct Sequence {
        #[diesel(sql_type = BigInt)]
        seq: i64,
    }
    let found = diesel::sql_query("SELECT seq FROM sqlite_sequence WHERE name = 'config_changes'")
        .get_result::<Sequence>(conn)
        .optional()
        .map_err(store_error)?;
    Ok(found.map_or(0, |sequence| sequence.seq))
}

/// Notes a change of the configuration: the latest row after `before` in the first of the action's tables with any is the
/// resource.
/// What changed nothing leaves no row.
pub(crate) fn note_change(
    conn: &mut SqliteConnection,
    secrets: &Secrets,
    now: Timestamp,
    by: &Author,
    action: Action,
    before: i64,
) -> Result<(), StoreError> {
    let last = latest_change(conn)?;
    if last == before {
        return Ok(());
    }
    let mut changed = None;
    for table in action.tables {
        changed = config_changes::table
            .filter(config_changes::id.gt(before))
            .filter(config_changes::table_name.eq(*table))
            .order(config_changes::id.desc())
            .select(ChangeRow::as_select())
            .limit(1)
            .get_result(conn)
            .optional()
            .map_err(store_error)?;
        if changed.is_some() {
            break;
        }
    }
    let Some(changed) = changed else {
        return Err(StoreError::Backend("a change touched none of its own tables".into()));
    };
    // One statement may leave several rows: each trigger notes its own columns.
    let parts = config_changes::table
        .filter(config_changes::id.gt(before))
        .filter(config_changes::table_name.eq(&changed.table_name))
        .filter(config_changes::row_id.eq(&changed.row_id))
        .order(config_changes::id)
        .select(config_changes::changed_columns)
        .limit(PARTS_MAX)
        .load::<String>(conn)
        .map_err(store_error)?;
    let (was, is) = sides(&parts);
    let row = AuditRow {
        resource_id: changed.row_id,
        business_id: Some(changed.business_id),
        before: was,
        after: is,
        change_first: Some(before.saturating_add(1)),
        change_last: Some(last),
        ..by_author(by, now, action.name)
    };
    row.insert(conn, secrets)
}

fn by_author(by: &Author, now: Timestamp, action: &str) -> AuditRow {
    AuditRow {
        business_id: None,
        at: time_text(now),
        actor_type: by.kind.as_str().to_owned(),
        actor_id: by.key_id.as_deref().map(str::to_owned),
        action: action.to_owned(),
        resource_id: String::new(),
        before: None,
        after: None,
        request_id: by.request_id.as_deref().map(str::to_owned),
        change_first: None,
        change_last: None,
        row_mac: None,
    }
}

/// Notes an event.
pub(crate) fn note_event(
    conn: &mut SqliteConnection,
    secrets: &Secrets,
    now: Timestamp,
    by: &Author,
    event: &Event,
    before: Option<String>,
) -> Result<(), StoreError> {
    let row = AuditRow {
        business_id: event.business.as_ref().map(|business| business.as_str().to_owned()),
        resource_id: event.resource_id.clone(),
        before,
        after: event.after.clone(),
        ..by_author(by, now, event.action)
    };
    row.insert(conn, secrets)
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
    let mut changes = changes.into_iter().filter(|change| !is_explained(change.id)).peekable();
    while let Some(mut change) = changes.next() {
        let (first, mut columns) = (change.id, vec![change.changed_columns.clone()]);
        while let Some(next) = changes.next_if(|next| change.is_one_with(next)) {
            columns.push(next.changed_columns.clone());
            change = next;
        }
        change.of_sql(first, &columns).insert(conn, secrets)?;
    }
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

/// The trail, newest first.
pub(crate) fn page(
    conn: &mut SqliteConnection,
    secrets: &Secrets,
    query: &AuditQuery,
) -> Result<Page<AuditRecord>, StoreError> {
    let mut rows = audit_logs::table.into_boxed();
    if let Some(business) = &query.business {
        rows = rows.filter(audit_logs::business_id.eq(business.as_str()));
    }
    if let Some(action) = &query.action {
        rows = rows.filter(audit_logs::action.eq(action));
    }
    if let Some(resource) = &query.resource_type {
        // A range, for an action's name is never sought by a pattern.
        rows = rows
            .filter(audit_logs::action.ge(format!("{resource}.")))
            .filter(audit_logs::action.lt(format!("{resource}/")));
    }
    if let Some(from) = query.from {
        rows = rows.filter(audit_logs::at.ge(time_text(from)));
    }
    if let Some(to) = query.to {
        rows = rows.filter(audit_logs::at.lt(time_text(to)));
    }
    if let Some(after) = query.page.after {
        rows = rows.filter(audit_logs::id.lt(after));
    }
    let rows: Vec<(i64, AuditRow)> = rows
        .order(audit_logs::id.desc())
        .limit(i64::from(query.page.count_max).saturating_add(1))
        .select((audit_logs::id, AuditRow::as_select()))
        .load(conn)
        .map_err(store_error)?;
    Ok(page_of(rows, query.page, |(id, _)| *id, |(id, row)| Some(row.read(id, secrets))))
}
