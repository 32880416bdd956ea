//! Period + time zone + anchor day → the half-open window `[start, end)` an instant falls into.
//!
//! The windows of one period partition time: their cut points are the instants at which the local clock stands at
//! the period's beginning. Where a clock change skips that moment, the first instant after it is the cut; where it
//! repeats it, the first one is. So a window may be an hour longer or shorter, but no instant is in two or in none.

use crate::metrics::{Interval, Metric, MetricType, words};
use crate::time::Timestamp;
use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::sync::Arc;

words! {
    /// The period of a limit.
    Period {
        /// A minute.
        Minutely = "minutely",
        /// An hour.
        Hourly = "hourly",
        /// A day.
        Daily = "daily",
        /// A week from Monday.
        Weekly = "weekly",
        /// A month, from the customer's anchor day where there is one.
        Monthly = "monthly",
        /// A year, from the anchor day of January where there is one.
        Yearly = "yearly",
        /// No window: the metric's level, which time never resets.
        Realtime = "realtime",
    }
}

impl Period {
    /// Which running window of a counter it reads; `None` for `realtime`, which reads the level.
    #[must_use]
    pub const fn window(self) -> Option<Window> {
        match self {
            Self::Minutely => Some(Window::Minute),
            Self::Hourly => Some(Window::Hour),
            Self::Daily => Some(Window::Day),
            Self::Weekly => Some(Window::Week),
            Self::Monthly => Some(Window::Month),
            Self::Yearly => Some(Window::Year),
            Self::Realtime => None,
        }
    }

    /// The interval of a metric that a limit of this period creates. A `realtime` limit creates a `checkpoint`
    /// metric, whose interval means nothing.
    #[must_use]
    pub const fn interval(self) -> Interval {
        match self {
            Self::Minutely => Interval::Minutely,
            Self::Hourly => Interval::Hourly,
            Self::Daily => Interval::Daily,
            Self::Weekly => Interval::Weekly,
            Self::Monthly | Self::Realtime => Interval::Monthly,
            Self::Yearly => Interval::Yearly,
        }
    }
}

/// The running windows that every counter keeps, whether a limit asks for them or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// The running minute.
    Minute,
    /// The running hour.
    Hour,
    /// The running day.
    Day,
    /// The running week.
    Week,
    /// The running month; the billing period too, while Stripe has named no other.
    Month,
    /// The running year.
    Year,
    /// The metric's own interval or billing period.
    Own,
}

/// How many running windows a counter keeps.
pub const WINDOWS: usize = 7;

impl Window {
    /// Every one, in the order in which counters keep them.
    pub const ALL: [Self; WINDOWS] =
        [Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year, Self::Own];

    /// Its place among them.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Minute => 0,
            Self::Hour => 1,
            Self::Day => 2,
            Self::Week => 3,
            Self::Month => 4,
            Self::Year => 5,
            Self::Own => 6,
        }
    }
}

/// A half-open stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    /// Its first instant.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
}

impl Span {
    /// Whether `at` lies in it.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }
}

/// A name that is no IANA time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IANA time zone such as Europe/Berlin")]
pub struct TimeZoneError(String);

/// A day of the month outside 1 ..= 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a billing anchor is a day of the month, 1 to 31")]
pub struct AnchorError;

/// How an account's windows are cut: the business's time zone and the customer's billing anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    zone: TimeZone,
    name: Arc<str>,
    anchor_day: Option<u8>,
}

impl Calendar {
    /// UTC without an anchor.
    #[must_use]
    pub fn utc() -> Self {
        Self { zone: TimeZone::UTC, name: "UTC".into(), anchor_day: None }
    }

    /// The calendar of an IANA zone (bundled with the program, so every machine agrees).
    ///
    /// # Errors
    /// [`TimeZoneError`] for a name the database does not have.
    pub fn in_zone(name: &str) -> Result<Self, TimeZoneError> {
        let zone = TimeZone::get(name).map_err(|_unknown| TimeZoneError(name.to_owned()))?;
        let name = zone.iana_name().unwrap_or(name).into();
        Ok(Self { zone, name, anchor_day: None })
    }

    /// The same calendar with months and years from this day.
    ///
    /// # Errors
    /// [`AnchorError`] outside 1 ..= 31.
    pub fn anchored(mut self, day: Option<u8>) -> Result<Self, AnchorError> {
        if day.is_some_and(|day| !(1..=31).contains(&day)) {
            return Err(AnchorError);
        }
        self.anchor_day = day;
        Ok(self)
    }

    /// The same zone without anybody's anchor: months and years from their first day.
    #[must_use]
    pub fn unanchored(&self) -> Self {
        Self { anchor_day: None, ..self.clone() }
    }

