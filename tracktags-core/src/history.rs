//! Usage over time: the hours of the books, gathered into the steps of a business's time zone.
//!
//! Hours are kept as they were cut when the units were taken; corrections and releases are netted in that hour. A step
//! has every hour that begins in it.

use crate::metrics::{Operation, words};
use crate::time::Timestamp;
use crate::usage::Entry;
use crate::windows::{Calendar, Period, Span};

words! {
    /// How long each point of a history is.
    Step {
        /// An hour.
        Hour = "hour",
        /// A day.
        Day = "day",
        /// A calendar month.
        Month = "month",
    }
}

impl Step {
    const fn period(self) -> Period {
        match self {
            Self::Hour => Period::Hourly,
            Self::Day => Period::Daily,
            Self::Month => Period::Monthly,
        }
    }
}

/// What an account, or all of a business together, did in one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hour {
    /// Its first instant.
    pub start: Timestamp,
    /// How its units add up.
    pub operation: Operation,
    /// What came to pass in it.
    pub gain: Gain,
}

/// What an hour, or several together, gained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gain {
    /// The value of the operation; for AVG the sum of the samples.
    pub units: i64,
    /// Samples; kept for MAX, MIN, LAST and AVG only.
    pub samples: i64,
    /// Units beyond a limit that lets them pass.
    pub overage: i64,
    /// Demands refused; best effort.
    pub denied: i64,
}

/// One step of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// From when to when.
    pub span: Span,
    /// The metric's operation over it; 0 where nothing was.
    pub value: i64,
    /// Units beyond a limit that lets them pass.
    pub overage: i64,
    /// Demands refused.
    pub denied: i64,
}

/// A history of more points than are told at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at most {points_max} points are told at once")]
pub struct TooManyPoints {
    /// The most there may be.
    pub points_max: usize,
}

/// The steps that touch `from .. to`, in order. `calendar` is the business's: without anybody's anchor.
///
/// # Errors
/// [`TooManyPoints`] where there are more than `points_max`.
pub fn steps(
    calendar: &Calendar,
    step: Step,
    from: Timestamp,
    to: Timestamp,
    points_max: usize,
) -> Result<Vec<Span>, TooManyPoints> {
    let mut steps = Vec::new();
    let mut at = from;
    while at < to {
        if steps.len() == points_max {
            return Err(TooManyPoints { points_max });
        }
        // Every period asked for has windows.
        let Some(span) = calendar.window_of(step.period(), at) else { break };
        steps.push(span);
        at = span.end;
    }
    Ok(steps)
}

/// Gathers hours, oldest first, into steps. Hours outside all of them are left out.
#[must_use]
pub fn points(steps: &[Span], hours: impl IntoIterator<Item = Hour>) -> Vec<Point> {
    let mut sums: Vec<Option<Hour>> = vec![None; steps.len()];
    for hour in hours {
        let place = steps.partition_point(|span| span.end <= hour.start);
        if steps.get(place).is_some_and(|span| span.contains(hour.start))
            && let Some(sum) = sums.get_mut(place)
        {
            *sum = Some(sum.map_or(hour, |before| before.followed_by(&hour)));
        }
    }
    steps
        .iter()
        .zip(sums)
        .map(|(span, sum)| sum.map_or(Point::empty(*span), |sum| sum.point(*span)))
        .collect()
}

impl Point {
    const fn empty(span: Span) -> Self {
        Self { span, value: 0, overage: 0, denied: 0 }
    }
}

impl Gain {
    /// Both together; `later` follows this.
    #[must_use]
    pub fn merged(self, operation: Operation, later: Self) -> Self {
        let units = match operation {
            Operation::Sum | Operation::Count | Operation::Avg => self.units.saturating_add(later.units),
            // Of samples, and only where there are any: an hour may hold refusals alone.
            Operation::Max | Operation::Min | Operation::Last if later.samples == 0 => self.units,
            Operation::Max | Operation::Min | Operation::Last if self.samples == 0 => later.units,
            Operation::Max => self.units.max(later.units),
            Operation::Min => self.units.min(later.units),
            Operation::Last => later.units,
        };
        Self {
            units,
            samples: self.samples.saturating_add(later.samples),
            overage: self.overage.saturating_add(later.overage),
            denied: self.denied.saturating_add(later.denied),
        }
    }

