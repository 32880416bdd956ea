//! The trail of changes: a row for every change, in its transaction (`no-change-without-its-row`).
//!
//! A change of ours notes which rows of `config_changes` it caused. Those that nobody notes were caused by SQL: a sweep
//! writes them down with the actor `sql`, before they are pruned and before the trail is read. Each row carries a proof
//! under the master key, so that SQL writers forge none; one without it is shown as theirs. How a row says which changes
//! it explains is the engine's (`trail`).

use super::dialect::{Conn, Db, Time};
use super::error::store_error;
use super::pages::page_of;
use super::schema::{audit_logs, config_changes};
use super::trail::Explains;
use crate::admission::Waiting;
use crate::secrets::{AuditFacts, Secrets};
use diesel::prelude::*;
use serde_json::{Map, Value};
use tracktags_core::accounts::BusinessId;
use tracktags_core::audit::{ActorKind, AuditQuery, AuditRecord, Author, Event};
use tracktags_core::batch::Outcome;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::Page;

/// Rows that one change leaves of one resource at most.
const PARTS_MAX: i64 = 16;
/// The column that every row of the configuration has.
const TENANT: &str = "business_id";

/// A change of the configuration as the trail names it: `resource.verb`, and the tables that hold the resource, the one
/// that names it best first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action {
    pub(crate) name: &'static str,
    pub(crate) tables: &'static [&'static str],
}

