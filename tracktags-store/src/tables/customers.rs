//! ② Customers: rows, and the rules for changing them.

use super::accounts::require_business;
use super::dialect::{AnyCase, Conn, Time};
use super::error::store_error;
use super::pages::{after, holds, page_of, page_rows};
use super::plans::require_plan;
use super::schema::{customers, plans};
use diesel::prelude::*;
use tracktags_core::accounts::{BusinessId, Customer, CustomerId, SubscriptionStatus};
use tracktags_core::error::{Conflict, Entity, StoreError};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{Change, CustomerFields, CustomerQuery, Page};

/// Rows of customers that a business may have, deleted ones included.
const CUSTOMERS_MAX: i64 = 10_000_000;

/// A customer's row.
#[derive(Queryable, Selectable)]
#[diesel(table_name = customers)]
pub(crate) struct CustomerRow {
    seq: i64,
    customer_id: String,
    customer_name: Option<String>,
    email: Option<String>,
    description: Option<String>,
    pub(crate) plan_id: Option<String>,
    stripe_customer_id: Option<String>,
    stripe_subscription_id: Option<String>,
    stripe_price_id: Option<String>,
    subscription_ends_at: Option<Time>,
    subscription_status: Option<String>,
    billing_anchor_day: Option<i64>,
    metadata: String,
    created_at: Time,
    updated_at: Time,
    deleted_at: Option<Time>,
}

impl CustomerRow {
    /// When the subscription ends. An end that cannot be read (written with checks off) has passed.
    pub(crate) fn ends_at(&self) -> Option<Timestamp> {
        Some(self.subscription_ends_at.as_ref()?.read().unwrap_or_else(|| {
            tracing::error!(
                customer = self.customer_id,
                "customers.subscription_ends_at is no time: taken as ended"
            );
            Timestamp::MIN
        }))
    }

    /// The anchor; one outside 1 ..= 31 (written with checks off) is none.
    pub(crate) fn anchor_day(&self) -> Option<u8> {
        let day = self.billing_anchor_day?;
        let good = u8::try_from(day).ok().filter(|day| (1..=31).contains(day));
        if good.is_none() {
            tracing::error!(
                customer = self.customer_id,
                day,
                "customers.billing_anchor_day is no day: ignored"
            );
        }
        good
    }

    /// The plan whose limits hold: the free plan once the subscription ended, if there is one.
    pub(crate) fn plan_in_force(&self, free: Option<&str>, now: Timestamp) -> Option<String> {
        let ended = self.ends_at().is_some_and(|end| end <= now);
        let free = free.filter(|_| ended);
        free.or(self.plan_id.as_deref()).map(str::to_owned)
    }

    fn read(self, business: &BusinessId, free: Option<&str>, now: Timestamp) -> Option<Customer> {
        Some(Customer {
            business_id: business.clone(),
            customer_id: CustomerId::parse(&self.customer_id).ok()?,
            plan_in_force: self.plan_in_force(free, now),
            subscription_status: self.subscription_status.as_deref().and_then(SubscriptionStatus::from_word),
            subscription_ends_at: self.ends_at(),
            billing_anchor_day: self.anchor_day(),
            customer_name: self.customer_name,
            email: self.email,
            description: self.description,
            plan_id: self.plan_id,
            stripe_customer_id: self.stripe_customer_id,
            stripe_subscription_id: self.stripe_subscription_id,
            stripe_price_id: self.stripe_price_id,
            metadata: self.metadata,
            created_at: self.created_at.read_or_start(),
            updated_at: self.updated_at.read_or_start(),
        })
    }
}

/// A customer's row, deleted or not.
fn any_customer(
    conn: &mut Conn,
    business: &BusinessId,
    customer: &CustomerId,
) -> Result<Option<CustomerRow>, StoreError> {
    customers::table
        .filter(customers::business_id.eq(business.as_str()))
        .filter(customers::customer_id.eq(customer.as_str()))
        .select(CustomerRow::as_select())
        .get_result(conn)
        .optional()
        .map_err(store_error)
}

