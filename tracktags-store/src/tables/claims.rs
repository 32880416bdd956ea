//! ① Keys as they are looked for: by their hashes. `terms` says what may be believed of what stands there.

use super::dialect::{Conn, Time};
use super::error::store_error;
use super::schema::{business_keys, customer_keys};
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};
use std::collections::HashSet;
use tracktags_core::accounts::{BusinessId, CustomerId};
use tracktags_core::error::StoreError;
use tracktags_core::keys::KeyHash;

/// What a hash's row says, whatever that is worth: to be proved by `terms::identify`.
#[derive(Queryable)]
pub(crate) struct ClaimRow {
    pub(crate) id: String,
    pub(crate) business_id: String,
    pub(crate) customer_id: Option<String>,
    pub(crate) key_hash: Vec<u8>,
    pub(crate) row_mac: Option<Vec<u8>>,
    pub(crate) expires_at: Option<Time>,
    pub(crate) revoked_at: Option<Time>,
    pub(crate) scopes: Option<String>,
}

/// The row of a hash among the keys of businesses or of customers.
pub(crate) fn claim(
    conn: &mut Conn,
    hash: &KeyHash,
    of_customer: bool,
) -> Result<Option<ClaimRow>, StoreError> {
    let bytes = hash.as_bytes().as_slice();
    let found = if of_customer {
        customer_keys::table
            .filter(customer_keys::key_hash.eq(bytes))
            .select((
                customer_keys::id,
                customer_keys::business_id,
                customer_keys::customer_id.nullable(),
                customer_keys::key_hash,
                customer_keys::row_mac,
                customer_keys::expires_at,
                customer_keys::revoked_at,
                customer_keys::scopes,
            ))
            .get_result(conn)
    } else {
        business_keys::table
            .filter(business_keys::key_hash.eq(bytes))
            .select((
                business_keys::id,
                business_keys::business_id,
                None::<String>.into_sql::<Nullable<Text>>(),
                business_keys::key_hash,
                business_keys::row_mac,
                business_keys::expires_at,
                business_keys::revoked_at,
                business_keys::scopes,
            ))
            .get_result(conn)
    };
    found.optional().map_err(store_error)
}

/// The parsed owner of a row; `None` for ids that are none.
pub(crate) fn owner_of(row: &ClaimRow) -> Option<(BusinessId, Option<CustomerId>)> {
    let business = BusinessId::parse(&row.business_id).ok()?;
    let customer = row.customer_id.as_deref().map(CustomerId::parse).transpose().ok()?;
    Some((business, customer))
}

/// Which of these hashes stand in a row, whatever that row is worth.
pub(crate) fn known_hashes(conn: &mut Conn, hashes: &[KeyHash]) -> Result<HashSet<KeyHash>, StoreError> {
    let wanted: Vec<&[u8]> = hashes.iter().map(|hash| hash.as_bytes().as_slice()).collect();
    let mut found: HashSet<Vec<u8>> = HashSet::new();
    // A statement takes so many values only.
    for wanted in wanted.chunks(1_000) {
        let business = business_keys::table
            .filter(business_keys::key_hash.eq_any(wanted))
            .select(business_keys::key_hash)
            .load(conn)
            .map_err(store_error)?;
        let customer = customer_keys::table
            .filter(customer_keys::key_hash.eq_any(wanted))
            .select(customer_keys::key_hash)
            .load(conn)
            .map_err(store_error)?;
        found.extend(business);
        found.extend(customer);
    }
    Ok(hashes.iter().copied().filter(|hash| found.contains(hash.as_bytes().as_slice())).collect())
}
