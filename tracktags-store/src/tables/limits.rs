//! ③ Limits: rows, and the rules for changing them. Which ones win is core's; `terms` reads them for an account.
//! Plans stand in `plans`.

use super::accounts::require_business;
use super::customers::require_customer;
use super::dialect::{Conn, Time};
use super::error::store_error;
use super::metrics::{ensure_metric, metric_type};
use super::pages::{after, page_of, page_rows};
use super::plans::require_plan;
use super::schema::plan_limits;
use diesel::prelude::*;
use tracktags_core::accounts::{BusinessId, CustomerId, MetricName};
use tracktags_core::error::{Conflict, Entity, StoreError};
use tracktags_core::limits::{Action, Attachment, Limit, Operator};
use tracktags_core::metrics::{MetricType, Units};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{Change, LimitChange, LimitQuery, NewLimit, Page};
use tracktags_core::windows::Period;

/// Limits that a business may have.
const LIMITS_MAX: i64 = 100_000;

/// A limit's row, as it stands.
#[derive(Queryable, Selectable)]
#[diesel(table_name = plan_limits)]
pub(crate) struct LimitRow {
    seq: i64,
    pub(crate) id: String,
    pub(crate) metric_name: String,
    limit_value: i64,
    limit_period: String,
    breach_operator: String,
    breach_action: String,
    plan_id: Option<String>,
    customer_id: Option<String>,
    alert_thresholds: String,
    webhook_urls: Option<String>,
    overage_meter: Option<String>,
    created_at: Time,
    updated_at: Time,
}

impl LimitRow {
    /// The limit; `None` for a row that makes no sense (written with checks off). Its metric's type is that which it
    /// would create.
    pub(crate) fn read(&self) -> Option<Limit> {
        let period = Period::from_word(&self.limit_period)?;
        let attachment = match (&self.plan_id, &self.customer_id) {
            (None, None) => Attachment::Business,
            (Some(plan), None) => Attachment::Plan(plan.as_str().into()),
            (None, Some(customer)) => Attachment::Customer(CustomerId::parse(customer).ok()?),
            (Some(_), Some(_)) => return None,
        };
        Some(Limit {
            id: self.id.as_str().into(),
            metric_name: MetricName::parse(&self.metric_name).ok()?,
            value: Units::new(self.limit_value).ok()?,
            period,
            operator: Operator::from_word(&self.breach_operator)?,
            action: Action::from_word(&self.breach_action)?,
            attachment,
            metric_type: super::metrics::created_type(period),
            alert_thresholds: read_thresholds(&self.alert_thresholds)?,
            webhook_urls: self.webhook_urls.clone(),
            overage_meter: self.overage_meter.clone(),
            created_at: self.created_at.read_or_start(),
            updated_at: self.updated_at.read_or_start(),
        })
    }

    /// What stands in for a row that makes no sense: a limit that refuses every unit of its metric, so closely
    /// attached that no other of its kind overrules it. `None` where not even its metric can be named, which then
    /// nobody can count either.
    pub(crate) fn deny(&self, attachment: Attachment) -> Option<Limit> {
        let metric_name = MetricName::parse(&self.metric_name).ok()?;
        let mut limit = Limit::new(metric_name, Units::ZERO, Period::Realtime);
        limit.id = self.id.as_str().into();
        limit.attachment = attachment;
        Some(limit)
    }
}

/// `[80, 100]` → per cents.
fn read_thresholds(text: &str) -> Option<Vec<u16>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    if inner.is_empty() {
        return Some(Vec::new());
    }
    inner
        .split(',')
        .map(|number| number.trim().parse().ok().filter(|number| (1..=1_000).contains(number)))
        .collect()
}

fn thresholds_text(thresholds: &[u16]) -> String {
    let numbers: Vec<String> = thresholds.iter().map(ToString::to_string).collect();
    format!("[{}]", numbers.join(","))
}

