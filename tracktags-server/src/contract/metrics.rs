//! Metrics as they are read and corrected, as the contract has them.

use super::objects::{definition, words};
use super::{Described, learn};
use crate::api::metrics as api;
use crate::error::Code;
use crate::schema::{Fields, Kind};
use tracktags_core::accounts::Scope;

pub(super) const TAG: &str = "Metrics";

/// Whose metrics are meant.
pub(super) fn whose(described: Described) -> Described {
    let scopes = words!(Scope);
    described
        .query("scope", scopes, "`customer` for a customer's key or with `customer_id`, else `business`.")
        .query("customer_id", Kind::text(), "Which customer; for a customer's key only its own.")
        .fails(&[Code::CustomerMismatch, Code::CustomerNotFound])
}

pub(crate) fn list() -> Described {
    let item = definition().maybe("current_value", Kind::whole());
    whose(Described::of(TAG, "Lists metrics, with their values where an account is named."))
        .lists("metrics", item.object())
}

pub(crate) fn read() -> Described {
    whose(Described::of(TAG, "Reads a metric and where an account stands with it."))
        .answers(200, Kind::shared("Metric"))
        .fails(&[Code::MetricNotFound])
}

pub(crate) fn update() -> Described {
    let answer = Fields::default()
        .with("status", Kind::words(["updated"]))
        .with("business_id", Kind::text())
        .maybe("customer_id", Kind::name())
        .with("metric_name", Kind::name())
        .with("new_value", Kind::whole())
        .with("timestamp", Kind::time());
    let body = learn(|form| drop(api::Update::read(form)))
        .one_of_them()
        .about("value", "What happened besides; negative takes off. It is counted without asking.")
        .about("set_to", "The value from now on; instead of `value`.");
    whose(Described::of(TAG, "Records usage, or corrects it."))
        .body(body)
        .answers(200, answer.object())
        .fails(&[Code::MetricNotFound, Code::UsageBelowZero])
}
