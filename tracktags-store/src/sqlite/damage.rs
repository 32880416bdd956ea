//! What a start, or a writer that no longer trusts its connection, looks through for damage.
//!
//! All of it is read, which for a million customers takes seconds of a core: so several connections share it, the
//! longest first. CHECK constraints are left out: they take most of the time, say what may be written, and would find
//! damage by chance only. `tracktags-cli doctor` looks at them too.

use super::connection::{open_reader, quick_check};
use super::error::store_error;
use diesel::connection::SimpleConnection;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, available_parallelism, scope};
use tracktags_core::error::StoreError;

/// Connections that look at once, at most.
const LOOKS_MAX: usize = 4;

/// Everything but the ledger, whose rows have checksums of their own.
const TABLES: &[&str] = &[
    "config_changes",
    "customer_keys",
    "audit_logs",
    "customers",
    "usage_history",
    "counters",
    "plan_limits",
    "businesses",
    "business_keys",
    "plans",
    "metrics",
    "config_versions",
    "ledger_position",
];

/// Looks for damage while `read` reads what it needs; says the first that either finds.
pub(super) fn look_beside<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let next = AtomicUsize::new(0);
    let look = || -> Result<(), StoreError> {
        let mut conn = open_reader(path).map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        conn.batch_execute("PRAGMA ignore_check_constraints = 1").map_err(store_error)?;
        while let Some(table) = TABLES.get(next.fetch_add(1, Ordering::Relaxed)) {
            quick_check(&mut conn, table)?;
        }
        Ok(())
    };
    let looks = available_parallelism().map_or(1, std::num::NonZero::get).min(LOOKS_MAX);
    scope(|scope| {
        let beside = (0..looks)
            .map(|number| Builder::new().name(format!("tracktags-look-{number}")).spawn_scoped(scope, look))
            .collect::<Vec<_>>();
        let read = read();
        // What is left: all of it where no thread could start.
        let mut found = look();
        for thread in beside.into_iter().flatten() {
            let panicked = |_| Err(StoreError::Unavailable("a look for damage panicked".into()));
            found = found.and(thread.join().unwrap_or_else(panicked));
        }
        found.and(read)
    })
}
