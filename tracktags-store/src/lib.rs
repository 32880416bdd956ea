//! The truth of TrackTags: configuration, counters and the usage ledger.
//!
//! [`open`] gives a [`Node`]: the store's traits, and [`Admission`], the way into the batch. Nothing here knows HTTP.

#[cfg(test)]
extern crate self as tracktags_store;

pub mod admission;
mod bell;
mod books;
mod cache;
mod findings;
mod health;
mod holds;
mod ledger;
mod mailbox;
mod meters;
#[cfg(test)]
mod parity;
mod postgres;
pub mod secrets;
mod sqlite;

pub use admission::{Admission, Admitted, Reservation};
pub use books::{LedgerLine, LedgerReader, VerifyReport, read_ledger, verify};
pub use findings::{Finding, Level, doctor};
pub use health::Health;
pub use ledger::LedgerError;
pub use meters::Meters;
pub use secrets::MasterKey;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracktags_core::error::StoreError;
use tracktags_core::keys::KeyHasher;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{Clock, Store};

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Power loss (`synchronous=FULL`).
    PowerLoss,
    /// kill -9 only (`synchronous=NORMAL`).
    Process,
}

/// Every limit of the store, with its unit in the name.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Lanes of batches beside each other, each with a connection; an embedded database has one writer.
    pub lanes: u8,
    /// Demands that may wait for each lane.
    pub queue_entries_max: usize,
    /// Operations in one batch; what waits beyond them is taken in turn over the businesses.
    pub batch_entries_max: usize,
    /// A demand whose estimated wait passes this is refused.
    pub wait_ms_max: u64,
    /// Counters kept in memory; more are read from their rows.
    pub counters_live_max: usize,
    /// Between two folds.
    pub fold_every_ms: u64,
    /// Ledger entries that may wait for a fold before one begins at once: the start reads them again.
    pub ledger_tail_entries_max: usize,
    /// Folded batches are kept so long.
    pub ledger_retention_seconds: u32,
    /// Beyond this size the oldest folded batches go, however young.
    pub ledger_bytes_max: i64,
    /// Under load the writer itself checkpoints a log larger than this.
    pub wal_checkpoint_bytes: u64,
    /// A larger log raises an alert: a reader pins it.
    pub wal_bytes_max: u64,
    /// Identities and terms kept in memory, each.
    pub cache_entries_max: usize,
}

impl StoreLimits {
    /// What of the write-ahead log's file is kept when it begins anew: room for what it grows by until a checkpoint.
    pub(crate) const fn wal_bytes_kept(&self) -> u64 {
        self.wal_checkpoint_bytes.midpoint(self.wal_bytes_max)
    }
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            lanes: 2,
            queue_entries_max: 8_192,
            batch_entries_max: 1_024,
            wait_ms_max: 100,
            counters_live_max: 2_000_000,
            fold_every_ms: 5_000,
            ledger_tail_entries_max: 500_000,
            ledger_retention_seconds: 7 * 86_400,
            ledger_bytes_max: 4 << 30,
            wal_checkpoint_bytes: 32 << 20,
            wal_bytes_max: 64 << 20,
            cache_entries_max: 2_000_000,
        }
    }
}