/// A live customer's row.
pub(crate) fn find_customer(
    conn: &mut Conn,
    business: &BusinessId,
    customer: &CustomerId,
) -> Result<Option<CustomerRow>, StoreError> {
    Ok(any_customer(conn, business, customer)?.filter(|row| row.deleted_at.is_none()))
}

/// Refuses a customer that is not there.
pub(crate) fn require_customer(
    conn: &mut Conn,
    business: &BusinessId,
    customer: &CustomerId,
) -> Result<(), StoreError> {
    require_business(conn, business)?;
    let found = find_customer(conn, business, customer)?;
    found.map(drop).ok_or_else(|| StoreError::not_found(Entity::Customer, customer.as_str()))
}

/// Makes sure that a customer is there: creates an unknown one, revives a deleted one.
pub(crate) fn ensure_customer(
    conn: &mut Conn,
    now: Timestamp,
    business: &BusinessId,
    customer: &CustomerId,
) -> Result<(), StoreError> {
    match create_customer(conn, now, business, customer, CustomerFields::default()) {
        Err(StoreError::Conflict { conflict: Conflict::CustomerExists, .. }) => Ok(()),
        other => other.map(drop),
    }
}

/// A business's free plan.
pub(crate) fn free_plan(conn: &mut Conn, business: &BusinessId) -> Result<Option<String>, StoreError> {
    plans::table
        .filter(plans::business_id.eq(business.as_str()))
        .filter(plans::is_free.eq(true))
        .select(plans::id)
        .get_result(conn)
        .optional()
        .map_err(store_error)
}

/// The customer's columns that a caller sets; `None` leaves one as it is.
#[derive(AsChangeset, Default)]
#[diesel(table_name = customers)]
struct CustomerChanges {
    customer_name: Option<Option<String>>,
    email: Option<Option<String>>,
    description: Option<Option<String>>,
    plan_id: Option<Option<String>>,
    stripe_customer_id: Option<Option<String>>,
    stripe_subscription_id: Option<Option<String>>,
    stripe_price_id: Option<Option<String>>,
    subscription_status: Option<Option<&'static str>>,
    subscription_ends_at: Option<Option<Time>>,
    billing_anchor_day: Option<Option<i64>>,
    metadata: Option<String>,
    updated_at: Option<Time>,
    deleted_at: Option<Option<Time>>,
}

fn set<T>(change: Change<T>) -> Option<Option<T>> {
    match change {
        Change::Keep => None,
        Change::Clear => Some(None),
        Change::Set(value) => Some(Some(value)),
    }
}

impl CustomerChanges {
    /// Looks up the plan that is named, or that a price stands for.
    fn prepare(conn: &mut Conn, business: &BusinessId, fields: CustomerFields) -> Result<Self, StoreError> {
        // An empty plan is none.
        let mut plan_id = set(fields.plan_id).map(|plan| plan.filter(|id| !id.is_empty()));
        match (&plan_id, &fields.stripe_price_id) {
            (Some(Some(id)), _) => require_plan(conn, business, id)?,
            (None, Change::Set(price)) => {
                let plan = plans::table
                    .filter(plans::business_id.eq(business.as_str()))
                    .filter(plans::stripe_price_id.eq(price))
                    .select(plans::id)
                    .first::<String>(conn)
                    .optional()
                    .map_err(store_error)?;
                plan_id = plan.map(Some);
            }
            _ => {}
        }
        Ok(Self {
            customer_name: set(fields.customer_name),
            email: set(fields.email),
            description: set(fields.description),
            plan_id,
            stripe_customer_id: set(fields.stripe_customer_id),
            stripe_subscription_id: set(fields.stripe_subscription_id),
            stripe_price_id: set(fields.stripe_price_id),
            subscription_status: set(fields.subscription_status)
                .map(|status| status.map(SubscriptionStatus::as_str)),
            subscription_ends_at: set(fields.subscription_ends_at).map(|at| at.map(Time::of)),
            billing_anchor_day: set(fields.billing_anchor_day).map(|day| day.map(i64::from)),
            metadata: set(fields.metadata).map(|text| text.unwrap_or_else(|| "{}".to_owned())),
            updated_at: None,
            deleted_at: None,
        })
    }

