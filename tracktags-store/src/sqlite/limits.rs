//! ③ Plans and limits: rows, and the rules for changing them. Which limits win is core's; `terms` reads them for an
//! account.

use super::accounts::{require_business, require_customer};
use super::error::store_error;
use super::metrics::{ensure_metric, metric_type};
use super::rows::{after, page_of, page_rows, time_or_start, time_text};
use super::schema::{customers, plan_limits, plans};
use diesel::prelude::*;
use tracktags_core::accounts::{BusinessId, CustomerId, MetricName};
use tracktags_core::error::{Conflict, Entity, StoreError};
use tracktags_core::limits::{Action, Attachment, Limit, Operator, Plan};
use tracktags_core::metrics::{MetricType, Units};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{Change, LimitChange, LimitQuery, NewLimit, Page, PageRequest, PlanFields};
use tracktags_core::windows::Period;

/// Limits that a business may have.
const LIMITS_MAX: i64 = 100_000;
/// Plans that a business may have.
const PLANS_MAX: i64 = 1_000;

// ---- plans ----

#[derive(Queryable, Selectable)]
#[diesel(table_name = plans)]
struct PlanRow {
    seq: i64,
    id: String,
    plan_name: String,
    stripe_price_id: Option<String>,
    is_free: bool,
    created_at: String,
}

impl PlanRow {
    fn read(self) -> Plan {
        Plan {
            id: self.id,
            plan_name: self.plan_name,
            stripe_price_id: self.stripe_price_id,
            is_free: self.is_free,
            created_at: time_or_start(&self.created_at),
        }
    }
}

/// Refuses a plan that is not there.
pub(crate) fn require_plan(
    conn: &mut SqliteConnection,
    business: &BusinessId,
    id: &str,
) -> Result<(), StoreError> {
    plan(conn, business, id).map(drop)
}

/// One plan.
pub(crate) fn plan(conn: &mut SqliteConnection, business: &BusinessId, id: &str) -> Result<Plan, StoreError> {
    let row = plans::table
        .filter(plans::business_id.eq(business.as_str()))
        .filter(plans::id.eq(id))
        .select(PlanRow::as_select())
        .first(conn)
        .optional()
        .map_err(store_error)?;
    row.map(PlanRow::read).ok_or_else(|| StoreError::not_found(Entity::Plan, id))
}

/// A business's plans, oldest first.
pub(crate) fn plans(
    conn: &mut SqliteConnection,
    business: &BusinessId,
    page: PageRequest,
) -> Result<Page<Plan>, StoreError> {
    require_business(conn, business)?;
    let rows = plans::table
        .filter(plans::business_id.eq(business.as_str()))
        .filter(plans::seq.gt(page.after.unwrap_or(0)))
        .order(plans::seq)
        .select(PlanRow::as_select())
        .limit(page_rows(page))
        .load(conn)
        .map_err(store_error)?;
    Ok(page_of(rows, page, |row| row.seq, |row| Some(row.read())))
}

/// Every plan of a business: at most [`PLANS_MAX`].
fn all_plans(conn: &mut SqliteConnection, business: &BusinessId) -> Result<Vec<Plan>, StoreError> {
    let count_max = u32::try_from(PLANS_MAX).unwrap_or(u32::MAX);
    Ok(plans(conn, business, PageRequest { after: None, count_max })?.items)
}

/// Refuses what another plan of the business has already. The indexes would too, without saying which.
fn refuse_conflict(
    others: &[Plan],
    name: Option<&str>,
    price: Option<&str>,
    is_free: bool,
) -> Result<(), StoreError> {
    let conflict =
        |which: fn(&Plan, &str) -> bool, value: &str| others.iter().find(|plan| which(plan, value));
    let named = name.and_then(|name| conflict(|plan, name| plan.plan_name == name, name));
    let priced =
        price.and_then(|price| conflict(|plan, price| plan.stripe_price_id.as_deref() == Some(price), price));
    let free = others.iter().find(|plan| plan.is_free).filter(|_| is_free);
    let found =
        [(named, Conflict::PlanExists), (priced, Conflict::PriceTaken), (free, Conflict::FreePlanExists)];
    match found.into_iter().find_map(|(plan, conflict)| Some((plan?, conflict))) {
        Some((plan, conflict)) => Err(StoreError::conflict(Entity::Plan, conflict, plan.id.clone())),
        None => Ok(()),
    }
}

