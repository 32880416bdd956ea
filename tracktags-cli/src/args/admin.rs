//! What is asked of the trail of changes, and what the admin does about billing.

use super::{Page, words};
use clap::{Args, Subcommand};
use tracktags_core::accounts::SubscriptionStatus;
use tracktags_core::time::Timestamp;
use tracktags_core::{BusinessId, CustomerId};

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Of all businesses, as the admin.
    #[arg(long)]
    pub(crate) everyone: bool,
    /// Only this action, such as limit.update.
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only resources of this type, such as limit.
    #[arg(long, value_name = "TYPE")]
    pub(crate) resource: Option<String>,
    /// From this time on, as in 2026-01-31T23:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<Timestamp>,
    /// Before this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<Timestamp>,
    #[command(flatten)]
    pub(crate) page: Page,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Billing {
    /// Show what is known of a business's own subscription
    Get {
        /// Its id.
        business: BusinessId,
    },
    /// Set the subscription of a business, or of one of its customers, by hand
    Override {
        /// The business.
        business: BusinessId,
        /// Its customer; else the business itself.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
        /// The state of the subscription.
        #[arg(long, value_parser = words(SubscriptionStatus::ALL.iter().map(|word| word.as_str())))]
        status: String,
        /// The Stripe price it pays.
        #[arg(long, value_name = "ID")]
        price: Option<String>,
        /// For so many days.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=3650))]
        days: Option<u16>,
    },
    /// Begin every running window of a customer again at 0
    Reset {
        /// The business.
        business: BusinessId,
        /// Its customer.
        customer: CustomerId,
    },
    /// The same for every customer on a plan without price
    ResetAll {
        /// Of this business; else of all.
        #[arg(long = "of", value_name = "BUSINESS")]
        business: Option<BusinessId>,
    },
}
