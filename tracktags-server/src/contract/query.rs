//! Check and track, as the contract has them.

use super::Described;
use super::objects::{standing, words};
use crate::error::Code;
use crate::schema::{Fields, Kind};
use tracktags_core::accounts::Scope;
use tracktags_core::metrics::UNITS_MAX;

/// Whose usage of what, and how much of it: fields that every call of the data plane has.
pub(super) fn subject(units_min: i64) -> Fields {
    let scopes = words!(Scope);
    Fields::default()
        .maybe("metric_name", Kind::text().or_null())
        .maybe("scope", scopes.or_null())
        .maybe("customer_id", Kind::text().or_null())
        .maybe("units", Kind::within(units_min..=UNITS_MAX).or_null())
        .about("scope", "`customer` for a customer's key or with `customer_id`, else `business`.")
        .about("units", "1, if nothing is said.")
}

/// What each of them can be refused with.
pub(super) const REFUSALS: [Code; 3] = [Code::CustomerMismatch, Code::CustomerNotFound, Code::MetricNotFound];

pub(crate) fn check() -> Described {
    let answer = Fields::default()
        .with("allowed", Kind::flag())
        .with("status", Kind::words(["allowed", "denied"]))
        .with("units", Kind::units())
        .and(standing())
        .maybe("retry_after", Kind::whole());
    let body = subject(0)
        .about("metric_name", "Empty: all limits of the account.")
        .about("units", "1, if nothing is said; 0 asks whether it is in breach now.");
    Described::of(super::envelope::TAG, "Asks whether a demand would be admitted; takes nothing.")
        .body(body)
        .answers(200, answer.object())
        .fails(&REFUSALS)
}

pub(crate) fn track() -> Described {
    let answer = Fields::default()
        .with("status", Kind::words(["allowed"]))
        .with("metric_name", Kind::name())
        .with("customer_id", Kind::name().or_null())
        .with("units", Kind::units())
        .and(standing());
    let body = Fields::default().with("metric_name", Kind::name()).and(subject(1));
    Described::of(super::envelope::TAG, "Counts units for good, if the limits admit them.")
        .body(body)
        .answers(200, answer.object())
        .answers(429, Kind::shared("Denied"))
        .fails(&REFUSALS)
}