    /// The instant so many months earlier, on the zone's clock; a day that the month does not have is its last one.
    #[must_use]
    pub fn months_before(&self, at: Timestamp, months: i32) -> Timestamp {
        let local = self.zone.to_datetime(at.to_jiff()).checked_sub(months.months());
        let earlier = local.and_then(|local| self.zone.to_timestamp(local));
        earlier.map_or(Timestamp::MIN, Timestamp::from_jiff)
    }

    /// The zone's IANA name.
    #[must_use]
    pub fn zone_name(&self) -> &str {
        &self.name
    }

    /// The window of `period` that `at` falls into; `None` for `realtime`.
    #[must_use]
    pub fn window_of(&self, period: Period, at: Timestamp) -> Option<Span> {
        Some(match period {
            Period::Minutely => self.clock_step(60, at),
            Period::Hourly => self.clock_step(3_600, at),
            Period::Daily => self.dates(at, |date| date, |date| date.checked_add(1.day()).ok()),
            Period::Weekly => self.dates(at, monday_of, |date| date.checked_add(7.days()).ok()),
            Period::Monthly => self.months(at),
            Period::Yearly => self.years(at),
            Period::Realtime => return None,
        })
    }

    /// The running window of a metric's own: its interval or billing period. A `checkpoint` metric never begins
    /// again: all of time.
    #[must_use]
    pub fn own_window_of(&self, metric: &Metric, at: Timestamp) -> Span {
        match metric.metric_type {
            MetricType::Checkpoint => Span { start: Timestamp::MIN, end: Timestamp::MAX },
            MetricType::StripeBilling => self.months(at),
            MetricType::Reset => self.interval_of(metric.interval, at),
        }
    }

    fn interval_of(&self, interval: Interval, at: Timestamp) -> Span {
        let calendar = |period| self.window_of(period, at).unwrap_or(Span { start: at, end: Timestamp::MAX });
        match interval {
            Interval::Seconds5 => self.clock_step(5, at),
            Interval::Seconds15 => self.clock_step(15, at),
            Interval::Seconds30 => self.clock_step(30, at),
            Interval::Minutes5 => self.clock_step(300, at),
            Interval::Minutes15 => self.clock_step(900, at),
            Interval::Minutes30 => self.clock_step(1_800, at),
            Interval::Hours6 => self.clock_step(21_600, at),
            Interval::Minutes1 | Interval::Minutely => calendar(Period::Minutely),
            Interval::Hours1 | Interval::Hourly => calendar(Period::Hourly),
            Interval::Days1 | Interval::Daily => calendar(Period::Daily),
            Interval::Weekly => calendar(Period::Weekly),
            Interval::Monthly => calendar(Period::Monthly),
            Interval::Yearly => calendar(Period::Yearly),
        }
    }

    /// All running windows of a counter of `metric` at `at`.
    #[must_use]
    pub fn cuts(&self, metric: &Metric, at: Timestamp) -> Cuts {
        let whole = Span { start: Timestamp::MIN, end: Timestamp::MAX };
        let of = |period| self.window_of(period, at).unwrap_or(whole);
        let spans = [
            of(Period::Minutely),
            of(Period::Hourly),
            of(Period::Daily),
            of(Period::Weekly),
            of(Period::Monthly),
            of(Period::Yearly),
            self.own_window_of(metric, at),
        ];
        let start = spans.iter().map(|span| span.start).max().unwrap_or(whole.start);
        let end = spans.iter().map(|span| span.end).min().unwrap_or(whole.end);
        Cuts { id: self.cut_id(metric), spans, good: Span { start, end } }
    }