fn price_of(change: Change<String>, before: Option<String>) -> Option<String> {
    match change {
        Change::Keep => before,
        Change::Clear => None,
        Change::Set(price) => Some(price),
    }
}

/// Creates a plan. The first one without a price is the free plan, unless said otherwise.
pub(crate) fn create_plan(
    conn: &mut SqliteConnection,
    now: Timestamp,
    business: &BusinessId,
    fields: PlanFields,
) -> Result<Plan, StoreError> {
    let others = all_plans(conn, business)?;
    let Some(plan_name) = fields.plan_name else {
        return Err(StoreError::Backend("a new plan needs a name; the caller checks that".into()));
    };
    let price = price_of(fields.stripe_price_id, None);
    let first = price.is_none() && !others.iter().any(|plan| plan.stripe_price_id.is_none() || plan.is_free);
    let is_free = fields.is_free.unwrap_or(first);
    refuse_conflict(&others, Some(&plan_name), price.as_deref(), is_free)?;
    if i64::try_from(others.len()).is_ok_and(|count| count >= PLANS_MAX) {
        return Err(StoreError::conflict(Entity::Plan, Conflict::Quota, business.as_str()));
    }
    let values = (
        plans::business_id.eq(business.as_str()),
        plans::plan_name.eq(plan_name),
        plans::stripe_price_id.eq(price),
        plans::is_free.eq(is_free),
        plans::created_at.eq(time_text(now)),
    );
    let row = diesel::insert_into(plans::table)
        .values(values)
        .returning(PlanRow::as_returning())
        .get_result(conn)
        .map_err(store_error)?;
    Ok(row.read())
}

/// Changes a plan.
pub(crate) fn update_plan(
    conn: &mut SqliteConnection,
    _now: Timestamp,
    business: &BusinessId,
    id: &str,
    fields: PlanFields,
) -> Result<Plan, StoreError> {
    require_business(conn, business)?;
    let before = plan(conn, business, id)?;
    let mut others = all_plans(conn, business)?;
    others.retain(|plan| plan.id != id);
    let plan_name = fields.plan_name.unwrap_or(before.plan_name);
    let price = price_of(fields.stripe_price_id, before.stripe_price_id);
    let is_free = fields.is_free.unwrap_or(before.is_free);
    refuse_conflict(&others, Some(&plan_name), price.as_deref(), is_free)?;
    let row = plans::table.filter(plans::business_id.eq(business.as_str())).filter(plans::id.eq(id));
    diesel::update(row)
        .set((plans::plan_name.eq(plan_name), plans::stripe_price_id.eq(price), plans::is_free.eq(is_free)))
        .execute(conn)
        .map_err(store_error)?;
    plan(conn, business, id)
}

/// Deletes a plan. A trigger takes its limits along and leaves its customers without one.
pub(crate) fn delete_plan(
    conn: &mut SqliteConnection,
    _now: Timestamp,
    business: &BusinessId,
    id: &str,
    force: bool,
) -> Result<(), StoreError> {
    require_business(conn, business)?;
    require_plan(conn, business, id)?;
    let on_it = customers::table
        .filter(customers::business_id.eq(business.as_str()))
        .filter(customers::plan_id.eq(id))
        .filter(customers::deleted_at.is_null());
    if !force && diesel::select(diesel::dsl::exists(on_it)).get_result(conn).map_err(store_error)? {
        return Err(StoreError::conflict(Entity::Plan, Conflict::PlanInUse, id));
    }
    let row = plans::table.filter(plans::business_id.eq(business.as_str())).filter(plans::id.eq(id));
    diesel::delete(row).execute(conn).map(drop).map_err(store_error)
}

