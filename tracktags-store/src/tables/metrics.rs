//! Metrics: the rows, and the metric that a limit creates.

use super::accounts::require_business;
use super::dialect::{Conn, Time};
use super::error::store_error;
use super::pages::{page_of, page_rows};
use super::schema::metrics;
use diesel::prelude::*;
use tracktags_core::accounts::{BusinessId, MetricName, Scope};
use tracktags_core::error::{Conflict, Entity, StoreError};
use tracktags_core::limits::Attachment;
use tracktags_core::metrics::{Interval, Metric, MetricType, Operation};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{MetricRecord, Page, PageRequest};
use tracktags_core::windows::Period;

/// A metric's row, as it stands.
#[derive(Queryable, Selectable)]
#[diesel(table_name = metrics)]
pub(super) struct RecordRow {
    pub(super) seq: i64,
    scope: String,
    #[diesel(embed)]
    row: MetricRow,
    cleanup_after: String,
    tags: String,
    metadata: String,
}

impl RecordRow {
    /// What is kept of the metric; `None` for a row that makes no sense.
    pub(super) fn read(self) -> Option<MetricRecord> {
        let metric = self.row.read(Scope::from_word(&self.scope)?)?;
        Some(MetricRecord {
            metric,
            cleanup_after: self.cleanup_after,
            tags: self.tags,
            metadata: self.metadata,
        })
    }
}

/// What decides of a metric's row.
#[derive(Queryable, Selectable)]
#[diesel(table_name = metrics)]
pub(crate) struct MetricRow {
    pub(crate) metric_name: String,
    operation: String,
    metric_type: String,
    flush_interval: String,
}

impl MetricRow {
    /// The metric; `None` for a row that makes no sense.
    pub(crate) fn read(&self, scope: Scope) -> Option<Metric> {
        Some(Metric {
            name: MetricName::parse(&self.metric_name).ok()?,
            scope,
            operation: Operation::from_word(&self.operation)?,
            metric_type: MetricType::from_word(&self.metric_type)?,
            interval: Interval::from_word(&self.flush_interval)?,
        })
    }
}

/// A business's metrics of one scope.
pub(crate) fn metric_rows(
    conn: &mut Conn,
    business: &BusinessId,
    scope: Scope,
) -> Result<Vec<MetricRow>, StoreError> {
    metrics::table
        .filter(metrics::business_id.eq(business.as_str()))
        .filter(metrics::scope.eq(scope.as_str()))
        .select(MetricRow::as_select())
        .load(conn)
        .map_err(store_error)
}

/// The metric of this name in each scope that has one. A row that makes no sense is left out; it refuses elsewhere.
pub(crate) fn metric(
    conn: &mut Conn,
    business: &BusinessId,
    name: &MetricName,
) -> Result<Vec<MetricRecord>, StoreError> {
    let rows = metrics::table
        .filter(metrics::business_id.eq(business.as_str()))
        .filter(metrics::metric_name.eq(name.as_str()))
        .order(metrics::scope.desc())
        .select(RecordRow::as_select())
        .load(conn)
        .map_err(store_error)?;
    Ok(rows.into_iter().filter_map(RecordRow::read).collect())
}

/// A business's metrics, oldest first.
pub(crate) fn metrics_page(
    conn: &mut Conn,
    business: &BusinessId,
    scope: Option<Scope>,
    page: PageRequest,
) -> Result<Page<MetricRecord>, StoreError> {
    require_business(conn, business)?;
    let mut rows = metrics::table
        .filter(metrics::business_id.eq(business.as_str()))
        .filter(metrics::seq.gt(page.after.unwrap_or(0)))
        .order(metrics::seq)
        .select(RecordRow::as_select())
        .limit(page_rows(page))
        .into_boxed();
    if let Some(scope) = scope {
        rows = rows.filter(metrics::scope.eq(scope.as_str()));
    }
    let rows = rows.load(conn).map_err(store_error)?;
    Ok(page_of(rows, page, |row| row.seq, RecordRow::read))
}