    /// Names this way of cutting: zone, anchor and the metric's own interval. Two that differ cut differently, or
    /// may. Stored with counters, so it never changes meaning: the first 8 bytes of a BLAKE3 hash.
    #[must_use]
    pub fn cut_id(&self, metric: &Metric) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.name.as_bytes());
        hasher.update(&[0, self.anchor_day.unwrap_or(0), 0]);
        hasher.update(metric.metric_type.as_str().as_bytes());
        hasher.update(&[0]);
        hasher.update(metric.interval.as_str().as_bytes());
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        u64::from_le_bytes(first)
    }

    /// Windows of `step` seconds on the local clock: cut wherever local time is a multiple of the step.
    fn clock_step(&self, step: i64, at: Timestamp) -> Span {
        let seconds = at.as_seconds();
        let offset = self.offset_at(seconds);
        let into = |second: i64, offset: i64| second.saturating_add(offset).rem_euclid(step);
        let mut start = seconds.saturating_sub(into(seconds, offset));
        if let Some((change, before)) = self.change_before(seconds).filter(|(change, _)| *change > start) {
            // The clock changed since: the last cut stands on the clock as it was before.
            let last = change.saturating_sub(1);
            start = last.saturating_sub(into(last, before));
        }
        let mut end = seconds.saturating_sub(into(seconds, offset)).saturating_add(step);
        if let Some((change, after)) = self.change_after(seconds).filter(|(change, _)| *change <= end) {
            let late = into(change, after);
            end = if late == 0 { change } else { change.saturating_add(step.saturating_sub(late)) };
        }
        Span { start: Timestamp::from_seconds(start), end: Timestamp::from_seconds(end) }
    }

    fn offset_at(&self, second: i64) -> i64 {
        let at = Timestamp::from_seconds(second).to_jiff();
        i64::from(self.zone.to_offset(at).seconds())
    }

    /// The latest change of offset at or before `second`, and the offset in force before it.
    fn change_before(&self, second: i64) -> Option<(i64, i64)> {
        let next = Timestamp::from_seconds(second.saturating_add(1)).to_jiff();
        let change = self.zone.preceding(next).next()?.timestamp().as_second();
        Some((change, self.offset_at(change.saturating_sub(1))))
    }

    /// The first change of offset after `second`, and the offset in force from it on.
    fn change_after(&self, second: i64) -> Option<(i64, i64)> {
        let at = Timestamp::from_seconds(second).to_jiff();
        let change = self.zone.following(at).next()?.timestamp().as_second();
        Some((change, self.offset_at(change)))
    }

    fn months(&self, at: Timestamp) -> Span {
        let day = self.anchor_day.unwrap_or(1);
        self.dates(
            at,
            |date| {
                let cut = in_month(date, day);
                let earlier = || date.first_of_month().checked_sub(1.day()).ok();
                if cut <= date { cut } else { earlier().map_or(cut, |last| in_month(last, day)) }
            },
            |cut| cut.first_of_month().checked_add(1.month()).ok().map(|next| in_month(next, day)),
        )
    }

    fn years(&self, at: Timestamp) -> Span {
        let day = i8::try_from(self.anchor_day.unwrap_or(1)).unwrap_or(1);
        let cut_in = move |year: i16| Date::new(year, 1, day).ok();
        self.dates(
            at,
            |date| {
                let this = cut_in(date.year()).filter(|cut| *cut <= date);
                this.or_else(|| cut_in(date.year().saturating_sub(1))).unwrap_or(date)
            },
            |cut| cut_in(cut.year().saturating_add(1)),
        )
    }

    /// Windows cut at the beginning of dates: `cut` gives the date on or before, `next` the cut after a cut.
    fn dates(&self, at: Timestamp, cut: impl Fn(Date) -> Date, next: impl Fn(Date) -> Option<Date>) -> Span {
        let local = self.zone.to_datetime(at.to_jiff()).date();
        let mut from = cut(local);
        let mut start = self.begin_of(from);
        if start > at {
            // The clock went back over midnight and the local date with it: the earlier window still runs.
            from = cut(from.checked_sub(1.day()).unwrap_or(from));
            start = self.begin_of(from);
        }
        loop {
            let Some(to) = next(from) else { return Span { start, end: Timestamp::MAX } };
            let end = self.begin_of(to);
            if at < end {
                return Span { start, end };
            }
            // The cut has passed although the local date says otherwise (clock set back over midnight, or a
            // date that the zone skipped). Dates only grow here, so this ends.
            (from, start) = (to, end);
        }
    }

    fn begin_of(&self, date: Date) -> Timestamp {
        self.zone.to_timestamp(date.at(0, 0, 0, 0)).map_or(Timestamp::MAX, Timestamp::from_jiff)
    }
}

fn monday_of(date: Date) -> Date {
    let back = i64::from(date.weekday().to_monday_zero_offset());
    date.checked_sub(back.days()).unwrap_or(date)
}

/// This day of the date's month, clamped to the month's end.
fn in_month(date: Date, day: u8) -> Date {
    let day = i8::try_from(day).unwrap_or(1).min(date.days_in_month());
    Date::new(date.year(), date.month(), day).unwrap_or(date)
}

/// All running windows of a counter, as cut at one instant, and for how long they stay the running ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cuts {
    /// Which way of cutting this is ([`Calendar::cut_id`]).
    pub id: u64,
    /// In the order of [`Window::ALL`].
    pub spans: [Span; WINDOWS],
    /// While an instant lies in here, these are its windows.
    pub good: Span,
}

impl Cuts {
    /// The running window.
    #[must_use]
    pub const fn span(&self, window: Window) -> Span {
        let [minute, hour, day, week, month, year, own] = self.spans;
        match window {
            Window::Minute => minute,
            Window::Hour => hour,
            Window::Day => day,
            Window::Week => week,
            Window::Month => month,
            Window::Year => year,
            Window::Own => own,
        }
    }

    /// The hour of history that `at`, an instant in these cuts, falls into: the start of its window.
    #[must_use]
    pub const fn bucket(&self) -> Timestamp {
        self.span(Window::Hour).start
    }
}
