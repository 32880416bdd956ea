//! What only the platform's admin does: resets of billing windows, and subscriptions set by hand.

use super::accounts::{business_in_query, customer_in_path, named};
use super::{Answer, shape, words_of};
use crate::error::ApiError;
use crate::form::Form;
use crate::identity::Admin;
use crate::request::Input;
use actix_web::HttpResponse;
use std::sync::Arc;
use tracktags_core::accounts::{
    Account, BusinessId, Customer, CustomerId, SubscriptionEnd, SubscriptionStatus,
};
use tracktags_core::audit::{Author, Correction, Event};
use tracktags_core::demand::Operation;
use tracktags_core::error::{Entity, StoreError};
use tracktags_core::limits::{Plan, Terms};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{
    BillingOverride, BusinessQuery, Change, CustomerFields, CustomerQuery, PageRequest, Store,
};

/// Customers and businesses looked through at once.
const PAGE: u32 = 500;
const PRICE_CHARS_MAX: usize = 255;
/// The longest override, in days.
const DAYS_MAX: i64 = 3_650;
const DAY_SECONDS: i64 = 86_400;

/// Sets a customer's running windows to 0, as one change.
async fn reset(store: &dyn Store, by: Author, terms: &Arc<Terms>) -> Result<(), StoreError> {
    let places = 0..terms.limits.metrics().len();
    let event = Event {
        business: Some(terms.account.business.clone()),
        action: "usage.reset_billing",
        resource_id: terms.account.customer.as_ref().map(ToString::to_string).unwrap_or_default(),
        after: Some("{}".to_owned()),
    };
    if places.is_empty() {
        return store.note(by, event).await;
    }
    let operation = |place| Operation::Reset { terms: Arc::clone(terms), place, level_too: false };
    store.correct(by, Correction { event, operations: places.map(operation).collect() }).await.map(drop)
}

async fn terms_of(
    store: &dyn Store,
    business: BusinessId,
    customer: CustomerId,
) -> Result<Option<Arc<Terms>>, StoreError> {
    store.read_terms(Account::customer(business, customer)).await
}

/// `POST /admin/v1/customers/{bid}/{cid}/reset-billing`
pub(crate) async fn reset_billing(admin: Admin, mut input: Input) -> Answer {
    input.form().await?.finish()?;
    let store = &*input.app.store;
    let business = store.business(named(&input)?).await?.business_id;
    let customer = customer_in_path(&input)?;
    let terms = terms_of(store, business.clone(), customer.clone()).await?;
    let terms = terms.ok_or_else(|| ApiError::not_found(Entity::Customer))?;
    reset(store, admin.by, &terms).await?;
    Ok(HttpResponse::Ok().json(shape! {
        "status": "success",
        "message": "Every running window of this customer begins again at 0.",
        "business_id": business,
        "customer_id": customer,
    }))
}

/// How a reset of many went.
#[derive(Default)]
struct Tally {
    total: u64,
    successes: u64,
}

/// `POST /admin/billing-cycle-reset`: for every customer on a plan without a price.
pub(crate) async fn reset_cycles(admin: Admin, mut input: Input) -> Answer {
    input.form().await?.finish()?;
    let mut tally = Tally::default();
    match business_in_query(&input)? {
        Some(id) => {
            let business = input.app.store.business(id).await?;
            reset_business(&*input.app.store, &admin.by, business.business_id, &mut tally).await?;
        }
        None => {
            let mut page = PageRequest { after: None, count_max: PAGE };
            loop {
                let query = BusinessQuery { text: None, deleted: false, page };
                let found = input.app.store.businesses(query).await?;
                for business in found.items {
                    reset_business(&*input.app.store, &admin.by, business.business_id, &mut tally).await?;
                }
                match found.next {
                    Some(next) => page.after = Some(next),
                    None => break,
                }
            }
        }
    }
    Ok(HttpResponse::Ok().json(shape! {
        "status": "completed",
        "total_customers": tally.total,
        "successes": tally.successes,
        "failures": tally.total.saturating_sub(tally.successes),
    }))
}

