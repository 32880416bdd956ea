//! Where an account stands after a decision, as it is printed: each limit, the one that decided, and the rate-limit
//! headers that say the same.

use super::writer::Json;
use serde::Serialize;
use smallvec::SmallVec;
use std::fmt::Write;
use tracktags_core::decide::{Decision, LimitState};
use tracktags_core::limits::{Limit, Terms};
use tracktags_core::time::Timestamp;
use tracktags_core::windows::{Period, Span};

/// Where an account stands with one limit, as it is printed.
#[derive(Serialize)]
pub(crate) struct LimitStatus<'a> {
    is_breached: bool,
    current_usage: i64,
    limit_value: i64,
    remaining: Option<i64>,
    limit_operator: &'static str,
    breach_action: &'static str,
    metric_name: &'a str,
    limit_id: &'a str,
    source: &'static str,
    limit_period: &'static str,
    overage: i64,
    granted: i64,
    window_start: Option<Timestamp>,
    window_end: Option<Timestamp>,
    #[serde(skip)]
    period: Period,
    #[serde(skip)]
    window: Option<Span>,
}

impl<'a> LimitStatus<'a> {
    pub(crate) fn of(limit: &'a Limit, state: &LimitState) -> Self {
        Self {
            is_breached: state.is_breached,
            current_usage: state.usage,
            limit_value: limit.value.get(),
            remaining: state.remaining,
            limit_operator: limit.operator.as_str(),
            breach_action: limit.action.as_str(),
            metric_name: limit.metric_name.as_str(),
            limit_id: &limit.id,
            source: limit.attachment.source().as_str(),
            limit_period: limit.period.as_str(),
            overage: state.overage,
            granted: 0,
            window_start: state.window.map(|window| window.start),
            window_end: state.window.map(|window| window.end),
            period: limit.period,
            window: state.window,
        }
    }
}

/// The status where there is no limit at all.
#[derive(Serialize)]
struct NoLimit {
    is_breached: bool,
    current_usage: i64,
    limit_value: Option<i64>,
    remaining: Option<i64>,
}

/// Where an account stands after a decision: every limit asked, and the one to print.
pub(super) struct Standing<'a> {
    limits: SmallVec<[LimitStatus<'a>; 4]>,
    printed: usize,
    value: i64,
    decision: &'a Decision,
}

impl<'a> Standing<'a> {
    pub(super) fn of(terms: &'a Terms, decision: &'a Decision) -> Self {
        let mut limits: SmallVec<[(bool, LimitStatus<'a>); 4]> = SmallVec::new();
        for (metric_place, metric) in decision.metrics.iter().enumerate() {
            let Some(entry) = terms.limits.get(metric.place) else { continue };
            for (place, (limit, state)) in entry.limits.iter().zip(&metric.limits).enumerate() {
                let denied = decision.denied_by == Some((metric_place, place));
                limits.push((denied, LimitStatus::of(limit, state)));
            }
        }
        // Within a metric they are in this order already; over several metrics they are not.
        limits.sort_by_key(|(_, limit)| limit.period);
        let denying = limits.iter().position(|(denied, _)| *denied);
        let tightest = || {
            let room =
                |(_, (_, limit)): &(usize, &(bool, LimitStatus<'_>))| limit.remaining.unwrap_or(i64::MAX);
            limits.iter().enumerate().min_by_key(room).map_or(0, |(place, _)| place)
        };
        let printed = denying.unwrap_or_else(tightest);
        let counted = decision.taken.map(|(place, _)| place);
        let of_counted = decision.metrics.iter().find(|metric| Some(metric.place) == counted);
        let value = of_counted.or(decision.metrics.first()).map_or(0, |metric| metric.value);
        Self { limits: limits.into_iter().map(|(_, limit)| limit).collect(), printed, value, decision }
    }

    fn printed(&self) -> Option<&LimitStatus<'a>> {
        self.limits.get(self.printed)
    }

    /// Writes `"breach_status":…,"limits":…`. The limit printed stands in both; it is written once and copied.
    pub(super) fn write(&self, json: &mut Json) {
        json.key("breach_status");
        let start = json.0.len();
        match self.printed() {
            Some(limit) => json.value(limit),
            None => json.value(&NoLimit {
                is_breached: false,
                current_usage: self.value,
                limit_value: None,
                remaining: None,
            }),
        }
        let end = json.0.len();
        json.key("limits");
        json.0.push(b'[');
        for (place, limit) in self.limits.iter().enumerate() {
            if place > 0 {
                json.0.push(b',');
            }
            if place == self.printed {
                json.0.extend_from_within(start..end);
            } else {
                json.value(limit);
            }
        }
        json.0.push(b']');
    }

    /// `X-RateLimit-*` for the limit printed, `RateLimit` and its policy for all.
    pub(super) fn rate(&self) -> Option<Rate> {
        let printed = self.printed()?;
        let (mut policy, mut state) = (String::new(), String::new());
        for (place, limit) in self.limits.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            // Writing into a String cannot fail.
            let _ = write!(
                policy,
                "{comma}\"{}-{}\";q={}",
                limit.metric_name, limit.limit_period, limit.limit_value
            );
            let _ = write!(state, "{comma}\"{}-{}\"", limit.metric_name, limit.limit_period);
            if let Some(remaining) = limit.remaining {
                let _ = write!(state, ";r={remaining}");
            }
            if let Some(window) = limit.window {
                let _ = write!(policy, ";w={}", window.end.seconds_after(window.start));
                let _ = write!(state, ";t={}", window.end.seconds_after(self.decision.at));
            }
        }
        Some(Rate {
            limit: printed.limit_value,
            remaining: printed.remaining,
            reset: printed.window.map(|window| window.end.as_seconds()),
            policy,
            state,
        })
    }
}

/// What the rate-limit headers say.
pub(super) struct Rate {
    pub(super) limit: i64,
    pub(super) remaining: Option<i64>,
    /// Unix time of the window's end.
    pub(super) reset: Option<i64>,
    pub(super) policy: String,
    pub(super) state: String,
}
