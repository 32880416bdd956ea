//! Versions and changes as the writer asks for them, between its batches and under their lock.

use super::error::store_error;
use super::schema::config_changes;
use super::tables::changes::version;
use diesel::prelude::*;
use tracktags_core::accounts::{BusinessId, CustomerId};
use tracktags_core::error::StoreError;
use tracktags_core::versions::{ChangeSource, Changes};

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
