//! ⑥ The decision: limits × usage × units → admitted or denied, and where the account stands.
//!
//! A pure function. Operators are decided in closed form for n units at once; the unit-by-unit model is in the
//! tests. Keeps `all-or-nothing`: a demand whose limits do not all admit it takes nothing.

use crate::accounts::Enforcement;
use crate::limits::{Action, Limit, MetricLimits, Operator};
use crate::metrics::Operation;
use crate::time::Timestamp;
use crate::usage::{Counter, Overage, Taken};
use crate::windows::{Cuts, Span, WINDOWS};
use smallvec::SmallVec;

impl Operator {
    /// Whether the next unit breaches when `usage` units are used.
    #[must_use]
    pub const fn holds(self, usage: i64, limit: i64) -> bool {
        match self {
            Self::Gte => usage >= limit,
            Self::Gt => usage > limit,
            Self::Lte => usage <= limit,
            Self::Lt => usage < limit,
            Self::Eq => usage == limit,
        }
    }

    /// How many of `units` further units breach: those taken while `usage OP limit` holds. Never negative.
    #[must_use]
    pub fn breaching(self, usage: i64, limit: i64, units: i64) -> i64 {
        // Usage before the first unit, and before the one after the last.
        let (first, past) = (usage, usage.saturating_add(units.max(0)));
        let from = |start: i64| past.saturating_sub(first.max(start)).max(0);
        let until = |end: i64| past.min(end).saturating_sub(first).max(0);
        match self {
            Self::Gte => from(limit),
            Self::Gt => from(limit.saturating_add(1)),
            Self::Lte => until(limit.saturating_add(1)),
            Self::Lt => until(limit),
            Self::Eq => i64::from(first <= limit && limit < past),
        }
    }

    /// Whether a demand of `units` meets a breach; 0 units ask whether the next one would.
    #[must_use]
    pub fn breaches(self, usage: i64, limit: i64, units: i64) -> bool {
        if units == 0 { self.holds(usage, limit) } else { self.breaching(usage, limit, units) > 0 }
    }

    /// Units that could still be admitted: 0 while in breach, `None` where no further unit can breach.
    #[must_use]
    pub const fn remaining(self, usage: i64, limit: i64) -> Option<i64> {
        if self.holds(usage, limit) {
            return Some(0);
        }
        match self {
            Self::Gte => Some(limit.saturating_sub(usage)),
            Self::Gt => Some(limit.saturating_sub(usage).saturating_add(1)),
            Self::Eq if usage < limit => Some(limit.saturating_sub(usage)),
            Self::Lte | Self::Lt | Self::Eq => None,
        }
    }
}

/// Where an account stands with one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// Usage of the window or level: with this demand when it was admitted, without it when denied or only asked.
    pub usage: i64,
    /// Units that could still be admitted; `None` where no further unit can breach.
    pub remaining: Option<i64>,
    /// This demand met a breach.
    pub is_breached: bool,
    /// Units taken beyond the limit this window (`allow_overage`).
    pub overage: i64,
    /// The window; `None` for `realtime`.
    pub window: Option<Span>,
}

impl LimitState {
    /// The state of `limit` on this counter, which stands in the windows of `cuts`.
    #[must_use]
    pub fn read(
        limit: &Limit,
        operation: Operation,
        counter: &Counter,
        cuts: &Cuts,
        is_breached: bool,
    ) -> Self {
        let window = limit.period.window();
        let tally = counter.tally(window);
        let usage = tally.value(operation);
        Self {
            usage,
            remaining: limit.operator.remaining(usage, limit.value.get()),
            is_breached,
            overage: if limit.action == Action::AllowOverage { tally.overage } else { 0 },
            window: window.map(|window| cuts.span(window)),
        }
    }

    /// The same without `units` of it and `overage` beyond: what a settlement released.
    #[must_use]
    pub fn less(mut self, limit: &Limit, units: i64, overage: i64) -> Self {
        self.usage = self.usage.saturating_sub(units).max(0);
        self.overage = self.overage.saturating_sub(overage).max(0);
        self.remaining = limit.operator.remaining(self.usage, limit.value.get());
        self
    }
}