impl Action {
    pub(crate) const fn of(name: &'static str, tables: &'static [&'static str]) -> Self {
        Self { name, tables }
    }
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
pub(crate) struct AuditRow {
    business_id: Option<String>,
    at: Time,
    actor_type: String,
    actor_id: Option<String>,
    action: String,
    resource_id: String,
    before: Option<String>,
    after: Option<String>,
    request_id: Option<String>,
    #[diesel(embed)]
    explains: Explains,
    row_mac: Option<Vec<u8>>,
}

impl AuditRow {
    fn facts<'a>(&'a self, at: &'a str) -> AuditFacts<'a> {
        AuditFacts {
            texts: [
                self.business_id.as_deref(),
                Some(at),
                Some(&self.actor_type),
                self.actor_id.as_deref(),
                Some(&self.action),
                Some(&self.resource_id),
                self.before.as_deref(),
                self.after.as_deref(),
                self.request_id.as_deref(),
            ],
            changes: self.explains.facts(),
        }
    }

    fn proved(mut self, secrets: &Secrets) -> Self {
        self.row_mac = Some(secrets.audit_mac(&self.facts(&self.at.text())).to_vec());
        self
    }

    pub(crate) fn insert(self, conn: &mut Conn) -> Result<(), StoreError> {
        diesel::insert_into(audit_logs::table).values(self).execute(conn).map(drop).map_err(store_error)
    }

    fn read(self, id: i64, secrets: &Secrets) -> AuditRecord {
        let proved = self
            .row_mac
            .as_deref()
            .is_some_and(|mac| secrets.proves_audit(mac, &self.facts(&self.at.text())));
        let actor = ActorKind::from_word(&self.actor_type).filter(|_| proved).unwrap_or(ActorKind::Sql);
        AuditRecord {
            id,
            business: self.business_id.and_then(|id| BusinessId::parse(&id).ok()),
            at: self.at.read_or_start(),
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
pub(crate) struct ChangeRow {
    pub(crate) id: i64,
    business_id: String,
    table_name: String,
    row_id: String,
    changed_columns: String,
    changed_at: Time,
}

impl ChangeRow {
    /// Whether one statement caused both: a trigger that changes the row once more leaves a row of its own.
    fn is_one_with(&self, next: &Self) -> bool {
        (&self.table_name, &self.row_id, &self.changed_at)
            == (&next.table_name, &next.row_id, &next.changed_at)
    }

    /// What SQL did, by what is left of it: `columns` of one statement's changes of the row, of which this is the last.
    fn of_sql(self, explains: Explains, columns: &[String]) -> AuditRow {
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
            explains,
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

/// Rows of `config_changes`, some of them.
pub(crate) type Changes = config_changes::BoxedQuery<'static, Db>;

/// Notes a change of the configuration by the rows that it left: the latest one in the first of the action's tables with
/// any is the resource. `rows` are all that this change left, and those that the new row `explains`.
pub(crate) fn note_rows(
    conn: &mut Conn,
    secrets: &Secrets,
    now: Timestamp,
    by: &Author,
    action: Action,
    rows: impl Fn() -> Changes,
    explains: Explains,
) -> Result<(), StoreError> {
    let mut changed = None;
    for table in action.tables {
        changed = rows()
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
    let parts = rows()
        .filter(config_changes::table_name.eq(changed.table_name))
        .filter(config_changes::row_id.eq(changed.row_id.clone()))
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
        explains,
        ..by_author(by, now, action.name)
    };
    row.proved(secrets).insert(conn)
}

/// Writes down changes that SQL caused, in the order in which they were made. `explains` says of the first and the last of
/// those that one statement caused, and that stand next to each other, what the row about them explains.
pub(crate) fn note_sql(
    conn: &mut Conn,
    secrets: &Secrets,
    changes: impl IntoIterator<Item = ChangeRow>,
    explains: impl Fn(i64, i64) -> Explains,
) -> Result<(), StoreError> {
    let mut changes = changes.into_iter().peekable();
    while let Some(mut change) = changes.next() {
        let (first, mut columns) = (change.id, vec![change.changed_columns.clone()]);
        while let Some(next) = changes.next_if(|next| change.is_one_with(next)) {
            columns.push(next.changed_columns.clone());
            change = next;
        }
        let explains = explains(first, change.id);
        change.of_sql(explains, &columns).proved(secrets).insert(conn)?;
    }
    Ok(())
}

fn by_author(by: &Author, now: Timestamp, action: &str) -> AuditRow {
    AuditRow {
        business_id: None,
        at: Time::of(now),
        actor_type: by.kind.as_str().to_owned(),
        actor_id: by.key_id.as_deref().map(str::to_owned),
        action: action.to_owned(),
        resource_id: String::new(),
        before: None,
        after: None,
        request_id: by.request_id.as_deref().map(str::to_owned),
        explains: Explains::default(),
        row_mac: None,
    }
}

/// The row of an event.
fn event_row(
    secrets: &Secrets,
    now: Timestamp,
    by: &Author,
    event: &Event,
    before: Option<String>,
) -> AuditRow {
    let row = AuditRow {
        business_id: event.business.as_ref().map(|business| business.as_str().to_owned()),
        resource_id: event.resource_id.clone(),
        before,
        after: event.after.clone(),
        ..by_author(by, now, event.action)
    };
    row.proved(secrets)
}

/// The row of a correction by hand, where this is one: what was noted with an operation, and what that came to.
pub(crate) fn correction_row(
    secrets: &Secrets,
    now: Timestamp,
    one: &Waiting,
    outcome: &Outcome,
) -> Option<AuditRow> {
    let (Some(noted), Outcome::Done { value, before }) = (&one.noted, outcome) else { return None };
    let (by, event) = &**noted;
    if event.after.is_some() {
        return Some(event_row(secrets, now, by, event, None));
    }
    let value_of = |value: i64| serde_json::json!({"value": value}).to_string();
    let event = Event { after: Some(value_of(*value)), ..event.clone() };
    Some(event_row(secrets, now, by, &event, Some(value_of(*before))))
}

/// Notes an event.
pub(crate) fn note_event(
    conn: &mut Conn,
    secrets: &Secrets,
    now: Timestamp,
    by: &Author,
    event: &Event,
    before: Option<String>,
) -> Result<(), StoreError> {
    event_row(secrets, now, by, event, before).insert(conn)
}

/// The trail, newest first.
pub(crate) fn page(
    conn: &mut Conn,
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
        rows = rows.filter(audit_logs::at.ge(Time::of(from)));
    }
    if let Some(to) = query.to {
        rows = rows.filter(audit_logs::at.lt(Time::of(to)));
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
