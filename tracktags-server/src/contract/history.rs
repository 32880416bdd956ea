//! History, as the contract has it.

use super::Described;
use super::objects::words;
use crate::error::Code;
use crate::schema::{Fields, Kind};
use tracktags_core::history::Step;

const SCOPES: [&str; 3] = ["customer", "business", "total"];

pub(crate) fn read() -> Described {
    let steps = || words!(Step);
    let point = Fields::default()
        .with("start", Kind::time())
        .with("end", Kind::time())
        .with("value", Kind::whole())
        .with("overage", Kind::units())
        .with("denied", Kind::units());
    let answer = Fields::default()
        .with("metric_name", Kind::name())
        .with("customer_id", Kind::name().or_null())
        .with("scope", Kind::words(SCOPES))
        .with("step", steps())
        .with("timezone", Kind::text())
        .with("points", Kind::list(point.object()))
        .with("count", Kind::whole());
    Described::of("Usage", "Reads what an account used, step by step in the business's zone.")
        .query("from", Kind::time(), "Where to begin; 24 hours, 30 days or 12 months before `to`.")
        .query("to", Kind::time(), "Where to end; now, if nothing is said.")
        .query("step", steps(), "How long a step is; `day`, if nothing is said.")
        .query("customer_id", Kind::text(), "Which customer; for a customer's key only its own.")
        .query("scope", Kind::words(SCOPES), "`total` adds up all accounts.")
        .answers(200, answer.object())
        .fails(&[Code::RangeTooLarge, Code::CustomerMismatch, Code::CustomerNotFound, Code::MetricNotFound])
}
