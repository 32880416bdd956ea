//! What is asked of an [`AccountStore`](crate::traits::AccountStore): new businesses, changed fields, queries.

use crate::accounts::{BusinessId, Enforcement, MetricName, TargetChoice};
use crate::lists::{Change, PageRequest};
use crate::time::Timestamp;

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
