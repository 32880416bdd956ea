//! What only the platform's admin does, as the contract has it.

use super::objects::{billing, words};
use super::{Described, learn};
use crate::api::admin as api;
use crate::error::Code;
use crate::schema::{Fields, Kind};
use tracktags_core::accounts::SubscriptionStatus;

const TAG: &str = "Admin";

fn success() -> Fields {
    Fields::default().with("status", Kind::words(["success"])).with("message", Kind::text())
}

/// The fields of a subscription set by hand, and how it is answered.
fn overrides(summary: &'static str, answer: Fields) -> Described {
    let statuses = words!(SubscriptionStatus);
    Described::of(TAG, summary)
        .body(learn(|form| drop(api::Override::read(form))))
        .answers(200, success().and(answer).with("subscription_status", statuses).object())
}

pub(crate) fn reset_billing() -> Described {
    let answer = success().with("business_id", Kind::text()).with("customer_id", Kind::name());
    Described::of(TAG, "Sets every running window of a customer to 0.")
        .answers(200, answer.object())
        .fails(&[Code::BusinessNotFound, Code::CustomerNotFound])
}

pub(crate) fn reset_cycles() -> Described {
    let answer = Fields::default()
        .with("status", Kind::words(["completed"]))
        .with("total_customers", Kind::whole())
        .with("successes", Kind::whole())
        .with("failures", Kind::whole());
    Described::of(TAG, "Does so for every customer on a plan without a price.")
        .query("business_id", Kind::text(), "Those of this business only.")
        .answers(200, answer.object())
        .fails(&[Code::BusinessNotFound])
}

pub(crate) fn override_customer() -> Described {
    overrides("Sets a customer's subscription.", Fields::default().with("customer_id", Kind::name()))
        .fails(&[Code::BusinessNotFound, Code::CustomerNotFound, Code::PlanNotFound])
}

pub(crate) fn override_business() -> Described {
    let answer = Fields::default()
        .with("business_id", Kind::text())
        .with("override_expires_in_days", Kind::whole().or_null());
    overrides("Notes a business's own subscription.", answer).fails(&[Code::BusinessNotFound])
}

pub(crate) fn read_billing() -> Described {
    Described::of(TAG, "Reads a business with its own subscription.")
        .answers(200, billing().object())
        .fails(&[Code::BusinessNotFound])
}
