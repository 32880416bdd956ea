//! ① Keys: rows that say whom a hash speaks for. `terms` reads whether one may be believed.
//!
//! A live key holds a slot; unique slot numbers, not counting, keep an owner at what it may have. One that
//! expired gives its slot up when the next key is made. Revoking erases the row's proof, by trigger.

use super::dialect::{Conn, Time, put_key_use};
use super::error::store_error;
use super::pages::{page_of, page_rows};
use super::schema::{business_keys, customer_keys, key_uses};
use super::{accounts, customers};
use crate::secrets::{KeyFacts, Secrets};
use diesel::prelude::*;
use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use tracktags_core::accounts::BusinessId;
use tracktags_core::error::{Conflict, Entity, StoreError};
use tracktags_core::keys::{PlainKey, Scopes};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{CreatedKey, KeyOwner, KeyRecord, NewKey, Page, PageRequest};

/// Live keys of a business.
const BUSINESS_KEYS_MAX: i64 = 2;

/// A key's row as it is looked at here.
#[derive(Clone, Queryable)]
pub(crate) struct KeyRow {
    pub(super) seq: i64,
    pub(super) id: String,
    pub(super) key_name: String,
    pub(super) description: Option<String>,
    hint: String,
    pub(super) slot: Option<i64>,
    created_at: Time,
    pub(super) expires_at: Option<Time>,
    pub(super) scopes: Option<String>,
}

impl KeyRow {
    /// Not past its end. An end that cannot be read has passed.
    pub(super) fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.as_ref().is_none_or(|end| end.read().is_some_and(|end| now < end))
    }

    pub(super) fn record(self, owner: &KeyOwner, now: Timestamp) -> KeyRecord {
        KeyRecord {
            is_active: self.is_live(now),
            id: self.id,
            key_name: self.key_name,
            customer: match owner {
                KeyOwner::Business(_) => None,
                KeyOwner::Customer(_, customer) => Some(customer.clone()),
            },
            hint: self.hint,
            description: self.description,
            // A row that makes no sense here proves nothing either.
            scopes: Scopes::from_text(self.scopes.as_deref()).unwrap_or(Scopes::ALL),
            created_at: self.created_at.read_or_start(),
            expires_at: self.expires_at.as_ref().map(Time::read_or_start),
            last_used_at: None,
        }
    }
}

macro_rules! key_columns {
    ($table:ident) => {
        (
            $table::seq,
            $table::id,
            $table::key_name,
            $table::description,
            $table::hint,
            $table::slot,
            $table::created_at,
            $table::expires_at,
            $table::scopes,
        )
    };
}

/// Rows of an owner whose proof is there and that nobody revoked, after a place. Some may have expired.
fn standing(conn: &mut Conn, owner: &KeyOwner, after: i64, rows_max: i64) -> Result<Vec<KeyRow>, StoreError> {
    match owner {
        KeyOwner::Business(business) => business_keys::table
            .filter(business_keys::business_id.eq(business.as_str()))
            .filter(business_keys::row_mac.is_not_null().and(business_keys::revoked_at.is_null()))
            .filter(business_keys::seq.gt(after))
            .order(business_keys::seq)
            .select(key_columns!(business_keys))
            .limit(rows_max)
            .load(conn),
        KeyOwner::Customer(business, customer) => customer_keys::table
            .filter(customer_keys::business_id.eq(business.as_str()))
            .filter(customer_keys::customer_id.eq(customer.as_str()))
            .filter(customer_keys::row_mac.is_not_null().and(customer_keys::revoked_at.is_null()))
            .filter(customer_keys::seq.gt(after))
            .order(customer_keys::seq)
            .select(key_columns!(customer_keys))
            .limit(rows_max)
            .load(conn),
    }
    .map_err(store_error)
}

/// An owner has a handful of keys; this bounds what a SQL user may have put beside them.
const ROWS_MAX: i64 = 1_000;

/// Makes a key; an unknown customer is created, a deleted one revived.
pub(crate) fn create_key(
    conn: &mut Conn,
    now: Timestamp,
    secrets: &Secrets,
    key: NewKey,
) -> Result<CreatedKey, StoreError> {
    let NewKey { owner, key_name, description, expires_at, scopes } = key;
    match &owner {
        KeyOwner::Business(business) => accounts::require_business(conn, business)?,
        KeyOwner::Customer(business, customer) => customers::ensure_customer(conn, now, business, customer)?,
    }
    let (expired, live): (Vec<_>, Vec<_>) =
        standing(conn, &owner, 0, ROWS_MAX)?.into_iter().partition(|row| !row.is_live(now));
    for row in expired.iter().filter(|row| row.slot.is_some()) {
        free_slot(conn, &owner, row.seq)?;
    }
    let Some(slot) = slot_left(conn, &owner, &live)? else {
        let id = live.first().map(|row| row.id.clone()).unwrap_or_default();
        return Err(StoreError::conflict(Entity::Key, Conflict::KeyLimitReached, id));
    };
    if let Some(other) =
        live.iter().find(|row| row.slot.is_some() && Some(&row.key_name) == key_name.as_ref())
    {
        return Err(StoreError::conflict(Entity::Key, Conflict::KeyNameTaken, other.id.clone()));
    }
    make(conn, now, secrets, NewKey { owner, key_name, description, expires_at, scopes }, slot)
}

