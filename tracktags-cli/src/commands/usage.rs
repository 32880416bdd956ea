//! Where an account stands with its limits and metrics, and what it did.

use super::{Call, Who};
use crate::args::{Demand, History, MetricFields, Metrics, Usage};
use crate::output::View;
use awc::http::Method;
use tracktags_core::accounts::MetricName;

/// `usage`
pub(crate) fn usage(command: Usage) -> Call {
    Call::new(Who::Business, Method::GET, &["usage"], View::Usage)
        .asking("customer_id", command.customer)
        .asking("metric_name", command.metric)
}

const METRIC: &[&str] = &[
    "metric_name",
    "customer_id",
    "scope",
    "operation",
    "metric_type",
    "flush_interval",
    "current_value",
    "limit_value",
    "limit_operator",
    "limit_breached",
    "breach_action",
    "tags",
    "metadata",
];
const METRICS: View = View::List {
    items: "metrics",
    columns: &["metric_name", "scope", "operation", "metric_type", "flush_interval", "current_value"],
};
const UPDATED: &[&str] = &["status", "metric_name", "customer_id", "new_value", "timestamp"];

const DEFINED: &[&str] = &[
    "status",
    "metric_name",
    "customer_id",
    "scope",
    "operation",
    "metric_type",
    "flush_interval",
    "initial_value",
    "current_value",
    "limit_value",
    "limit_operator",
    "breach_action",
];
const DELETED: &[&str] = &["status", "metric_name", "business_id"];

/// Adds what is said of a metric.
fn defining(call: Call, fields: MetricFields) -> Call {
    call.with([
        ("operation", fields.operation.map(Into::into)),
        ("metric_type", fields.metric_type.map(Into::into)),
        ("flush_interval", fields.interval.map(Into::into)),
        ("tags", fields.tags),
        ("metadata", fields.metadata),
    ])
}

/// `metrics …`
pub(crate) fn metrics(command: Metrics) -> Call {
    let one = |method, metric: &MetricName, customer, view| {
        let call = Call::new(Who::Business, method, &["metrics", metric.as_str()], View::Record(view));
        call.asking("customer_id", customer)
    };
    match command {
        Metrics::List { customer, page } => Call::new(Who::Business, Method::GET, &["metrics"], METRICS)
            .asking("customer_id", customer)
            .page(page),
        Metrics::Get { metric, customer } => one(Method::GET, &metric, customer, METRIC),
        Metrics::Define { metric, fields, customer, scope, initial, limit, period, operator, action } => {
            defining(Call::new(Who::Business, Method::POST, &["metrics"], View::Record(DEFINED)), fields)
                .asking("customer_id", customer)
                .asking("scope", scope)
                .with([
                    ("metric_name", Some(metric.as_str().into())),
                    ("initial_value", initial.map(|units| units.get().into())),
                    ("limit_value", limit.map(|units| units.get().into())),
                    ("limit_period", period.map(Into::into)),
                    ("limit_operator", operator.map(Into::into)),
                    ("breach_action", action.map(Into::into)),
                ])
        }
        Metrics::Change { metric, fields, scope } => {
            defining(one(Method::PATCH, &metric, None, METRIC), fields).asking("scope", scope)
        }
        Metrics::Delete { metric, customer, scope } => {
            one(Method::DELETE, &metric, customer, DELETED).asking("scope", scope)
        }
        Metrics::Record { metric, units, customer } => {
            one(Method::PUT, &metric, customer, UPDATED).with([("value", Some(units.into()))])
        }
        Metrics::Set { metric, value, customer } => {
            one(Method::PUT, &metric, customer, UPDATED).with([("set_to", Some(value.get().into()))])
        }
    }
}

const DEMANDED: &[&str] = &["status", "allowed", "metric_name", "customer_id", "units", "retry_after"];

/// `check` and `track`
pub(crate) fn demand(verb: &str, demand: Demand) -> Call {
    Call::new(Who::Business, Method::POST, &[verb], View::Record(DEMANDED)).with([
        ("metric_name", Some(demand.metric.as_str().into())),
        ("units", demand.units.map(|units| units.get().into())),
        ("customer_id", demand.customer.map(|id| id.as_str().into())),
    ])
}

const POINT_COLUMNS: &[&str] = &["start", "end", "value", "overage", "denied"];

/// `history`
pub(crate) fn history(command: History) -> Call {
    let view = View::List { items: "points", columns: POINT_COLUMNS };
    Call::new(Who::Business, Method::GET, &["metrics", command.metric.as_str(), "history"], view)
        .asking("customer_id", command.customer)
        .asking("scope", command.scope)
        .asking("step", command.step)
        .asking("from", command.from)
        .asking("to", command.to)
}