// ---- limits ----

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
    created_at: String,
    updated_at: String,
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
            created_at: time_or_start(&self.created_at),
            updated_at: time_or_start(&self.updated_at),
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
fn shown(
    conn: &mut SqliteConnection,
    business: &BusinessId,
    row: &LimitRow,
) -> Result<Option<Limit>, StoreError> {
    let attachment = || match (&row.plan_id, row.customer_id.as_deref().map(CustomerId::parse)) {
        (_, Some(Ok(customer))) => Attachment::Customer(customer),
        (Some(plan), _) => Attachment::Plan(plan.as_str().into()),
        _ => Attachment::Business,
    };
    let Some(mut limit) = row.read().or_else(|| row.deny(attachment())) else { return Ok(None) };
    limit.metric_type = metric_type(conn, business, limit.metric_name.as_str(), limit.period)?;
    Ok(Some(limit))
}

fn find_limit(conn: &mut SqliteConnection, business: &BusinessId, id: &str) -> Result<LimitRow, StoreError> {
    require_business(conn, business)?;
    plan_limits::table
        .filter(plan_limits::business_id.eq(business.as_str()))
        .filter(plan_limits::id.eq(id))
        .select(LimitRow::as_select())
        .first(conn)
        .optional()
        .map_err(store_error)?
        .ok_or_else(|| StoreError::not_found(Entity::Limit, id))
}

/// One limit.
pub(crate) fn limit(
    conn: &mut SqliteConnection,
    business: &BusinessId,
    id: &str,
) -> Result<Limit, StoreError> {
    let row = find_limit(conn, business, id)?;
    shown(conn, business, &row)?.ok_or_else(|| StoreError::not_found(Entity::Limit, id))
}

/// Limits, oldest first.
pub(crate) fn limits(conn: &mut SqliteConnection, query: &LimitQuery) -> Result<Page<Limit>, StoreError> {
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
pub(crate) fn wide_rows(
    conn: &mut SqliteConnection,
    business: &BusinessId,
) -> Result<Vec<LimitRow>, StoreError> {
    plan_limits::table
        .filter(plan_limits::business_id.eq(business.as_str()))
        .filter(plan_limits::plan_id.is_null().and(plan_limits::customer_id.is_null()))
        .select(LimitRow::as_select())
        .load(conn)
        .map_err(store_error)
}

/// The limits of a plan.
pub(crate) fn plan_rows(
    conn: &mut SqliteConnection,
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
    conn: &mut SqliteConnection,
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
fn refuse_twin(
    conn: &mut SqliteConnection,
    business: &BusinessId,
    attachment: &Attachment,
    metric: &MetricName,
    period: Period,
    but: Option<&str>,
) -> Result<(), StoreError> {
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
    match query.first::<String>(conn).optional().map_err(store_error)? {
        Some(id) => Err(StoreError::conflict(Entity::Limit, Conflict::LimitExists, id)),
        None => Ok(()),
    }
}

/// Creates a limit, and its metric if nobody did.
pub(crate) fn create_limit(
    conn: &mut SqliteConnection,
    now: Timestamp,
    limit: NewLimit,
) -> Result<Limit, StoreError> {
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
    let at = time_text(now);
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
        conn: &mut SqliteConnection,
        now: Timestamp,
        business: &BusinessId,
        asked: Option<MetricType>,
    ) -> Result<(), StoreError> {
        ensure_metric(conn, now, business, self.name, self.period, self.attachment, asked)
    }
}

/// Refuses one limit too many. As with customers: counted only where it could be.
fn room_for_limit(conn: &mut SqliteConnection, business: &BusinessId) -> Result<(), StoreError> {
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
    updated_at: String,
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
    conn: &mut SqliteConnection,
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
        updated_at: time_text(after(now, &row.updated_at)),
    };
    diesel::update(plan_limits::table.find(row.seq)).set(changes).execute(conn).map_err(store_error)?;
    limit(conn, business, id)
}

/// Deletes a limit. The usage stays.
pub(crate) fn delete_limit(
    conn: &mut SqliteConnection,
    _now: Timestamp,
    business: &BusinessId,
    id: &str,
) -> Result<(), StoreError> {
    let row = find_limit(conn, business, id)?;
    diesel::delete(plan_limits::table.find(row.seq)).execute(conn).map(drop).map_err(store_error)
}
