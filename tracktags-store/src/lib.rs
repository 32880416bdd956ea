//! The truth (draft facade).
pub mod admission;

pub use admission::{Admission, Admitted, Reservation};
use std::path::PathBuf;
use std::sync::Arc;
use tracktags_core::keys::KeyHasher;
use tracktags_core::traits::{Clock, Store};

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Power loss (`synchronous=FULL`).
    PowerLoss,
    /// kill -9 (`synchronous=NORMAL`).
    Process,
}

/// The key from which every other is derived; hides in Debug.
pub struct MasterKey(pub [u8; 32]);

/// How to open the store.
pub struct OpenOptions {
    /// `sqlite:PATH`.
    pub url: String,
    /// What a commit survives.
    pub durability: Durability,
    /// The first seals, all open.
    pub master_keys: Vec<MasterKey>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Demands that may wait.
    pub queue_entries_max: usize,
    /// A demand whose estimated wait passes this is refused.
    pub wait_ms_max: u64,
}

/// A database that could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL names no engine.
    #[error("{0:?} is no store URL; write sqlite:PATH")]
    Url(String),
    /// Another server has it.
    #[error("another server uses this database ({})", .0.display())]
    Locked(PathBuf),
    /// Other.
    #[error("store_corrupt: {0}")]
    Corrupt(String),
}

/// An open store.
pub struct Node {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The way into the batch.
    pub admission: Admission,
    /// Hashes keys as the database keeps them.
    pub hasher: KeyHasher,
    /// Binds cursors to tenant and query.
    pub cursor_key: [u8; 32],
    /// Keys the hash of the admin key in memory.
    pub admin_pepper: [u8; 32],
    /// Names this deployment in `Via`; the same on every node.
    pub deployment: String,
}

/// Whether the store can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Ready,
    /// It cannot, and why.
    NotReady(String),
}

impl Node {
    /// Whether it can serve.
    #[must_use]
    pub fn health(&self) -> Health {
        unimplemented!()
    }
    /// Writes what waits, folds, checkpoints and closes. Blocks; call it after the last request.
    pub fn close(self) {
        unimplemented!()
    }
}

/// Opens the database, creating and migrating it. Blocks.
///
/// # Errors
/// [`OpenError`]: nothing is served.
pub fn open(_options: OpenOptions) -> Result<Node, OpenError> {
    unimplemented!()
}
