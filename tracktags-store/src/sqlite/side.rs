//! The side thread: a passive checkpoint five times a second, and the sorting of folds.

use super::connection;
use super::fold::{self, Pass};
use crate::health::{Alert, Condition};
use crate::{OpenError, StoreLimits};
use diesel::SqliteConnection;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tracktags_core::error::StoreError;

/// Between two checkpoints.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(200);
/// After so many checkpoints in turn that leave the log too large, somebody pins it. One alone says that much was written
/// while it ran; the writer's own comes next.
const TOO_LARGE_MAX: u32 = 5;

pub(super) struct Side {
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// A checkpoint; where the log is large, another one at once, of what was written during the first. What is left then is
/// little, and the writer, which is to do it, holds up its callers for as little.
fn checkpoint(conn: &mut SqliteConnection, large: u64) -> Result<Option<u64>, StoreError> {
    match connection::checkpoint_passive(conn)? {
        Some(bytes) if bytes > large => connection::checkpoint_passive(conn),
        in_use => Ok(in_use),
    }
}

impl Side {
    pub(super) fn start(
        path: &Path,
        passes: Receiver<Pass>,
        condition: Arc<Mutex<Condition>>,
        limits: &StoreLimits,
        wal_in_use: Arc<AtomicU64>,
    ) -> Result<Self, OpenError> {
        let (stop, stopped) = channel();
        let mut conn = connection::open_checkpointer(path)?;
        let StoreLimits { wal_bytes_max, wal_checkpoint_bytes, .. } = *limits;
        let file: PathBuf = path.to_owned();
        let checkpoints = move || {
            let mut too_large: u32 = 0;
            while stopped.recv_timeout(CHECKPOINT_EVERY) == Err(RecvTimeoutError::Timeout) {
                match checkpoint(&mut conn, wal_checkpoint_bytes) {
                    Ok(Some(bytes)) => wal_in_use.store(bytes, Ordering::Relaxed),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "a checkpoint failed"),
                }
                let is_too_large = connection::wal_bytes(&file) > wal_bytes_max;
                too_large = if is_too_large { too_large.saturating_add(1) } else { 0 };
                let reason = (too_large >= TOO_LARGE_MAX)
                    .then(|| format!("the write-ahead log passes {wal_bytes_max} bytes: a reader pins it"));
                condition.lock().unwrap_or_else(PoisonError::into_inner).set(Alert::WalBytes, reason);
            }
        };
        let checkpoints = super::spawn("tracktags-checkpoint", path, checkpoints)?;
        let sorter = super::spawn("tracktags-sort", path, move || fold::sort_passes(&passes))?;
        Ok(Self { stop: Some(stop), threads: vec![checkpoints, sorter] })
    }

    /// Ends both threads; the sorter ends when the writer is gone.
    pub(super) fn close(&mut self) {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}
