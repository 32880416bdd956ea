//! The starts of nodes. Each has a name in the ledger (`boot`), and positions of the folds for its lanes. A boot that is
//! over goes once all it wrote is folded; whoever was cut off for long and comes back enters itself again.

use super::dialect::Conn;
use super::error::store_error;
use super::fold;
use super::schema::{ledger_position, node_boots, usage_ledger};
use super::statement::{Bind, statement};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tracktags_core::audit::Event;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;

/// A boot that was not heard of for so long, and none of whose connections is there, is over.
const SILENT_SECONDS_MAX: i64 = 60;
/// Boots looked at in one step.
const BOOTS_MAX: i64 = 64;

const TRY_BOOT: &str = "SELECT pg_try_advisory_xact_lock(?)";

/// Names this run of a node in the ledger.
pub(super) fn name() -> String {
    use rand::RngExt;
    format!("boot_{:032x}", rand::rng().random::<u128>())
}

/// The number of an advisory lock, by what it stands for.
fn lock_number(of: &str) -> i64 {
    let hash = blake3::derive_key("tracktags 2026-11 advisory locks", of.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = hash;
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Held by each transaction of a lane: while it is, the lane's last batch may still commit.
pub(super) fn lane_lock(boot: &str, lane: i32) -> i64 {
    lock_number(&format!("lane {boot} {lane}"))
}

/// Shared by all connections of a boot that write to the ledger: while anybody has it, the boot is not over.
fn boot_lock(boot: &str) -> i64 {
    lock_number(&format!("boot {boot}"))
}

/// Enters a lane of a boot over a new connection, which from here on says that the boot is not over. All batches up to
/// `batch` are over: where the boot was taken for over meanwhile, they were folded before.
pub(super) async fn enter(
    mut conn: &AsyncPgConnection,
    boot: &str,
    lane: i32,
    batch: i64,
) -> Result<(), StoreError> {
    // Names and numbers of ours: nothing to escape.
    let enter = format!(
        "SELECT pg_advisory_lock_shared({}); \
         INSERT INTO node_boots (boot, started_at, seen_at) SELECT '{boot}', now, now \
            FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) AS clock \
            ON CONFLICT DO NOTHING; \
         INSERT INTO ledger_position (boot, lane, folded_to) VALUES ('{boot}', {lane}, {batch}) ON CONFLICT DO NOTHING",
        boot_lock(boot)
    );
    SimpleAsyncConnection::batch_execute(&mut conn, &enter).await.map_err(store_error)
}

/// Says that a boot goes on, or that it stopped in order.
pub(super) fn note(conn: &mut Conn, now: Timestamp, boot: &str, clean_stop: bool) -> Result<(), StoreError> {
    diesel::update(node_boots::table.find(boot))
        .set((node_boots::seen_at.eq(now.as_micros()), node_boots::clean_stop.eq(clean_stop)))
        .execute(conn)
        .map(drop)
        .map_err(store_error)
}

/// Removes boots that are over, and says which did not stop in order; call it under the lock of the pass.
pub(super) fn retire(conn: &mut Conn, now: Timestamp) -> Result<Vec<Event>, StoreError> {
    let silent = now.plus_seconds(-SILENT_SECONDS_MAX).as_micros();
    let over: Vec<(String, bool)> = node_boots::table
        .filter(node_boots::clean_stop.or(node_boots::seen_at.lt(silent)))
        .order(node_boots::boot)
        .select((node_boots::boot, node_boots::clean_stop))
        .limit(BOOTS_MAX)
        .load(conn)
        .map_err(store_error)?;
    let mut unclean = Vec::new();
    for (boot, clean_stop) in over {
        let key = [Bind::Number(boot_lock(&boot))];
        let is_over: bool = statement::<Bool>(TRY_BOOT, &key).get_result(conn).map_err(store_error)?;
        if !is_over || !fold::is_folded(conn, &boot)? {
            continue;
        }
        if !clean_stop {
            unclean.extend(unclean_stop(conn, &boot)?);
        }
        diesel::delete(ledger_position::table.filter(ledger_position::boot.eq(&boot)))
            .execute(conn)
            .map_err(store_error)?;
        diesel::delete(node_boots::table.find(&boot)).execute(conn).map_err(store_error)?;
    }
    Ok(unclean)
}

/// What was open when a node ended that did not say so: at most so many calls were in flight, all of them counted.
fn unclean_stop(conn: &mut Conn, boot: &str) -> Result<Option<Event>, StoreError> {
    let open: Option<(i64, i64)> = usage_ledger::table
        .filter(usage_ledger::boot.eq(boot))
        .order(usage_ledger::written_at.desc())
        .select((usage_ledger::open_calls, usage_ledger::open_units))
        .first(conn)
        .optional()
        .map_err(store_error)?;
    let Some((open_calls, open_units)) = open else { return Ok(None) };
    tracing::warn!(boot, "unclean_stop: calls that were in flight at that node stay counted");
    let open = serde_json::json!({"open_calls": open_calls, "open_units": open_units});
    Ok(Some(Event {
        business: None,
        action: "store.unclean_stop",
        resource_id: boot.to_owned(),
        after: Some(open.to_string()),
    }))
}
