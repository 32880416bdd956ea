//! Businesses, their settings and their customers.

use super::{Call, Who};
use crate::args::{Businesses, CustomerFields, Customers, Settings};
use crate::output::View;
use awc::http::Method;

const BUSINESS: &[&str] = &["business_id", "business_name", "email", "created_at"];
const BUSINESSES: View = View::List { items: "businesses", columns: BUSINESS };
const SETTINGS: &[&str] =
    &["timezone", "default_metric", "enforcement", "target_policy", "max_customer_keys"];
const CUSTOMER: &[&str] = &[
    "status",
    "customer_id",
    "customer_name",
    "email",
    "description",
    "plan_id",
    "plan_in_force",
    "subscription_ends_at",
    "billing_anchor_day",
    "stripe_customer_id",
    "stripe_subscription_id",
    "stripe_price_id",
    "metadata",
    "created_at",
    "updated_at",
];
const CUSTOMERS: View = View::List {
    items: "customers",
    columns: &["customer_id", "customer_name", "email", "plan_id", "plan_in_force", "subscription_ends_at"],
};

const GONE: &[&str] = &["message", "business_id", "deletion_scheduled_for"];

/// `businesses …`
pub(crate) fn businesses(command: Businesses) -> Call {
    match command {
        Businesses::Create { name, email } => {
            Call::new(Who::Admin, Method::POST, &["businesses"], View::Record(BUSINESS))
                .with([("business_name", Some(name.into())), ("email", Some(email.into()))])
        }
        Businesses::List { query, deleted, page } => {
            Call::new(Who::Admin, Method::GET, &["businesses"], BUSINESSES)
                .asking("q", query)
                .asking("deleted", deleted.then_some(true))
                .page(page)
        }
        Businesses::Delete { id } => {
            Call::new(Who::Admin, Method::DELETE, &["businesses", id.as_str()], View::Record(GONE))
        }
        Businesses::Restore { id } => {
            Call::new(Who::Admin, Method::POST, &["businesses", id.as_str(), "restore"], View::Record(GONE))
        }
        Businesses::Get { id } => {
            Call::new(Who::Either, Method::GET, &["businesses", id.as_str()], View::Record(BUSINESS))
        }
        Businesses::Update { id, name, email } => {
            Call::new(Who::Admin, Method::PUT, &["businesses", id.as_str()], View::Record(BUSINESS))
                .with([("business_name", name.map(Into::into)), ("email", email.map(Into::into))])
        }
    }
}

/// `settings …`
pub(crate) fn settings(command: Settings) -> Call {
    let call = |method| Call::new(Who::Business, method, &["settings"], View::Record(SETTINGS));
    match command {
        Settings::Get => call(Method::GET),
        Settings::Set(fields) => call(Method::PATCH).with([
            ("timezone", fields.timezone.map(Into::into)),
            ("default_metric", fields.default_metric),
            ("enforcement", fields.enforcement.map(Into::into)),
            ("target_policy", fields.target_policy.map(Into::into)),
            ("max_customer_keys", fields.max_customer_keys.map(Into::into)),
        ]),
    }
}

/// `customers …`
pub(crate) fn customers(command: Customers) -> Call {
    let one = |method, id: &str, view| Call::new(Who::Business, method, &["customers", id], view);
    match command {
        Customers::Create { id, fields } => {
            let call = Call::new(Who::Business, Method::POST, &["customers"], View::Record(CUSTOMER));
            with_fields(call, fields).with([("customer_id", Some(id.as_str().into()))])
        }
        Customers::Get { id } => one(Method::GET, id.as_str(), View::Record(CUSTOMER)),
        Customers::List { plan, query, page } => {
            Call::new(Who::Business, Method::GET, &["customers"], CUSTOMERS)
                .asking("plan_id", plan)
                .asking("q", query)
                .page(page)
        }
        Customers::Update { id, fields } => {
            with_fields(one(Method::PUT, id.as_str(), View::Record(CUSTOMER)), fields)
        }
        Customers::Delete { id } => {
            one(Method::DELETE, id.as_str(), View::Record(&["status", "customer_id"]))
        }
    }
}

fn with_fields(call: Call, fields: CustomerFields) -> Call {
    call.with([
        ("customer_name", fields.name),
        ("email", fields.email),
        ("description", fields.description),
        ("plan_id", fields.plan),
        ("subscription_ends_at", fields.subscription_ends_at),
        ("billing_anchor_day", fields.billing_anchor_day),
        ("metadata", fields.metadata),
    ])
}
