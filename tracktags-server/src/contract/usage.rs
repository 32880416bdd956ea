//! Where an account stands, and whether the server does, as the contract has it.

use super::Described;
use super::objects::words;
use crate::error::Code;
use crate::schema::{Fields, Kind};
use tracktags_core::accounts::Scope;
use tracktags_core::metrics::Operation;

const OPERATIONS: &str = "Operations";

pub(crate) fn read() -> Described {
    let metric = Fields::default()
        .with("metric_name", Kind::name())
        .with("scope", words!(Scope))
        .with("operation", words!(Operation))
        .with("current_value", Kind::whole())
        .with("held", Kind::units())
        .with("limits", Kind::list(Kind::shared("LimitStatus")))
        .about("held", "Units of open calls; they count as used.");
    let answer = Fields::default()
        .with("customer_id", Kind::name().or_null())
        .with("business_id", Kind::text())
        .with("plan_id", Kind::text().or_null())
        .with("plan_in_force", Kind::text().or_null())
        .with("as_of", Kind::time())
        .with("metrics", Kind::list(metric.object()));
    Described::of("Usage", "Reads where an account stands.")
        .query("customer_id", Kind::text(), "Which customer; for a customer's key only its own.")
        .query("metric_name", Kind::text(), "One metric only.")
        .answers(200, answer.object())
        .fails(&[Code::CustomerMismatch, Code::CustomerNotFound, Code::MetricNotFound])
}

pub(crate) fn health() -> Described {
    Described::of(OPERATIONS, "Whether the process runs.").says(200, "text/plain; charset=utf-8")
}

pub(crate) fn ready() -> Described {
    let ready = Fields::default().with("status", Kind::words(["ready"]));
    let not = Fields::default().with("status", Kind::words(["not_ready"])).maybe("reason", Kind::text());
    Described::of(OPERATIONS, "Whether calls can be served; the admin is told why not.")
        .answers(200, ready.object())
        .answers(503, not.object())
}

pub(crate) fn meters() -> Described {
    Described::of(OPERATIONS, "What the server measures, for Prometheus.")
        .says(200, crate::api::usage::OPEN_METRICS)
}

pub(crate) fn openapi() -> Described {
    Described::of(OPERATIONS, "This document.").answers(200, Kind::object())
}
