//! Usage limits as values: whom a key speaks for, which limits hold, and whether a demand may pass.
//!
//! Nothing here does I/O, reads a clock or needs an async runtime: time, randomness and usage come in, a decision
//! goes out. The server builds on it; so can any Rust program.
//!
//! # A limit in ten lines
//!
//! ```
//! use std::sync::Arc;
//! use tracktags_core::{Account, Demand, Limit, MemoryLedger, Operation, Outcome, Period, Terms, Timestamp, Units};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let account = Account::customer("biz_1".parse()?, "customer_123".parse()?);
//! let limit = Limit::new("api_calls".parse()?, Units::new(2)?, Period::Monthly);
//! let terms = Arc::new(Terms::new(account, [limit]));
//! let mut ledger = MemoryLedger::new();
//! let now: Timestamp = "2026-01-31T23:00:00Z".parse()?;
//! for admitted in [true, true, false] {
//!     let demand = Demand::new(terms.clone(), 0, Units::ONE);
//!     let Outcome::Decided(decision) = ledger.apply(now, Operation::Take(demand)) else { panic!() };
//!     assert_eq!(decision.admitted, admitted);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Where the account stands
//!
//! Each decision says it, limit by limit; a denied one says when to come back.
//!
//! ```
//! # use std::sync::Arc;
//! # use tracktags_core::{Account, Demand, Limit, MemoryLedger, Operation, Outcome, Period, Terms, Timestamp, Units};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let account = Account::customer("biz_1".parse()?, "customer_123".parse()?);
//! let limit = Limit::new("tokens".parse()?, Units::new(100)?, Period::Hourly);
//! let terms = Arc::new(Terms::new(account, [limit]));
//! let mut ledger = MemoryLedger::new();
//! let now: Timestamp = "2026-01-31T22:59:00Z".parse()?;
//! let Outcome::Decided(first) = ledger.apply(now, Operation::Take(Demand::new(terms.clone(), 0, Units::new(60)?)))
//!     else { panic!() };
//! assert_eq!(first.metrics[0].limits[0].remaining, Some(40));
//! let Outcome::Decided(second) = ledger.apply(now, Operation::Take(Demand::new(terms, 0, Units::new(60)?)))
//!     else { panic!() };
//! assert!(!second.admitted, "all units of a demand fit, or none");
//! assert_eq!(second.retry_after_seconds, Some(60));
//! # Ok(())
//! # }
//! ```
//!
//! # Giving back
//!
//! What a demand took can be changed to its true cost, or released, once:
//!
//! ```
//! # use std::sync::Arc;
//! # use tracktags_core::{Account, Demand, Limit, MemoryLedger, Operation, Outcome, Period, Terms, Timestamp, Units};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let account = Account::customer("biz_1".parse()?, "customer_123".parse()?);
//! # let limit = Limit::new("tokens".parse()?, Units::new(100)?, Period::Hourly);
//! # let terms = Arc::new(Terms::new(account, [limit]));
//! # let mut ledger = MemoryLedger::new();
//! # let now: Timestamp = "2026-01-31T22:59:00Z".parse()?;
//! let demand = Demand::new(terms.clone(), 0, Units::new(60)?);
//! let Outcome::Decided(decision) = ledger.apply(now, Operation::Take(demand)) else { panic!() };
//! let (place, taken) = decision.taken.expect("60 units");
//! ledger.apply(now, Operation::Settle { terms: terms.clone(), place, taken, units: Units::ZERO });
//! let key = terms.limits.get(place).expect("its metric").counter;
//! assert_eq!(ledger.counter(key).level.units, 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Which limit wins, and when windows begin
//!
//! [`limits::resolve`] picks, for each metric and period, the limit of the customer, else of the plan, else of the
//! business. [`Calendar`] cuts windows in an IANA zone, months from a billing day:
//!
//! ```
//! use tracktags_core::{Calendar, Period};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let calendar = Calendar::in_zone("Europe/Berlin")?.anchored(Some(31))?;
//! let window = calendar.window_of(Period::Monthly, "2026-02-28T12:00:00Z".parse()?).expect("a calendar window");
//! assert_eq!(window.start.to_string(), "2026-02-27T23:00:00Z");
//! assert_eq!(window.end.to_string(), "2026-03-30T22:00:00Z");
//! # Ok(())
//! # }
//! ```
//!
//! # The eight steps
//!
//! key ([`keys`]) → identity ([`accounts`]) → limits ([`limits`]) → demand ([`demand`]) → batch ([`batch`], in the order of
//! [`group_commit`]) →
//! decision ([`decide`]) → forward ([`upstreams`], behind [`traits::Upstream`]) → settle ([`settle`]).

#![warn(missing_docs)]
#![warn(clippy::indexing_slicing, clippy::string_slice, clippy::as_conversions)]
#![warn(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

pub mod accounts;
pub mod audit;
pub mod batch;
pub mod decide;
pub mod demand;
pub mod error;
pub mod group_commit;
pub mod history;
pub mod keys;
pub mod limits;
pub mod lists;
pub mod memory;
pub mod metrics;
pub mod records;
pub mod settle;
pub mod time;
pub mod traits;
pub mod upstreams;
pub mod usage;
pub mod versions;
pub mod windows;

pub use accounts::{Account, BusinessId, CustomerId, MetricName, Scope};
pub use batch::Outcome;
pub use decide::Decision;
pub use demand::{Ask, Demand, Operation};
pub use limits::{Action, Limit, LimitSet, Operator, Terms};
pub use memory::MemoryLedger;
pub use metrics::{Metric, Units};
pub use time::Timestamp;
pub use windows::{Calendar, Period};
