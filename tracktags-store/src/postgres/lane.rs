//! A lane: a thread with a connection and a queue of its own. All that one account asks for goes through one of them. One
//! lane more is the quarantine: it serves the businesses that somebody holds up, one at a time.

use super::batch::Pending;
use super::boots;
use super::denied::Denied;
use super::locked::Opened;
use super::quarantine::{Quarantine, of_one_business};
use super::source::{Link, Purpose, Source};
use crate::Meters;
use crate::admission::{Queue, Taking, Waiting};
use crate::health::{Alert, Condition};
use crate::holds::Holds;
use crate::secrets::Secrets;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tracktags_core::accounts::BusinessId;
use tracktags_core::batch::CutCache;
use tracktags_core::error::StoreError;
use tracktags_core::group_commit;
use tracktags_core::usage::CounterKey;
use tracktags_core::versions::VersionTable;

/// How long callers wait for the outcome of a commit that was not heard.
pub(super) const UNKNOWN_WAIT: Duration = Duration::from_secs(1);
/// Between two tries of a database that fails.
pub(super) const RETRY_WAIT: Duration = Duration::from_millis(50);
/// A round trip that takes longer is given up, with its connection.
pub(super) const ANSWER_WAIT: Duration = Duration::from_millis(1_500);
/// How long a database may fail before those who wait are refused, and not tried again.
const FAILING_MAX: Duration = Duration::from_millis(100);
/// Tries of a batch's locks where they are free again by the time that is looked for who holds them.
pub(super) const LOCK_TRIES: usize = 4;
/// The longest sleep.
const IDLE: Duration = Duration::from_millis(200);
/// Counters whose rows are known to be there; beyond it a lane asks anew.
const KNOWN_MAX: usize = 1_000_000;

/// What all lanes of a node share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) source: Source,
    pub(super) secrets: Secrets,
    pub(super) boot: Arc<str>,
    pub(super) holds: Arc<Holds>,
    pub(super) denied: Arc<Denied>,
    pub(super) quarantine: Arc<Quarantine>,
    pub(super) condition: Arc<Mutex<Condition>>,
    pub(super) meters: Meters,
}

pub(super) struct Lane {
    source: Source,
    pub(super) secrets: Secrets,
    pub(super) boot: Arc<str>,
    pub(super) number: i32,
    /// Of the lane's advisory lock.
    pub(super) lock_number: i64,
    pub(super) conn: Option<Link>,
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
    pub(super) quarantine: Arc<Quarantine>,
    pub(super) is_quarantine: bool,
    pub(super) denied: Arc<Denied>,
    condition: Arc<Mutex<Condition>>,
    meters: Meters,
    /// Since when the database fails.
    failed_since: Option<Instant>,
    succeeded: bool,
    pub(super) unheard_since: Option<Instant>,
}

pub(super) fn lost() -> StoreError {
    StoreError::Unavailable("the connection to the database was lost".into())
}

impl Lane {
    pub(super) fn new(shared: Shared, number: i32, queue: Arc<Queue>, is_quarantine: bool) -> Self {
        let Shared { source, secrets, boot, holds, denied, quarantine, condition, meters } = shared;
        Self {
            lock_number: boots::lane_lock(&boot, number),
            source,
            secrets,
            boot,
            number,
            conn: None,
            is_warm: false,
            batch: 0,
            next_batch: 1,
            versions: VersionTable::default(),
            cuts: CutCache::default(),
            known: HashSet::default(),
            opened: None,
            pending: Pending::default(),
            holds,
            queue,
            quarantine,
            is_quarantine,
            denied,
            condition,
            meters,
            failed_since: None,
            succeeded: false,
            unheard_since: None,
        }
    }

    /// The loop, on a runtime of its own, which drives its connection. Ends when the queue is closed and empty.
    pub(super) fn serve(mut self, runtime: &Runtime) {
        let mut last = None;
        loop {
            match self.queue.take() {
                Taking::Some(waiting) if self.is_quarantine => self.serve_one(runtime, waiting, &mut last),
                Taking::Some(waiting) => {
                    let waiting = self.quarantine.sift(waiting);
                    self.batch(runtime, waiting);
                }
                Taking::Nothing => {
                    self.look_after_store(runtime);
                    self.queue.wait(IDLE);
                }
                Taking::Closed => return,
            }
        }
    }

    fn batch(&mut self, runtime: &Runtime, waiting: Vec<Waiting>) {
        if waiting.is_empty() {
            return;
        }
        let (began, count) = (self.instant(), waiting.len());
        self.succeeded = false;
        runtime.block_on(group_commit::run(self, waiting));
        let took = self.instant().duration_since(began);
        self.meters.note_batch(count, took);
        self.queue.note_batch(count, took);
    }

    /// A batch of one business.
    fn serve_one(&mut self, runtime: &Runtime, waiting: Vec<Waiting>, last: &mut Option<BusinessId>) {
        let Some((business, its, others)) = of_one_business(waiting, last.as_ref()) else { return };
        self.queue.put_back(others);
        self.batch(runtime, its);
        let now = self.instant();
        if self.succeeded {
            self.quarantine.release(&business, now);
        } else {
            self.quarantine.note_held(&business, now);
        }
        *last = Some(business);
    }

    /// A database that failed is asked again though nobody waits: a node that is not ready hears of no demand.
    fn look_after_store(&mut self, runtime: &Runtime) {
        if self.failed_since.is_some() && runtime.block_on(self.connected()).is_ok() {
            self.store_answers();
        }
    }

    /// Connects where there is no connection.
    pub(super) async fn connected(&mut self) -> Result<(), StoreError> {
        if self.conn.is_none() {
            let purpose = if self.is_quarantine { Purpose::Quarantine } else { Purpose::Batches };
            let conn = self.source.connect(purpose).await?;
            boots::enter(&conn, &self.boot, self.number, self.entered_to()).await?;
            self.conn = Some(conn);
            self.is_warm = false;
        }
        Ok(())
    }

    /// Up to which batch all are over where this boot was taken for over: then also the one whose commit was not heard,
    /// for nobody could take the boot for over while a backend of its lived, nor before what that committed was folded.
    const fn entered_to(&self) -> i64 {
        self.next_batch.saturating_sub(1)
    }

    /// Takes in counters that have rows.
    pub(super) fn remember(&mut self, keys: impl Iterator<Item = CounterKey>) {
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        self.known.extend(keys);
    }

    #[expect(clippy::disallowed_methods, reason = "measures how long things took; decides nothing")]
    pub(super) fn instant(&self) -> Instant {
        Instant::now()
    }

    /// The database fails: the node is not ready until it answers.
    pub(super) fn store_fails(&mut self, error: &StoreError) {
        let now = self.instant();
        self.failed_since.get_or_insert(now);
        self.set_alert(Some(error.to_string()));
    }

    /// Who waits is not kept waiting for a database that fails and fails.
    pub(super) fn refuse_if_failing(&self) {
        let now = self.instant();
        if self.failed_since.is_some_and(|since| now.duration_since(since) >= FAILING_MAX) {
            self.queue.refuse_demands();
        }
    }

    /// The database answered.
    pub(super) fn store_answers(&mut self) {
        self.succeeded = true;
        if self.failed_since.take().is_some() {
            self.set_alert(None);
        }
    }

    fn set_alert(&self, reason: Option<String>) {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).set(Alert::Store, reason);
    }
}
