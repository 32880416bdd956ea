//! Connections to one SQLite file: the writer's, the readers', and the kernel lock that keeps a second server out.

use super::error::store_error;
use crate::{Durability, OpenError};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Text};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use tokio::sync::oneshot;
use tracktags_core::error::StoreError;
use tracktags_core::group_commit::CommitFault;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::Clock;

/// How long a statement of ours waits for the lock of another writer.
const BUSY_MS: u32 = 1_000;
/// Read-only connections.
const READERS: usize = 2;
/// Reads that may wait for one reader.
const READS_WAITING_MAX: usize = 1_024;

#[derive(QueryableByName)]
struct Word {
    #[diesel(sql_type = Text)]
    value: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    value: i32,
}

#[derive(QueryableByName)]
struct BigNumber {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

/// The lock on `<database>.lock`: held by the kernel for this process, gone when it dies. Never on the database
/// itself, since closing any descriptor of that drops SQLite's own locks.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    pub(crate) fn take(database: &Path) -> Result<Self, OpenError> {
        let mut name = database.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let file = private_file(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::Locked(database.to_owned())),
            Err(std::fs::TryLockError::Error(source)) => Err(OpenError::File { path, source }),
        }
    }
}

/// Opens a file, making it readable by its owner only where it is new.
pub(crate) fn private_file(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|source| OpenError::File { path: path.to_owned(), source })
}

/// Opens the writer's connection and reads back what durability relies on.
///
/// The write-ahead log's file is cut back to `wal_bytes_kept` whenever it begins anew. That is more than is in use
/// mostly: what overwrites a file syncs in half the time of what makes it longer.
pub(crate) fn open_writer(
    path: &Path,
    durability: Durability,
    wal_bytes_kept: u64,
) -> Result<SqliteConnection, OpenError> {
    let mut conn = connect(path)?;
    let synchronous = synchronous(durability);
    let setup = format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA fullfsync = 1; \
         PRAGMA wal_autocheckpoint = 0; PRAGMA busy_timeout = {BUSY_MS}; PRAGMA temp_store = MEMORY; \
         PRAGMA cache_size = -16384; PRAGMA journal_size_limit = {wal_bytes_kept};"
    );
    conn.batch_execute(&setup).map_err(open_error)?;
    let mode = diesel::sql_query("SELECT journal_mode AS value FROM pragma_journal_mode")
        .get_result::<Word>(&mut conn)
        .map_err(open_error)?;
    let level = diesel::sql_query("SELECT synchronous AS value FROM pragma_synchronous")
        .get_result::<Number>(&mut conn)
        .map_err(open_error)?;
    if !mode.value.eq_ignore_ascii_case("wal") {
        return Err(OpenError::Durability { setting: "journal_mode", found: mode.value });
    }
    if level.value != synchronous {
        return Err(OpenError::Durability { setting: "synchronous", found: level.value.to_string() });
    }
    Ok(conn)
}

/// SQLite's number of a level: 2 is FULL, 1 NORMAL.
pub(crate) const fn synchronous(durability: Durability) -> i32 {
    match durability {
        Durability::PowerLoss => 2,
        Durability::Process => 1,
    }
}

/// Opens a connection that cannot write.
pub(crate) fn open_reader(path: &Path) -> Result<SqliteConnection, OpenError> {
    let mut conn = connect(path)?;
    let setup =
        format!("PRAGMA busy_timeout = {BUSY_MS}; PRAGMA query_only = 1; PRAGMA wal_autocheckpoint = 0;");
    conn.batch_execute(&setup).map_err(open_error)?;
    Ok(conn)
}

/// Opens the connection of the side thread, which only checkpoints.
pub(crate) fn open_checkpointer(path: &Path) -> Result<SqliteConnection, OpenError> {
    let mut conn = connect(path)?;
    conn.batch_execute("PRAGMA busy_timeout = 0; PRAGMA wal_autocheckpoint = 0;").map_err(open_error)?;
    Ok(conn)
}