/// A slot that none of these rows holds; `None` where the owner has as many keys as it may.
pub(super) fn slot_left(
    conn: &mut Conn,
    owner: &KeyOwner,
    live: &[KeyRow],
) -> Result<Option<i64>, StoreError> {
    let keys_max = match owner {
        KeyOwner::Business(_) => BUSINESS_KEYS_MAX,
        KeyOwner::Customer(business, _) => accounts::settings(conn, business)?.max_customer_keys.into(),
    };
    // More are held than may be where the setting was lowered.
    let held = live.iter().filter(|row| row.slot.is_some()).count();
    if i64::try_from(held).unwrap_or(i64::MAX) >= keys_max {
        return Ok(None);
    }
    Ok((1..=keys_max).find(|slot| live.iter().all(|row| row.slot != Some(*slot))))
}

/// Makes a key in a free slot; its name is its id where none is given.
pub(super) fn make(
    conn: &mut Conn,
    now: Timestamp,
    secrets: &Secrets,
    key: NewKey,
    slot: i64,
) -> Result<CreatedKey, StoreError> {
    let NewKey { owner, key_name, description, expires_at, scopes } = key;
    let mut rng = StdRng::try_from_rng(&mut SysRng).map_err(|error| StoreError::Backend(Box::new(error)))?;
    let id = format!("key_{:032x}", rng.random::<u128>());
    let key_name = key_name.unwrap_or_else(|| id.clone());
    let (business, customer, plain) = match &owner {
        KeyOwner::Business(business) => (business, None, PlainKey::for_business(&mut rng)),
        KeyOwner::Customer(business, customer) => {
            (business, Some(customer), PlainKey::for_customer(customer, &mut rng))
        }
    };
    let hash = secrets.hasher().hash(plain.expose());
    let text = scopes.to_text();
    let facts =
        KeyFacts { id: &id, hash: hash.as_bytes(), business, customer, expires_at, scopes: text.as_deref() };
    let row_mac = secrets.row_mac(&facts);
    let record = KeyRecord {
        id: id.clone(),
        key_name,
        customer: customer.cloned(),
        is_active: expires_at.is_none_or(|at| now < at),
        hint: plain.hint(),
        description,
        scopes,
        created_at: now,
        expires_at,
        last_used_at: None,
    };
    insert(conn, &owner, &record, hash.as_bytes(), secrets.hash_alg(), &row_mac, Some(slot))?;
    Ok(CreatedKey { plain, record })
}

pub(super) fn insert(
    conn: &mut Conn,
    owner: &KeyOwner,
    record: &KeyRecord,
    hash: &[u8],
    hash_alg: &str,
    row_mac: &[u8; 32],
    slot: Option<i64>,
) -> Result<(), StoreError> {
    let (created_at, expires_at) = (Time::of(record.created_at), record.expires_at.map(Time::of));
    let scopes = record.scopes.to_text();
    macro_rules! values {
        ($table:ident, $business:expr) => {
            (
                $table::id.eq(&record.id),
                $table::business_id.eq($business.as_str()),
                $table::key_name.eq(&record.key_name),
                $table::description.eq(record.description.as_deref()),
                $table::key_hash.eq(hash),
                $table::hash_alg.eq(hash_alg),
                $table::hint.eq(&record.hint),
                $table::row_mac.eq(row_mac.as_slice()),
                $table::slot.eq(slot),
                $table::created_at.eq(&created_at),
                $table::expires_at.eq(&expires_at),
                $table::scopes.eq(scopes.as_deref()),
            )
        };
    }
    match owner {
        KeyOwner::Business(business) => {
            diesel::insert_into(business_keys::table).values(values!(business_keys, business)).execute(conn)
        }
        KeyOwner::Customer(business, customer) => diesel::insert_into(customer_keys::table)
            .values((values!(customer_keys, business), customer_keys::customer_id.eq(customer.as_str())))
            .execute(conn),
    }
    .map(drop)
    .map_err(store_error)
}

/// Takes a row out, to be written anew; hands back its hash and how that was made.
pub(super) fn taken_out(
    conn: &mut Conn,
    owner: &KeyOwner,
    seq: i64,
) -> Result<(Vec<u8>, String), StoreError> {
    macro_rules! take_out {
        ($table:ident) => {
            diesel::delete($table::table.find(seq))
                .returning(($table::key_hash, $table::hash_alg))
                .get_result(conn)
        };
    }
    match owner {
        KeyOwner::Business(_) => take_out!(business_keys),
        KeyOwner::Customer(..) => take_out!(customer_keys),
    }
    .map_err(store_error)
}