/// A limit that is shown, with the type its metric really has. A row that makes no sense is shown as what it does.
fn shown(conn: &mut Conn, business: &BusinessId, row: &LimitRow) -> Result<Option<Limit>, StoreError> {
    let attachment = || match (&row.plan_id, row.customer_id.as_deref().map(CustomerId::parse)) {
        (_, Some(Ok(customer))) => Attachment::Customer(customer),
        (Some(plan), _) => Attachment::Plan(plan.as_str().into()),
        _ => Attachment::Business,
    };
    let Some(mut limit) = row.read().or_else(|| row.deny(attachment())) else { return Ok(None) };
    limit.metric_type = metric_type(conn, business, limit.metric_name.as_str(), limit.period)?;
    Ok(Some(limit))
}

fn find_limit(conn: &mut Conn, business: &BusinessId, id: &str) -> Result<LimitRow, StoreError> {
    require_business(conn, business)?;
    plan_limits::table
        .filter(plan_limits::business_id.eq(business.as_str()))
        .filter(plan_limits::id.eq(id))
        .select(LimitRow::as_select())
        .get_result(conn)
        .optional()
        .map_err(store_error)?
        .ok_or_else(|| StoreError::not_found(Entity::Limit, id))
}

/// One limit.
pub(crate) fn limit(conn: &mut Conn, business: &BusinessId, id: &str) -> Result<Limit, StoreError> {
    let row = find_limit(conn, business, id)?;
    shown(conn, business, &row)?.ok_or_else(|| StoreError::not_found(Entity::Limit, id))
}

/// Limits, oldest first.
pub(crate) fn limits(conn: &mut Conn, query: &LimitQuery) -> Result<Page<Limit>, StoreError> {
    require_business(conn, &query.business)?;
    let mut rows = plan_limits::table
        .filter(plan_limits::business_id.eq(query.business.as_str()))
        .filter(plan_limits::seq.gt(query.page.after.unwrap_or(0)))
        .order(plan_limits::seq)
        .select(LimitRow::as_select())
        .limit(page_rows(query.page))
        .into_boxed();
    if let Some(plan) = &query.plan_id {
        require_plan(conn, &query.business, plan)?;
        rows = rows.filter(plan_limits::plan_id.eq(plan));
    }
    if let Some(customer) = &query.customer_id {
        require_customer(conn, &query.business, customer)?;
        rows = rows.filter(plan_limits::customer_id.eq(customer.as_str()));
    }
    if let Some(metric) = &query.metric_name {
        rows = rows.filter(plan_limits::metric_name.eq(metric.as_str()));
    }
    let rows = rows.load(conn).map_err(store_error)?;
    let mut fault = None;
    let page = page_of(
        rows,
        query.page,
        |row| row.seq,
        |row| match shown(conn, &query.business, &row) {
            Ok(limit) => limit,
            Err(error) => {
                fault = Some(error);
                None
            }
        },
    );
    fault.map_or(Ok(page), Err)
}

/// The business-wide limits: no query of an account reads more than these, its plan's and its own.
pub(crate) fn wide_rows(conn: &mut Conn, business: &BusinessId) -> Result<Vec<LimitRow>, StoreError> {
    plan_limits::table
        .filter(plan_limits::business_id.eq(business.as_str()))
        .filter(plan_limits::plan_id.is_null().and(plan_limits::customer_id.is_null()))
        .select(LimitRow::as_select())
        .load(conn)
        .map_err(store_error)
}

/// The limits of a plan.
pub(crate) fn plan_rows(
    conn: &mut Conn,
    business: &BusinessId,
    plan: &str,
) -> Result<Vec<LimitRow>, StoreError> {
    plan_limits::table
        .filter(plan_limits::business_id.eq(business.as_str()))
        .filter(plan_limits::plan_id.eq(plan))
        .select(LimitRow::as_select())
        .load(conn)
        .map_err(store_error)
}

