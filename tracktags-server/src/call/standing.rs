//! Where an account stands after a decision, as it is printed: each limit, the one that decided, and the rate-limit
//! headers that say the same.

use super::writer::Json;
use smallvec::SmallVec;
use tracktags_core::decide::{Decision, LimitState};
use tracktags_core::limits::{Limit, Terms};

/// Where an account stands with one limit, as it is printed.
#[derive(Clone, Copy)]
pub(crate) struct LimitStatus<'a> {
    limit: &'a Limit,
    state: &'a LimitState,
}

impl<'a> LimitStatus<'a> {
    pub(crate) fn of(limit: &'a Limit, state: &'a LimitState) -> Self {
        Self { limit, state }
    }

    /// Writes its fields.
    pub(crate) fn write(&self, json: &mut Json) {
        let Self { limit, state } = self;
        json.field_flag("is_breached", state.is_breached);
        json.field_number("current_usage", state.usage);
        json.field_number("limit_value", limit.value.get());
        json.field_maybe("remaining", state.remaining);
        json.field_word("limit_operator", limit.operator.as_str());
        json.field_word("breach_action", limit.action.as_str());
        json.field("metric_name", limit.metric_name.as_str());
        json.field("limit_id", &*limit.id);
        json.field_word("source", limit.attachment.source().as_str());
        json.field_word("limit_period", limit.period.as_str());
        json.field_number("overage", state.overage);
        json.field_number("granted", 0);
        json.field_time("window_start", state.window.map(|window| window.start));
        json.field_time("window_end", state.window.map(|window| window.end));
    }
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
        let mut limits: SmallVec<[LimitStatus<'a>; 4]> = SmallVec::new();
        let mut denying = None;
        for (metric_place, metric) in decision.metrics.iter().enumerate() {
            let Some(entry) = terms.limits.get(metric.place) else { continue };
            for (place, (limit, state)) in entry.limits.iter().zip(&metric.limits).enumerate() {
                if decision.denied_by == Some((metric_place, place)) {
                    denying = Some(state);
                }
                limits.push(LimitStatus::of(limit, state));
            }
        }
        // Within a metric they are in this order already; over several metrics they are not.
        limits.sort_by_key(|status| status.limit.period);
        let denying =
            denying.and_then(|denying| limits.iter().position(|status| std::ptr::eq(status.state, denying)));
        let tightest = || {
            let room = |(_, status): &(usize, &LimitStatus<'_>)| status.state.remaining.unwrap_or(i64::MAX);
            limits.iter().enumerate().min_by_key(room).map_or(0, |(place, _)| place)
        };
        let printed = denying.unwrap_or_else(tightest);
        let counted = decision.taken.map(|(place, _)| place);
        let of_counted = decision.metrics.iter().find(|metric| Some(metric.place) == counted);
        let value = of_counted.or(decision.metrics.first()).map_or(0, |metric| metric.value);
        Self { limits, printed, value, decision }
    }

    fn printed(&self) -> Option<&LimitStatus<'a>> {
        self.limits.get(self.printed)
    }

    /// Writes `"breach_status":…,"limits":…`. The limit printed stands in both.
    pub(super) fn write(&self, json: &mut Json) {
        json.object("breach_status", |json| match self.printed() {
            Some(limit) => limit.write(json),
            None => {
                json.field_flag("is_breached", false);
                json.field_number("current_usage", self.value);
                json.field_maybe("limit_value", None);
                json.field_maybe("remaining", None);
            }
        });
        json.objects("limits", &self.limits, |json, limit| limit.write(json));
    }

    /// `X-RateLimit-*` for the limit printed, `RateLimit` and its policy for all.
    pub(super) fn rate(&self) -> Option<Rate> {
        let printed = self.printed()?;
        let mut numbers = itoa::Buffer::new();
        let (mut policy, mut state) = (String::with_capacity(RATE_BYTES), String::with_capacity(RATE_BYTES));
        for (place, status) in self.limits.iter().enumerate() {
            let LimitStatus { limit, state: stands } = status;
            let period = limit.period.as_str();
            let comma = if place == 0 { "\"" } else { ", \"" };
            for text in [&mut policy, &mut state] {
                text.extend([comma, limit.metric_name.as_str(), "-", period, "\""]);
            }
            policy.extend([";q=", numbers.format(limit.value.get())]);
            if let Some(remaining) = stands.remaining {
                state.extend([";r=", numbers.format(remaining)]);
            }
            if let Some(window) = stands.window {
                policy.extend([";w=", numbers.format(window.end.seconds_after(window.start))]);
                state.extend([";t=", numbers.format(window.end.seconds_after(self.decision.at))]);
            }
        }
        Some(Rate {
            limit: printed.limit.value.get(),
            remaining: printed.state.remaining,
            reset: printed.state.window.map(|window| window.end.as_seconds()),
            policy,
            state,
        })
    }
}

/// Room for a rate-limit header of one limit or two.
const RATE_BYTES: usize = 96;

/// What the rate-limit headers say.
pub(super) struct Rate {
    pub(super) limit: i64,
    pub(super) remaining: Option<i64>,
    /// Unix time of the window's end.
    pub(super) reset: Option<i64>,
    pub(super) policy: String,
    pub(super) state: String,
}
