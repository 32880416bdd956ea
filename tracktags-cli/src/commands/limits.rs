//! Limits and the plans they may belong to.

use super::{Call, Who};
use crate::args::{LimitFields, Limits, PlanFields, Plans};
use crate::output::View;
use awc::http::Method;

const LIMIT: &[&str] = &[
    "status",
    "id",
    "metric_name",
    "limit_value",
    "limit_period",
    "breach_operator",
    "breach_action",
    "metric_type",
    "plan_id",
    "customer_id",
    "alert_thresholds",
    "webhook_urls",
    "overage_meter",
    "created_at",
    "updated_at",
];
const LIMITS: View = View::List {
    items: "plan_limits",
    columns: &[
        "id",
        "metric_name",
        "limit_value",
        "limit_period",
        "breach_operator",
        "breach_action",
        "plan_id",
        "customer_id",
    ],
};
const PLAN: &[&str] = &["status", "id", "plan_name", "stripe_price_id", "is_free", "created_at"];
const PLANS: View =
    View::List { items: "plans", columns: &["id", "plan_name", "stripe_price_id", "is_free", "created_at"] };

/// `limits …`
pub(crate) fn limits(command: Limits) -> Call {
    let all = |method, view| Call::new(Who::Business, method, &["plan_limits"], view);
    let one = |method, id: &str, view| Call::new(Who::Business, method, &["plan_limits", id], view);
    match command {
        Limits::Create { metric, value, plan, customer, fields } => {
            with_fields(all(Method::POST, View::Record(LIMIT)), fields).with([
                ("metric_name", Some(metric.as_str().into())),
                ("limit_value", Some(value.get().into())),
                ("plan_id", plan.map(Into::into)),
                ("customer_id", customer.map(|id| id.as_str().into())),
            ])
        }
        Limits::List { plan, customer, metric, page } => all(Method::GET, LIMITS)
            .asking("plan_id", plan)
            .asking("customer_id", customer)
            .asking("metric_name", metric)
            .page(page),
        Limits::Get { id } => one(Method::GET, &id, View::Record(LIMIT)),
        Limits::Update { id, metric, value, fields } => {
            with_fields(one(Method::PUT, &id, View::Record(LIMIT)), fields).with([
                ("metric_name", metric.map(|metric| metric.as_str().into())),
                ("limit_value", value.map(|value| value.get().into())),
            ])
        }
        Limits::Delete { id } => one(Method::DELETE, &id, View::Record(&["message", "limit_id"])),
    }
}

fn with_fields(call: Call, fields: LimitFields) -> Call {
    call.with([
        ("limit_period", fields.period.map(Into::into)),
        ("breach_operator", fields.operator.map(Into::into)),
        ("breach_action", fields.action.map(Into::into)),
        ("metric_type", fields.metric_type.map(Into::into)),
        ("alert_thresholds", fields.alert_thresholds),
    ])
}

/// `plans …`
pub(crate) fn plans(command: Plans) -> Call {
    let all = |method, view| Call::new(Who::Business, method, &["plans"], view);
    let one = |method, id: &str, view| Call::new(Who::Business, method, &["plans", id], view);
    match command {
        Plans::Create { name, fields } => {
            with_plan_fields(all(Method::POST, View::Record(PLAN)), Some(name), fields)
        }
        Plans::List { page } => all(Method::GET, PLANS).page(page),
        Plans::Get { id } => one(Method::GET, &id, View::Record(PLAN)),
        Plans::Update { id, name, fields } => {
            with_plan_fields(one(Method::PUT, &id, View::Record(PLAN)), name, fields)
        }
        Plans::Delete { id, force } => one(Method::DELETE, &id, View::Record(&["status", "plan_id"]))
            .asking("force", force.then_some("true")),
    }
}

fn with_plan_fields(call: Call, name: Option<String>, fields: PlanFields) -> Call {
    call.with([
        ("plan_name", name.map(Into::into)),
        ("stripe_price_id", fields.stripe_price_id),
        ("is_free", fields.free.map(Into::into)),
    ])
}
