//! The objects that several answers show.

use crate::schema::{Fields, Kind};
use tracktags_core::accounts::{Enforcement, Scope, SubscriptionStatus, TargetChoice};
use tracktags_core::audit::ActorKind;
use tracktags_core::keys::KeyScope;
use tracktags_core::limits::{Action, Operator, Source};
use tracktags_core::metrics::{Interval, MetricType, Operation};
use tracktags_core::windows::Period;

/// The words of one of core's enums.
macro_rules! words {
    ($type:ty) => {
        $crate::schema::Kind::words(<$type>::ALL.iter().map(|word| word.as_str()))
    };
}
pub(super) use words;

fn fields() -> Fields {
    Fields::default()
}

/// Those that other objects name.
pub(super) fn all() -> Vec<(&'static str, Kind)> {
    vec![
        ("Error", error().object()),
        ("LimitStatus", limit_status().object()),
        ("BreachStatus", breach_status().object()),
        ("Business", business().object()),
        ("Settings", settings().object()),
        ("Customer", customer().object()),
        ("Key", key().object()),
        ("Limit", limit().object()),
        ("Plan", plan().object()),
        ("Metric", metric().object()),
        ("Denied", denied().object()),
        ("Failed", failed().object()),
    ]
}

fn error() -> Fields {
    let detail = fields().with("field", Kind::text()).with("message", Kind::text());
    fields()
        .with("error", Kind::text())
        .with("message", Kind::text())
        .with("code", Kind::text())
        .maybe("details", Kind::list(detail.object()))
        .maybe("max_bytes", Kind::whole())
        .maybe("retry_after_seconds", Kind::whole())
        .about("message", "What happened and what to do.")
        .about("code", "A word for programs; it never changes.")
        .about("details", "Each field that is wrong.")
}

/// Where an account stands with a limit.
fn limit_status() -> Fields {
    fields()
        .with("is_breached", Kind::flag())
        .with("current_usage", Kind::whole())
        .with("limit_value", Kind::units())
        .with("remaining", Kind::units().or_null())
        .with("limit_operator", words!(Operator))
        .with("breach_action", words!(Action))
        .with("metric_name", Kind::text())
        .with("limit_id", Kind::text())
        .with("source", words!(Source))
        .with("limit_period", words!(Period))
        .with("overage", Kind::units())
        .with("granted", Kind::units())
        .with("window_start", Kind::time().or_null())
        .with("window_end", Kind::time().or_null())
        .about("is_breached", "This demand met a breach; in reads: one more unit would.")
        .about("remaining", "Units that could still be admitted; null where no further unit can breach.")
        .about("overage", "Units taken past the limit in this window.")
        .about("window_end", "The window is half-open; null for `realtime`.")
}

/// The limit that decided, or where there is none.
fn breach_status() -> Fields {
    let none = fields()
        .with("is_breached", Kind::flag())
        .with("current_usage", Kind::whole())
        .with("limit_value", Kind::units().or_null())
        .with("remaining", Kind::units().or_null());
    none.and(limit_status().all_maybe())
}

/// `breach_status` and `limits`, as every decision shows them.
pub(super) fn standing() -> Fields {
    fields()
        .with("breach_status", Kind::shared("BreachStatus"))
        .with("limits", Kind::list(Kind::shared("LimitStatus")))
}

fn denied() -> Fields {
    fields()
        .with("status", Kind::words(["denied"]))
        .and(standing())
        .with("error", Kind::text())
        .with("code", Kind::words(["limit_exceeded"]))
        .maybe("retry_after", Kind::whole())
        .about("retry_after", "Seconds until it could next pass; absent where time cures nothing.")
}

fn failed() -> Fields {
    let codes = [
        "upstream_unreachable",
        "upstream_invalid_response",
        "upstream_incomplete",
        "response_too_large",
        "upstream_timeout",
    ];
    fields()
        .with("status", Kind::words(["failed"]))
        .with("error", Kind::text())
        .with("message", Kind::text())
        .with("code", Kind::words(codes))
        .and(standing())
        .maybe("release_pending", Kind::flag())
}

pub(super) fn business() -> Fields {
    fields()
        .with("business_id", Kind::text())
        .with("business_name", Kind::text())
        .with("email", Kind::text())
        .with("created_at", Kind::time())
        .maybe("deletion_scheduled_for", Kind::time())
        .about("deletion_scheduled_for", "When a deleted business is gone for good.")
}

fn settings() -> Fields {
    fields()
        .with("timezone", Kind::text())
        .with("default_metric", Kind::name().or_null())
        .with("enforcement", words!(Enforcement))
        .with("target_policy", words!(TargetChoice))
        .with("max_customer_keys", Kind::whole())
}

