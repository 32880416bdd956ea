//! Threads with a connection each, for everything that is no batch: reads in one snapshot, changes in one transaction.
//! A connection that breaks is made anew with the next piece of work.

use super::dialect::Conn;
use super::error::{is_conflict, is_no_commit, store_error};
use super::source::{End, Link, Purpose, Source};
use super::statement::statement;
use crate::OpenError;
use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;

/// Work that may wait for a connection.
const WAITING_MAX: usize = 1_024;
/// For so long after one could not be made no connection is tried.
const CONNECT_AGAIN: Duration = Duration::from_millis(250);
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
    conn: Option<(Conn, End)>,
    /// When the database last took no connection.
    refused_at: Option<Instant>,
}

impl Session {
    pub(super) const fn new(source: Source, runtime: Handle) -> Self {
        Self::for_purpose(Purpose::Queries, source, runtime)
    }

    pub(super) const fn for_purpose(purpose: Purpose, source: Source, runtime: Handle) -> Self {
        Self { source, purpose, runtime, conn: None, refused_at: None }
    }

    /// The connection. Whoever comes just after one could not be made is refused without trying.
    pub(super) fn conn(&mut self) -> Result<&mut Conn, StoreError> {
        self.connected().map(|(conn, _)| conn)
    }

    #[expect(clippy::disallowed_methods, reason = "paces connecting; decides nothing")]
    fn connected(&mut self) -> Result<&mut (Conn, End), StoreError> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None if self.refused_at.is_some_and(|at| at.elapsed() < CONNECT_AGAIN) => {
                return Err(StoreError::Unavailable("the database was not reached a moment ago".into()));
            }
            None => {
                let _current = self.runtime.enter();
                let made = self.runtime.block_on(self.source.connect(self.purpose));
                self.refused_at = made.is_err().then(Instant::now);
                let Link { conn, end } = made?;
                (Conn::from(conn), end)
            }
        };
        Ok(self.conn.insert(conn))
    }

    /// The connection by itself, and what drives it.
    #[cfg(test)]
    pub(super) fn into_conn(mut self) -> Result<(Conn, End), StoreError> {
        self.connected()?;
        self.conn.ok_or_else(|| StoreError::Unavailable("there is no connection".into()))
    }

    /// Runs `work` in a transaction that begins and ends so; with the database's clock.
    fn run<T>(
        &mut self,
        begin: &str,
        end: &str,
        work: impl FnOnce(&mut Conn, Timestamp) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (runtime, work_max) = (self.runtime.clone(), self.purpose.work_max());
        let (conn, ends) = self.connected()?;
        let ends = ends.handle();
        let watch = work_max.map(|longest| {
            runtime.spawn(async move {
                tokio::time::sleep(longest).await;
                ends.abort();
            })
        });
        let result = within(conn, begin, end, work);
        // Ends what is open, or tells that the connection is no good.
        let is_broken = result.is_err() && conn.batch_execute("ROLLBACK").is_err();
        if let Some(watch) = watch {
            watch.abort();
        }
        if is_broken {
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

/// Several sessions that share work: whichever is free does what waits.
pub(super) struct Sessions {
    work: SyncSender<Work>,
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
        let (work, waiting): (_, Receiver<Work>) = sync_channel(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for place in 0..count {
            let mut session = Session::new(source.clone(), runtime.clone());
            let waiting = Arc::clone(&waiting);
            let next = move || waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            // Ends by itself when the store, which holds the other end, is dropped.
            super::spawn(&format!("tracktags-{queue}-{place}"), move || {
                while let Ok(work) = next() {
                    work(&mut session);
                }
            })?;
        }
        Ok(Self { work, queue })
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
        self.work.try_send(work).map_err(|full| match full {
            TrySendError::Full(_) => StoreError::Busy { queue: self.queue },
            TrySendError::Disconnected(_) => StoreError::Unavailable("the store is closed".into()),
        })?;
        receiver.await.unwrap_or_else(|_dropped| Err(StoreError::Unavailable("the work was dropped".into())))
    }
}