fn connect(path: &Path) -> Result<SqliteConnection, OpenError> {
    let Some(text) = path.to_str() else { return Err(OpenError::Url(path.display().to_string())) };
    SqliteConnection::establish(text)
        .map_err(|source| OpenError::Open { path: path.to_owned(), source: source.into() })
}

/// A fault at open: damage is named as such.
pub(crate) fn open_error(error: diesel::result::Error) -> OpenError {
    super::to_open_error(store_error(error))
}

/// What each batch says, prepared once and not anew each time.
#[derive(Debug, Clone, Copy)]
struct Each(&'static str);

impl diesel::query_builder::QueryId for Each {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl diesel::query_builder::Query for Each {
    type SqlType = Integer;
}

impl diesel::query_builder::QueryFragment<diesel::sqlite::Sqlite> for Each {
    fn walk_ast<'b>(
        &'b self,
        mut out: diesel::query_builder::AstPass<'_, 'b, diesel::sqlite::Sqlite>,
    ) -> QueryResult<()> {
        out.push_sql(self.0);
        Ok(())
    }
}

impl RunQueryDsl<SqliteConnection> for Each {}

/// Counts the commits of other connections: it moves when one happened, and not for our own.
pub(crate) fn data_version(conn: &mut SqliteConnection) -> Result<i32, StoreError> {
    Each("PRAGMA data_version").get_result(conn).map_err(store_error)
}

/// Begins a transaction that writes.
pub(crate) fn begin(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    Each("BEGIN IMMEDIATE").execute(conn).map(drop).map_err(store_error)
}

/// Looks for damage in a table and its indexes.
pub(crate) fn quick_check(conn: &mut SqliteConnection, table: &str) -> Result<(), StoreError> {
    let found = diesel::sql_query("SELECT quick_check AS value FROM pragma_quick_check(?)")
        .bind::<Text, _>(table)
        .load::<Word>(conn)
        .map_err(store_error)?;
    match found.iter().find(|row| row.value != "ok") {
        Some(fault) => Err(StoreError::Corrupt(format!("{table}: {}", fault.value))),
        None => Ok(()),
    }
}

/// Commits. Full or busy before the commit is a known roll-back; of anything else nobody knows yet.
pub(crate) fn commit(conn: &mut SqliteConnection) -> Result<(), CommitFault> {
    Each("COMMIT").execute(conn).map(drop).map_err(|error| {
        let locked = error.to_string().starts_with("database is locked");
        match store_error(error) {
            full @ StoreError::StorageFull => CommitFault::RolledBack(full),
            busy if locked => CommitFault::RolledBack(busy),
            other => CommitFault::Unknown(other),
        }
    })
}

/// A page in the write-ahead log: SQLite's default page and the frame's head.
const FRAME_BYTES: u64 = 4_096 + 24;

#[derive(QueryableByName)]
struct Checkpoint {
    #[diesel(sql_type = Integer)]
    busy: i32,
    /// Frames in use, or -1.
    #[diesel(sql_type = Integer)]
    log: i32,
}

/// A checkpoint of the write-ahead log that waits for nobody. Says how many bytes of the log are in use; nothing where
/// another connection is at one.
pub(crate) fn checkpoint_passive(conn: &mut SqliteConnection) -> Result<Option<u64>, StoreError> {
    let done = diesel::sql_query("PRAGMA wal_checkpoint(PASSIVE)").get_result::<Checkpoint>(conn);
    let in_use =
        |row: Checkpoint| u64::try_from(row.log).ok().map(|frames| frames.saturating_mul(FRAME_BYTES));
    done.map(|row| if row.busy == 0 { in_use(row) } else { None }).map_err(store_error)
}

/// A checkpoint that empties the write-ahead log; whether nobody held it up.
pub(crate) fn checkpoint_truncate(conn: &mut SqliteConnection) -> Result<bool, StoreError> {
    diesel::sql_query("PRAGMA wal_checkpoint(TRUNCATE)")
        .get_result::<Checkpoint>(conn)
        .map(|row| row.busy == 0)
        .map_err(store_error)
}

/// How large the write-ahead log's file is now, in bytes.
pub(crate) fn wal_bytes(path: &Path) -> u64 {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(PathBuf::from(name)).map_or(0, |data| data.len())
}

/// How large the ledger is by some rows spread evenly over it: to read all of it would hold up the writer for seconds.
const LEDGER_BYTES: &str = "WITH RECURSIVE \
    span(low, high) AS (SELECT (SELECT min(batch) FROM usage_ledger), (SELECT max(batch) FROM usage_ledger)), \
    n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 255) \
    SELECT coalesce(CAST((high - low + 1) * avg((SELECT length(entries) FROM usage_ledger \
        WHERE batch >= low + (high - low) * i / 255 ORDER BY batch LIMIT 1)) AS INTEGER), 0) AS value FROM span, n";

/// About how many bytes the ledger's entries take.
pub(crate) fn ledger_bytes(conn: &mut SqliteConnection) -> Result<i64, StoreError> {
    diesel::sql_query(LEDGER_BYTES).get_result::<BigNumber>(conn).map(|row| row.value).map_err(store_error)
}

/// A connection that cannot write, and the clock that what is read on it goes by.
pub(crate) struct Reader {
    conn: SqliteConnection,
    clock: Arc<dyn Clock>,
}

impl Reader {
    pub(crate) fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Ok(Self { conn: open_reader(path)?, clock })
    }

    /// Reads in one snapshot, at the clock's now.
    pub(crate) fn read<T>(
        &mut self,
        read: impl FnOnce(&mut SqliteConnection, Timestamp) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let now = self.clock.now();
        in_snapshot(&mut self.conn, |conn| read(conn, now))
    }
}

