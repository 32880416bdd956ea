//! What is measured: units, metrics, how samples add up, and when a metric begins again.

use crate::accounts::{MetricName, Scope};
use serde::Serialize;
use std::fmt;

/// The most units anything may hold: 2^53 − 1, the largest integer every JSON reader keeps exactly.
pub const UNITS_MAX: i64 = 9_007_199_254_740_991;

/// Whole units of a metric, 0 ..= 2^53 − 1. Arithmetic is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Units(i64);

/// A number outside 0 ..= 2^53 − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number from 0 to 9007199254740991")]
pub struct UnitsError;

impl Units {
    /// No units.
    pub const ZERO: Self = Self(0);
    /// One unit.
    pub const ONE: Self = Self(1);
    /// The most there can be.
    pub const MAX: Self = Self(UNITS_MAX);

    /// Checks the range.
    ///
    /// # Errors
    /// [`UnitsError`] for a negative number or one above [`UNITS_MAX`].
    pub const fn new(units: i64) -> Result<Self, UnitsError> {
        if units < 0 || units > UNITS_MAX { Err(UnitsError) } else { Ok(Self(units)) }
    }

    /// As an integer.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The sum, if it is in range.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match Self::new(self.0.saturating_add(other.0)) {
            Ok(sum) => Some(sum),
            Err(UnitsError) => None,
        }
    }

    /// The difference, if it is not below 0.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match Self::new(self.0.saturating_sub(other.0)) {
            Ok(rest) => Some(rest),
            Err(UnitsError) => None,
        }
    }
}

impl TryFrom<i64> for Units {
    type Error = UnitsError;
    fn try_from(units: i64) -> Result<Self, UnitsError> {
        Self::new(units)
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every one of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in requests, answers and tables.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The one this word stands for.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// How the samples of a window make its value.
    Operation {
        /// Units added up.
        Sum = "SUM",
        /// Samples counted; a demand of n units is one sample.
        Count = "COUNT",
        /// The largest sample.
        Max = "MAX",
        /// The smallest sample.
        Min = "MIN",
        /// The latest sample.
        Last = "LAST",
        /// The mean of the samples, rounded down.
        Avg = "AVG",
    }
}

impl Operation {
    /// Whether units can be taken and given back: SUM and COUNT. The proxy and windowed limits take no others.
    #[must_use]
    pub const fn is_releasable(self) -> bool {
        matches!(self, Self::Sum | Self::Count)
    }
}

words! {
    /// When a metric's own value begins again.
    MetricType {
        /// With each of its intervals.
        Reset = "reset",
        /// Never.
        Checkpoint = "checkpoint",
        /// With each billing period; while none is known, each calendar month from the customer's anchor day.
        StripeBilling = "stripe_billing",
    }
}

words! {
    /// The interval of a `reset` metric: a fixed step of the local clock, or a calendar period.
    Interval {
        /// 5 seconds.
        Seconds5 = "5s",
        /// 15 seconds.
        Seconds15 = "15s",
        /// 30 seconds.
        Seconds30 = "30s",
        /// A minute.
        Minutes1 = "1m",
        /// 5 minutes.
        Minutes5 = "5m",
        /// 15 minutes.
        Minutes15 = "15m",
        /// 30 minutes.
        Minutes30 = "30m",
        /// An hour.
        Hours1 = "1h",
        /// 6 hours.
        Hours6 = "6h",
        /// A day.
        Days1 = "1d",
        /// A minute.
        Minutely = "minutely",
        /// An hour.
        Hourly = "hourly",
        /// A day.
        Daily = "daily",
        /// A week from Monday.
        Weekly = "weekly",
        /// A month from the anchor day.
        Monthly = "monthly",
        /// A year from the anchor day of January.
        Yearly = "yearly",
    }
}

/// A metric as a business defined it, or as a limit created it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: MetricName,
    /// For which kind of account.
    pub scope: Scope,
    /// How samples add up.
    pub operation: Operation,
    /// When its value begins again.
    pub metric_type: MetricType,
    /// Its interval, for `reset`.
    pub interval: Interval,
}

impl Metric {
    /// A SUM metric as a limit creates it: `reset` each `interval`.
    #[must_use]
    pub const fn sum(name: MetricName, scope: Scope, interval: Interval) -> Self {
        Self { name, scope, operation: Operation::Sum, metric_type: MetricType::Reset, interval }
    }
}
