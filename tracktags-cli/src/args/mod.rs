//! The command line: raw flags in, checked arguments out. Besides the flags, the only reader of the environment.
//!
//! Ids, numbers, words and times are checked here against the grammar of the API, so that a typing error is told
//! before anything is sent. What goes into a request's body is kept as the JSON it will be.

mod admin;
mod connection;
mod usage;

use clap::builder::PossibleValuesParser;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde_json::Value;
use std::convert::Infallible;
use std::ffi::OsString;
use tracktags_core::accounts::{CUSTOMER_KEYS_MAX, Enforcement, TargetChoice};
use tracktags_core::keys::KeyScope;
use tracktags_core::limits::{Action, Operator};
use tracktags_core::metrics::MetricType;
use tracktags_core::time::{Timestamp, TimestampError};
use tracktags_core::{BusinessId, CustomerId, MetricName, Period, Units};

pub(crate) use admin::{Audit, Billing};
pub(crate) use connection::{Connection, Secret};
pub(crate) use usage::{Demand, Doctor, History, Ledger, MetricFields, Metrics, Usage, Verify, Watch};

const EXAMPLES: &str = "\
Examples:
  tracktags-cli --business biz_1 keys create
  tracktags-cli limits create --metric api_calls --value 1000 --period monthly
  tracktags-cli keys create --customer customer_123
  tracktags-cli usage --customer customer_123

Exit codes: 0 done, 1 failed, 2 bad usage, 64 bad configuration.";

