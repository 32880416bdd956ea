//! What can go wrong below HTTP: the store's and the way out's errors. No status codes here.

use std::error::Error as StdError;
use std::fmt;

/// A cause kept for the log.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// An error with everything that it came from, for people and logs.
#[must_use]
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// What an error speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    /// A business.
    Business,
    /// A customer.
    Customer,
    /// A plan.
    Plan,
    /// A limit.
    Limit,
    /// A metric.
    Metric,
    /// A key.
    Key,
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Business => "business",
            Self::Customer => "customer",
            Self::Plan => "plan",
            Self::Limit => "limit",
            Self::Metric => "metric",
            Self::Key => "key",
        })
    }
}

/// Why a change collides with what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// A live customer has this id.
    CustomerExists,
    /// A plan has this name.
    PlanExists,
    /// A plan has this Stripe price.
    PriceTaken,
    /// There is a free plan already.
    FreePlanExists,
    /// Customers are on the plan.
    PlanInUse,
    /// A limit for this attachment, metric and period exists.
    LimitExists,
    /// The metric is defined otherwise.
    MetricConflict,
    /// A limit or a setting names the metric.
    MetricInUse,
    /// As many live keys as may be.
    KeyLimitReached,
    /// A live key of this owner has the name.
    KeyNameTaken,
    /// Several live keys have the name.
    AmbiguousKey,
    /// As many rows of this kind as a business may have.
    Quota,
}

/// An error of the store. Nothing was changed, except where the variant says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such thing, or it belongs to another tenant.
    #[error("{entity} {id:?} not found")]
    NotFound {
        /// What was looked for.
        entity: Entity,
        /// Its id as asked.
        id: String,
    },
    /// It collides with what is there.
    #[error("{entity} conflicts ({conflict:?}) with {id:?}")]
    Conflict {
        /// What was to be changed.
        entity: Entity,
        /// Why it cannot be.
        conflict: Conflict,
        /// The id of what is in the way.
        id: String,
    },
    /// A queue is full; nothing was counted.
    #[error("the {queue} queue is full")]
    Busy {
        /// Which queue.
        queue: &'static str,
    },
    /// The database cannot be reached or its lock not be had; nothing was counted.
    #[error("the database is not available")]
    Unavailable(#[source] Cause),
    /// The disk is full; nothing was counted.
    #[error("the disk is full")]
    StorageFull,
    /// The commit's result was not heard: perhaps counted, certainly not acted upon.
    #[error("the result of the commit is not known")]
    CommitUnknown,
    /// What is stored contradicts itself.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// Any other fault of the database.
    #[error("the database failed")]
    Backend(#[source] Cause),
}

impl StoreError {
    /// Shorthand for [`StoreError::NotFound`].
    pub fn not_found(entity: Entity, id: impl Into<String>) -> Self {
        Self::NotFound { entity, id: id.into() }
    }

    /// Shorthand for [`StoreError::Conflict`].
    pub fn conflict(entity: Entity, conflict: Conflict, id: impl Into<String>) -> Self {
        Self::Conflict { entity, conflict, id: id.into() }
    }

    /// Whether the same call may succeed a little later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unavailable(_) | Self::StorageFull | Self::CommitUnknown)
    }
}

/// Where a call to a target spent its time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Looking up the name.
    Resolve,
    /// Opening the socket.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Waiting for the head of the answer.
    FirstByte,
    /// Reading the body, or the whole call.
    Total,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "name look-up",
            Self::Connect => "connect",
            Self::Tls => "TLS handshake",
            Self::FirstByte => "first byte",
            Self::Total => "whole call",
        })
    }
}

/// Whether the target may have seen the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Not a byte of it was sent.
    No,
    /// It may have been received in whole or in part.
    Maybe,
    /// The head of an answer came back.
    Yes,
}

/// An error on the way to a target that somebody else chose.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The URL, method or headers are not acceptable.
    #[error("the target is not acceptable: {0}")]
    InvalidTarget(&'static str),
    /// Policy forbids it. Says no more on purpose.
    #[error("the target is not allowed")]
    Blocked,
    /// The name was not resolved.
    #[error("the target's name could not be resolved")]
    Resolve(#[source] Cause),
    /// No connection.
    #[error("no connection to the target")]
    Connect(#[source] Cause),
    /// No TLS.
    #[error("the TLS handshake with the target failed")]
    Tls(#[source] Cause),
    /// A time limit of ours passed.
    #[error("the target took too long ({phase})")]
    TimedOut {
        /// In which phase.
        phase: Phase,
    },
    /// The connection was reset or closed before the head of an answer.
    #[error("the target closed the connection before it answered")]
    Closed(#[source] Cause),
    /// What came back is not HTTP as it must be, before a valid head was read.
    #[error("the target's answer is not valid HTTP")]
    Protocol(#[source] Cause),
    /// The body of the answer was cut short or broke its framing.
    #[error("the target's answer was cut short")]
    Truncated(#[source] Cause),
    /// The body of the answer is larger than `bytes_max`, after decoding.
    #[error("the target's answer is larger than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: u64,
    },
}

impl UpstreamError {
    /// Whether the target may have seen the request.
    #[must_use]
    pub const fn sent(&self) -> Sent {
        match self {
            Self::InvalidTarget(_) | Self::Blocked | Self::Resolve(_) | Self::Connect(_) | Self::Tls(_) => {
                Sent::No
            }
            Self::TimedOut { phase } => match phase {
                Phase::Resolve | Phase::Connect | Phase::Tls => Sent::No,
                Phase::FirstByte | Phase::Total => Sent::Maybe,
            },
            Self::Closed(_) | Self::Protocol(_) => Sent::Maybe,
            Self::Truncated(_) | Self::TooLarge { .. } => Sent::Yes,
        }
    }
}
