//! The one thread that writes: batches, configuration jobs, folds, pruning, and a slot free for SQL writers.
//!
//! It owns the connection and the live counters. It sleeps only when nothing waits; under load the batch that
//! commits is what gathers the next one.

use super::connection::{self, FileLock};
use super::fold::Folding;
use super::live::Live;
use super::usage;
use crate::admission::{Queue, Taking};
use crate::cache::KeyUses;
use crate::health::{Alert, Condition};
use crate::holds::Holds;
use crate::ledger::Packed;
use crate::secrets::Secrets;
use crate::{Durability, Meters, StoreLimits};
use diesel::SqliteConnection;
use diesel::connection::SimpleConnection;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracktags_core::batch::CutCache;
use tracktags_core::error::StoreError;
use tracktags_core::group_commit::CommitFault;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::Clock;
use tracktags_core::usage::{Counter, CounterKey};
use tracktags_core::versions::VersionTable;

/// How long callers wait for the outcome of a commit that was not heard.
pub(super) const UNKNOWN_WAIT: Duration = Duration::from_secs(1);
/// Between two looks at a store that fails.
pub(super) const RETRY_WAIT: Duration = Duration::from_millis(50);
/// The longest sleep: folds and pruning come round.
const IDLE: Duration = Duration::from_millis(200);
/// Jobs that may wait.
const JOBS_WAITING_MAX: usize = 1_024;
/// Under load the lock is free for this long in every [`SLOT_EVERY`], so that a polling SQL writer gets it.
const SLOT: Duration = Duration::from_millis(5);
const SLOT_EVERY: Duration = Duration::from_millis(95);
/// A step back of the clock by more than this makes the node not ready.
const CLOCK_BACK_SECONDS_MAX: i64 = 60;

/// Work on the writer's thread, between batches.
pub(super) type Job = Box<dyn FnOnce(&mut Writer) + Send>;

pub(super) struct Writer {
    pub(super) conn: SqliteConnection,
    pub(super) path: PathBuf,
    pub(super) durability: Durability,
    pub(super) limits: StoreLimits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) secrets: Secrets,
    pub(super) boot: String,
    pub(super) next_batch: i64,
    pub(super) data_version: i32,
    pub(super) versions: VersionTable,
    pub(super) live: Live,
    pub(super) cuts: CutCache,
    pub(super) holds: Arc<Holds>,
    pub(super) queue: Arc<Queue>,
    pub(super) packed: Vec<Packed>,
    pub(super) folding: Folding,
    pub(super) condition: Arc<Mutex<Condition>>,
    /// Bytes of the write-ahead log in use, as last measured.
    pub(super) wal_in_use: Arc<AtomicU64>,
    /// Keys used, to be written down.
    pub(super) uses: Arc<KeyUses>,
    pub(super) meters: Meters,
    pub(super) store_failed: bool,
    pub(super) latest: Timestamp,
    pub(super) slot: Slotting,
    /// Since when a batch holds the lock.
    pub(super) locked: Option<Instant>,
    /// Since when the result of a batch's commit is not known.
    pub(super) unheard_since: Option<Instant>,
    pub(super) _lock: FileLock,
}

/// Keeps count of how long the lock was held, and when it was last left free.
pub(super) struct Slotting {
    since: Instant,
    held: Duration,
}

impl Slotting {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, held: Duration::ZERO }
    }
}

/// The way to the writer's thread for everything that is not a batch.
pub(super) struct Jobs {
    sender: SyncSender<Job>,
    queue: Arc<Queue>,
}

impl Jobs {
    pub(super) fn new(queue: Arc<Queue>) -> (Self, Receiver<Job>) {
        let (sender, receiver) = sync_channel(JOBS_WAITING_MAX);
        (Self { sender, queue }, receiver)
    }

    /// Runs `work` on the writer's thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            let _gone = sender.send(work(writer));
        });
        self.sender.try_send(job).map_err(|full| match full {
            TrySendError::Full(_) => StoreError::Busy { queue: "configuration" },
            TrySendError::Disconnected(_) => StoreError::Unavailable("the store is closed".into()),
        })?;
        self.queue.wake();
        receiver.await.unwrap_or(Err(StoreError::CommitUnknown))
    }

    /// Runs `change` in a transaction of its own; whatever it returns, all of it or nothing was done.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut SqliteConnection, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(move |writer| writer.transaction(change)).await
    }
}

impl Writer {
    /// The loop. Ends when the queue is closed and empty.
    pub(super) fn serve(mut self, jobs: &Receiver<Job>) {
        loop {
            while let Ok(job) = jobs.try_recv() {
                self.guarded(job);
            }
            match self.queue.take() {
                Taking::Some(waiting) => {
                    let began = self.instant();
                    let count = waiting.len();
                    self.batch(waiting);
                    self.note_batch(began, count);
                }
                Taking::Nothing => {
                    // While the store fails there is nothing to fold, whatever waits.
                    let pause =
                        if self.store_failed { IDLE } else { self.folding.pause(IDLE, self.instant()) };
                    if !pause.is_zero() {
                        self.queue.wait(pause);
                    }
                }
                Taking::Closed => break,
            }
            self.fold_a_little();
            self.finish_a_checkpoint();
            self.leave_a_slot();
        }
        if self.queue.is_abrupt() {
            return;
        }
        while let Ok(job) = jobs.try_recv() {
            self.guarded(job);
        }
        self.finish();
    }

    /// A job that panics is a bug of ours; it must not take the writer along. Its caller's slot is dropped.
    fn guarded(&mut self, job: Job) {
        let run = std::panic::AssertUnwindSafe(|| job(self));
        if std::panic::catch_unwind(run).is_err() {
            tracing::error!("a configuration job panicked");
            self.rollback();
            self.versions.doubt();
        }
    }