    /// As for a new customer: what is not said is empty.
    fn afresh(mut self) -> Self {
        self.customer_name.get_or_insert_default();
        self.email.get_or_insert_default();
        self.description.get_or_insert_default();
        self.plan_id.get_or_insert_default();
        self.stripe_customer_id.get_or_insert_default();
        self.stripe_subscription_id.get_or_insert_default();
        self.stripe_price_id.get_or_insert_default();
        self.subscription_status.get_or_insert_default();
        self.subscription_ends_at.get_or_insert_default();
        self.billing_anchor_day.get_or_insert_default();
        self.metadata.get_or_insert_with(|| "{}".to_owned());
        self.deleted_at = Some(None);
        self
    }
}

/// Creates a customer, or revives a deleted one: its usage is still there, its keys are gone for good.
pub(crate) fn create_customer(
    conn: &mut Conn,
    now: Timestamp,
    business: &BusinessId,
    customer: &CustomerId,
    fields: CustomerFields,
) -> Result<Customer, StoreError> {
    require_business(conn, business)?;
    let mut changes = CustomerChanges::prepare(conn, business, fields)?.afresh();
    match any_customer(conn, business, customer)? {
        Some(row) if row.deleted_at.is_none() => {
            return Err(StoreError::conflict(Entity::Customer, Conflict::CustomerExists, customer.as_str()));
        }
        Some(row) => changes.updated_at = Some(Time::of(after(now, &row.updated_at))),
        None => {
            room_for_customer(conn, business)?;
            let at = Time::of(now);
            let values = (
                customers::business_id.eq(business.as_str()),
                customers::customer_id.eq(customer.as_str()),
                customers::customer_name.eq(changes.customer_name.take().flatten()),
                customers::email.eq(changes.email.take().flatten()),
                customers::description.eq(changes.description.take().flatten()),
                customers::plan_id.eq(changes.plan_id.take().flatten()),
                customers::stripe_customer_id.eq(changes.stripe_customer_id.take().flatten()),
                customers::stripe_subscription_id.eq(changes.stripe_subscription_id.take().flatten()),
                customers::stripe_price_id.eq(changes.stripe_price_id.take().flatten()),
                customers::subscription_status.eq(changes.subscription_status.take().flatten()),
                customers::subscription_ends_at.eq(changes.subscription_ends_at.take().flatten()),
                customers::billing_anchor_day.eq(changes.billing_anchor_day.take().flatten()),
                customers::metadata.eq(changes.metadata.take().unwrap_or_default()),
                customers::created_at.eq(&at),
                customers::updated_at.eq(&at),
            );
            diesel::insert_into(customers::table).values(values).execute(conn).map_err(store_error)?;
            return self::customer(conn, now, business, customer);
        }
    }
    apply(conn, business, customer, &changes)?;
    self::customer(conn, now, business, customer)
}

fn apply(
    conn: &mut Conn,
    business: &BusinessId,
    customer: &CustomerId,
    changes: &CustomerChanges,
) -> Result<(), StoreError> {
    let row = customers::table
        .filter(customers::business_id.eq(business.as_str()))
        .filter(customers::customer_id.eq(customer.as_str()));
    diesel::update(row).set(changes).execute(conn).map(drop).map_err(store_error)
}

