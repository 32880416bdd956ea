//! Metrics defined, changed and deleted by hand, and the limits made along with them.

use super::accounts::require_business;
use super::customers::require_customer;
use super::dialect::Conn;
use super::error::store_error;
use super::limits::{create_limit, twin, update_limit};
use super::metrics::{RecordRow, insert};
use super::schema::{businesses, metrics, plan_limits};
use diesel::prelude::*;
use std::collections::BTreeSet;
use tracktags_core::accounts::{Account, BusinessId, CustomerId, MetricName, Scope};
use tracktags_core::error::{Conflict, Entity, StoreError};
use tracktags_core::limits::{Action, Attachment};
use tracktags_core::metrics::{Interval, Metric, MetricType, Operation, Units};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{
    InlineLimit, LimitChange, MetricDefinition, MetricFields, MetricRecord, NewLimit,
};
use tracktags_core::windows::Period;

/// Metrics that a business may have.
const METRICS_MAX: i64 = 1_000;

fn conflict(why: impl Into<String>) -> StoreError {
    StoreError::conflict(Entity::Metric, Conflict::MetricConflict, why.into())
}

fn find(
    conn: &mut Conn,
    business: &BusinessId,
    name: &MetricName,
    scope: Scope,
) -> Result<Option<(i64, MetricRecord)>, StoreError> {
    let row = metrics::table
        .filter(metrics::business_id.eq(business.as_str()))
        .filter(metrics::metric_name.eq(name.as_str()))
        .filter(metrics::scope.eq(scope.as_str()))
        .select(RecordRow::as_select())
        .get_result(conn)
        .optional()
        .map_err(store_error)?;
    let Some(row) = row else { return Ok(None) };
    let seq = row.seq;
    let record = row.read().ok_or_else(|| conflict("its row makes no sense"))?;
    Ok(Some((seq, record)))
}

fn require(
    conn: &mut Conn,
    business: &BusinessId,
    name: &MetricName,
    scope: Scope,
) -> Result<(i64, MetricRecord), StoreError> {
    find(conn, business, name, scope)?.ok_or_else(|| StoreError::not_found(Entity::Metric, name.as_str()))
}

/// Defines a metric, or compares what is said with how it is defined; then the limit.
pub(crate) fn define_metric(
    conn: &mut Conn,
    now: Timestamp,
    definition: MetricDefinition,
) -> Result<(MetricRecord, bool), StoreError> {
    let MetricDefinition { business, name, scope, fields, limit } = definition;
    require_business(conn, &business)?;
    let found = find(conn, &business, &name, scope)?;
    let is_new = found.is_none();
    match found {
        Some((_, record)) => refuse_differences(&record, &fields)?,
        None => {
            room_for_metric(conn, &business)?;
            let metric = Metric {
                name: name.clone(),
                scope,
                operation: fields.operation.unwrap_or(Operation::Sum),
                metric_type: fields.metric_type.unwrap_or(MetricType::Checkpoint),
                interval: fields.interval.unwrap_or(Interval::Hours1),
            };
            insert(conn, now, &business, &metric)?;
            let (seq, _) = require(conn, &business, &name, scope)?;
            let notes = MetricFields { operation: None, metric_type: None, interval: None, ..fields };
            apply(conn, seq, notes)?;
        }
    }
    let (_, record) = require(conn, &business, &name, scope)?;
    if let Some(limit) = limit {
        set_limit(conn, now, &business, &record.metric, limit)?;
    }
    Ok((record, is_new))
}

