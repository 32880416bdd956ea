//! Connections that wait for their next request: kept by the thread that opened them, for one class of targets.
//!
//! A connection comes here only when the answer on it was read to its end and its framing held; whatever ended
//! otherwise is closed. Keeps `answers-stay-apart`.

use crate::meter::Allowance;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Either, Full};
use hyper::client::conn::http1::SendRequest;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tracktags_core::error::Cause;
use tracktags_core::upstreams::Target;

/// Idle connections of one thread and class at most, whatever their origins.
const IDLE_MAX: usize = 4_096;

/// The body of a request as it is sent.
pub(crate) type OutgoingBody = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Cause>>;
/// The sending half of a connection.
pub(crate) type Sender = SendRequest<OutgoingBody>;

/// Where a connection leads.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Origin {
    authority: Arc<str>,
    is_tls: bool,
}

struct Idle {
    sender: Sender,
    allowance: Allowance,
    since: Instant,
}

/// The idle connections of one thread and class. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    idle: Mutex<Kept>,
    per_origin_max: usize,
    idle_timeout: Duration,
}

#[derive(Default)]
struct Kept {
    origins: HashMap<Origin, Vec<Idle>>,
    count: usize,
    /// Held by the task that closes what has waited too long; it ends with the runtime it runs on.
    reaper: Weak<()>,
}

/// A connection in use. Unless it is given back it is closed.
pub(crate) struct Lease {
    pub(crate) sender: Sender,
    /// What may be read on it before the head of an answer.
    pub(crate) allowance: Allowance,
    /// Whether it has carried an answer before.
    pub(crate) is_reused: bool,
    origin: Origin,
    home: Arc<Shared>,
}

impl Pool {
    pub(crate) fn new(per_origin_max: usize, idle_timeout: Duration) -> Self {
        Self { shared: Arc::new(Shared { idle: Mutex::default(), per_origin_max, idle_timeout }) }
    }

    /// The connection to the target's origin that was used last, if one waits.
    pub(crate) fn take(&self, target: &Target) -> Option<Lease> {
        let origin = origin(target);
        let mut kept = self.shared.kept();
        let waiting = kept.origins.get_mut(&origin)?;
        let (mut taken, mut found) = (0, None);
        while let Some(idle) = waiting.pop() {
            taken += 1;
            if idle.sender.is_ready() {
                found = Some(idle);
                break;
            }
        }
        if waiting.is_empty() && found.is_none() {
            kept.origins.remove(&origin);
        }
        kept.count = kept.count.saturating_sub(taken);
        drop(kept);
        let home = Arc::clone(&self.shared);
        found.map(|Idle { sender, allowance, .. }| Lease { sender, allowance, is_reused: true, origin, home })
    }

    /// A lease of a connection just opened.
    pub(crate) fn lease(&self, target: &Target, sender: Sender, allowance: Allowance) -> Lease {
        let home = Arc::clone(&self.shared);
        Lease { sender, allowance, is_reused: false, origin: origin(target), home }
    }
}

fn origin(target: &Target) -> Origin {
    Origin { authority: Arc::clone(&target.authority), is_tls: target.is_tls() }
}

impl Lease {
    /// Gives the connection back: its answer was read to the end.
    pub(crate) fn give_back(mut self) {
        if self.sender.is_ready() {
            self.keep();
        } else if !self.sender.is_closed() {
            // The answer came before the request was sent whole.
            tokio::spawn(async move {
                let limit = self.home.idle_timeout;
                if matches!(timeout(limit, poll_fn(|cx| self.sender.poll_ready(cx))).await, Ok(Ok(()))) {
                    self.keep();
                }
            });
        }
    }

    fn keep(self) {
        let Self { sender, allowance, origin, home, .. } = self;
        let mut kept = home.kept();
        if kept.count >= IDLE_MAX || home.per_origin_max == 0 {
            return;
        }
        let waiting = kept.origins.entry(origin).or_default();
        if waiting.len() >= home.per_origin_max {
            return;
        }
        waiting.push(Idle { sender, allowance, since: Instant::now() });
        kept.count += 1;
        if kept.reaper.strong_count() == 0 {
            let alive = Arc::new(());
            kept.reaper = Arc::downgrade(&alive);
            tokio::spawn(reap(Arc::downgrade(&home), home.idle_timeout / 2, alive));
        }
    }
}

/// Closes what has waited too long, until nothing waits.
async fn reap(home: Weak<Shared>, every: Duration, alive: Arc<()>) {
    loop {
        sleep(every).await;
        let Some(home) = home.upgrade() else { return };
        let mut kept = home.kept();
        let mut left = 0;
        kept.origins.retain(|_, waiting| {
            waiting.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < home.idle_timeout);
            left += waiting.len();
            !waiting.is_empty()
        });
        kept.count = left;
        if left == 0 {
            // Under the lock, so that the next connection that is kept starts another.
            drop(alive);
            return;
        }
    }
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here panics while it is locked.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