    #[expect(clippy::disallowed_methods, reason = "measures how long the lock was held; decides nothing")]
    pub(super) fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Notes how long a batch took, for the estimate of a wait.
    fn note_batch(&mut self, began: Instant, count: usize) {
        let took = self.instant().duration_since(began);
        self.meters.note_batch(count, took);
        self.queue.note_batch(count, took);
    }

    /// Notes for how long a batch held the lock.
    pub(super) fn note_held(&mut self) {
        if let Some(locked) = self.locked.take() {
            self.slot.held += self.instant().duration_since(locked);
        }
    }

    /// Does the rest of a checkpoint of a log that has grown large, as soon as the side thread has done nearly all of it:
    /// only between two batches is there a moment at which none of it is left, so that the log begins anew.
    fn finish_a_checkpoint(&mut self) {
        if self.wal_in_use.load(Ordering::Relaxed) > self.limits.wal_checkpoint_bytes {
            self.checkpoint();
        }
    }

    /// Where the lock is held nearly all of the time, leaves it free for a twentieth of it: SQL writers poll for it.
    fn leave_a_slot(&mut self) {
        let now = self.instant();
        let span = now.duration_since(self.slot.since);
        if span < SLOT_EVERY {
            return;
        }
        // A poll that meets a lock held three quarters of the time still gets it within a few tries.
        if self.slot.held * 4 > span * 3 {
            std::thread::sleep(SLOT);
        }
        self.slot = Slotting::new(self.instant());
    }

    /// A counter as committed.
    pub(super) fn counter(&mut self, key: &CounterKey) -> Result<Counter, StoreError> {
        self.live.load(&mut self.conn, key)
    }

    pub(super) fn checkpoint(&mut self) {
        match connection::checkpoint_passive(&mut self.conn) {
            // The next commit begins the log anew; the side thread measures again.
            Ok(Some(_)) => self.wal_in_use.store(0, Ordering::Relaxed),
            // The side thread is at it: the rest is done when it has ended.
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a checkpoint failed"),
        }
    }

    /// The clock. A step back is met by counters, whose time never runs back; a large one is an alert.
    pub(super) fn now(&mut self) -> Timestamp {
        let now = self.clock.now();
        if now >= self.latest {
            if self.latest.as_micros() != 0 {
                self.set_alert(Alert::Clock, None);
            }
            self.latest = now;
        } else if self.latest.seconds_after(now) > CLOCK_BACK_SECONDS_MAX {
            self.set_alert(Alert::Clock, Some("the clock went back by more than a minute".to_owned()));
        }
        now
    }

    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        connection::begin(&mut self.conn)
    }

    /// Ends what is open. SQLite may have rolled back by itself; then there is nothing to end.
    pub(super) fn rollback(&mut self) {
        let _ended = self.conn.batch_execute("ROLLBACK");
    }

    /// A configuration change: all of it or nothing. Our own commits do not move `data_version`, so what is known
    /// is put in doubt here.
    pub(super) fn transaction<T>(
        &mut self,
        change: impl FnOnce(&mut SqliteConnection, Timestamp) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let now = self.now();
        self.begin()?;
        match change(&mut self.conn, now) {
            Ok(done) => {
                let result = connection::commit(&mut self.conn);
                self.versions.doubt();
                match result {
                    Ok(()) => Ok(done),
                    Err(CommitFault::RolledBack(error)) => {
                        self.rollback();
                        Err(error)
                    }
                    Err(CommitFault::Unknown(error)) => {
                        tracing::error!(%error, "the commit of a change was not heard");
                        self.rollback();
                        // The connection is not trusted any more; what cannot be reopened now, batches will meet.
                        if let Err(error) = self.reopen_and_look(self.next_batch) {
                            self.store_fails(&error);
                        }
                        Err(StoreError::CommitUnknown)
                    }
                }
            }
            Err(error) => {
                self.rollback();
                Err(error)
            }
        }
    }

    /// After a commit that was not heard: a new connection, a check for damage, an emptied log, then the marker.
    pub(super) fn reopen_and_look(&mut self, batch: i64) -> Result<bool, StoreError> {
        self.set_alert(Alert::Store, Some("a commit's result is not known".to_owned()));
        let conn = connection::open_writer(&self.path, self.durability, self.limits.wal_bytes_kept());
        self.conn = conn.map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        self.read_back()?;
        if !connection::checkpoint_truncate(&mut self.conn)? {
            return Err(StoreError::Unavailable(
                "a reader holds up the checkpoint of the write-ahead log".into(),
            ));
        }
        let committed = usage::is_committed(&mut self.conn, &self.boot, batch)?;
        self.data_version = connection::data_version(&mut self.conn)?;
        self.versions.doubt();
        self.set_alert(Alert::Store, None);
        Ok(committed)
    }

    /// The store fails: the node is not ready until a batch succeeds.
    pub(super) fn store_fails(&mut self, error: &StoreError) {
        self.store_failed = true;
        self.set_alert(Alert::Store, Some(error.to_string()));
    }

    /// The store answered.
    pub(super) fn store_answers(&mut self) {
        if std::mem::take(&mut self.store_failed) {
            self.set_alert(Alert::Store, None);
        }
    }

    pub(super) fn set_alert(&mut self, alert: Alert, reason: Option<String>) {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).set(alert, reason);
    }

    /// The last of it: everything is folded, the log emptied, the stop noted as clean.
    fn finish(&mut self) {
        let result = self.fold_all().and_then(|()| usage::set_clean_stop(&mut self.conn, true));
        if let Err(error) = result.and_then(|()| connection::checkpoint_truncate(&mut self.conn).map(drop)) {
            tracing::error!(%error, "the store did not close in order; the next start reads the ledger's tail");
        }
    }
}