/// What is said must be so already.
fn refuse_differences(record: &MetricRecord, said: &MetricFields) -> Result<(), StoreError> {
    let same_json = |text: &str, said: &str| {
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        read(text) == read(said)
    };
    let metric = &record.metric;
    let mut differs = Vec::new();
    if said.operation.is_some_and(|said| said != metric.operation) {
        differs.push(format!("operation {}", metric.operation));
    }
    if said.metric_type.is_some_and(|said| said != metric.metric_type) {
        differs.push(format!("metric_type {}", metric.metric_type));
    }
    if said.interval.is_some_and(|said| said != metric.interval) {
        differs.push(format!("flush_interval {}", metric.interval));
    }
    if said.cleanup_after.as_ref().is_some_and(|said| *said != record.cleanup_after) {
        differs.push(format!("cleanup_after {}", record.cleanup_after));
    }
    if said.tags.as_ref().is_some_and(|said| !same_json(&record.tags, said)) {
        differs.push("other tags".to_owned());
    }
    if said.metadata.as_ref().is_some_and(|said| !same_json(&record.metadata, said)) {
        differs.push("other metadata".to_owned());
    }
    if differs.is_empty() { Ok(()) } else { Err(conflict(differs.join(", "))) }
}

fn room_for_metric(conn: &mut Conn, business: &BusinessId) -> Result<(), StoreError> {
    let count: i64 = metrics::table
        .filter(metrics::business_id.eq(business.as_str()))
        .count()
        .get_result(conn)
        .map_err(store_error)?;
    if count < METRICS_MAX {
        return Ok(());
    }
    Err(StoreError::conflict(Entity::Metric, Conflict::Quota, business.as_str()))
}

#[derive(AsChangeset, Default)]
#[diesel(table_name = metrics)]
struct MetricChanges {
    operation: Option<&'static str>,
    metric_type: Option<&'static str>,
    flush_interval: Option<&'static str>,
    cleanup_after: Option<String>,
    tags: Option<String>,
    metadata: Option<String>,
}

fn apply(conn: &mut Conn, seq: i64, fields: MetricFields) -> Result<(), StoreError> {
    if fields == MetricFields::default() {
        return Ok(());
    }
    let changes = MetricChanges {
        operation: fields.operation.map(Operation::as_str),
        metric_type: fields.metric_type.map(MetricType::as_str),
        flush_interval: fields.interval.map(Interval::as_str),
        cleanup_after: fields.cleanup_after,
        tags: fields.tags,
        metadata: fields.metadata,
    };
    diesel::update(metrics::table.find(seq)).set(changes).execute(conn).map(drop).map_err(store_error)
}

/// The window that a limit has where none is said: the one in which the metric's value begins again.
fn own_period(metric: &Metric) -> Option<Period> {
    match metric.metric_type {
        MetricType::Checkpoint => Some(Period::Realtime),
        MetricType::StripeBilling => Some(Period::Monthly),
        MetricType::Reset => match metric.interval {
            Interval::Minutes1 | Interval::Minutely => Some(Period::Minutely),
            Interval::Hours1 | Interval::Hourly => Some(Period::Hourly),
            Interval::Days1 | Interval::Daily => Some(Period::Daily),
            Interval::Weekly => Some(Period::Weekly),
            Interval::Monthly => Some(Period::Monthly),
            Interval::Yearly => Some(Period::Yearly),
            Interval::Seconds5
            | Interval::Seconds15
            | Interval::Seconds30
            | Interval::Minutes5
            | Interval::Minutes15
            | Interval::Minutes30
            | Interval::Hours6 => None,
        },
    }
}

/// Makes the limit, or changes the one that was made before.
fn set_limit(
    conn: &mut Conn,
    now: Timestamp,
    business: &BusinessId,
    metric: &Metric,
    limit: InlineLimit,
) -> Result<(), StoreError> {
    let InlineLimit { attachment, value, operator, period, action } = limit;
    if let Attachment::Customer(customer) = &attachment {
        require_customer(conn, business, customer)?;
    }
    if action == Action::Disabled && value == Units::ZERO {
        return Ok(());
    }
    let Some(period) = period.or_else(|| own_period(metric)) else {
        let why = format!("flush_interval {}, for which limit_period has to be said", metric.interval);
        return Err(conflict(why));
    };
    match twin(conn, business, &attachment, &metric.name, period, None)? {
        Some(id) => {
            let change = LimitChange {
                value: Some(value),
                operator: Some(operator),
                action: Some(action),
                ..LimitChange::default()
            };
            update_limit(conn, now, business, &id, change).map(drop)
        }
        None => {
            let new = NewLimit {
                business: business.clone(),
                metric_name: metric.name.clone(),
                value,
                period,
                operator,
                action,
                attachment,
                metric_type: None,
                alert_thresholds: Vec::new(),
                webhook_urls: None,
                overage_meter: None,
            };
            create_limit(conn, now, new).map(drop)
        }
    }
}