/// Whether the business has a metric of this name in any scope.
pub(crate) fn metric_exists(
    conn: &mut Conn,
    business: &BusinessId,
    name: &MetricName,
) -> Result<bool, StoreError> {
    let named = metrics::table
        .filter(metrics::business_id.eq(business.as_str()))
        .filter(metrics::metric_name.eq(name.as_str()));
    diesel::select(diesel::dsl::exists(named)).get_result(conn).map_err(store_error)
}

fn metric_row(
    conn: &mut Conn,
    business: &BusinessId,
    name: &str,
    scope: Scope,
) -> Result<Option<MetricRow>, StoreError> {
    metrics::table
        .filter(metrics::business_id.eq(business.as_str()))
        .filter(metrics::metric_name.eq(name))
        .filter(metrics::scope.eq(scope.as_str()))
        .select(MetricRow::as_select())
        .get_result(conn)
        .optional()
        .map_err(store_error)
}

/// The type of the metric that a limit of this period creates.
pub(crate) const fn created_type(period: Period) -> MetricType {
    match period {
        Period::Realtime => MetricType::Checkpoint,
        _ => MetricType::Reset,
    }
}

/// The type of a limit's metric, as customers count it.
pub(crate) fn metric_type(
    conn: &mut Conn,
    business: &BusinessId,
    name: &str,
    period: Period,
) -> Result<MetricType, StoreError> {
    let row = metric_row(conn, business, name, Scope::Customer)?;
    let known = row.and_then(|row| MetricType::from_word(&row.metric_type));
    Ok(known.unwrap_or(created_type(period)))
}

/// Makes sure that a limit's metric is there and takes limits: in customer scope, for a business-wide limit in both.
pub(crate) fn ensure_metric(
    conn: &mut Conn,
    now: Timestamp,
    business: &BusinessId,
    name: &MetricName,
    period: Period,
    attachment: &Attachment,
    asked: Option<MetricType>,
) -> Result<(), StoreError> {
    let scopes: &[Scope] = match attachment {
        Attachment::Business => &[Scope::Customer, Scope::Business],
        Attachment::Plan(_) | Attachment::Customer(_) => &[Scope::Customer],
    };
    for scope in scopes {
        let Some(row) = metric_row(conn, business, name.as_str(), *scope)? else {
            let metric_type = asked.unwrap_or(created_type(period));
            insert(
                conn,
                now,
                business,
                &Metric { metric_type, ..Metric::sum(name.clone(), *scope, period.interval()) },
            )?;
            continue;
        };
        let operation = Operation::from_word(&row.operation);
        let limitable = operation.is_some_and(|operation| {
            operation.is_releasable() || (operation == Operation::Last && period == Period::Realtime)
        });
        let same_type = asked.is_none_or(|asked| asked.as_str() == row.metric_type);
        if !limitable {
            let why = format!("operation {}, which takes no such limit", row.operation);
            return Err(StoreError::conflict(Entity::Metric, Conflict::MetricConflict, why));
        }
        if !same_type {
            let why = format!("metric_type {}", row.metric_type);
            return Err(StoreError::conflict(Entity::Metric, Conflict::MetricConflict, why));
        }
    }
    Ok(())
}

pub(super) fn insert(
    conn: &mut Conn,
    now: Timestamp,
    business: &BusinessId,
    metric: &Metric,
) -> Result<(), StoreError> {
    let at = Time::of(now);
    let values = (
        metrics::business_id.eq(business.as_str()),
        metrics::metric_name.eq(metric.name.as_str()),
        metrics::scope.eq(metric.scope.as_str()),
        metrics::operation.eq(metric.operation.as_str()),
        metrics::metric_type.eq(metric.metric_type.as_str()),
        metrics::flush_interval.eq(metric.interval.as_str()),
        metrics::created_at.eq(&at),
        metrics::updated_at.eq(&at),
    );
    diesel::insert_into(metrics::table).values(values).execute(conn).map(|_rows| ()).map_err(store_error)
}
