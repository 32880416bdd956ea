//! Where an account stands with its limits, and what it did.

use super::{Call, Who};
use crate::args::{History, Usage};
use crate::output::View;
use awc::http::Method;

/// `usage`
pub(crate) fn usage(command: Usage) -> Call {
    Call::new(Who::Business, Method::GET, &["usage"], View::Usage)
        .asking("customer_id", command.customer)
        .asking("metric_name", command.metric)
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
