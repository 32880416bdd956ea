//! What is asked of an [`AccountStore`](crate::traits::AccountStore) and a [`LimitStore`](crate::traits::LimitStore): what
//! is to be made, changed fields, queries.

use crate::accounts::{
    BusinessId, CustomerId, Enforcement, MetricName, Scope, SubscriptionStatus, TargetChoice,
};
use crate::limits::{Action, Attachment, Operator};
use crate::lists::{Change, PageRequest};
use crate::metrics::{Interval, Metric, MetricType, Operation, Units};
use crate::time::Timestamp;
use crate::windows::Period;

/// A business to be made.
#[derive(Clone, Debug)]
pub struct NewBusiness {
    /// 1 to 200 characters.
    pub business_name: String,
    /// Where to write to.
    pub email: String,
    /// The caller's own id for it.
    pub user_id: Option<String>,
}

/// A customer's fields as they are to be; for a new one `Keep` leaves them empty.
#[derive(Clone, Debug, Default)]
pub struct CustomerFields {
    /// A name for people.
    pub customer_name: Change<String>,
    /// An address.
    pub email: Change<String>,
    /// A note.
    pub description: Change<String>,
    /// The plan.
    pub plan_id: Change<String>,
    /// Stripe's customer.
    pub stripe_customer_id: Change<String>,
    /// Stripe's subscription.
    pub stripe_subscription_id: Change<String>,
    /// Stripe's price; set without `plan_id` it also sets the plan with that price, if there is one.
    pub stripe_price_id: Change<String>,
    /// The state of the subscription.
    pub subscription_status: Change<SubscriptionStatus>,
    /// The free plan holds from then on.
    pub subscription_ends_at: Change<Timestamp>,
    /// Day of the month, 1 to 31.
    pub billing_anchor_day: Change<u8>,
    /// A JSON object as text.
    pub metadata: Change<String>,
}

/// Which customers.
#[derive(Clone, Debug)]
pub struct CustomerQuery {
    /// The tenant.
    pub business: BusinessId,
    /// On this plan only.
    pub plan_id: Option<String>,
    /// Whose id, name or email holds this text.
    pub text: Option<String>,
    /// Which stretch.
    pub page: PageRequest,
}

/// Settings to change.
#[derive(Clone, Debug, Default)]
pub struct SettingsChange {
    /// IANA name, checked by the caller.
    pub timezone: Option<String>,
    /// Must be a metric of the business.
    pub default_metric: Change<MetricName>,
    /// Whether limits refuse.
    pub enforcement: Option<Enforcement>,
    /// Which targets.
    pub target_policy: Option<TargetChoice>,
    /// Live keys a customer; those beyond a smaller number stay.
    pub max_customer_keys: Option<u8>,
}

/// Which businesses.
#[derive(Clone, Debug)]
pub struct BusinessQuery {
    /// Whose id, name or email holds this text.
    pub text: Option<String>,
    /// The deleted ones instead of those that are there.
    pub deleted: bool,
    /// Which stretch.
    pub page: PageRequest,
}

/// What the admin sets of a business's own subscription, whatever Stripe says.
#[derive(Clone, Debug)]
pub struct BillingOverride {
    /// The state.
    pub status: SubscriptionStatus,
    /// The price it pays, where that is said.
    pub price_id: Option<String>,
    /// How long the override is meant to hold.
    pub ends_at: Option<Timestamp>,
}

/// A plan's fields as they are to be.
#[derive(Clone, Debug, Default)]
pub struct PlanFields {
    /// Its name; required for a new one.
    pub plan_name: Option<String>,
    /// Its Stripe price.
    pub stripe_price_id: Change<String>,
    /// Whether it is the free plan; by default the first plan without a price is.
    pub is_free: Option<bool>,
}

/// A limit to be made.
#[derive(Clone, Debug)]
pub struct NewLimit {
    /// The tenant.
    pub business: BusinessId,
    /// Created (SUM) if unknown.
    pub metric_name: MetricName,
    /// The threshold.
    pub value: Units,
    /// The window.
    pub period: Period,
    /// When it is in breach.
    pub operator: Operator,
    /// What a breach does.
    pub action: Action,
    /// Whom it holds for.
    pub attachment: Attachment,
    /// The type of a metric created by this call; `None` says nothing of it.
    pub metric_type: Option<MetricType>,
    /// Per cent, distinct, at most 10.
    pub alert_thresholds: Vec<u16>,
    /// Endpoints for this limit's events only.
    pub webhook_urls: Option<String>,
    /// Stripe meter.
    pub overage_meter: Option<String>,
}

/// What changes of a limit. Its attachment is fixed at creation.
#[derive(Clone, Debug, Default)]
pub struct LimitChange {
    /// What it measures.
    pub metric_name: Option<MetricName>,
    /// The threshold.
    pub value: Option<Units>,
    /// The window.
    pub period: Option<Period>,
    /// When it is in breach.
    pub operator: Option<Operator>,
    /// What a breach does.
    pub action: Option<Action>,
    /// The type of its metric; another one than it has is a conflict.
    pub metric_type: Option<MetricType>,
    /// Per cent.
    pub alert_thresholds: Option<Vec<u16>>,
    /// Endpoints.
    pub webhook_urls: Change<String>,
    /// Stripe meter.
    pub overage_meter: Change<String>,
}

/// Which limits.
#[derive(Clone, Debug)]
pub struct LimitQuery {
    /// The tenant.
    pub business: BusinessId,
    /// Of this plan only.
    pub plan_id: Option<String>,
    /// Of this customer only.
    pub customer_id: Option<CustomerId>,
    /// On this metric only.
    pub metric_name: Option<MetricName>,
    /// Which stretch.
    pub page: PageRequest,
}

/// What is kept of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricRecord {
    /// What it measures and how.
    pub metric: Metric,
    /// Kept for information; usage is never dropped.
    pub cleanup_after: String,
    /// A JSON object of strings, as text.
    pub tags: String,
    /// A JSON object, as text.
    pub metadata: String,
}

/// How a metric is defined; `None` leaves a field as it is, or at its default for a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricFields {
    /// How samples add up.
    pub operation: Option<Operation>,
    /// When the value begins again.
    pub metric_type: Option<MetricType>,
    /// Its interval, for `reset`.
    pub interval: Option<Interval>,
    /// Kept for information.
    pub cleanup_after: Option<String>,
    /// A JSON object of strings, as text.
    pub tags: Option<String>,
    /// A JSON object, as text.
    pub metadata: Option<String>,
}

/// A limit made along with its metric.
#[derive(Clone, Debug)]
pub struct InlineLimit {
    /// Whom it holds for.
    pub attachment: Attachment,
    /// The threshold.
    pub value: Units,
    /// When it is in breach.
    pub operator: Operator,
    /// The window; where nothing is said, the one that the metric's type and interval have.
    pub period: Option<Period>,
    /// What a breach does.
    pub action: Action,
}

/// A metric to be defined, or to be found defined so.
#[derive(Clone, Debug)]
pub struct MetricDefinition {
    /// The tenant.
    pub business: BusinessId,
    /// Its name.
    pub name: MetricName,
    /// For which kind of account.
    pub scope: Scope,
    /// What is said of it.
    pub fields: MetricFields,
    /// A limit on it.
    pub limit: Option<InlineLimit>,
}
