//! Businesses, their settings, and customers.

use super::{Answer, Shape, shape, words_of};
use crate::error::ApiError;
use crate::form::Form;
use crate::identity::{Admin, Business};
use crate::lists::List;
use crate::request::Input;
use actix_web::HttpResponse;
use serde_json::{Value, json};
use tracktags_core::accounts::{
    self as core, BUSINESS_KEPT_SECONDS, BusinessId, CUSTOMER_KEYS_MAX, Customer, CustomerId, Enforcement,
    MetricName, Settings, TargetChoice,
};
use tracktags_core::error::Entity;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{
    BusinessQuery, Change, CustomerFields, CustomerQuery, NewBusiness, SettingsChange,
};
use tracktags_core::windows::Calendar;

const EMAIL_CHARS_MAX: usize = 254;
const ID_CHARS_MAX: usize = 255;

fn shown_business(business: core::Business) -> Shape {
    let gone_at = gone_at(&business);
    let shown = shape! {
        "business_id": business.business_id,
        "business_name": business.business_name,
        "email": business.email,
        "created_at": business.created_at,
    };
    match gone_at {
        Some(at) => shown.and(shape! {"deletion_scheduled_for": at}),
        None => shown,
    }
}

/// The fields of a new business.
pub(crate) fn new_business(form: &mut Form) -> NewBusiness {
    NewBusiness {
        business_name: form.required_text("business_name", 1..=200),
        email: form.required_text("email", 1..=EMAIL_CHARS_MAX),
        user_id: form.optional_text("user_id", 1..=ID_CHARS_MAX),
    }
}

/// `POST /api/v1/businesses`
pub(crate) async fn create_business(admin: Admin, mut input: Input) -> Answer {
    let mut form = input.form().await?;
    let new = new_business(&mut form);
    form.finish()?;
    let business = input.app.store.create_business(admin.by, new).await?;
    Ok(HttpResponse::Created().json(shown_business(business)))
}

/// `GET /api/v1/businesses`
pub(crate) async fn list_businesses(_: Admin, input: Input) -> Answer {
    let list = List::asked(&input, "businesses", "")?;
    let deleted = input.query_flag("deleted")?;
    let query = BusinessQuery { text: input.query("q"), deleted, page: list.page };
    let page = input.app.store.businesses(query).await?;
    Ok(list.answer(page, shown_business))
}

fn business_id(text: &str) -> Result<BusinessId, ApiError> {
    BusinessId::parse(text).map_err(|_against_grammar| ApiError::not_found(Entity::Business))
}

/// Which business the path names.
pub(super) fn named(input: &Input) -> Result<BusinessId, ApiError> {
    business_id(&input.segment("bid"))
}

/// Which business the query names, if it does.
pub(super) fn business_in_query(input: &Input) -> Result<Option<BusinessId>, ApiError> {
    input.query("business_id").as_deref().map(business_id).transpose()
}

/// `DELETE /api/v1/businesses/{bid}`
pub(crate) async fn delete_business(admin: Admin, input: Input) -> Answer {
    let business = input.app.store.delete_business(admin.by, named(&input)?).await?;
    let message =
        "The business was deleted; its keys are refused from now on. It can be restored until it is gone.";
    Ok(HttpResponse::Ok().json(shape! {
        "success": true,
        "message": message,
        "business_id": business.business_id,
        "deletion_scheduled_for": gone_at(&business),
    }))
}

/// `POST /api/v1/businesses/{bid}/restore`
pub(crate) async fn restore_business(admin: Admin, mut input: Input) -> Answer {
    input.form().await?.finish()?;
    let business = input.app.store.restore_business(admin.by, named(&input)?).await?;
    let message = "The business is back, with everything but its keys; create new ones.";
    let id = business.business_id;
    Ok(HttpResponse::Ok().json(shape! {"success": true, "message": message, "business_id": id}))
}

/// When a deleted business is gone.
fn gone_at(business: &core::Business) -> Option<Timestamp> {
    business.deleted_at.map(|at| at.plus_seconds(BUSINESS_KEPT_SECONDS))
}

/// `GET /api/v1/businesses/{bid}`
pub(crate) async fn read_business(business: Business, input: Input) -> Answer {
    let business = input.app.store.business(business.id).await?;
    Ok(HttpResponse::Ok().json(shown_business(business)))
}