    /// Adds what an entry of its hour says.
    pub fn add(&mut self, entry: &Entry) {
        self.units = match entry.operation {
            Operation::Sum | Operation::Count | Operation::Avg => self.units.saturating_add(entry.units),
            Operation::Max => self.units.max(entry.units),
            Operation::Min if self.samples > 0 => self.units.min(entry.units),
            Operation::Min | Operation::Last => entry.units,
        };
        self.samples = self.samples.saturating_add(entry.samples);
        // One figure an hour: what lies beyond the widest limit that keeps overage.
        let overage = entry.overage.iter().copied().max_by_key(|overage| overage.abs());
        self.overage = self.overage.saturating_add(overage.unwrap_or_default());
    }
}

impl Hour {
    /// Both together; `later` follows.
    fn followed_by(self, later: &Self) -> Self {
        Self { operation: later.operation, gain: self.gain.merged(later.operation, later.gain), ..self }
    }

    const fn point(self, span: Span) -> Point {
        let Gain { units, samples, overage, denied } = self.gain;
        let is_mean = matches!(self.operation, Operation::Avg) && samples > 0;
        let value = if is_mean { units.div_euclid(samples) } else { units };
        Point { span, value, overage, denied }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hour(start: Timestamp, operation: Operation, units: i64, samples: i64) -> Hour {
        Hour { start, operation, gain: Gain { units, samples, ..Gain::default() } }
    }

    #[test]
    fn steps_follow_the_zone_and_its_changes() {
        let berlin = Calendar::in_zone("Europe/Berlin").unwrap();
        // The clock goes forward on 29 March 2026 and back on 25 October.
        let (from, to) = (at("2026-03-28T12:00:00Z"), at("2026-03-30T12:00:00Z"));
        let days = steps(&berlin, Step::Day, from, to, 10).unwrap();
        let hours: Vec<_> = days.iter().map(|day| day.end.seconds_after(day.start) / 3_600).collect();
        assert_eq!(hours, [24, 23, 24]);
        let (from, to) = (at("2026-10-24T22:00:00Z"), at("2026-10-25T23:00:00Z"));
        assert_eq!(steps(&berlin, Step::Day, from, to, 10).unwrap().len(), 1);
        assert_eq!(steps(&berlin, Step::Hour, from, to, 100).unwrap().len(), 25);
        let year = steps(&berlin, Step::Month, at("2026-01-01T00:00:00Z"), at("2026-12-31T00:00:00Z"), 12);
        assert_eq!(year.unwrap().len(), 12);
    }

    #[test]
    fn more_points_than_may_be_told_are_refused() {
        let utc = Calendar::utc();
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-01-03T00:00:00Z"));
        assert_eq!(steps(&utc, Step::Hour, from, to, 48).unwrap().len(), 48);
        assert_eq!(steps(&utc, Step::Hour, from, to, 47), Err(TooManyPoints { points_max: 47 }));
        assert!(steps(&utc, Step::Hour, to, from, 47).unwrap().is_empty());
    }

    #[test]
    fn hours_add_up_as_their_operation_says() {
        let utc = Calendar::utc();
        let start = at("2026-01-01T00:00:00Z");
        let day = steps(&utc, Step::Day, start, start.plus_seconds(1), 1).unwrap();
        let samples = [(4, 2), (9, 3), (0, 0), (2, 1)];
        for (operation, expected) in [
            (Operation::Sum, 15),
            (Operation::Count, 15),
            (Operation::Max, 9),
            (Operation::Min, 2),
            (Operation::Last, 2),
            (Operation::Avg, 2),
        ] {
            let hours = (0..).zip(samples).map(|(place, (units, samples))| {
                hour(start.plus_seconds(place * 3_600), operation, units, samples)
            });
            assert_eq!(points(&day, hours)[0].value, expected, "{operation}");
        }
        // What lies outside is left out, and an empty step reads 0.
        let outside =
            [hour(start.plus_seconds(-1), Operation::Sum, 7, 0), hour(day[0].end, Operation::Sum, 7, 0)];
        assert_eq!(points(&day, outside), [Point::empty(day[0])]);
    }
}
