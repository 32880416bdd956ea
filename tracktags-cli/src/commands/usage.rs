//! Where an account stands with its limits.

use super::{Call, Who};
use crate::args::Usage;
use crate::output::View;
use awc::http::Method;

/// `usage`
pub(crate) fn usage(command: Usage) -> Call {
    Call::new(Who::Business, Method::GET, &["usage"], View::Usage)
        .asking("customer_id", command.customer)
        .asking("metric_name", command.metric)
}
