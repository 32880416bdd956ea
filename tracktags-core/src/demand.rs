//! ④ What a request asks of the ledger, and on what it rests.

use crate::limits::Terms;
use crate::metrics::Units;
use crate::time::Timestamp;
use crate::usage::{CounterKey, Taken};
use std::sync::Arc;

/// Which metrics a demand asks, and how many units it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// One metric of the terms, by its place; 0 units ask without taking.
    One {
        /// Its place in [`LimitSet`](crate::limits::LimitSet).
        place: usize,
        /// Units to take.
        units: Units,
    },
    /// Every metric with 0 units, and one of them, if given, with its units.
    All {
        /// What is counted besides: place and units.
        count: Option<(usize, Units)>,
    },
}

/// A request's wish: all its limits are decided and its units taken, or none.
#[derive(Clone, Debug)]
pub struct Demand {
    /// What holds for the account, as read at [`version`](Self::version).
    pub terms: Arc<Terms>,
    /// What is asked.
    pub ask: Ask,
    /// The oldest configuration version that any of this demand's knowledge was read at.
    pub version: i64,
    /// The key that was proved is refused from this instant on.
    pub key_expires_at: Option<Timestamp>,
    /// Whether units are taken, or only asked for.
    pub takes: bool,
}

impl Demand {
    /// Asks for `units` of the metric at `place` and takes them.
    #[must_use]
    pub fn new(terms: Arc<Terms>, place: usize, units: Units) -> Self {
        let version = terms.version;
        Self { terms, ask: Ask::One { place, units }, version, key_expires_at: None, takes: true }
    }

    /// The first instant at which what it rests on ends by itself: its key expires, another plan comes into force.
    #[must_use]
    pub fn good_until(&self) -> Timestamp {
        let key = self.key_expires_at.unwrap_or(Timestamp::MAX);
        key.min(self.terms.good_until.unwrap_or(Timestamp::MAX))
    }
}

/// One thing to be done to the ledger.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Decide, and take if admitted.
    Take(Demand),
    /// Change what was taken: to 0 units is a release. Never stale.
    Settle {
        /// The terms it was taken under.
        terms: Arc<Terms>,
        /// The metric's place in them.
        place: usize,
        /// What was taken.
        taken: Taken,
        /// What remains of it.
        units: Units,
    },
    /// Count usage that happened, without asking.
    Record {
        /// The account's terms.
        terms: Arc<Terms>,
        /// The metric's place in them.
        place: usize,
        /// How many.
        units: Units,
        /// When, if it was in the past.
        when: Option<Timestamp>,
    },
    /// Count what an account starts from, and start each further interval from it.
    Start {
        /// The account's terms.
        terms: Arc<Terms>,
        /// The metric's place in them.
        place: usize,
        /// How many.
        units: Units,
    },
    /// Correct usage downwards. Neither the metric's value nor its level may fall below 0; a window stops there.
    Correct {
        /// The account's terms.
        terms: Arc<Terms>,
        /// The metric's place in them.
        place: usize,
        /// By how much.
        units: Units,
    },
    /// Correct a SUM or COUNT metric so that its value is this; level and running windows move by the difference.
    SetTo {
        /// The account's terms.
        terms: Arc<Terms>,
        /// The metric's place in them.
        place: usize,
        /// The value it has then.
        units: Units,
    },
    /// Set the running windows to 0.
    Reset {
        /// The account's terms.
        terms: Arc<Terms>,
        /// The metric's place in them.
        place: usize,
        /// The level too.
        level_too: bool,
    },
}

impl Operation {
    /// Under which terms.
    #[must_use]
    pub const fn terms(&self) -> &Arc<Terms> {
        match self {
            Self::Take(demand) => &demand.terms,
            Self::Settle { terms, .. }
            | Self::Record { terms, .. }
            | Self::Start { terms, .. }
            | Self::Correct { terms, .. }
            | Self::SetTo { terms, .. }
            | Self::Reset { terms, .. } => terms,
        }
    }

    /// The counters it reads: one, or those of all metrics where all are asked.
    pub fn counters(&self) -> impl Iterator<Item = &CounterKey> {
        let terms = self.terms();
        let places = match self {
            Self::Take(Demand { ask: Ask::All { .. }, .. }) => 0..terms.limits.metrics().len(),
            Self::Take(Demand { ask: Ask::One { place, .. }, .. })
            | Self::Settle { place, .. }
            | Self::Record { place, .. }
            | Self::Start { place, .. }
            | Self::Correct { place, .. }
            | Self::SetTo { place, .. }
            | Self::Reset { place, .. } => *place..place.saturating_add(1),
        };
        places.filter_map(|place| terms.limits.get(place).map(|entry| entry.counter))
    }
}
