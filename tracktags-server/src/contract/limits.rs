//! Plan limits and plans, as the contract has them.

use super::objects::{limit, plan};
use super::{Described, learn};
use crate::api::limits as api;
use crate::error::Code;
use crate::schema::{Fields, Kind};

const LIMITS: &str = "Limits";
const PLANS: &str = "Plans";

fn created() -> Fields {
    Fields::default().with("status", Kind::words(["created"]))
}

/// What the fields of a limit mean.
fn explained(body: Fields) -> Fields {
    body.about("metric_name", "What is measured; made (SUM) if it is not known.")
        .about("limit_value", "0 with `gte` refuses everything.")
        .about(
            "limit_period",
            "A calendar window in the business's zone; `realtime`: a level that never resets.",
        )
        .about("breach_operator", "`gte` 1000 admits exactly 1000 units, `gt` 1000 exactly 1001.")
        .about("alert_thresholds", "Per cent of the limit.")
        .about("webhook_urls", "One URL, or several separated by commas.")
}

pub(crate) fn create() -> Described {
    Described::of(LIMITS, "Creates a limit; it holds on the next request.")
        .body(explained(learn(|form| drop(api::read_limit(form)))))
        .answers(201, created().and(limit()).object())
        .fails(&[
            Code::PlanNotFound,
            Code::CustomerNotFound,
            Code::LimitExists,
            Code::MetricConflict,
            Code::Quota,
        ])
}

pub(crate) fn list() -> Described {
    Described::of(LIMITS, "Lists limits.")
        .query("plan_id", Kind::text(), "Those of this plan.")
        .query("customer_id", Kind::text(), "Those of this customer.")
        .query("metric_name", Kind::text(), "Those on this metric.")
        .lists("plan_limits", Kind::shared("Limit"))
        .fails(&[Code::PlanNotFound, Code::CustomerNotFound])
}

pub(crate) fn read() -> Described {
    Described::of(LIMITS, "Reads a limit.").answers(200, Kind::shared("Limit")).fails(&[Code::LimitNotFound])
}

pub(crate) fn update() -> Described {
    Described::of(LIMITS, "Changes a limit; it holds on the next request and keeps the usage.")
        .body(explained(learn(|mut form| drop(api::limit_change(&mut form)))))
        .answers(200, Kind::shared("Limit"))
        .fails(&[
            Code::LimitNotFound,
            Code::ImmutableField,
            Code::LimitExists,
            Code::MetricConflict,
            Code::Quota,
        ])
}

pub(crate) fn delete() -> Described {
    let answer = Fields::default().with("message", Kind::text()).with("limit_id", Kind::text());
    Described::of(LIMITS, "Deletes a limit; the usage stays.")
        .answers(200, answer.object())
        .fails(&[Code::LimitNotFound])
}

pub(crate) fn create_plan() -> Described {
    Described::of(PLANS, "Creates a plan.")
        .body(learn(|mut form| drop(api::new_plan(&mut form))))
        .answers(201, created().and(plan()).object())
        .fails(&[Code::PlanExists, Code::PriceTaken, Code::FreePlanExists, Code::Quota])
}

pub(crate) fn list_plans() -> Described {
    Described::of(PLANS, "Lists plans.").lists("plans", Kind::shared("Plan"))
}

pub(crate) fn read_plan() -> Described {
    Described::of(PLANS, "Reads a plan.").answers(200, Kind::shared("Plan")).fails(&[Code::PlanNotFound])
}

pub(crate) fn update_plan() -> Described {
    Described::of(PLANS, "Changes a plan; it holds on the next request.")
        .body(learn(|mut form| drop(api::plan_fields(&mut form))))
        .answers(200, Kind::shared("Plan"))
        .fails(&[Code::PlanNotFound, Code::PlanExists, Code::PriceTaken, Code::FreePlanExists])
}

pub(crate) fn delete_plan() -> Described {
    let answer = Fields::default().with("status", Kind::words(["deleted"])).with("plan_id", Kind::text());
    Described::of(PLANS, "Deletes a plan and its limits.")
        .query("force", Kind::flag(), "Also while customers are on it; they have no plan then.")
        .answers(200, answer.object())
        .fails(&[Code::PlanNotFound, Code::PlanInUse])
}