/// The limits of a customer.
pub(crate) fn customer_rows(
    conn: &mut Conn,
    business: &BusinessId,
    customer: &CustomerId,
) -> Result<Vec<LimitRow>, StoreError> {
    plan_limits::table
        .filter(plan_limits::business_id.eq(business.as_str()))
        .filter(plan_limits::customer_id.eq(customer.as_str()))
        .select(LimitRow::as_select())
        .load(conn)
        .map_err(store_error)
}

/// The other limit for this attachment, metric and period, if there is one.
pub(super) fn twin(
    conn: &mut Conn,
    business: &BusinessId,
    attachment: &Attachment,
    metric: &MetricName,
    period: Period,
    but: Option<&str>,
) -> Result<Option<String>, StoreError> {
    let mut query = plan_limits::table
        .filter(plan_limits::business_id.eq(business.as_str()))
        .filter(plan_limits::metric_name.eq(metric.as_str()))
        .filter(plan_limits::limit_period.eq(period.as_str()))
        .select(plan_limits::id)
        .into_boxed();
    query = match attachment {
        Attachment::Business => {
            query.filter(plan_limits::plan_id.is_null().and(plan_limits::customer_id.is_null()))
        }
        Attachment::Plan(plan) => query.filter(plan_limits::plan_id.eq(plan.to_string())),
        Attachment::Customer(customer) => {
            query.filter(plan_limits::customer_id.eq(customer.as_str().to_owned()))
        }
    };
    if let Some(id) = but {
        query = query.filter(plan_limits::id.ne(id.to_owned()));
    }
    query.first::<String>(conn).optional().map_err(store_error)
}

fn refuse_twin(
    conn: &mut Conn,
    business: &BusinessId,
    attachment: &Attachment,
    metric: &MetricName,
    period: Period,
    but: Option<&str>,
) -> Result<(), StoreError> {
    match twin(conn, business, attachment, metric, period, but)? {
        Some(id) => Err(StoreError::conflict(Entity::Limit, Conflict::LimitExists, id)),
        None => Ok(()),
    }
}

/// Creates a limit, and its metric if nobody did.
pub(crate) fn create_limit(conn: &mut Conn, now: Timestamp, limit: NewLimit) -> Result<Limit, StoreError> {
    let business = &limit.business;
    require_business(conn, business)?;
    let (plan_id, customer_id) = match &limit.attachment {
        Attachment::Business => (None, None),
        Attachment::Plan(plan) => {
            require_plan(conn, business, plan)?;
            (Some(&**plan), None)
        }
        Attachment::Customer(customer) => {
            require_customer(conn, business, customer)?;
            (None, Some(customer.as_str()))
        }
    };
    refuse_twin(conn, business, &limit.attachment, &limit.metric_name, limit.period, None)?;
    room_for_limit(conn, business)?;
    let wanted = Measured { name: &limit.metric_name, period: limit.period, attachment: &limit.attachment };
    wanted.ensure(conn, now, business, limit.metric_type)?;
    let at = Time::of(now);
    let values = (
        plan_limits::business_id.eq(business.as_str()),
        plan_limits::metric_name.eq(limit.metric_name.as_str()),
        plan_limits::limit_value.eq(limit.value.get()),
        plan_limits::limit_period.eq(limit.period.as_str()),
        plan_limits::breach_operator.eq(limit.operator.as_str()),
        plan_limits::breach_action.eq(limit.action.as_str()),
        plan_limits::plan_id.eq(plan_id),
        plan_limits::customer_id.eq(customer_id),
        plan_limits::alert_thresholds.eq(thresholds_text(&limit.alert_thresholds)),
        plan_limits::webhook_urls.eq(&limit.webhook_urls),
        plan_limits::overage_meter.eq(&limit.overage_meter),
        plan_limits::created_at.eq(&at),
        plan_limits::updated_at.eq(&at),
    );
    let id = diesel::insert_into(plan_limits::table)
        .values(values)
        .returning(plan_limits::id)
        .get_result::<String>(conn)
        .map_err(store_error)?;
    self::limit(conn, business, &id)
}

/// What a limit measures.
struct Measured<'a> {
    name: &'a MetricName,
    period: Period,
    attachment: &'a Attachment,
}

