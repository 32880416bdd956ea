//! What is asked about usage, by API and in a database.

use super::{Page, object_or_nothing, units, words};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::path::PathBuf;
use tracktags_core::history::Step;
use tracktags_core::limits::{Action, Operator};
use tracktags_core::metrics::{Interval, MetricType, Operation};
use tracktags_core::time::Timestamp;
use tracktags_core::windows::Period;
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

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) usage: Usage,
    /// Seconds from one look to the next.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) every: u16,
    /// End after so many looks.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) times: Option<u32>,
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
    /// Define a metric, with a limit if one is given; one that is defined stays as it is
    Define {
        /// Its name.
        metric: MetricName,
        #[command(flatten)]
        fields: MetricFields,
        /// Begin this customer's value; the limit is this customer's, too.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
        /// The business itself's, or every customer's.
        #[arg(long, value_parser = ["customer", "business"], conflicts_with = "customer")]
        scope: Option<String>,
        /// The value the account begins with.
        #[arg(long, value_name = "UNITS", value_parser = units)]
        initial: Option<Units>,
        /// A limit on it.
        #[arg(long, value_name = "UNITS", value_parser = units)]
        limit: Option<Units>,
        /// The limit's window; else the one in which the value begins again.
        #[arg(long, requires = "limit", value_parser = words(Period::ALL.iter().map(|word| word.as_str())))]
        period: Option<String>,
        /// When the limit is in breach.
        #[arg(long, requires = "limit", value_parser = words(Operator::ALL.iter().map(|word| word.as_str())))]
        operator: Option<String>,
        /// What a breach does; disabled where nothing is said: shown only.
        #[arg(long, requires = "limit", value_parser = words(Action::ALL.iter().map(|word| word.as_str())))]
        action: Option<String>,
    },
    /// Change a metric's definition; its operation only while it is unused
    Change {
        /// Its name.
        metric: MetricName,
        #[command(flatten)]
        fields: MetricFields,
        /// Of the business itself, or of customers.
        #[arg(long, value_parser = ["customer", "business"])]
        scope: Option<String>,
    },
    /// Delete a customer's value and own limits; without --customer the definition and every value
    Delete {
        /// Its name.
        metric: MetricName,
        /// Of this customer only.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
        /// Of the business itself, or of customers.
        #[arg(long, value_parser = ["customer", "business"], conflicts_with = "customer")]
        scope: Option<String>,
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

/// How a metric is defined.
#[derive(Debug, Args)]
pub(crate) struct MetricFields {
    /// How samples add up.
    #[arg(long, value_parser = words(Operation::ALL.iter().map(|word| word.as_str())))]
    pub(crate) operation: Option<String>,
    /// When the value begins again.
    #[arg(long = "type", value_name = "TYPE", value_parser = words(MetricType::ALL.iter().map(|word| word.as_str())))]
    pub(crate) metric_type: Option<String>,
    /// The interval of a value that is reset.
    #[arg(long, value_parser = words(Interval::ALL.iter().map(|word| word.as_str())))]
    pub(crate) interval: Option<String>,
    /// Tags, as a JSON object of strings.
    #[arg(long, value_name = "JSON", value_parser = object_or_nothing)]
    pub(crate) tags: Option<Value>,
    /// Notes, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object_or_nothing)]
    pub(crate) metadata: Option<Value>,
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
pub(crate) struct Doctor {
    /// The database, as in sqlite:tracktags.db; it may be in use.
    pub(crate) store_url: String,
    /// The server's settings file; the environment counts besides, as for the server.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The server's program, which judges its settings; else the one beside this program.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) server: Option<PathBuf>,
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