/// How to open the store.
pub struct OpenOptions {
    /// `sqlite:PATH` or `postgres://USER@HOST/DATABASE`.
    pub url: String,
    /// What a commit survives.
    pub durability: Durability,
    /// The first makes new hashes, all are tried.
    pub master_keys: Vec<MasterKey>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The limits.
    pub limits: StoreLimits,
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A database that could not be opened. Nothing is served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL names no engine: a bare path is refused, so that a typing error creates no database.
    #[error("{0:?} is no store URL; write sqlite:PATH or postgres://USER@HOST/DATABASE")]
    Url(String),
    /// The URL of a server's database says something that is not understood.
    #[error("store.url: {0}")]
    StoreUrl(String),
    /// The server cannot be reached, or does not let us in.
    #[error("store.url: the database cannot be used")]
    Unreachable(#[source] tracktags_core::error::Cause),
    /// A thread or its runtime could not be started.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
    /// Another server has it.
    #[error("another server uses the database {}", .0.display())]
    Locked(PathBuf),
    /// A file could not be opened or made.
    #[error("cannot open {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database could not be opened.
    #[error("cannot open the database {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: tracktags_core::error::Cause,
    },
    /// It is damaged.
    #[error("store_corrupt: {0}")]
    Corrupt(String),
    /// A newer version of the program wrote it.
    #[error("the database has schema {found}, this program knows {known}: use a newer program")]
    SchemaNewer {
        /// What it has.
        found: String,
        /// What is known.
        known: String,
    },
    /// A migration failed.
    #[error("the database could not be migrated")]
    Migration(#[source] tracktags_core::error::Cause),
    /// None was given.
    #[error("no_master_key: set secrets.master_key or secrets.master_key_file")]
    NoMasterKey,
    /// No key of this database's was made under this master key.
    #[error("wrong_master_key: this database belongs to another master key (secrets.master_key)")]
    WrongMasterKey,
    /// The database does not do what `durability` needs.
    #[error("store.durability needs another {setting} than the database gives ({found})")]
    Durability {
        /// The setting read back.
        setting: &'static str,
        /// What it is.
        found: String,
    },
    /// Any other fault.
    #[error("the database failed")]
    Database(#[source] StoreError),
}

/// An open store. Dropping it without [`close`](Self::close) is a kill: nothing acknowledged is lost.
pub struct Node {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The way into the batch.
    pub admission: Admission,
    /// Hash keys as the database keeps them, one for each master key: the first makes new hashes, a key is looked for
    /// under all.
    pub hashers: Vec<KeyHasher>,
    /// Binds cursors to tenant and query.
    pub cursor_key: [u8; 32],
    /// Keys the hash of the admin key in memory.
    pub admin_pepper: [u8; 32],
    /// Names this deployment in `Via`; the same on every node.
    pub deployment: String,
    /// What it measures of itself.
    pub meters: Meters,
    engine: Engine,
}

/// What works behind a node.
enum Engine {
    Sqlite(sqlite::Engine),
    Postgres(postgres::Engine),
}

impl Node {
    /// Bytes of the write-ahead log in use, as last measured; 0 where that is the server's.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        match &self.engine {
            Engine::Sqlite(engine) => engine.wal_bytes(),
            Engine::Postgres(_) => 0,
        }
    }

    /// Whether it can serve.
    #[must_use]
    pub fn health(&self) -> Health {
        match &self.engine {
            Engine::Sqlite(engine) => engine.health(),
            Engine::Postgres(engine) => engine.health(),
        }
    }

    /// Writes what waits, folds, checkpoints and closes. Blocks; call it after the last request.
    pub fn close(self) {
        match self.engine {
            Engine::Sqlite(engine) => engine.close(),
            Engine::Postgres(engine) => engine.close(),
        }
    }
}

/// Brings the schema of a database up to date, and names the steps that were taken. Needs no master key, so that it can be
/// done by whoever upgrades, before the server starts. An embedded database may be open in no server.
///
/// # Errors
/// [`OpenError`]: it is not there, in use, or of a newer program.
pub fn migrate(url: &str) -> Result<Vec<String>, OpenError> {
    if is_postgres(url) { postgres::migrate(url) } else { sqlite::migrate(database_path(url)?) }
}

/// Opens the database, creating (where it is embedded) and migrating it. Blocks.
///
/// # Errors
/// [`OpenError`]: nothing is served.
pub fn open(options: OpenOptions) -> Result<Node, OpenError> {
    if is_postgres(&options.url) {
        return postgres::open(options);
    }
    let path = database_path(&options.url)?.to_owned();
    sqlite::open(&path, options)
}

/// Whether a store URL names a PostgreSQL server's database.
fn is_postgres(url: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme))
}

/// The file that a store URL names.
pub(crate) fn database_path(url: &str) -> Result<&Path, OpenError> {
    let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    path.filter(|path| !path.is_empty()).map(Path::new).ok_or_else(|| OpenError::Url(without_secrets(url)))
}

/// As much of a URL as can hold no password.
fn without_secrets(url: &str) -> String {
    url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, rest)| format!("…@{rest}"))
}

/// A time as rows and proofs keep it: UTC, six decimals, so that texts of ours sort as instants do.
pub(crate) fn time_text(at: Timestamp) -> String {
    let text = at.to_string();
    let (whole, fraction) =
        text.trim_end_matches('Z').split_once('.').unwrap_or((text.trim_end_matches('Z'), ""));
    format!("{whole}.{fraction:0<6}Z")
}
