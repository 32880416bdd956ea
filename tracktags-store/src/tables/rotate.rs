//! ① Rotation: a new key takes a key's place at once, and the old one goes on for a while.
//!
//! A key in its grace holds no slot, so it is not counted; only one of an owner's is in grace. Its new end is part of
//! what its row's proof covers, and a proof is given once, with the row: so the row is written anew.

use super::dialect::{Conn, Time};
use super::keys::{self, KeyRow};
use crate::secrets::{KeyFacts, Secrets};
use tracktags_core::error::{Conflict, Entity, StoreError};
use tracktags_core::keys::Scopes;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{KeyOwner, NewKey, RotatedKey, Rotation};

/// Makes a key that replaces a live one by id or name.
pub(crate) fn rotate_key(
    conn: &mut Conn,
    now: Timestamp,
    secrets: &Secrets,
    owner: KeyOwner,
    rotation: &Rotation,
) -> Result<RotatedKey, StoreError> {
    let old = keys::find(conn, now, &owner, &rotation.key)?;
    let live = keys::live(conn, now, &owner)?;
    // One in grace that is rotated itself needs a place for what replaces it.
    let slot = match old.slot {
        Some(slot) => Some(slot),
        None => keys::slot_left(conn, &owner, &live)?,
    };
    let Some(slot) = slot else {
        return Err(StoreError::conflict(Entity::Key, Conflict::KeyLimitReached, old.id));
    };
    for older in live.iter().filter(|row| row.slot.is_none() && row.id != old.id) {
        keys::revoke(conn, now, &owner, older.seq)?;
    }
    let ends_at = end_of(&old, now.plus_seconds(rotation.grace_seconds));
    if ends_at <= now {
        keys::revoke(conn, now, &owner, old.seq)?;
    } else {
        end_at(conn, secrets, &owner, &old, ends_at)?;
    }
    // A name that somebody gave goes on; one that was only the old key's id, or went on before, does not.
    let bears = |name: &String| {
        live.iter().any(|row| row.slot.is_some() && row.id != old.id && row.key_name == *name)
    };
    let key_name = Some(old.key_name.clone()).filter(|name| *name != old.id && !bears(name));
    let description = old.description.clone();
    let scopes =
        Scopes::from_text(old.scopes.as_deref()).ok_or(StoreError::Corrupt("a key's scopes".to_owned()))?;
    let new = NewKey { owner, key_name, description, expires_at: rotation.expires_at, scopes };
    let created = keys::make(conn, now, secrets, new, slot)?;
    Ok(RotatedKey { created, replaces: old.id, old_expires_at: ends_at })
}

/// When the old key ends: after its grace, or at the end it has anyway.
fn end_of(old: &KeyRow, after_grace: Timestamp) -> Timestamp {
    let own = old.expires_at.as_ref().and_then(Time::read);
    own.map_or(after_grace, |own| own.min(after_grace))
}

/// Gives a key another end and takes its slot.
fn end_at(
    conn: &mut Conn,
    secrets: &Secrets,
    owner: &KeyOwner,
    old: &KeyRow,
    ends_at: Timestamp,
) -> Result<(), StoreError> {
    let (business, customer) = match owner {
        KeyOwner::Business(business) => (business, None),
        KeyOwner::Customer(business, customer) => (business, Some(customer)),
    };
    let (hash, hash_alg) = keys::taken_out(conn, owner, old.seq)?;
    let facts = KeyFacts {
        id: &old.id,
        hash: &hash,
        business,
        customer,
        expires_at: Some(ends_at),
        scopes: old.scopes.as_deref(),
    };
    let mac = secrets.row_mac(&facts);
    let mut record = old.clone().record(owner, ends_at);
    record.expires_at = Some(ends_at);
    keys::insert(conn, owner, &record, &hash, &hash_alg, &mac, None)
}