/// What changes of a business: its name and its address.
pub(crate) fn business_change(form: &mut Form) -> (Option<String>, Option<String>) {
    (form.text("business_name", 1..=200), form.text("email", 1..=EMAIL_CHARS_MAX))
}

/// `PUT /api/v1/businesses/{bid}`
pub(crate) async fn update_business(admin: Admin, mut input: Input) -> Answer {
    let id = named(&input)?;
    let mut form = input.form().await?;
    let (name, email) = business_change(&mut form);
    form.finish()?;
    let business = input.app.store.update_business(admin.by, id, name, email).await?;
    let said = shape! {"success": true, "message": "The business was updated."};
    Ok(HttpResponse::Ok().json(said.and(shown_business(business))))
}

fn shown_settings(settings: &Settings) -> Shape {
    shape! {
        "timezone": settings.timezone,
        "default_metric": settings.default_metric,
        "enforcement": settings.enforcement,
        "target_policy": settings.target_policy,
        "max_customer_keys": settings.max_customer_keys,
    }
}

/// `GET …/settings`
pub(crate) async fn read_settings(business: Business, input: Input) -> Answer {
    let settings = input.app.store.settings(business.id).await?;
    Ok(HttpResponse::Ok().json(shown_settings(&settings)))
}

/// What changes of the settings.
pub(crate) fn settings_change(mut form: Form) -> Result<SettingsChange, ApiError> {
    let timezone = form.custom_text("timezone", "time-zone", 1..=100);
    if let Some(Err(error)) = timezone.as_deref().map(Calendar::in_zone) {
        form.problem("timezone", error.to_string());
    }
    let default_metric = form.name_change("default_metric");
    let enforcement = form.word("enforcement", words_of!(Enforcement));
    let target_policy = form.word("target_policy", words_of!(TargetChoice));
    let keys_max = form.number("max_customer_keys", 1..=i64::from(CUSTOMER_KEYS_MAX));
    form.finish()?;
    let default_metric = match default_metric {
        Change::Keep => Change::Keep,
        Change::Clear => Change::Clear,
        // This call creates no metric, so a name against the grammar is simply unknown.
        Change::Set(name) => Change::Set(
            MetricName::parse(&name).map_err(|_against_grammar| ApiError::not_found(Entity::Metric))?,
        ),
    };
    let max_customer_keys = keys_max.and_then(|count| u8::try_from(count).ok());
    Ok(SettingsChange { timezone, default_metric, enforcement, target_policy, max_customer_keys })
}

/// `PATCH …/settings`
pub(crate) async fn update_settings(business: Business, mut input: Input) -> Answer {
    let change = settings_change(input.form().await?)?;
    let settings = input.app.store.update_settings(business.by, business.id, change).await?;
    Ok(HttpResponse::Ok().json(shown_settings(&settings)))
}

fn shown_customer(customer: Customer) -> Shape {
    let metadata: Value = serde_json::from_str(&customer.metadata).unwrap_or_else(|_| json!({}));
    shape! {
        "business_id": customer.business_id,
        "customer_id": customer.customer_id,
        "customer_name": customer.customer_name,
        "email": customer.email,
        "description": customer.description,
        "plan_id": customer.plan_id,
        "plan_in_force": customer.plan_in_force,
        "stripe_customer_id": customer.stripe_customer_id,
        "stripe_subscription_id": customer.stripe_subscription_id,
        "stripe_price_id": customer.stripe_price_id,
        "subscription_status": customer.subscription_status,
        "subscription_ends_at": customer.subscription_ends_at,
        "billing_anchor_day": customer.billing_anchor_day,
        "metadata": metadata,
        "created_at": customer.created_at,
        "updated_at": customer.updated_at,
    }
}

/// The customer in the path; an id against the grammar is unknown.
pub(super) fn customer_in_path(input: &Input) -> Result<CustomerId, ApiError> {
    let id = CustomerId::parse(&input.segment("cid"));
    id.map_err(|_against_grammar| ApiError::not_found(Entity::Customer))
}

