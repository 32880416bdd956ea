//! A lane: a thread with a connection and a queue of its own. All that one account asks for goes through one of them.

use super::batch::Pending;
use super::denied::Denied;
use super::source::{Purpose, Source};
use super::versions::Read;
use crate::admission::{Holds, Queue, Taking};
use crate::health::{Alert, Condition};
use crate::{Meters, StoreLimits};
use diesel_async::AsyncPgConnection;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tracktags_core::batch::CutCache;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, CounterMap};
use tracktags_core::versions::VersionTable;

/// How long callers wait for the outcome of a commit that was not heard.
pub(super) const UNKNOWN_WAIT: Duration = Duration::from_secs(1);
/// Between two tries of a database that fails.
pub(super) const RETRY_WAIT: Duration = Duration::from_millis(50);
/// The longest sleep.
const IDLE: Duration = Duration::from_millis(200);
/// Counters whose rows are known to be there; beyond it a lane asks anew.
const KNOWN_MAX: usize = 1_000_000;

/// What a batch read under its locks.
pub(super) struct Opened {
    pub(super) now: Timestamp,
    pub(super) counters: CounterMap<Counter>,
    pub(super) read: Read,
}

pub(super) struct Lane {
    pub(super) source: Source,
    pub(super) purpose: Purpose,
    pub(super) boot: Arc<str>,
    pub(super) number: i32,
    /// Names the lane's advisory lock.
    pub(super) key: i64,
    pub(super) conn: Option<AsyncPgConnection>,
    /// Each statement has been prepared on this connection.
    pub(super) is_warm: bool,
    pub(super) batch: i64,
    pub(super) next_batch: i64,
    pub(super) versions: VersionTable,
    pub(super) cuts: CutCache,
    pub(super) known: HashSet<CounterKey, foldhash::fast::RandomState>,
    pub(super) opened: Option<Opened>,
    pub(super) pending: Pending,
    pub(super) holds: Arc<Holds>,
    pub(super) queue: Arc<Queue>,
    /// Where what somebody holds up goes; none where this is that lane.
    pub(super) set_aside: Option<Arc<Queue>>,
    pub(super) denied: Arc<Denied>,
    pub(super) condition: Arc<Mutex<Condition>>,
    pub(super) meters: Meters,
    pub(super) limits: StoreLimits,
    pub(super) store_failed: bool,
    pub(super) unheard_since: Option<Instant>,
}

impl Lane {
    /// The loop, on a runtime of its own, which drives its connection. Ends when the queue is closed and empty.
    pub(super) fn serve(mut self, runtime: &Runtime) {
        loop {
            match self.queue.take() {
                Taking::Some(waiting) => {
                    let began = self.instant();
                    let count = waiting.len();
                    runtime.block_on(tracktags_core::group_commit::run(&mut self, waiting));
                    self.note_batch(began, count);
                }
                Taking::Nothing => self.queue.park(IDLE),
                Taking::Closed => return,
            }
        }
    }

    /// Connects where there is no connection.
    pub(super) async fn connected(&mut self) -> Result<(), StoreError> {
        if self.conn.is_none() {
            self.conn = Some(self.source.connect(self.purpose).await?);
            self.is_warm = false;
        }
        Ok(())
    }

    /// Takes in counters that have rows.
    pub(super) fn remember(&mut self, keys: impl Iterator<Item = CounterKey>) {
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        self.known.extend(keys);
    }

    #[expect(clippy::disallowed_methods, reason = "measures how long a batch took; decides nothing")]
    pub(super) fn instant(&self) -> Instant {
        Instant::now()
    }

    fn note_batch(&mut self, began: Instant, count: usize) {
        let took = self.instant().duration_since(began);
        self.meters.note_batch(count, took);
        self.queue.note_batch_of(count, took, self.limits.batch_entries_max);
    }

    /// The database fails: the node is not ready until a batch succeeds.
    pub(super) fn store_fails(&mut self, error: &StoreError) {
        self.store_failed = true;
        self.set_alert(Some(error.to_string()));
    }

    /// The database answered.
    pub(super) fn store_answers(&mut self) {
        if std::mem::take(&mut self.store_failed) {
            self.set_alert(None);
        }
    }

    fn set_alert(&self, reason: Option<String>) {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).set(Alert::Store, reason);
    }
}
