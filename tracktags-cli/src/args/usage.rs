//! What is asked about usage, by API and in a database.

use super::{Page, units, words};
use clap::{Args, Subcommand};
use tracktags_core::history::Step;
use tracktags_core::time::Timestamp;
use tracktags_core::{CustomerId, MetricName, Units};

#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// Of this customer; else of the account that the key speaks for.
    #[arg(long, value_name = "ID")]
    pub(crate) customer: Option<CustomerId>,
    /// Only this metric.
    #[arg(long)]
    pub(crate) metric: Option<MetricName>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Metrics {
    /// List metrics; with the customer's values where one is named
    List {
        /// Of this customer.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
        #[command(flatten)]
        page: Page,
    },
    /// Show a metric, and where an account stands with it
    Get {
        /// Its name.
        metric: MetricName,
        /// Of this customer; else of the business itself.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
    },
    /// Record usage without asking; less than 0 takes it off again
    Record {
        /// Of this metric.
        metric: MetricName,
        /// How many units.
        #[arg(allow_negative_numbers = true)]
        units: i64,
        /// Of this customer; else of the business itself.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
    },
    /// Correct a metric to a value
    Set {
        /// Of this metric.
        metric: MetricName,
        /// The value it has then.
        #[arg(value_parser = units)]
        value: Units,
        /// Of this customer; else of the business itself.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Demand {
    /// Of this metric.
    pub(crate) metric: MetricName,
    /// How many; one where nothing is said.
    #[arg(long, value_parser = units)]
    pub(crate) units: Option<Units>,
    /// Of this customer; else of the business itself.
    #[arg(long, value_name = "ID")]
    pub(crate) customer: Option<CustomerId>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Of this metric.
    pub(crate) metric: MetricName,
    /// Of this customer; else of the account that the key speaks for.
    #[arg(long, value_name = "ID")]
    pub(crate) customer: Option<CustomerId>,
    /// total: all accounts of the business added up.
    #[arg(long, value_parser = ["customer", "business", "total"])]
    pub(crate) scope: Option<String>,
    /// How long each step is.
    #[arg(long, value_parser = words(Step::ALL.iter().map(|word| word.as_str())))]
    pub(crate) step: Option<String>,
    /// From the step of this time on, as in 2026-01-31T23:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<Timestamp>,
    /// Up to this time.
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<Timestamp>,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The database, as in sqlite:tracktags.db; it may be in use.
    pub(crate) store_url: String,
}

#[derive(Debug, Args)]
pub(crate) struct Ledger {
    /// The database, as in sqlite:tracktags.db; it may be in use.
    pub(crate) store_url: String,
    /// Only entries of this customer.
    #[arg(long, value_name = "ID")]
    pub(crate) customer: Option<CustomerId>,
    /// Only entries of this metric.
    #[arg(long)]
    pub(crate) metric: Option<MetricName>,
}
