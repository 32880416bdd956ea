//! What changed of a business's configuration, and since when (`version-checked-in-batch`). Triggers write these
//! rows in the transaction of their cause; here they are read and pruned.

use super::dialect::{Conn, Time};
use super::error::store_error;
use super::schema::{config_changes, config_versions};
use diesel::prelude::*;
use tracktags_core::accounts::BusinessId;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;

/// Changes are kept so long; knowledge that is older is stale.
pub(crate) const KEPT_SECONDS: i64 = 86_400;
/// Rows pruned at once at most, so that no pass holds the writer up.
const PRUNED_MAX: i64 = 5_000;

/// A business's version; 0 where nothing was ever configured.
pub(crate) fn version(conn: &mut Conn, business: &BusinessId) -> Result<i64, StoreError> {
    let found = config_versions::table
        .find(business.as_str())
        .select(config_versions::version)
        .get_result(conn)
        .optional()
        .map_err(store_error)?;
    Ok(found.unwrap_or(0))
}

/// Removes changes older than a day, so many at a time; whether there are more.
pub(crate) fn prune_changes(conn: &mut Conn, now: Timestamp) -> Result<bool, StoreError> {
    let before = Time::of(now.plus_seconds(-KEPT_SECONDS));
    let old = config_changes::table
        .filter(config_changes::changed_at.lt(before))
        .order(config_changes::changed_at)
        .select(config_changes::id)
        .limit(PRUNED_MAX)
        .load::<i64>(conn)
        .map_err(store_error)?;
    // A statement takes so many values only.
    for ids in old.chunks(1_000) {
        let rows = config_changes::table.filter(config_changes::id.eq_any(ids));
        diesel::delete(rows).execute(conn).map_err(store_error)?;
    }
    Ok(i64::try_from(old.len()).is_ok_and(|count| count == PRUNED_MAX))
}
