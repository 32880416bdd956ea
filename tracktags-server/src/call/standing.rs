//! Where an account stands after a decision, as it is printed: each limit, the one that decided, and the rate-limit
//! headers that say the same.

use super::writer::Json;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
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
        let mut printed = 0..0;
        json.object("breach_status", |json| {
            let start = json.mark();
            match self.printed() {
                Some(limit) => limit.write(json),
                None => {
                    json.field_flag("is_breached", false);
                    json.field_number("current_usage", self.value);
                    json.field_maybe("limit_value", None);
                    json.field_maybe("remaining", None);
                }
            }
            printed = start..json.mark();
        });
        json.objects("limits", self.limits.iter().enumerate(), |json, (place, limit)| {
            if place == self.printed { json.again(printed.clone()) } else { limit.write(json) }
        });
    }

    /// The headers that say the same: `X-RateLimit-*` for the limit printed, `RateLimit` and its policy for all.
    pub(super) fn headers(&self) -> Values {
        let mut values = Values::new();
        values.add(&X_VERSION, |text| text.number(self.decision.version));
        let Some(printed) = self.printed() else { return values };
        values.add(&X_LIMIT, |text| text.number(printed.limit.value.get()));
        if let Some(remaining) = printed.state.remaining {
            values.add(&X_REMAINING, |text| text.number(remaining));
        }
        if let Some(window) = printed.state.window {
            values.add(&X_RESET, |text| text.number(window.end.as_seconds()));
        }
        values.add(&POLICY, |text| {
            for (place, LimitStatus { limit, state }) in self.limits.iter().enumerate() {
                text.limit(place, limit);
                text.labelled(";q=", limit.value.get());
                if let Some(window) = state.window {
                    text.labelled(";w=", window.end.seconds_after(window.start));
                }
            }
        });
        values.add(&RATE, |text| {
            for (place, LimitStatus { limit, state }) in self.limits.iter().enumerate() {
                text.limit(place, limit);
                if let Some(remaining) = state.remaining {
                    text.labelled(";r=", remaining);
                }
                if let Some(window) = state.window {
                    text.labelled(";t=", window.end.seconds_after(self.decision.at));
                }
            }
        });
        values
    }
}

static X_VERSION: HeaderName = HeaderName::from_static("x-tracktags-config-version");
static X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static RATE: HeaderName = HeaderName::from_static("ratelimit");

/// Room for the values of one limit or two.
const VALUES_BYTES: usize = 256;

/// Values of headers, written next to each other into one buffer.
pub(super) struct Values {
    text: Text,
    ends: SmallVec<[(&'static HeaderName, usize); 6]>,
}

impl Values {
    fn new() -> Self {
        Self { text: Text(Vec::with_capacity(VALUES_BYTES)), ends: SmallVec::new() }
    }

    fn add(&mut self, name: &'static HeaderName, write: impl FnOnce(&mut Text)) {
        write(&mut self.text);
        self.ends.push((name, self.text.0.len()));
    }

    /// Puts them into a head.
    pub(super) fn insert_into(self, headers: &mut HeaderMap) {
        let text = Bytes::from(self.text.0);
        let mut start = 0;
        for (name, end) in self.ends {
            // A metric's name keeps a grammar of visible ASCII; one that a SQL writer broke has no header.
            if let Ok(value) = HeaderValue::from_maybe_shared(text.slice(start..end)) {
                headers.insert(name.clone(), value);
            }
            start = end;
        }
    }
}

struct Text(Vec<u8>);

impl Text {
    fn number(&mut self, number: i64) {
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn labelled(&mut self, label: &str, number: i64) {
        self.0.extend_from_slice(label.as_bytes());
        self.number(number);
    }

    /// The name of a limit in a list of them.
    fn limit(&mut self, place: usize, limit: &Limit) {
        let comma = if place == 0 { "\"" } else { ", \"" };
        for part in [comma, limit.metric_name.as_str(), "-", limit.period.as_str(), "\""] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }
}
