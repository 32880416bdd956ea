//! What changed of a business's configuration, and since when (`version-checked-in-batch`). Triggers write these
//! rows in the transaction of their cause; here they are read and pruned.

use super::error::store_error;
use super::rows::time_text;
use super::schema::{config_changes, config_versions};
use diesel::prelude::*;
use tracktags_core::accounts::{BusinessId, CustomerId};
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;
use tracktags_core::versions::{ChangeSource, Changes};

/// Changes are kept so long; knowledge that is older is stale.
pub(crate) const KEPT_SECONDS: i64 = 86_400;
/// Rows pruned at once at most, so that no pass holds the writer up.
const PRUNED_MAX: i64 = 5_000;
/// Rows read at once at most; where more changed, all knowledge counts as stale.
const READ_MAX: usize = 100_000;

/// A connection, asked for versions and changes.
pub(crate) struct Source<'a>(pub(crate) &'a mut SqliteConnection);

impl ChangeSource for Source<'_> {
    fn version(&mut self, business: &BusinessId) -> Result<i64, StoreError> {
        version(self.0, business)
    }

    fn changes(&mut self, business: &BusinessId, after: i64) -> Result<Changes, StoreError> {
        since(self.0, business, after)
    }
}

/// A business's version; 0 where nothing was ever configured.
pub(crate) fn version(conn: &mut SqliteConnection, business: &BusinessId) -> Result<i64, StoreError> {
    let found = config_versions::table
        .find(business.as_str())
        .select(config_versions::version)
        .get_result(conn)
        .optional()
        .map_err(store_error)?;
    Ok(found.unwrap_or(0))
}

/// What changed after `since`.
pub(crate) fn since(
    conn: &mut SqliteConnection,
    business: &BusinessId,
    since: i64,
) -> Result<Changes, StoreError> {
    let version = version(conn, business)?;
    let rows = config_changes::table
        .filter(config_changes::business_id.eq(business.as_str()))
        .filter(config_changes::version.gt(since))
        .order(config_changes::version)
        .select((config_changes::version, config_changes::customer_id))
        .limit(i64::try_from(READ_MAX).unwrap_or(i64::MAX))
        .load::<(i64, Option<String>)>(conn)
        .map_err(store_error)?;
    // Every step of the version has its row; where rows are missing, or the version itself was written by hand, it is
    // not known what happened.
    let complete = i64::try_from(rows.len()).is_ok_and(|rows| version.checked_sub(since) == Some(rows));
    // An id that is none concerns nobody who could be asked for; everybody is the safe reading.
    let read = |customer: Option<String>| customer.and_then(|id| CustomerId::parse(&id).ok());
    let rows = rows.into_iter().map(|(version, customer)| (version, read(customer))).collect();
    Ok(Changes { rows, pruned: !complete })
}

/// Removes changes older than a day, so many at a time; whether there are more.
pub(crate) fn prune_changes(conn: &mut SqliteConnection, now: Timestamp) -> Result<bool, StoreError> {
    let before = time_text(now.plus_seconds(-KEPT_SECONDS));
    let old = config_changes::table
        .filter(config_changes::changed_at.lt(before))
        .order(config_changes::changed_at)
        .select(config_changes::id)
        .limit(PRUNED_MAX)
        .load::<i64>(conn)
        .map_err(store_error)?;
    // One by one: a statement takes so many values only.
    for id in &old {
        diesel::delete(config_changes::table.find(id)).execute(conn).map_err(store_error)?;
    }
    Ok(i64::try_from(old.len()).is_ok_and(|count| count == PRUNED_MAX))
}
