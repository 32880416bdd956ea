//! What became of the requests of a load, and how long each took.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What became of one request.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// Its status; 0 where the connection ended without one.
    pub status: u16,
    /// Since it was due.
    pub since_due: Duration,
    /// Since it was given to a connection.
    pub since_sent: Duration,
    /// Whether a refusal says when to come back; so does what is none.
    pub has_retry_after: bool,
}

/// What became of all requests of a class.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Every answer.
    pub answers: Vec<Answer>,
    /// Refusals by status and code.
    pub codes: BTreeMap<(u16, String), usize>,
    /// Requests given to connections. Those without an answer got none in time.
    pub sent: usize,
    /// Requests that were due and found no connection until the end.
    pub unsent: usize,
    /// For how long requests became due.
    pub lasted: Duration,
}

impl Tally {
    pub(super) fn note(&mut self, answer: Answer, code: Option<String>) {
        self.answers.push(answer);
        if answer.status >= 400 {
            *self.codes.entry((answer.status, code.unwrap_or_default())).or_default() += 1;
        }
    }

    /// Answers with this status.
    #[must_use]
    pub fn count(&self, status: u16) -> usize {
        self.answers.iter().filter(|answer| answer.status == status).count()
    }

    /// Answers with this status in a second.
    #[must_use]
    pub fn per_second(&self, status: u16) -> f64 {
        let count = u32::try_from(self.count(status)).unwrap_or(u32::MAX);
        f64::from(count) / self.lasted.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Requests that got no answer, or found no connection.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.unsent + self.sent.saturating_sub(self.answers.len()) + self.count(0)
    }

    /// How long so many of a thousand answers with this status took at most, since they were due.
    #[must_use]
    pub fn within(&self, status: u16, per_mille: usize) -> Duration {
        self.quantile(per_mille, |answer| (answer.status == status).then_some(answer.since_due))
    }

    /// As [`within`](Self::within), since they were given to a connection.
    #[must_use]
    pub fn within_sent(&self, status: u16, per_mille: usize) -> Duration {
        self.quantile(per_mille, |answer| (answer.status == status).then_some(answer.since_sent))
    }

    fn quantile(&self, per_mille: usize, of: impl Fn(&Answer) -> Option<Duration>) -> Duration {
        let mut took: Vec<Duration> = self.answers.iter().filter_map(of).collect();
        took.sort_unstable();
        let last = took.len().saturating_sub(1);
        took.get((took.len() * per_mille / 1_000).min(last)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut statuses: Vec<u16> = self.answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        statuses.dedup();
        write!(f, "{} sent, {} without an answer", self.sent, self.lost())?;
        for status in statuses {
            write!(
                f,
                "; {status}: {} ({:.0}/s, p50 {:.1?}, p99 {:.1?}, since sent {:.1?} and {:.1?})",
                self.count(status),
                self.per_second(status),
                self.within(status, 500),
                self.within(status, 990),
                self.within_sent(status, 500),
                self.within_sent(status, 990),
            )?;
        }
        if !self.codes.is_empty() {
            write!(f, "; {:?}", self.codes)?;
        }
        Ok(())
    }
}