/// Refuses one customer too many. `seq` only grows, so first and last bound the number without counting.
fn room_for_customer(conn: &mut Conn, business: &BusinessId) -> Result<(), StoreError> {
    let of = || customers::table.filter(customers::business_id.eq(business.as_str()));
    let first = of().order(customers::seq.asc()).select(customers::seq).first::<i64>(conn).optional();
    let last = of().order(customers::seq.desc()).select(customers::seq).first::<i64>(conn).optional();
    let (first, last) = (first.map_err(store_error)?.unwrap_or(1), last.map_err(store_error)?.unwrap_or(0));
    if last.saturating_sub(first).saturating_add(1) < CUSTOMERS_MAX {
        return Ok(());
    }
    let count: i64 = of().count().get_result(conn).map_err(store_error)?;
    if count < CUSTOMERS_MAX {
        return Ok(());
    }
    Err(StoreError::conflict(Entity::Customer, Conflict::Quota, business.as_str()))
}

/// One customer.
pub(crate) fn customer(
    conn: &mut Conn,
    now: Timestamp,
    business: &BusinessId,
    customer: &CustomerId,
) -> Result<Customer, StoreError> {
    require_business(conn, business)?;
    let row = find_customer(conn, business, customer)?;
    let free = free_plan(conn, business)?;
    row.and_then(|row| row.read(business, free.as_deref(), now))
        .ok_or_else(|| StoreError::not_found(Entity::Customer, customer.as_str()))
}

/// Customers, oldest first.
pub(crate) fn customers(
    conn: &mut Conn,
    now: Timestamp,
    query: &CustomerQuery,
) -> Result<Page<Customer>, StoreError> {
    require_business(conn, &query.business)?;
    let mut rows = customers::table
        .filter(customers::business_id.eq(query.business.as_str()))
        .filter(customers::deleted_at.is_null())
        .filter(customers::seq.gt(query.page.after.unwrap_or(0)))
        .order(customers::seq)
        .select(CustomerRow::as_select())
        .limit(page_rows(query.page))
        .into_boxed();
    if let Some(plan) = &query.plan_id {
        require_plan(conn, &query.business, plan)?;
        rows = rows.filter(customers::plan_id.eq(plan));
    }
    if let Some(text) = &query.text {
        let pattern = holds(text);
        // NULL OR true is true, so a missing name or email takes nothing away.
        rows = rows.filter(
            customers::customer_id
                .like_any_case(pattern.clone())
                .escape('\\')
                .nullable()
                .or(customers::customer_name.like_any_case(pattern.clone()).escape('\\'))
                .or(customers::email.like_any_case(pattern).escape('\\')),
        );
    }
    let rows = rows.load(conn).map_err(store_error)?;
    let free = free_plan(conn, &query.business)?;
    Ok(page_of(rows, query.page, |row| row.seq, |row| row.read(&query.business, free.as_deref(), now)))
}

/// Changes a customer.
pub(crate) fn update_customer(
    conn: &mut Conn,
    now: Timestamp,
    business: &BusinessId,
    customer: &CustomerId,
    fields: CustomerFields,
) -> Result<Customer, StoreError> {
    require_business(conn, business)?;
    let row = find_customer(conn, business, customer)?
        .ok_or_else(|| StoreError::not_found(Entity::Customer, customer.as_str()))?;
    let mut changes = CustomerChanges::prepare(conn, business, fields)?;
    changes.updated_at = Some(Time::of(after(now, &row.updated_at)));
    apply(conn, business, customer, &changes)?;
    self::customer(conn, now, business, customer)
}

/// Deletes a customer; a trigger revokes its keys for good.
pub(crate) fn delete_customer(
    conn: &mut Conn,
    now: Timestamp,
    business: &BusinessId,
    customer: &CustomerId,
) -> Result<(), StoreError> {
    require_customer(conn, business, customer)?;
    let at = Time::of(now);
    let changes = CustomerChanges {
        updated_at: Some(at.clone()),
        deleted_at: Some(Some(at)),
        ..CustomerChanges::default()
    };
    apply(conn, business, customer, &changes)
}
