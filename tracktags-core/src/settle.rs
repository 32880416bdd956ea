//! ⑧ Settlement: `charge_on` × what the target did → the units are kept or released.

use crate::error::{Phase, Sent, UpstreamError};
use crate::metrics::words;

words! {
    /// When the units of a forwarded call are kept.
    ChargeOn {
        /// For any answer below 500, and for what may have been done.
        Success = "success",
        /// For any answer, and for what may have been done.
        Response = "response",
        /// As soon as a connection was tried.
        Attempt = "attempt",
    }
}

/// What became of a forwarded call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// Our policy refused it after the units were taken: never attempted.
    Blocked,
    /// Name, connect or TLS failed, our time limit there included: nothing was sent.
    NotSent,
    /// Reset or closed before the head of an answer, or no valid head.
    NoAnswer,
    /// Our time limit passed after the request was sent: the work may have been done.
    Unknown,
    /// The head of an answer with this status came, whatever became of its body.
    Answered(u16),
}

impl CallOutcome {
    /// What an error of the way out means. A body that broke or was too large follows a head, whose status the
    /// caller knows: pass it.
    #[must_use]
    pub const fn of_error(error: &UpstreamError, status: Option<u16>) -> Self {
        if let Some(status) = status {
            return Self::Answered(status);
        }
        match error {
            UpstreamError::Blocked | UpstreamError::InvalidTarget(_) => Self::Blocked,
            UpstreamError::TimedOut { phase: Phase::FirstByte | Phase::Total } => Self::Unknown,
            UpstreamError::Resolve(_)
            | UpstreamError::Connect(_)
            | UpstreamError::Tls(_)
            | UpstreamError::TimedOut { .. }
            | UpstreamError::Closed(_)
            | UpstreamError::Protocol(_)
            | UpstreamError::Truncated(_)
            | UpstreamError::TooLarge { .. } => match error.sent() {
                Sent::No => Self::NotSent,
                Sent::Maybe | Sent::Yes => Self::NoAnswer,
            },
        }
    }
}

impl ChargeOn {
    /// Whether the units stay counted.
    #[must_use]
    pub const fn keeps(self, outcome: CallOutcome) -> bool {
        match (outcome, self) {
            (CallOutcome::Blocked, _) => false,
            (CallOutcome::Unknown, _) => true,
            (CallOutcome::NotSent | CallOutcome::NoAnswer, charge_on) => matches!(charge_on, Self::Attempt),
            (CallOutcome::Answered(status), Self::Success) => status < 500,
            (CallOutcome::Answered(_), Self::Response | Self::Attempt) => true,
        }
    }
}
