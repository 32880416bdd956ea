//! ③ Plans: rows, and the rules for changing them.

use super::accounts::require_business;
use super::dialect::{Conn, Time};
use super::error::store_error;
use super::pages::{page_of, page_rows};
use super::schema::{customers, plans};
use diesel::prelude::*;
use tracktags_core::accounts::BusinessId;
use tracktags_core::error::{Conflict, Entity, StoreError};
use tracktags_core::limits::Plan;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{Change, Page, PageRequest, PlanFields};

/// Plans that a business may have.
const PLANS_MAX: i64 = 1_000;

#[derive(Queryable, Selectable)]
#[diesel(table_name = plans)]
struct PlanRow {
    seq: i64,
    id: String,
    plan_name: String,
    stripe_price_id: Option<String>,
    is_free: bool,
    created_at: Time,
}

impl PlanRow {
    fn read(self) -> Plan {
        Plan {
            id: self.id,
            plan_name: self.plan_name,
            stripe_price_id: self.stripe_price_id,
            is_free: self.is_free,
            created_at: self.created_at.read_or_start(),
        }
    }
}

/// Refuses a plan that is not there.
pub(crate) fn require_plan(conn: &mut Conn, business: &BusinessId, id: &str) -> Result<(), StoreError> {
    plan(conn, business, id).map(drop)
}

/// One plan.
pub(crate) fn plan(conn: &mut Conn, business: &BusinessId, id: &str) -> Result<Plan, StoreError> {
    let row = plans::table
        .filter(plans::business_id.eq(business.as_str()))
        .filter(plans::id.eq(id))
        .select(PlanRow::as_select())
        .get_result(conn)
        .optional()
        .map_err(store_error)?;
    row.map(PlanRow::read).ok_or_else(|| StoreError::not_found(Entity::Plan, id))
}

/// A business's plans, oldest first.
pub(crate) fn plans(
    conn: &mut Conn,
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
fn all_plans(conn: &mut Conn, business: &BusinessId) -> Result<Vec<Plan>, StoreError> {
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
    conn: &mut Conn,
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
        plans::created_at.eq(Time::of(now)),
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
    conn: &mut Conn,
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
    conn: &mut Conn,
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