/// Everything that a command line says.
#[derive(Debug, Parser)]
#[command(name = "tracktags-cli", version, about = "The admin's command line for TrackTags", after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten, next_help_heading = "Server and output")]
    pub(crate) connection: Connection,
    /// How to print: tables for people, or the API's own answer.
    #[arg(long = "output", global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    /// Reads a command line.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut read = Self::from_arg_matches(&matches)?;
        read.connection.settle(&matches, &mut command)?;
        Ok(read)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs: the API's own answer; of `ledger` one object a line.
    Json,
    /// For spreadsheets: the table's columns, as RFC 4180 has it.
    Csv,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Businesses, the tenants (admin's key)
    #[command(subcommand)]
    Businesses(Businesses),
    /// Customers of the business
    #[command(subcommand)]
    Customers(Customers),
    /// Keys of the business, or of a customer with --customer
    #[command(subcommand)]
    Keys(Keys),
    /// Plans that customers are on
    #[command(subcommand)]
    Plans(Plans),
    /// Limits of the business, of a plan or of a customer
    #[command(subcommand)]
    Limits(Limits),
    /// Settings of the business
    #[command(subcommand)]
    Settings(Settings),
    /// Metrics: what is measured, where an account stands, and usage recorded or corrected by hand
    #[command(subcommand)]
    Metrics(Metrics),
    /// Where a customer, or the business itself, stands with its limits
    Usage(Usage),
    /// Whether units would be admitted; takes none
    Check(Demand),
    /// Count units against the limits, for good; denied units exit with 1
    Track(Demand),
    /// What a customer, or the business itself, did step by step
    History(History),
    /// Who changed what, and when
    Audit(Audit),
    /// Subscriptions set by hand, and billing windows begun again (admin's key)
    #[command(subcommand)]
    Billing(Billing),
    /// Show again and again where an account stands, until it is interrupted
    Watch(Watch),
    /// Bring the schema of a database up to date, before a newer server starts
    Migrate {
        /// The database, as in sqlite:tracktags.db; no server may have it open.
        store_url: String,
    },
    /// Look at settings, key files and a database for what is wrong or seldom meant
    Doctor(Doctor),
    /// Check the books of a database: ledger, counters and history
    Verify(Verify),
    /// Print the usage ledger of a database, entry by entry
    Ledger(Ledger),
    /// List the profiles that --profile chooses from
    Profiles,
    /// Print what completes commands in a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Which stretch of a list.
#[derive(Debug, Args)]
pub(crate) struct Page {
    /// At most so many items.
    #[arg(long = "limit", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(crate) count: Option<u16>,
    /// Where the page before ended.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Businesses {
    /// Create a business
    Create {
        /// Its name.
        #[arg(long)]
        name: String,
        /// Whom to write to.
        #[arg(long)]
        email: String,
    },
    /// List businesses
    List {
        /// Only those whose name or address holds this.
        #[arg(long, value_name = "TEXT")]
        query: Option<String>,
        /// The deleted ones, which can be restored.
        #[arg(long)]
        deleted: bool,
        #[command(flatten)]
        page: Page,
    },
    /// Show a business
    Get {
        /// Its id.
        id: BusinessId,
    },
    /// Change a business
    Update {
        /// Its id.
        id: BusinessId,
        /// Its name.
        #[arg(long)]
        name: Option<String>,
        /// Whom to write to.
        #[arg(long)]
        email: Option<String>,
    },
    /// Delete a business: its keys stop at once, the rest goes after 30 days
    Delete {
        /// Its id.
        id: BusinessId,
    },
    /// Bring a deleted business back, without its keys
    Restore {
        /// Its id.
        id: BusinessId,
    },
}

/// What a customer may have. An empty value clears.
#[derive(Debug, Args)]
pub(crate) struct CustomerFields {
    /// A name for people.
    #[arg(long, value_parser = text_or_nothing)]
    pub(crate) name: Option<Value>,
    /// Whom to write to.
    #[arg(long, value_parser = text_or_nothing)]
    pub(crate) email: Option<Value>,
    /// A note.
    #[arg(long, value_parser = text_or_nothing)]
    pub(crate) description: Option<Value>,
    /// The plan's id; '' for none.
    #[arg(long, value_name = "PLAN", value_parser = text_or_nothing)]
    pub(crate) plan: Option<Value>,
    /// From then on the free plan holds, such as 2026-01-31T23:00:00Z; '' for never.
    #[arg(long, value_name = "TIME", value_parser = time_or_nothing)]
    pub(crate) subscription_ends_at: Option<Value>,
    /// The day of the month on which months and years begin, 1 to 31; '' for the calendar's.
    #[arg(long, value_name = "DAY", value_parser = day_or_nothing)]
    pub(crate) billing_anchor_day: Option<Value>,
    /// A JSON object of your own; '' for none.
    #[arg(long, value_name = "JSON", value_parser = object_or_nothing)]
    pub(crate) metadata: Option<Value>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Customers {
    /// Create a customer
    Create {
        /// Its id.
        id: CustomerId,
        #[command(flatten)]
        fields: CustomerFields,
    },
    /// Show a customer
    Get {
        /// Its id.
        id: CustomerId,
    },
    /// List customers
    List {
        /// Only those on this plan.
        #[arg(long, value_name = "PLAN")]
        plan: Option<String>,
        /// Only those whose id, name or address holds this.
        #[arg(long, value_name = "TEXT")]
        query: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Change a customer; holds on the next request
    Update {
        /// Its id.
        id: CustomerId,
        #[command(flatten)]
        fields: CustomerFields,
    },
    /// Delete a customer; its keys stop at once, its usage stays
    Delete {
        /// Its id.
        id: CustomerId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Create a key. It is shown once
    Create {
        /// For this customer, created if it is new; else a key of the business.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
        /// A name for people.
        #[arg(long)]
        name: Option<String>,
        /// A note.
        #[arg(long)]
        description: Option<String>,
        /// Refused from then on, such as 2026-12-31T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires_at: Option<Timestamp>,
        /// What a key of the business may do; everything where nothing is said. May be given several times.
        #[arg(long = "scope", value_name = "SCOPE", conflicts_with = "customer",
            value_parser = words(KeyScope::ALL.iter().map(|word| word.as_str())))]
        scopes: Vec<String>,
    },
    /// List live keys
    List {
        /// Of this customer; else of the business.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
        #[command(flatten)]
        page: Page,
    },
    /// Revoke a key; it is refused from the next request on
    Revoke {
        /// Its id or name.
        key: String,
        /// It is a key of this customer; else of the business.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
    },
    /// Replace a key; the old one goes on for a while. The new one is shown once
    Rotate {
        /// Its id or name.
        key: String,
        /// It is a key of this customer; else of the business.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
        /// How long the old one goes on; a day where nothing is said, 0 ends it at once.
        #[arg(long, value_name = "SECONDS")]
        grace_seconds: Option<u32>,
        /// The new one is refused from then on, such as 2026-12-31T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires_at: Option<Timestamp>,
    },
    /// Check a key's form and checksum, without asking a server
    Check {
        /// The key; - reads it from standard input.
        key: Secret,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PlanFields {
    /// The Stripe price that stands for it; '' for none.
    #[arg(long, value_name = "PRICE", value_parser = text_or_nothing)]
    pub(crate) stripe_price_id: Option<Value>,
    /// It holds for customers whose subscription has ended; at most one does.
    #[arg(long, value_name = "BOOL")]
    pub(crate) free: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Plans {
    /// Create a plan
    Create {
        /// Its name, unique.
        name: String,
        #[command(flatten)]
        fields: PlanFields,
    },
    /// List plans
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Show a plan
    Get {
        /// Its id.
        id: String,
    },
    /// Change a plan
    Update {
        /// Its id.
        id: String,
        /// Its name.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        fields: PlanFields,
    },
    /// Delete a plan and its limits
    Delete {
        /// Its id.
        id: String,
        /// Also if customers are on it; they have no plan then.
        #[arg(long)]
        force: bool,
    },
}

/// What a limit says besides metric and value.
#[derive(Debug, Args)]
pub(crate) struct LimitFields {
    /// The window; realtime is a level that time never resets.
    #[arg(long, value_parser = words(Period::ALL.iter().map(|word| word.as_str())))]
    pub(crate) period: Option<String>,
    /// In breach while usage OPERATOR value holds: gte 1000 admits exactly 1000 units.
    #[arg(long, value_parser = words(Operator::ALL.iter().map(|word| word.as_str())))]
    pub(crate) operator: Option<String>,
    /// What a breach does.
    #[arg(long, value_parser = words(Action::OF_PLAN_LIMITS.iter().map(|word| word.as_str())))]
    pub(crate) action: Option<String>,
    /// The type of the metric, if this creates it.
    #[arg(long, value_parser = words(MetricType::ALL.iter().map(|word| word.as_str())))]
    pub(crate) metric_type: Option<String>,
    /// Per cent of the limit, such as 80,100; '' for none.
    #[arg(long, value_name = "LIST", value_parser = thresholds)]
    pub(crate) alert_thresholds: Option<Value>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Limits {
    /// Create a limit: of the business, or of a plan or a customer
    Create {
        /// What is measured.
        #[arg(long)]
        metric: MetricName,
        /// The threshold, a whole number.
        #[arg(long, value_parser = units)]
        value: Units,
        /// It holds for the customers on this plan.
        #[arg(long, conflicts_with = "customer")]
        plan: Option<String>,
        /// It holds for this customer.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
        #[command(flatten)]
        fields: LimitFields,
    },
    /// List limits
    List {
        /// Only those of this plan.
        #[arg(long)]
        plan: Option<String>,
        /// Only those of this customer.
        #[arg(long, value_name = "ID")]
        customer: Option<CustomerId>,
        /// Only those on this metric.
        #[arg(long)]
        metric: Option<MetricName>,
        #[command(flatten)]
        page: Page,
    },
    /// Show a limit
    Get {
        /// Its id.
        id: String,
    },
    /// Change a limit; holds on the next request, the usage stays
    Update {
        /// Its id.
        id: String,
        /// What is measured.
        #[arg(long)]
        metric: Option<MetricName>,
        /// The threshold, a whole number.
        #[arg(long, value_parser = units)]
        value: Option<Units>,
        #[command(flatten)]
        fields: LimitFields,
    },
    /// Delete a limit; the usage stays
    Delete {
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Settings {
    /// Show the settings
    Get,
    /// Change settings; holds on the next request
    Set(SettingsFields),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct SettingsFields {
    /// Where days, weeks and months begin, such as Europe/Berlin.
    #[arg(long, value_name = "ZONE")]
    pub(crate) timezone: Option<String>,
    /// What is counted where a call names no metric; '' for nothing.
    #[arg(long, value_name = "METRIC", value_parser = text_or_nothing)]
    pub(crate) default_metric: Option<Value>,
    /// Whether limits hold; observe counts and shows everything, and denies nothing.
    #[arg(long, value_parser = words(Enforcement::ALL.iter().map(|word| word.as_str())))]
    pub(crate) enforcement: Option<String>,
    /// Which targets may be reached; auto is the allowlist once there are upstreams.
    #[arg(long, value_parser = words(TargetChoice::ALL.iter().map(|word| word.as_str())))]
    pub(crate) target_policy: Option<String>,
    /// How many live keys a customer may have, 1 to 50.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=i64::from(CUSTOMER_KEYS_MAX)))]
    pub(crate) max_customer_keys: Option<u8>,
}

fn words(all: impl Iterator<Item = &'static str>) -> PossibleValuesParser {
    PossibleValuesParser::new(all.collect::<Vec<_>>())
}

fn units(text: &str) -> Result<Units, &'static str> {
    let units = text.parse().ok().and_then(|units| Units::new(units).ok());
    units.ok_or("must be a whole number from 0 to 9007199254740991; choose a smaller unit for fractions")
}

fn text_or_nothing(text: &str) -> Result<Value, Infallible> {
    Ok(if text.is_empty() { Value::Null } else { text.into() })
}

fn time_or_nothing(text: &str) -> Result<Value, TimestampError> {
    if text.is_empty() { Ok(Value::Null) } else { Ok(text.parse::<Timestamp>()?.to_string().into()) }
}

fn day_or_nothing(text: &str) -> Result<Value, &'static str> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    let day = text.parse::<u8>().ok().filter(|day| (1..=31).contains(day));
    day.map(Value::from).ok_or("must be a day of the month, 1 to 31")
}

fn object_or_nothing(text: &str) -> Result<Value, &'static str> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    let object = serde_json::from_str(text).ok().filter(Value::is_object);
    object.ok_or("must be a JSON object, such as '{\"team\": \"blue\"}'")
}

fn thresholds(text: &str) -> Result<Value, &'static str> {
    let numbers = text.split(',').map(str::trim).filter(|number| !number.is_empty());
    let numbers =
        numbers.map(|number| number.parse::<u16>().ok().filter(|number| (1..=1_000).contains(number)));
    numbers
        .collect::<Option<Vec<_>>>()
        .map(Value::from)
        .ok_or("must be whole numbers from 1 to 1000, separated by commas")
}
