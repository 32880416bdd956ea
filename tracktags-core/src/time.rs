//! Instants as values: whole microseconds since the Unix epoch.
//!
//! Deliberately not here: a way to ask what time it is. That is the [`Clock`](crate::traits::Clock)'s.

use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// An instant: whole microseconds since 1970-01-01T00:00:00Z, negative before it.
///
/// Prints as RFC 3339 in UTC (`2026-01-31T23:00:00Z`); fractions only where there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;

static PRINTER: DateTimePrinter = DateTimePrinter::new();

impl Timestamp {
    /// The earliest instant the calendar takes: 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800 * MICROS_PER_SECOND);
    /// The latest instant the calendar takes: 9999-12-01T00:00:00Z, so that every window still has an end.
    pub const MAX: Self = Self(253_399_622_400 * MICROS_PER_SECOND);

    /// The instant `micros` microseconds after the epoch, held within [`MIN`](Self::MIN) and [`MAX`](Self::MAX).
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// The instant `seconds` whole seconds after the epoch.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self::from_micros(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// This instant moved by `micros`, held within the calendar.
    #[must_use]
    pub const fn plus_micros(self, micros: i64) -> Self {
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// This instant moved by whole `seconds`, held within the calendar.
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        self.plus_micros(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Whole seconds from `now` until this instant, rounded up; 0 when it has passed.
    #[must_use]
    pub const fn seconds_after(self, now: Self) -> i64 {
        let micros = self.0.saturating_sub(now.0);
        if micros <= 0 {
            return 0;
        }
        micros.saturating_add(MICROS_PER_SECOND.saturating_sub(1)).div_euclid(MICROS_PER_SECOND)
    }

    /// Appends the instant as `Display` shows it (RFC 3339, UTC).
    pub fn write(self, out: &mut Vec<u8>) {
        // Writing into a vector cannot fail.
        let _ = PRINTER.print_timestamp(&self.to_jiff(), out);
    }

    pub(crate) fn to_jiff(self) -> jiff::Timestamp {
        // Every value lies between MIN and MAX, which jiff takes; its own bounds are the fallback.
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    pub(crate) fn from_jiff(at: jiff::Timestamp) -> Self {
        Self::from_micros(at.as_microsecond())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_jiff(), f)
    }
}

/// A text that is no RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time as RFC 3339 writes it, such as 2026-01-31T23:00:00Z")]
pub struct TimestampError;

impl FromStr for Timestamp {
    type Err = TimestampError;

    /// Any offset is accepted (RFC 3339); what is finer than a microsecond is cut off.
    fn from_str(text: &str) -> Result<Self, TimestampError> {
        text.parse::<jiff::Timestamp>().map(Self::from_jiff).map_err(|_unreadable| TimestampError)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