impl Measured<'_> {
    fn ensure(
        &self,
        conn: &mut Conn,
        now: Timestamp,
        business: &BusinessId,
        asked: Option<MetricType>,
    ) -> Result<(), StoreError> {
        ensure_metric(conn, now, business, self.name, self.period, self.attachment, asked)
    }
}

/// Refuses one limit too many. As with customers: counted only where it could be.
fn room_for_limit(conn: &mut Conn, business: &BusinessId) -> Result<(), StoreError> {
    let of = || plan_limits::table.filter(plan_limits::business_id.eq(business.as_str()));
    let first = of().order(plan_limits::seq.asc()).select(plan_limits::seq).first::<i64>(conn).optional();
    let last = of().order(plan_limits::seq.desc()).select(plan_limits::seq).first::<i64>(conn).optional();
    let (first, last) = (first.map_err(store_error)?.unwrap_or(1), last.map_err(store_error)?.unwrap_or(0));
    if last.saturating_sub(first).saturating_add(1) < LIMITS_MAX {
        return Ok(());
    }
    let count: i64 = of().count().get_result(conn).map_err(store_error)?;
    if count < LIMITS_MAX {
        return Ok(());
    }
    Err(StoreError::conflict(Entity::Limit, Conflict::Quota, business.as_str()))
}

#[derive(AsChangeset)]
#[diesel(table_name = plan_limits)]
struct LimitChanges {
    metric_name: Option<String>,
    limit_value: Option<i64>,
    limit_period: Option<String>,
    breach_operator: Option<String>,
    breach_action: Option<String>,
    alert_thresholds: Option<String>,
    webhook_urls: Option<Option<String>>,
    overage_meter: Option<Option<String>>,
    updated_at: Time,
}

fn set(change: Change<String>) -> Option<Option<String>> {
    match change {
        Change::Keep => None,
        Change::Clear => Some(None),
        Change::Set(value) => Some(Some(value)),
    }
}

/// Changes a limit. The usage stays; its attachment is fixed.
pub(crate) fn update_limit(
    conn: &mut Conn,
    now: Timestamp,
    business: &BusinessId,
    id: &str,
    change: LimitChange,
) -> Result<Limit, StoreError> {
    let row = find_limit(conn, business, id)?;
    // A row that makes no sense is changed as what it does, so that it can be mended.
    let before = shown(conn, business, &row)?.ok_or_else(|| StoreError::not_found(Entity::Limit, id))?;
    let name = change.metric_name.as_ref().unwrap_or(&before.metric_name);
    let period = change.period.unwrap_or(before.period);
    refuse_twin(conn, business, &before.attachment, name, period, Some(id))?;
    let wanted = Measured { name, period, attachment: &before.attachment };
    wanted.ensure(conn, now, business, change.metric_type)?;
    let changes = LimitChanges {
        metric_name: change.metric_name.as_ref().map(ToString::to_string),
        limit_value: change.value.map(Units::get),
        limit_period: change.period.map(|period| period.as_str().to_owned()),
        breach_operator: change.operator.map(|operator| operator.as_str().to_owned()),
        breach_action: change.action.map(|action| action.as_str().to_owned()),
        alert_thresholds: change.alert_thresholds.as_deref().map(thresholds_text),
        webhook_urls: set(change.webhook_urls),
        overage_meter: set(change.overage_meter),
        updated_at: Time::of(after(now, &row.updated_at)),
    };
    diesel::update(plan_limits::table.find(row.seq)).set(changes).execute(conn).map_err(store_error)?;
    limit(conn, business, id)
}

/// Deletes a limit. The usage stays.
pub(crate) fn delete_limit(
    conn: &mut Conn,
    _now: Timestamp,
    business: &BusinessId,
    id: &str,
) -> Result<(), StoreError> {
    let row = find_limit(conn, business, id)?;
    diesel::delete(plan_limits::table.find(row.seq)).execute(conn).map(drop).map_err(store_error)
}