/// Changes a definition. `is_used`: somebody has a value of it already.
pub(crate) fn update_metric(
    conn: &mut Conn,
    business: &BusinessId,
    name: &MetricName,
    scope: Scope,
    fields: MetricFields,
    is_used: bool,
) -> Result<MetricRecord, StoreError> {
    let (seq, record) = require(conn, business, name, scope)?;
    if let Some(operation) = fields.operation.filter(|operation| *operation != record.metric.operation) {
        if is_used {
            return Err(conflict(format!("operation {}, and used already", record.metric.operation)));
        }
        if is_limited(conn, business, name)? && !operation.is_releasable() {
            return Err(conflict("with limits, which take SUM and COUNT only"));
        }
    }
    apply(conn, seq, fields)?;
    require(conn, business, name, scope).map(|(_, record)| record)
}

/// Whether a limit of the business names the metric.
fn is_limited(conn: &mut Conn, business: &BusinessId, name: &MetricName) -> Result<bool, StoreError> {
    let limits = plan_limits::table
        .filter(plan_limits::business_id.eq(business.as_str()))
        .filter(plan_limits::metric_name.eq(name.as_str()));
    diesel::select(diesel::dsl::exists(limits)).get_result(conn).map_err(store_error)
}

/// Deletes a definition that nothing names.
pub(crate) fn delete_metric(
    conn: &mut Conn,
    business: &BusinessId,
    name: &MetricName,
    scope: Scope,
) -> Result<(), StoreError> {
    let (seq, _) = require(conn, business, name, scope)?;
    let default = businesses::table
        .filter(businesses::business_id.eq(business.as_str()))
        .filter(businesses::default_metric.eq(name.as_str()));
    let is_default: bool =
        diesel::select(diesel::dsl::exists(default)).get_result(conn).map_err(store_error)?;
    if is_default || is_limited(conn, business, name)? {
        return Err(StoreError::conflict(Entity::Metric, Conflict::MetricInUse, name.as_str()));
    }
    diesel::delete(metrics::table.find(seq)).execute(conn).map(drop).map_err(store_error)
}

/// Deletes a customer's own limits on a metric.
pub(crate) fn delete_inline_limits(
    conn: &mut Conn,
    business: &BusinessId,
    name: &MetricName,
    customer: &CustomerId,
) -> Result<usize, StoreError> {
    require_customer(conn, business, customer)?;
    let limits = plan_limits::table
        .filter(plan_limits::business_id.eq(business.as_str()))
        .filter(plan_limits::customer_id.eq(customer.as_str()))
        .filter(plan_limits::metric_name.eq(name.as_str()));
    diesel::delete(limits).execute(conn).map_err(store_error)
}

/// The accounts of one scope among these customers of a business; its own account is the empty one.
pub(crate) fn accounts_of(
    business: &BusinessId,
    scope: Scope,
    customers: impl IntoIterator<Item = String>,
) -> Vec<Account> {
    let wanted = |customer: &String| customer.is_empty() == (scope == Scope::Business);
    let account = |customer: String| {
        if customer.is_empty() {
            return Some(Account::business(business.clone()));
        }
        let customer = CustomerId::parse(&customer).ok()?;
        Some(Account::customer(business.clone(), customer))
    };
    let customers: BTreeSet<String> = customers.into_iter().filter(wanted).collect();
    customers.into_iter().filter_map(account).collect()
}