type Read = Box<dyn FnOnce(&mut Reader) + Send>;

/// A few threads with a reader each.
pub(crate) struct Readers {
    lanes: Vec<SyncSender<Read>>,
    next: std::sync::atomic::AtomicUsize,
}

impl Readers {
    pub(crate) fn open(path: &Path, clock: &Arc<dyn Clock>) -> Result<Self, OpenError> {
        let mut lanes = Vec::new();
        for place in 0..READERS {
            let mut reader = Reader::open(path, Arc::clone(clock))?;
            let (lane, reads) = sync_channel::<Read>(READS_WAITING_MAX);
            let thread = std::thread::Builder::new().name(format!("tracktags-read-{place}"));
            let run = move || {
                while let Ok(read) = reads.recv() {
                    read(&mut reader);
                }
            };
            // Ends by itself when the store, which holds the other end, is dropped.
            thread.spawn(run).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
            lanes.push(lane);
        }
        Ok(Self { lanes, next: std::sync::atomic::AtomicUsize::new(0) })
    }

    /// Runs `read` in one snapshot on one of them.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut SqliteConnection, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let job: Read = Box::new(move |reader| {
            let _gone = sender.send(reader.read(read));
        });
        let place = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % self.lanes.len().max(1);
        let lane = self.lanes.get(place).ok_or(StoreError::Busy { queue: "read" })?;
        lane.try_send(job).map_err(|full| match full {
            TrySendError::Full(_) => StoreError::Busy { queue: "read" },
            TrySendError::Disconnected(_) => StoreError::Unavailable("the store is closed".into()),
        })?;
        receiver.await.unwrap_or_else(|_dropped| Err(StoreError::Unavailable("the read was dropped".into())))
    }
}

/// Reads in one snapshot; whatever was read, nothing is left open.
pub(crate) fn in_snapshot<T>(
    conn: &mut SqliteConnection,
    read: impl FnOnce(&mut SqliteConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    conn.batch_execute("BEGIN").map_err(store_error)?;
    let result = read(conn);
    // Nothing was written; an end that fails would only leave an old snapshot, which the next BEGIN would report.
    conn.batch_execute("ROLLBACK").map_err(store_error)?;
    result
}