/// What changes of a customer.
pub(crate) fn customer_fields(form: &mut Form) -> CustomerFields {
    if form.has("customer_name") && form.has("name") {
        form.problem("name", "is another word for customer_name; send only one of them");
    }
    let name = match form.text_change("customer_name", 0..=200) {
        Change::Keep => form.text_change("name", 0..=200),
        given => given,
    };
    let plan_id = match form.text_change("plan_id", 0..=ID_CHARS_MAX) {
        Change::Set(id) if id.is_empty() => Change::Clear,
        given => given,
    };
    CustomerFields {
        customer_name: name,
        email: form.text_change("email", 0..=EMAIL_CHARS_MAX),
        description: form.text_change("description", 0..=1_000),
        plan_id,
        stripe_customer_id: form.text_change("stripe_customer_id", 1..=ID_CHARS_MAX),
        stripe_subscription_id: form.text_change("stripe_subscription_id", 1..=ID_CHARS_MAX),
        stripe_price_id: form.text_change("stripe_price_id", 1..=ID_CHARS_MAX),
        subscription_status: Change::Keep,
        subscription_ends_at: form.time_change("subscription_ends_at"),
        billing_anchor_day: form.number_change("billing_anchor_day", 1..=31),
        metadata: form.object_change("metadata"),
    }
}

/// The fields of a new customer.
pub(crate) fn new_customer(form: &mut Form) -> (Option<CustomerId>, CustomerFields) {
    form.require("customer_id");
    (form.customer("customer_id"), customer_fields(form))
}

/// `POST …/customers`
pub(crate) async fn create_customer(business: Business, mut input: Input) -> Answer {
    let mut form = input.form().await?;
    let (id, fields) = new_customer(&mut form);
    let id = form.made(id)?;
    let customer = input.app.store.create_customer(business.by, business.id, id, fields).await?;
    let said = shape! {
        "status": "created", "name": customer.customer_name, "timestamp": customer.updated_at,
    };
    Ok(HttpResponse::Created().json(said.and(shown_customer(customer))))
}

/// `GET …/customers`
pub(crate) async fn list_customers(business: Business, input: Input) -> Answer {
    let list = List::asked(&input, "customers", business.id.as_str())?;
    let query = CustomerQuery {
        business: business.id,
        plan_id: input.query("plan_id"),
        text: input.query("q"),
        page: list.page,
    };
    let page = input.app.store.customers(query).await?;
    Ok(list.answer(page, shown_customer))
}

/// `GET …/customers/{cid}`
pub(crate) async fn read_customer(business: Business, input: Input) -> Answer {
    let id = customer_in_path(&input)?;
    let customer = input.app.store.customer(business.id, id).await?;
    Ok(HttpResponse::Ok().json(shown_customer(customer)))
}

/// `PUT …/customers/{cid}`
pub(crate) async fn update_customer(business: Business, mut input: Input) -> Answer {
    let id = customer_in_path(&input)?;
    let mut form = input.form().await?;
    let fields = customer_fields(&mut form);
    form.finish()?;
    let customer = input.app.store.update_customer(business.by, business.id, id, fields).await?;
    Ok(HttpResponse::Ok().json(shape! {"status": "updated"}.and(shown_customer(customer))))
}

/// `DELETE …/customers/{cid}`
pub(crate) async fn delete_customer(business: Business, input: Input) -> Answer {
    let id = customer_in_path(&input)?;
    input.app.store.delete_customer(business.by, business.id, id.clone()).await?;
    Ok(HttpResponse::Ok().json(shape! {"status": "deleted", "customer_id": id}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::set;

    fn fields(body: &str) -> Result<CustomerFields, ApiError> {
        let mut form = Form::parse(body.as_bytes())?;
        let fields = customer_fields(&mut form);
        form.finish().map(|()| fields)
    }

    #[test]
    fn fields_are_kept_cleared_or_set() {
        let read = fields(r#"{"name":"Ada","plan_id":"","email":null,"billing_anchor_day":31.0}"#).unwrap();
        assert_eq!(set(read.customer_name).as_deref(), Some("Ada"));
        assert_eq!(read.plan_id, Change::Clear);
        assert_eq!(read.email, Change::Clear);
        assert_eq!(read.billing_anchor_day, Change::Set(31));
        assert_eq!(read.metadata, Change::Keep);
    }

    #[test]
    fn bad_fields_are_refused() {
        for body in [
            r#"{"customer_id":"x"}"#,
            r#"{"name":"a","customer_name":"b"}"#,
            r#"{"metadata":[]}"#,
            r#"{"billing_anchor_day":0}"#,
            r#"{"subscription_ends_at":"tomorrow"}"#,
            r#"{"email":"a\nb"}"#,
        ] {
            assert!(fields(body).is_err(), "{body}");
        }
    }
}
