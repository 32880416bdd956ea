//! What a business leaves behind: 30 days after its deletion everything of it goes, a piece at a time.

use super::audit::Action;
use super::dialect::{Conn, Time, delete_some};
use super::error::store_error;
use super::schema::businesses;
use super::trail;
use crate::secrets::Secrets;
use diesel::prelude::*;
use tracktags_core::accounts::BUSINESS_KEPT_SECONDS;
use tracktags_core::audit::Author;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;

/// Rows removed in one step.
const STEP_ROWS: i64 = 256;

/// Tables with what businesses have, in the order in which it goes; each with the columns that name a row. What
/// belongs to a row goes before it.
const TABLES: [(&str, &str); 10] = [
    ("customer_keys", "seq"),
    ("business_keys", "seq"),
    ("plan_limits", "seq"),
    ("customers", "seq"),
    ("plans", "seq"),
    ("metrics", "seq"),
    ("usage_history", "(business_id, customer_id, metric_name, bucket)"),
    ("counters", "(business_id, customer_id, metric_name)"),
    ("key_uses", "key_id"),
    ("audit_logs", "id"),
];

/// One step of it, in the trail.
const PURGE: Action = Action {
    name: "business.purge",
    tables: &["businesses", "customers", "business_keys", "customer_keys", "plans", "plan_limits", "metrics"],
};

/// Removes a piece of what the longest deleted business has, the business itself at last. Waits for the ledger, too,
/// which keeps entries for `ledger_seconds`: counters and ledger must agree as long as both are there.
pub(crate) fn purge_a_little(
    conn: &mut Conn,
    secrets: &Secrets,
    now: Timestamp,
    ledger_seconds: u32,
) -> Result<(), StoreError> {
    let before = now.plus_seconds(-BUSINESS_KEPT_SECONDS.max(i64::from(ledger_seconds)));
    let due = businesses::table
        .filter(businesses::deleted_at.lt(Time::of(before)))
        .order(businesses::deleted_at)
        .select(businesses::business_id)
        .first::<String>(conn)
        .optional()
        .map_err(store_error)?;
    let Some(id) = due else { return Ok(()) };
    let mark = trail::begin(conn)?;
    purge_step(conn, &id)?;
    trail::note_change(conn, secrets, now, &Author::server(), PURGE, mark)
}

fn purge_step(conn: &mut Conn, id: &str) -> Result<(), StoreError> {
    let mut left = STEP_ROWS;
    for (table, names) in TABLES {
        let gone = delete_some(conn, table, names, id, left)?;
        left = left.saturating_sub(i64::try_from(gone).unwrap_or(i64::MAX));
        if left <= 0 {
            return Ok(());
        }
    }
    diesel::delete(businesses::table.filter(businesses::business_id.eq(id)))
        .execute(conn)
        .map_err(store_error)?;
    tracing::info!(business = id, "a business deleted 30 days ago is gone");
    Ok(())
}
