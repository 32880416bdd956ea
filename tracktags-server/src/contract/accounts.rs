//! Businesses, their settings, and customers, as the contract has them.

use super::objects::{business, customer};
use super::{Described, learn};
use crate::api::accounts as api;
use crate::error::Code;
use crate::schema::{Fields, Kind};

const BUSINESSES: &str = "Businesses";
const CUSTOMERS: &str = "Customers";

fn fields() -> Fields {
    Fields::default()
}

/// `{success, message}`, as operations on businesses answer.
fn success() -> Fields {
    fields().with("success", Kind::flag()).with("message", Kind::text())
}

pub(crate) fn create_business() -> Described {
    Described::of(BUSINESSES, "Creates a business.")
        .body(learn(|mut form| drop(api::new_business(&mut form))))
        .answers(201, business().object())
}

pub(crate) fn list_businesses() -> Described {
    Described::of(BUSINESSES, "Lists businesses.")
        .query("q", Kind::text(), "Part of a name or an address.")
        .query("deleted", Kind::flag(), "Those that were deleted and are not yet gone.")
        .lists("businesses", Kind::shared("Business"))
}

pub(crate) fn read_business() -> Described {
    Described::of(BUSINESSES, "Reads a business.").answers(200, Kind::shared("Business"))
}

pub(crate) fn update_business() -> Described {
    Described::of(BUSINESSES, "Changes a business.")
        .body(learn(|mut form| drop(api::business_change(&mut form))))
        .answers(200, success().and(business()).object())
        .fails(&[Code::BusinessNotFound])
}

pub(crate) fn delete_business() -> Described {
    let answer = success().with("business_id", Kind::text()).with("deletion_scheduled_for", Kind::time());
    Described::of(BUSINESSES, "Deletes a business; for 30 days it can be restored.")
        .answers(200, answer.object())
        .fails(&[Code::BusinessNotFound])
}

pub(crate) fn restore_business() -> Described {
    Described::of(BUSINESSES, "Restores a deleted business, without its keys.")
        .answers(200, success().with("business_id", Kind::text()).object())
        .fails(&[Code::BusinessNotFound])
}

pub(crate) fn read_settings() -> Described {
    Described::of(BUSINESSES, "Reads the settings.").answers(200, Kind::shared("Settings"))
}

pub(crate) fn update_settings() -> Described {
    let body = learn(|form| drop(api::settings_change(form)))
        .about("timezone", "An IANA name: the zone in which calendar windows are cut.")
        .about("default_metric", "What a call counts whose `metric_name` is empty.")
        .about("enforcement", "`observe`: everything is counted and shown, nothing is denied.");
    Described::of(BUSINESSES, "Changes settings; they hold on the next request.")
        .body(body)
        .answers(200, Kind::shared("Settings"))
        .fails(&[Code::MetricNotFound])
}

pub(crate) fn create_customer() -> Described {
    let said = fields()
        .with("status", Kind::words(["created"]))
        .with("name", Kind::text().or_null())
        .with("timestamp", Kind::time());
    Described::of(CUSTOMERS, "Creates a customer, or revives a deleted one.")
        .body(learn(|mut form| drop(api::new_customer(&mut form))))
        .answers(201, said.and(customer()).object())
        .fails(&[Code::PlanNotFound, Code::CustomerExists, Code::Quota])
}

pub(crate) fn list_customers() -> Described {
    Described::of(CUSTOMERS, "Lists customers.")
        .query("plan_id", Kind::text(), "Those on this plan.")
        .query("q", Kind::text(), "Part of an id, a name or an address.")
        .lists("customers", Kind::shared("Customer"))
        .fails(&[Code::PlanNotFound])
}

pub(crate) fn read_customer() -> Described {
    Described::of(CUSTOMERS, "Reads a customer.")
        .answers(200, Kind::shared("Customer"))
        .fails(&[Code::CustomerNotFound])
}

pub(crate) fn update_customer() -> Described {
    let said = fields().with("status", Kind::words(["updated"]));
    Described::of(CUSTOMERS, "Changes a customer; it holds on the next request.")
        .body(learn(|mut form| drop(api::customer_fields(&mut form))))
        .answers(200, said.and(customer()).object())
        .fails(&[Code::CustomerNotFound, Code::PlanNotFound])
}

pub(crate) fn delete_customer() -> Described {
    let answer = fields().with("status", Kind::words(["deleted"])).with("customer_id", Kind::name());
    Described::of(CUSTOMERS, "Deletes a customer; its keys stop at once.")
        .answers(200, answer.object())
        .fails(&[Code::CustomerNotFound])
}