/// Where an account stands with one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricState {
    /// The metric's place in the terms.
    pub place: usize,
    /// Its own value: of its interval, or its level.
    pub value: i64,
    /// Its limits, in the order of the terms.
    pub limits: SmallVec<[LimitState; 2]>,
}

/// The answer to a demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may pass.
    pub admitted: bool,
    /// The configuration version it was decided on.
    pub version: i64,
    /// The clock it was decided by.
    pub at: Timestamp,
    /// Every metric asked, in the order of the terms.
    pub metrics: SmallVec<[MetricState; 1]>,
    /// Of a denied demand: which limit denied it, as places in `metrics` and in their limits.
    pub denied_by: Option<(usize, usize)>,
    /// Of a denied demand: whole seconds until it could pass; `None` where time cures nothing.
    pub retry_after_seconds: Option<i64>,
    /// What was taken, and of which place: to be settled.
    pub taken: Option<(usize, Taken)>,
}

/// What deciding one metric of a demand says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) breaches: SmallVec<[bool; 2]>,
    pub(crate) denial: Option<Denial>,
    pub(crate) overage: Overage,
}

/// A limit that refuses, and when it would no longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Denial {
    pub(crate) limit: usize,
    pub(crate) cure: Cure,
}

/// What would let a denied demand pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cure {
    /// Open holds that settle.
    Holds,
    /// The window's end.
    Time(Timestamp),
    /// Nothing that time brings.
    Never,
}

/// How many units a demand weighs in comparisons: COUNT, MAX, MIN, LAST and AVG take one sample, whatever its size.
#[must_use]
pub const fn weight(operation: Operation, units: i64) -> i64 {
    match operation {
        Operation::Sum => units,
        Operation::Count | Operation::Max | Operation::Min | Operation::Last | Operation::Avg => {
            if units > 0 { 1 } else { 0 }
        }
    }
}

/// Decides `units` of one metric against all its limits. `counter` stands in the windows of `cuts`; `held` says how many of its
/// units belong to open calls and reservations.
pub(crate) fn decide(
    entry: &MetricLimits<'_>,
    counter: &Counter,
    cuts: &Cuts,
    units: i64,
    held: impl Fn() -> i64,
    enforcement: Enforcement,
) -> Verdict {
    let operation = entry.metric.operation;
    let weight = weight(operation, units);
    let mut verdict = Verdict::default();
    for (place, limit) in entry.limits.iter().enumerate() {
        let window = limit.period.window();
        let usage = counter.tally(window).value(operation);
        let value = limit.value.get();
        let breached = limit.operator.breaches(usage, value, weight);
        verdict.breaches.push(breached);
        if !breached {
            continue;
        }
        if limit.action == Action::AllowOverage {
            let index = window.map_or(WINDOWS, crate::windows::Window::index);
            if let Some(slot) = verdict.overage.get_mut(index) {
                *slot = limit.operator.breaching(usage, value, weight);
            }
        } else if limit.action == Action::Deny && enforcement == Enforcement::Enforce {
            let would_fit = |usage: i64| !limit.operator.breaches(usage, value, weight);
            let held = held();
            let cure = if held > 0 && would_fit(usage.saturating_sub(held).max(0)) {
                Cure::Holds
            } else if let Some(window) = window.filter(|_| would_fit(0)) {
                Cure::Time(cuts.span(window).end)
            } else {
                Cure::Never
            };
            // The limit that holds a demand back longest is the one to name.
            if verdict.denial.is_none_or(|denial| denial.cure < cure) {
                verdict.denial = Some(Denial { limit: place, cure });
            }
        }
    }
    verdict
}

/// Whole seconds after which all denials are cured; `None` where one never is.
pub(crate) fn retry_after_seconds(cure: Cure, now: Timestamp) -> Option<i64> {
    match cure {
        Cure::Holds => Some(1),
        Cure::Time(end) => Some(end.seconds_after(now).max(1)),
        Cure::Never => None,
    }
}
