//! The SQLite engine: one node, one file, one writer thread.
//!
//! | file | what |
//! |---|---|
//! | `connection` | the writer's connection, the readers, the lock file |
//! | `writer` | the one thread that writes |
//! | `batch` | THE transaction |
//! | `live`, `table` | counters as the writer knows them, and how they are kept small |
//! | `fold`, `folded` | ledger → counters and history, retention, start; and the rows that takes |
//! | `damage` | what a start looks through for damage |
//! | `side` | the thread that checkpoints and sorts |
//! | `usage` | rows of usage |
//! | `tables` | rows of configuration, and the store's traits |
//! | `schema`, `dialect`, `time`, `error`, `trail`, `access` | what those rows need of this engine |
//! | `versions` | versions and changes, asked for by a batch |
//! | `verify` | the books, as they are read |

mod access;
mod batch;
mod connection;
mod damage;
mod dialect;
pub(crate) mod doctor;
mod error;
mod fold;
mod folded;
mod live;
mod migrate;
mod schema;
mod side;
mod table;
#[path = "../tables/mod.rs"]
mod tables;
#[cfg(test)]
mod testing;
mod time;
mod trail;
mod usage;
pub(crate) mod verify;
mod versions;
mod writer;

use crate::admission::{Admission, Queue};
use crate::cache::{Caches, KeyUses};
use crate::health::{Condition, Health};
use crate::holds::Holds;
use crate::secrets::Secrets;
use crate::{Meters, Node, OpenError, OpenOptions};
use diesel::SqliteConnection;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tracktags_core::audit::{Author, Event};
use tracktags_core::batch::CutCache;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{Clock, Store};
use tracktags_core::versions::VersionTable;

/// The threads behind an open store.
pub(crate) struct Engine {
    queue: Arc<Queue>,
    condition: Arc<Mutex<Condition>>,
    wal_in_use: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
    side: side::Side,
}

impl Engine {
    pub(crate) fn health(&self) -> Health {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).health()
    }

    /// Bytes of the write-ahead log in use, as last measured.
    pub(crate) fn wal_bytes(&self) -> u64 {
        self.wal_in_use.load(Ordering::Relaxed)
    }

    /// Ends in order; whoever still waits is answered.
    pub(crate) fn close(mut self) {
        self.end(false);
    }

    fn end(&mut self, abrupt: bool) {
        self.queue.close(abrupt);
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer had panicked");
        }
        self.side.close();
    }
}

impl Drop for Engine {
    /// Without [`close`](Self::close) this is a kill: nothing is folded, the next start reads the ledger's tail.
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.end(true);
        }
    }
}

/// Opens the file: lock, schema, master key, damage, tail; then the threads start.
pub(crate) fn open(path: &Path, options: OpenOptions) -> Result<Node, OpenError> {
    let lock = connection::FileLock::take(path)?;
    drop(connection::private_file(path)?);
    let secrets = Secrets::derive(&options.master_keys).ok_or(OpenError::NoMasterKey)?;
    let (mut conn, deployment, position) = prepared(path, &options, &secrets)?;
    let condition = Arc::new(Mutex::new(Condition::default()));
    let queue = Arc::new(Queue::new(&options.limits));
    let holds = Arc::new(Holds::default());
    let (sorter, passes) = channel();
    let data_version = connection::data_version(&mut conn).map_err(to_open_error)?;
    let now = instant();
    let fold_every = Duration::from_millis(options.limits.fold_every_ms);
    let wal_in_use = Arc::new(AtomicU64::new(0));
    let uses = Arc::new(KeyUses::default());
    let meters = Meters::default();
    let mut writer = writer::Writer {
        conn,
        path: path.to_owned(),
        durability: options.durability,
        limits: options.limits,
        clock: Arc::clone(&options.clock),
        secrets: secrets.clone(),
        boot: boot_id(),
        next_batch: 1,
        data_version,
        versions: VersionTable::default(),
        live: live::Live::new(options.limits.counters_live_max),
        cuts: CutCache::default(),
        holds: Arc::clone(&holds),
        queue: Arc::clone(&queue),
        packed: Vec::new(),
        folding: fold::Folding::new(sorter, position.folded_to, fold_every, now),
        condition: Arc::clone(&condition),
        wal_in_use: Arc::clone(&wal_in_use),
        uses: Arc::clone(&uses),
        meters: meters.clone(),
        store_failed: false,
        latest: Timestamp::from_micros(0),
        slot: writer::Slotting::new(now),
        locked: None,
        unheard_since: None,
        _lock: lock,
    };
    writer.read_back().map_err(to_open_error)?;
    note_start(&mut writer.conn, &secrets, &position, options.clock.now()).map_err(to_open_error)?;
    let side =
        side::Side::start(path, passes, Arc::clone(&condition), &options.limits, Arc::clone(&wal_in_use))?;
    let (jobs, receiver) = writer::Jobs::new(Arc::clone(&queue));
    let thread = spawn("tracktags-writer", path, move || writer.serve(&receiver))?;
    let admission = Admission::new([Arc::clone(&queue)].into(), holds);
    let store: Arc<dyn Store> = Arc::new(tables::store::EngineStore {
        access: access::Access { jobs, readers: connection::Readers::open(path, &options.clock)? },
        identify: identify_lane(path, &options.clock, secrets.clone(), meters.clone())?,
        caches: Caches::new(options.limits.cache_entries_max, uses),
        secrets: secrets.clone(),
        clock: options.clock,
        admission: admission.clone(),
    });
    Ok(Node {
        store,
        admission,
        hashers: secrets.hashers().cloned().collect(),
        cursor_key: secrets.cursor_key(),
        admin_pepper: secrets.admin_pepper(),
        deployment,
        meters,
        engine: crate::Engine::Sqlite(Engine { queue, condition, wal_in_use, writer: Some(thread), side }),
    })
}

