//! The trail of changes, and the admin's hand in billing.

use super::{Call, Who};
use crate::args::{Audit, Billing};
use crate::output::View;
use awc::http::Method;
use serde_json::json;

const TRAIL: View =
    View::List { items: "audit_logs", columns: &["at", "actor", "action", "resource_id", "before", "after"] };

/// `audit`
pub(crate) fn audit(command: Audit) -> Call {
    let call = if command.everyone {
        Call::of_admin(Method::GET, &["audit-logs"], TRAIL)
    } else {
        Call::new(Who::Business, Method::GET, &["audit_logs"], TRAIL)
    };
    call.asking("action", command.action)
        .asking("resource_type", command.resource)
        .asking("from", command.from)
        .asking("to", command.to)
        .page(command.page)
}

const KNOWN: View = View::Record(&[
    "business_id",
    "business_name",
    "email",
    "plan_type",
    "stripe_customer_id",
    "subscription_status",
    "deleted_at",
]);
const SET: View = View::Record(&["status", "business_id", "customer_id", "subscription_status", "message"]);
const RESET: View = View::Record(&["status", "business_id", "customer_id", "message"]);
const RESET_ALL: View = View::Record(&["status", "total_customers", "successes", "failures"]);

/// `billing …`
pub(crate) fn billing(command: Billing) -> Call {
    match command {
        Billing::Get { business } => {
            Call::of_admin(Method::GET, &["v1", "business", business.as_str()], KNOWN)
        }
        Billing::Override { business, customer, status, price, days } => {
            let call = match &customer {
                Some(customer) => {
                    let path = ["v1", "customers", business.as_str(), customer.as_str(), "override"];
                    Call::of_admin(Method::POST, &path, SET)
                }
                None => Call::of_admin(Method::POST, &["v1", "business", business.as_str(), "override"], SET),
            };
            call.with([
                ("status", Some(json!(status))),
                ("price_id", price.map(|price| json!(price))),
                ("expires_in_days", days.map(|days| json!(days))),
            ])
        }
        Billing::Reset { business, customer } => {
            let path = ["v1", "customers", business.as_str(), customer.as_str(), "reset-billing"];
            Call::of_admin(Method::POST, &path, RESET).with([])
        }
        Billing::ResetAll { business } => Call::of_admin(Method::POST, &["billing-cycle-reset"], RESET_ALL)
            .with([])
            .asking("business_id", business),
    }
}