fn free_slot(conn: &mut Conn, owner: &KeyOwner, seq: i64) -> Result<(), StoreError> {
    match owner {
        KeyOwner::Business(_) => diesel::update(business_keys::table.find(seq))
            .set(business_keys::slot.eq(None::<i64>))
            .execute(conn),
        KeyOwner::Customer(..) => diesel::update(customer_keys::table.find(seq))
            .set(customer_keys::slot.eq(None::<i64>))
            .execute(conn),
    }
    .map(drop)
    .map_err(store_error)
}

fn require_owner(conn: &mut Conn, owner: &KeyOwner) -> Result<(), StoreError> {
    match owner {
        KeyOwner::Business(business) => accounts::require_business(conn, business),
        KeyOwner::Customer(business, customer) => customers::require_customer(conn, business, customer),
    }
}

/// Every live row of an owner, those in their grace too.
pub(super) fn live(conn: &mut Conn, now: Timestamp, owner: &KeyOwner) -> Result<Vec<KeyRow>, StoreError> {
    let mut live = standing(conn, owner, 0, ROWS_MAX)?;
    live.retain(|row| row.is_live(now));
    Ok(live)
}

/// The live keys of an owner, oldest first.
pub(crate) fn keys(
    conn: &mut Conn,
    now: Timestamp,
    owner: &KeyOwner,
    page: PageRequest,
) -> Result<Page<KeyRecord>, StoreError> {
    require_owner(conn, owner)?;
    let rows = standing(conn, owner, page.after.unwrap_or(0), page_rows(page))?;
    let live = |row: KeyRow| row.is_live(now).then(|| row.record(owner, now));
    let mut page = page_of(rows, page, |row| row.seq, live);
    for record in &mut page.items {
        record.last_used_at = last_use(conn, &record.id)?;
    }
    Ok(page)
}

/// The one live row of this id, else of this name.
pub(super) fn find(
    conn: &mut Conn,
    now: Timestamp,
    owner: &KeyOwner,
    id_or_name: &str,
) -> Result<KeyRow, StoreError> {
    require_owner(conn, owner)?;
    let mut live = live(conn, now, owner)?;
    if let Some(at) = live.iter().position(|row| row.id == id_or_name) {
        return Ok(live.swap_remove(at));
    }
    live.retain(|row| row.key_name == id_or_name);
    if live.len() > 1 {
        return Err(StoreError::conflict(Entity::Key, Conflict::AmbiguousKey, id_or_name));
    }
    live.pop().ok_or_else(|| StoreError::not_found(Entity::Key, id_or_name))
}

/// One live key.
pub(crate) fn key(
    conn: &mut Conn,
    now: Timestamp,
    owner: &KeyOwner,
    id_or_name: &str,
) -> Result<KeyRecord, StoreError> {
    let mut record = find(conn, now, owner, id_or_name)?.record(owner, now);
    record.last_used_at = last_use(conn, &record.id)?;
    Ok(record)
}

/// Revokes a live key for good.
pub(crate) fn revoke_key(
    conn: &mut Conn,
    now: Timestamp,
    owner: &KeyOwner,
    id_or_name: &str,
) -> Result<KeyRecord, StoreError> {
    let row = find(conn, now, owner, id_or_name)?;
    revoke(conn, now, owner, row.seq)?;
    let mut record = row.record(owner, now);
    record.is_active = false;
    Ok(record)
}

pub(super) fn revoke(conn: &mut Conn, now: Timestamp, owner: &KeyOwner, seq: i64) -> Result<(), StoreError> {
    let at = Time::of(now);
    // The trigger would erase proof and slot too; said here as well, since all rests on it.
    match owner {
        KeyOwner::Business(_) => diesel::update(business_keys::table.find(seq))
            .set((
                business_keys::revoked_at.eq(at),
                business_keys::row_mac.eq(None::<Vec<u8>>),
                business_keys::slot.eq(None::<i64>),
            ))
            .execute(conn),
        KeyOwner::Customer(..) => diesel::update(customer_keys::table.find(seq))
            .set((
                customer_keys::revoked_at.eq(at),
                customer_keys::row_mac.eq(None::<Vec<u8>>),
                customer_keys::slot.eq(None::<i64>),
            ))
            .execute(conn),
    }
    .map(drop)
    .map_err(store_error)
}

fn last_use(conn: &mut Conn, id: &str) -> Result<Option<Timestamp>, StoreError> {
    let used = key_uses::table.find(id).select(key_uses::last_used_at).get_result::<Time>(conn).optional();
    Ok(used.map_err(store_error)?.as_ref().and_then(Time::read))
}

/// Writes down when keys were used.
pub(crate) fn note_uses(
    conn: &mut Conn,
    uses: &[(Arc<str>, BusinessId, Timestamp)],
) -> Result<(), StoreError> {
    for (key, business, at) in uses {
        put_key_use(conn, key, business, *at)?;
    }
    Ok(())
}