pub(super) fn customer() -> Fields {
    let text = || Kind::text().or_null();
    fields()
        .with("business_id", Kind::text())
        .with("customer_id", Kind::name())
        .with("customer_name", text())
        .with("email", text())
        .with("description", text())
        .with("plan_id", text())
        .with("plan_in_force", text())
        .with("stripe_customer_id", text())
        .with("stripe_subscription_id", text())
        .with("stripe_price_id", text())
        .with("subscription_status", words!(SubscriptionStatus).or_null())
        .with("subscription_ends_at", Kind::time().or_null())
        .with("billing_anchor_day", Kind::within(1..=31).or_null())
        .with("metadata", Kind::object())
        .with("created_at", Kind::time())
        .with("updated_at", Kind::time())
        .about("plan_in_force", "The plan whose limits hold: the free one once the subscription has ended.")
}

fn key() -> Fields {
    fields()
        .with("id", Kind::text())
        .with("key_name", Kind::text())
        .with("key_type", Kind::words(["business", "customer_api"]))
        .with("is_active", Kind::flag())
        .with("hint", Kind::text())
        .with("description", Kind::text().or_null())
        .with("scopes", Kind::list(words!(KeyScope)))
        .with("created_at", Kind::time())
        .with("expires_at", Kind::time().or_null())
        .with("last_used_at", Kind::time().or_null())
}

/// A key as it is shown once.
pub(super) fn created_key(is_customers: bool) -> Fields {
    let owner = if is_customers {
        fields().with("status", Kind::words(["created"])).with("customer_id", Kind::name())
    } else {
        fields().with("key_type", Kind::words(["business"])).with("business_id", Kind::text())
    };
    owner
        .with("api_key", Kind::text())
        .with("key_id", Kind::text())
        .with("key_name", Kind::text())
        .with("expires_at", Kind::time().or_null())
        .with("warning", Kind::text())
        .about("api_key", "The key itself; it is not kept and never shown again.")
}

pub(super) fn limit() -> Fields {
    fields()
        .with("id", Kind::text())
        .with("metric_name", Kind::name())
        .with("limit_value", Kind::units())
        .with("limit_period", words!(Period))
        .with("breach_operator", words!(Operator))
        .with("breach_action", words!(Action))
        .with("metric_type", words!(MetricType))
        .with("plan_id", Kind::text().or_null())
        .with("customer_id", Kind::text().or_null())
        .with("alert_thresholds", Kind::list(Kind::whole()))
        .with("webhook_urls", Kind::text().or_null())
        .with("overage_meter", Kind::text().or_null())
        .with("created_at", Kind::time())
        .with("updated_at", Kind::time())
}

pub(super) fn plan() -> Fields {
    fields()
        .with("id", Kind::text())
        .with("plan_name", Kind::text())
        .with("stripe_price_id", Kind::text().or_null())
        .with("is_free", Kind::flag())
        .with("created_at", Kind::time())
}

/// What is kept of a metric.
pub(super) fn definition() -> Fields {
    fields()
        .with("metric_name", Kind::name())
        .with("scope", words!(Scope))
        .with("operation", words!(Operation))
        .with("metric_type", words!(MetricType))
        .with("flush_interval", words!(Interval))
        .with("cleanup_after", Kind::text())
        .with("tags", Kind::map(Kind::text()))
        .with("metadata", Kind::object())
}

/// A metric, and where an account stands with it.
pub(super) fn metric() -> Fields {
    definition()
        .with("business_id", Kind::text())
        .maybe("customer_id", Kind::text().or_null())
        .with("current_value", Kind::whole().or_null())
        .with("limit_value", Kind::units().or_null())
        .with("limit_operator", words!(Operator).or_null())
        .with("limit_breached", Kind::flag())
        .with("breach_action", words!(Action).or_null())
        .with("limits", Kind::list(Kind::shared("LimitStatus")))
        .with("timestamp", Kind::time())
}

/// One entry of the trail of changes.
pub(super) fn audit_record() -> Fields {
    let actor = fields().with("type", words!(ActorKind)).with("id", Kind::text().or_null());
    fields()
        .with("id", Kind::text())
        .with("business_id", Kind::text().or_null())
        .with("at", Kind::time())
        .with("actor", actor.object())
        .with("action", Kind::text())
        .with("resource_type", Kind::text())
        .with("resource_id", Kind::text().or_null())
        .with("before", Kind::any())
        .with("after", Kind::any())
        .with("request_id", Kind::text().or_null())
}

/// What is printed of a business's own subscription.
pub(super) fn billing() -> Fields {
    fields()
        .with("business_id", Kind::text())
        .with("business_name", Kind::text())
        .with("email", Kind::text())
        .with("plan_type", Kind::text().or_null())
        .with("stripe_customer_id", Kind::text().or_null())
        .with("subscription_status", words!(SubscriptionStatus).or_null())
        .with("deleted_at", Kind::time().or_null())
}