/// The lane that looks unknown keys up, on a reader of its own.
fn identify_lane(
    path: &Path,
    clock: &Arc<dyn Clock>,
    secrets: Secrets,
    meters: Meters,
) -> Result<tables::identify::Lane, OpenError> {
    let reader = connection::Reader::open(path, Arc::clone(clock))?;
    let (lane, look) = tables::identify::lane(reader, secrets, meters);
    spawn("tracktags-identify", path, look)?;
    Ok(lane)
}

/// Brings a schema up to date, and names the steps.
pub(crate) fn migrate(path: &Path) -> Result<Vec<String>, OpenError> {
    // Opening would create it.
    std::fs::metadata(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    let _lock = connection::FileLock::take(path)?;
    let mut conn = connection::open_writer(path, crate::Durability::PowerLoss, 0)?;
    migrate::run(&mut conn)
}

/// A connection to write with, on a database whose schema is up to date and whose master key is the right one.
fn prepared(
    path: &Path,
    options: &OpenOptions,
    secrets: &Secrets,
) -> Result<(SqliteConnection, String, usage::Position), OpenError> {
    let mut conn = connection::open_writer(path, options.durability, options.limits.wal_bytes_kept())?;
    drop(migrate::run(&mut conn)?);
    let deployment = migrate::identify_database(&mut conn, secrets)?;
    let position = usage::position(&mut conn).map_err(to_open_error)?;
    Ok((conn, deployment, position))
}

/// Notes that the server runs; after a stop out of order also what was open when the last run ended: at most so many calls
/// were in flight, all of them counted.
fn note_start(
    conn: &mut SqliteConnection,
    secrets: &Secrets,
    position: &usage::Position,
    now: Timestamp,
) -> Result<(), StoreError> {
    usage::set_clean_stop(conn, false)?;
    if position.clean_stop {
        return Ok(());
    }
    tracing::warn!("unclean_stop: the ledger's tail was read; calls that were in flight stay counted");
    let Some(last) = usage::last_row(conn)? else { return Ok(()) };
    let open = serde_json::json!({"open_calls": last.open_calls, "open_units": last.open_units});
    let event = Event {
        business: None,
        action: "store.unclean_stop",
        resource_id: last.boot,
        after: Some(open.to_string()),
    };
    tables::audit::note_event(conn, secrets, now, &Author::server(), &event, None)
}

pub(super) fn to_open_error(error: StoreError) -> OpenError {
    match error {
        StoreError::Corrupt(detail) => OpenError::Corrupt(detail),
        // A statement that worked when it was written: tables are not what the schema's version says.
        StoreError::Backend(cause) => OpenError::Corrupt(cause.to_string()),
        other => OpenError::Database(other),
    }
}

fn spawn(name: &str, path: &Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|source| OpenError::File { path: path.to_owned(), source })
}

#[expect(clippy::disallowed_methods, reason = "where the folds' rhythm begins; decides nothing")]
fn instant() -> std::time::Instant {
    std::time::Instant::now()
}

/// Names this run of the server in the ledger.
fn boot_id() -> String {
    use rand::RngExt;
    format!("boot_{:032x}", rand::rng().random::<u128>())
}
