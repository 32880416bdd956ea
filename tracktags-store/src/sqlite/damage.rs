//! What a start, or a writer that no longer trusts its connection, looks through for damage.
//!
//! All of it is read, which for a million customers takes seconds of a core: so several connections share it, the
//! longest first. CHECK constraints are left out: they take most of the time, say what may be written, and would find
//! damage by chance only. `tracktags-cli doctor` looks at them too.

use super::connection::{open_reader, quick_check};
use super::error::store_error;
use super::usage::check_counters;
use diesel::SqliteConnection;
use diesel::connection::SimpleConnection;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, available_parallelism, scope};
use tracktags_core::error::StoreError;

/// Connections that look at once, at most.
const LOOKS_MAX: usize = 4;

enum Check {
    /// A table's pages, rows and indexes.
    Table(&'static str),
    /// Every counter's own checksum.
    Counters,
}

/// Everything but the ledger, whose rows are checked as they are read.
const CHECKS: &[Check] = &[
    Check::Table("config_changes"),
    Check::Table("customer_keys"),
    Check::Table("audit_logs"),
    Check::Table("customers"),
    Check::Counters,
    Check::Table("usage_history"),
    Check::Table("counters"),
    Check::Table("plan_limits"),
    Check::Table("businesses"),
    Check::Table("business_keys"),
    Check::Table("plans"),
    Check::Table("metrics"),
    Check::Table("config_versions"),
    Check::Table("ledger_position"),
];

impl Check {
    fn run(&self, conn: &mut SqliteConnection) -> Result<(), StoreError> {
        match self {
            Self::Table(table) => quick_check(conn, table),
            Self::Counters => check_counters(conn),
        }
    }
}

/// Looks for damage, and says the first that it finds.
pub(super) fn look(path: &Path) -> Result<(), StoreError> {
    let next = AtomicUsize::new(0);
    let look = || -> Result<(), StoreError> {
        let mut conn = open_reader(path).map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        conn.batch_execute("PRAGMA ignore_check_constraints = 1").map_err(store_error)?;
        while let Some(check) = CHECKS.get(next.fetch_add(1, Ordering::Relaxed)) {
            check.run(&mut conn)?;
        }
        Ok(())
    };
    let looks = available_parallelism().map_or(1, std::num::NonZero::get).min(LOOKS_MAX);
    scope(|scope| {
        let beside = (1..looks)
            .map(|number| Builder::new().name(format!("tracktags-look-{number}")).spawn_scoped(scope, look))
            .collect::<Vec<_>>();
        // A thread that could not start leaves its share to this one.
        let mut found = look();
        for thread in beside.into_iter().flatten() {
            let panicked = |_| Err(StoreError::Unavailable("a look for damage panicked".into()));
            found = found.and(thread.join().unwrap_or_else(panicked));
        }
        found
    })
}
