//! Metrics defined, changed and deleted by hand, as the contract has them.

use super::metrics::{TAG, whose};
use super::objects::{definition, metric};
use super::{Described, learn};
use crate::api::define as api;
use crate::error::Code;
use crate::schema::{Fields, Kind};

pub(crate) fn create() -> Described {
    let said =
        Fields::default().with("status", Kind::words(["created"])).with("initial_value", Kind::units());
    let body = learn(|form| drop(api::read_metric(form)))
        .about("metric_type", "When the value begins again: each interval, never, or each billing period.")
        .about("initial_value", "What the account starts from; added where the metric is defined already.")
        .about("limit_value", "A limit along with it; `breach_action` is `disabled` where nothing is said.");
    whose(Described::of(TAG, "Defines a metric; with a limit and a value if wanted."))
        .body(body)
        .answers(201, said.and(metric()).object())
        .fails(&[Code::MetricConflict, Code::MetricNotFound, Code::LimitExists, Code::Quota])
}

pub(crate) fn update() -> Described {
    whose(Described::of(TAG, "Changes what is kept of a metric."))
        .body(learn(|mut form| drop(api::common(&mut form))))
        .answers(200, definition().object())
        .fails(&[Code::MetricNotFound, Code::MetricConflict])
}

pub(crate) fn delete() -> Described {
    let answer = Fields::default()
        .with("status", Kind::words(["deleted"]))
        .with("metric_name", Kind::name())
        .with("business_id", Kind::text());
    whose(Described::of(TAG, "Deletes a customer's value and limit, or the metric and every value."))
        .answers(200, answer.object())
        .fails(&[Code::MetricNotFound, Code::MetricInUse])
}
