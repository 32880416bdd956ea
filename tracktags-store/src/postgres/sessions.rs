//! Threads with a connection each, for everything that is no batch: reads in one snapshot, changes in one transaction.
//! A connection that breaks is made anew with the next piece of work.

use super::dialect::Conn;
use super::error::{is_conflict, is_no_commit, store_error};
use super::source::{Purpose, Source};
use super::statement::statement;
use crate::OpenError;
use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;

/// Work that may wait for each connection.
const WAITING_MAX: usize = 1_024;
/// How often a change is tried whose transaction met another.
const TRIES_MAX: usize = 16;

/// Sees what was committed when its first statement began, and nothing later.
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// As if there were no other: rules that are checked before they are written hold, or the change is tried again.
const BEGIN_CHANGE: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";
/// The same while no batch commits: none has written to the counters, and none will.
const BEGIN_WITHOUT_BATCHES: &str =
    "BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL lock_timeout = 200; LOCK TABLE counters IN SHARE MODE";
/// Each statement sees what was committed when it began.
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
const COMMIT: &str = "COMMIT";
const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

type Work = Box<dyn FnOnce(&mut Session) + Send>;

/// A connection, made when it is first needed.
pub(crate) struct Session {
    source: Source,
    purpose: Purpose,
    runtime: Handle,
    conn: Option<Conn>,
}

impl Session {
    pub(super) const fn new(source: Source, runtime: Handle) -> Self {
        Self::for_purpose(Purpose::Queries, source, runtime)
    }

    pub(super) const fn for_purpose(purpose: Purpose, source: Source, runtime: Handle) -> Self {
        Self { source, purpose, runtime, conn: None }
    }

    /// The connection.
    pub(super) fn conn(&mut self) -> Result<&mut Conn, StoreError> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => {
                let _current = self.runtime.enter();
                Conn::from(self.runtime.block_on(self.source.connect(self.purpose))?)
            }
        };
        Ok(self.conn.insert(conn))
    }

    /// The connection by itself.
    #[cfg(test)]
    pub(super) fn into_conn(mut self) -> Result<Conn, StoreError> {
        self.conn()?;
        self.conn.ok_or_else(|| StoreError::Unavailable("there is no connection".into()))
    }

    /// Runs `work` in a transaction that begins and ends so; with the database's clock.
    fn run<T>(
        &mut self,
        begin: &str,
        end: &str,
        work: impl FnOnce(&mut Conn, Timestamp) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let conn = self.conn()?;
        let result = within(conn, begin, end, work);
        // Ends what is open, or tells that the connection is no good.
        if result.is_err() && conn.batch_execute("ROLLBACK").is_err() {
            self.conn = None;
        }
        result
    }

    /// Reads in one snapshot. A connection that had broken is tried anew once: nothing was done on it.
    pub(crate) fn read<T>(
        &mut self,
        mut read: impl FnMut(&mut Conn, Timestamp) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let had_one = self.conn.is_some();
        let result = self.run(BEGIN_READ, "ROLLBACK", &mut read);
        match result {
            Err(StoreError::Unavailable(_)) if had_one && self.conn.is_none() => {
                self.run(BEGIN_READ, "ROLLBACK", read)
            }
            result => result,
        }
    }

    /// Changes in a transaction of its own, again where it met another; all of it or nothing was done.
    pub(super) fn change<T>(
        &mut self,
        change: impl FnMut(&mut Conn, Timestamp) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.again(BEGIN_CHANGE, change)
    }

    /// As [`change`](Self::change), while no batch commits.
    pub(super) fn change_without_batches<T>(
        &mut self,
        change: impl FnMut(&mut Conn, Timestamp) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.again(BEGIN_WITHOUT_BATCHES, change)
    }

    /// Writes what rests on no rule that others might break meanwhile.
    pub(super) fn write<T>(
        &mut self,
        write: impl FnMut(&mut Conn, Timestamp) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.again(BEGIN_WRITE, write)
    }

    fn again<T>(
        &mut self,
        begin: &str,
        mut change: impl FnMut(&mut Conn, Timestamp) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        for _try in 1..TRIES_MAX {
            match self.run(begin, COMMIT, &mut change) {
                Err(error) if is_conflict(&error) => {}
                result => return result,
            }
        }
        self.run(begin, COMMIT, change)
    }
}

fn within<T>(
    conn: &mut Conn,
    begin: &str,
    end: &str,
    work: impl FnOnce(&mut Conn, Timestamp) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    conn.batch_execute(begin).map_err(store_error)?;
    let now = statement::<BigInt>(CLOCK, &[]).get_result::<i64>(conn).map_err(store_error)?;
    let done = work(conn, Timestamp::from_micros(now))?;
    match conn.batch_execute(end) {
        Ok(()) => Ok(done),
        // Nobody heard what became of it.
        Err(error) if end == COMMIT && !is_no_commit(&error) => {
            tracing::error!(%error, "the commit of a change was not heard");
            Err(StoreError::CommitUnknown)
        }
        Err(error) => Err(store_error(error)),
    }
}

/// Several sessions that share work.
pub(super) struct Sessions {
    lanes: Vec<SyncSender<Work>>,
    next: AtomicUsize,
    queue: &'static str,
}

impl Sessions {
    /// So many threads, named after `queue`, which an error names when it is full.
    pub(super) fn start(
        queue: &'static str,
        count: usize,
        source: &Source,
        runtime: &Handle,
    ) -> Result<Self, OpenError> {
        let mut lanes = Vec::new();
        for place in 0..count {
            let mut session = Session::new(source.clone(), runtime.clone());
            let (lane, work): (_, Receiver<Work>) = sync_channel(WAITING_MAX);
            // Ends by itself when the store, which holds the other end, is dropped.
            super::spawn(&format!("tracktags-{queue}-{place}"), move || {
                while let Ok(work) = work.recv() {
                    work(&mut session);
                }
            })?;
            lanes.push(lane);
        }
        Ok(Self { lanes, next: AtomicUsize::new(0), queue })
    }

    /// Runs `work` on one of them.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move |session| {
            let _gone = sender.send(work(session));
        });
        let place =
            self.next.fetch_add(1, Ordering::Relaxed).checked_rem(self.lanes.len()).unwrap_or_default();
        let lane = self.lanes.get(place).ok_or(StoreError::Busy { queue: self.queue })?;
        lane.try_send(work).map_err(|full| match full {
            TrySendError::Full(_) => StoreError::Busy { queue: self.queue },
            TrySendError::Disconnected(_) => StoreError::Unavailable("the store is closed".into()),
        })?;
        receiver.await.unwrap_or_else(|_dropped| Err(StoreError::Unavailable("the work was dropped".into())))
    }
}