async fn reset_business(
    store: &dyn Store,
    by: &Author,
    business: BusinessId,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    let mut unpriced = all_plans(store, &business).await?;
    unpriced.retain(|plan| plan.stripe_price_id.is_none());
    let mut page = PageRequest { after: None, count_max: PAGE };
    loop {
        let query = CustomerQuery { business: business.clone(), plan_id: None, text: None, page };
        let found = store.customers(query).await?;
        let pays_nothing = |customer: &Customer| {
            customer.plan_in_force.as_ref().is_some_and(|id| unpriced.iter().any(|plan| plan.id == *id))
        };
        for customer in found.items.into_iter().filter(pays_nothing) {
            tally.total += 1;
            let terms = terms_of(store, business.clone(), customer.customer_id).await;
            match terms {
                Ok(Some(terms)) if reset(store, by.clone(), &terms).await.is_ok() => tally.successes += 1,
                Ok(_) | Err(_) => {}
            }
        }
        match found.next {
            Some(next) => page.after = Some(next),
            None => return Ok(()),
        }
    }
}

async fn all_plans(store: &dyn Store, business: &BusinessId) -> Result<Vec<Plan>, StoreError> {
    let mut page = PageRequest { after: None, count_max: PAGE };
    let mut found = Vec::new();
    loop {
        let plans = store.plans(business.clone(), page).await?;
        found.extend(plans.items);
        match plans.next {
            Some(next) => page.after = Some(next),
            None => return Ok(found),
        }
    }
}

/// A subscription set by hand.
pub(crate) struct Override {
    status: SubscriptionStatus,
    price_id: Option<String>,
    days: Option<i64>,
}

impl Override {
    /// Reads it.
    pub(crate) fn read(mut form: Form) -> Result<Self, ApiError> {
        form.require("status");
        let status = form.word("status", words_of!(SubscriptionStatus));
        let price_id = form.optional_text("price_id", 1..=PRICE_CHARS_MAX);
        let days = form.number("expires_in_days", 1..=DAYS_MAX);
        let status = form.made(status)?;
        Ok(Self { status, price_id, days })
    }

    fn ends_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.days.map(|days| now.plus_seconds(days.saturating_mul(DAY_SECONDS)))
    }
}

/// `POST /admin/v1/customers/{bid}/{cid}/override`
pub(crate) async fn override_customer(admin: Admin, mut input: Input) -> Answer {
    let set = Override::read(input.form().await?)?;
    let store = &*input.app.store;
    let business = store.business(named(&input)?).await?.business_id;
    let customer = customer_in_path(&input)?;
    let now = input.app.clock.now();
    if let Some(price) = &set.price_id {
        let plans = all_plans(store, &business).await?;
        if plans.iter().all(|plan| plan.stripe_price_id.as_ref() != Some(price)) {
            return Err(ApiError::not_found(Entity::Plan));
        }
    }
    let ends_at = match (set.ends_at(now), set.status.end()) {
        (Some(at), _) => Change::Set(at),
        (None, SubscriptionEnd::None) => Change::Clear,
        (None, SubscriptionEnd::AsItIs) => Change::Keep,
        (None, SubscriptionEnd::Now) => Change::Set(now),
    };
    let fields = CustomerFields {
        stripe_price_id: set.price_id.map_or(Change::Keep, Change::Set),
        subscription_status: Change::Set(set.status),
        subscription_ends_at: ends_at,
        ..CustomerFields::default()
    };
    let customer = store.update_customer(admin.by, business, customer, fields).await?;
    Ok(HttpResponse::Ok().json(shape! {
        "status": "success",
        "customer_id": customer.customer_id,
        "subscription_status": set.status,
        "message": "The subscription was set by hand; it holds on the next request.",
    }))
}

/// `GET /admin/v1/business/{bid}`
pub(crate) async fn read_billing(_: Admin, input: Input) -> Answer {
    let billing = input.app.store.billing(named(&input)?).await?;
    Ok(HttpResponse::Ok().json(shape! {
        "business_id": billing.business.business_id,
        "business_name": billing.business.business_name,
        "email": billing.business.email,
        "plan_type": billing.plan_type,
        "stripe_customer_id": billing.stripe_customer_id,
        "subscription_status": billing.subscription_status,
        "deleted_at": billing.business.deleted_at,
    }))
}

/// `POST /admin/v1/business/{bid}/override`
pub(crate) async fn override_business(admin: Admin, mut input: Input) -> Answer {
    let set = Override::read(input.form().await?)?;
    let ends_at = set.ends_at(input.app.clock.now());
    let (status, days) = (set.status, set.days);
    let set = BillingOverride { status, price_id: set.price_id, ends_at };
    let billing = input.app.store.override_billing(admin.by, named(&input)?, set).await?;
    Ok(HttpResponse::Ok().json(shape! {
        "status": "success",
        "business_id": billing.business.business_id,
        "subscription_status": status,
        "override_expires_in_days": days,
        "message": "Noted; no limit depends on it.",
    }))
}
