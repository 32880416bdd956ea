//! ② Who is who: ids and their grammar, businesses, customers, accounts, and whom a key speaks for.

use crate::keys::Scopes;
use crate::metrics::words;
use crate::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest id, customer id or metric name in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// A text that does not keep the grammar of ids: `[A-Za-z0-9][A-Za-z0-9_.-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 of A-Z a-z 0-9 _ . - and begin with a letter or digit")]
pub struct NameError;

pub(crate) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first
        && text.len() <= NAME_BYTES_MAX
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the grammar `[A-Za-z0-9][A-Za-z0-9_.-]{0,63}`; case is kept and counts.
            ///
            /// # Errors
            /// [`NameError`] when `text` does not keep it.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(NameError) }
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }
    };
}

name_type! {
    /// A business, the tenant: `biz_…`. Everything it owns is found by this id first.
    BusinessId
}
name_type! {
    /// A customer of a business. Chosen by the business, unique within it.
    CustomerId
}
name_type! {
    /// What is measured: `api_calls`, `storage_mb`.
    MetricName
}

words! {
    /// Whose usage is meant: one customer's, or the business's own.
    Scope {
        /// A customer's account.
        Customer = "customer",
        /// The business's own account.
        Business = "business",
    }
}

/// Who uses: a customer of a business, or the business itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// The tenant.
    pub business: BusinessId,
    /// The customer; `None` is the business's own account.
    pub customer: Option<CustomerId>,
}

impl Account {
    /// The account of a customer.
    #[must_use]
    pub const fn customer(business: BusinessId, customer: CustomerId) -> Self {
        Self { business, customer: Some(customer) }
    }

    /// The business's own account.
    #[must_use]
    pub const fn business(business: BusinessId) -> Self {
        Self { business, customer: None }
    }

    /// Which kind of account this is.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        if self.customer.is_some() { Scope::Customer } else { Scope::Business }
    }
}

/// A business as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Business {
    /// Its id.
    pub business_id: BusinessId,
    /// Its name, 1 to 200 characters.
    pub business_name: String,
    /// Where to write to.
    pub email: String,
    /// The caller's own id for it, kept as given.
    pub user_id: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was deleted; [`BUSINESS_KEPT_SECONDS`] later it is gone.
    pub deleted_at: Option<Timestamp>,
}

/// What is known of a business's own subscription with the platform. A record only: no limit depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Billing {
    /// The business, deleted or not.
    pub business: Business,
    /// The plan or price it pays.
    pub plan_type: Option<String>,
    /// Stripe's id of it.
    pub stripe_customer_id: Option<String>,
    /// Stripe's word for the state of the subscription.
    pub subscription_status: Option<SubscriptionStatus>,
}

words! {
    /// Stripe's words for the state of a subscription.
    SubscriptionStatus {
        /// Paid.
        Active = "active",
        /// Not yet to be paid.
        Trialing = "trialing",
        /// A payment failed; it goes on for now.
        PastDue = "past_due",
        /// The first payment is not there yet.
        Incomplete = "incomplete",
        /// Given up by Stripe's settings.
        Unpaid = "unpaid",
        /// Ended.
        Canceled = "canceled",
        /// The first payment never came.
        IncompleteExpired = "incomplete_expired",
        /// Paused.
        Paused = "paused",
    }
}

impl SubscriptionStatus {
    /// What it says of the subscription's end.
    #[must_use]
    pub const fn end(self) -> SubscriptionEnd {
        match self {
            Self::Active | Self::Trialing => SubscriptionEnd::None,
            Self::PastDue | Self::Incomplete => SubscriptionEnd::AsItIs,
            Self::Unpaid | Self::Canceled | Self::IncompleteExpired | Self::Paused => SubscriptionEnd::Now,
        }
    }
}

/// What becomes of `subscription_ends_at` in a state of the subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionEnd {
    /// It has no end.
    None,
    /// It stays as it is.
    AsItIs,
    /// It ends now: the free plan holds on the next request.
    Now,
}

/// How long a deleted business can be restored: 30 days.
pub const BUSINESS_KEPT_SECONDS: i64 = 30 * 86_400;

/// A customer as it is kept. Fields and lengths: `docs/API.md`, customers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    /// The tenant.
    pub business_id: BusinessId,
    /// Its id within the business.
    pub customer_id: CustomerId,
    /// A name for people.
    pub customer_name: Option<String>,
    /// An address.
    pub email: Option<String>,
    /// A note.
    pub description: Option<String>,
    /// The plan it was put on.
    pub plan_id: Option<String>,
    /// The plan whose limits hold at the moment of reading: the free plan once the subscription ended.
    pub plan_in_force: Option<String>,
    /// Stripe's id of the customer.
    pub stripe_customer_id: Option<String>,
    /// Stripe's id of the subscription.
    pub stripe_subscription_id: Option<String>,
    /// Stripe's id of the price.
    pub stripe_price_id: Option<String>,
    /// Stripe's word for the state of the subscription.
    pub subscription_status: Option<SubscriptionStatus>,
    /// From this instant on the free plan holds.
    pub subscription_ends_at: Option<Timestamp>,
    /// Day of the month, 1 to 31, on which monthly windows begin (clamped to the month's end).
    pub billing_anchor_day: Option<u8>,
    /// A JSON object as text, at most 4 KiB.
    pub metadata: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

words! {
    /// Whether limits refuse or only watch.
    Enforcement {
        /// Limits hold.
        Enforce = "enforce",
        /// For incidents: everything is counted and shown, nothing is denied.
        Observe = "observe",
    }
}

words! {
    /// A business's own choice of targets; it narrows the server's policy and never widens it.
    TargetChoice {
        /// Allow-list once an upstream is registered, else as the server says.
        Auto = "auto",
        /// Any public address.
        Public = "public",
        /// Registered upstreams only.
        Allowlist = "allowlist",
    }
}

/// What a business has set for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// IANA name of the zone in which its calendar windows are cut.
    pub timezone: String,
    /// What a call counts whose `metric_name` is empty.
    pub default_metric: Option<MetricName>,
    /// Whether limits refuse.
    pub enforcement: Enforcement,
    /// Which targets its calls may reach.
    pub target_policy: TargetChoice,
    /// Live keys that each of its customers may have, 1 to [`CUSTOMER_KEYS_MAX`].
    pub max_customer_keys: u8,
}

/// The most that [`Settings::max_customer_keys`] may be.
pub const CUSTOMER_KEYS_MAX: u8 = 50;

impl Default for Settings {
    fn default() -> Self {
        Self {
            timezone: "UTC".to_owned(),
            default_metric: None,
            enforcement: Enforcement::Enforce,
            target_policy: TargetChoice::Auto,
            max_customer_keys: 2,
        }
    }
}

/// Whom a proven key speaks for. The only source of a caller's tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The key's id (`key_…`), never the key.
    pub key_id: Arc<str>,
    /// The tenant, and the customer of a customer key.
    pub account: Account,
    /// What the key may do.
    pub scopes: Scopes,
    /// The key is refused from this instant on.
    pub expires_at: Option<Timestamp>,
    /// The business's configuration version at which this was read.
    pub version: i64,
}
