//! Keys, as the contract has them.

use super::objects::created_key;
use super::{Described, learn};
use crate::api::keys as api;
use crate::error::Code;
use crate::schema::{Fields, Kind};
use tracktags_core::time::Timestamp;

const TAG: &str = "Keys";

fn revoked() -> Kind {
    Fields::default().with("status", Kind::words(["revoked"])).with("key_id", Kind::text()).object()
}

fn creates(is_customers: bool) -> Described {
    let body = learn(|mut form| drop(api::new_fields(&mut form, Timestamp::MIN, is_customers)));
    Described::of(TAG, "Makes a key, and shows it once.")
        .body(body)
        .answers(201, created_key(is_customers).object())
        .fails(&[Code::KeyLimitReached, Code::KeyNameTaken])
}

fn reads() -> Described {
    Described::of(TAG, "Reads a key; never the key itself.")
        .answers(200, Kind::shared("Key"))
        .fails(&[Code::KeyNotFound, Code::AmbiguousKey])
}

fn rotates(is_customers: bool) -> Described {
    let old = Fields::default().with("replaces", Kind::text()).with("old_key_expires_at", Kind::time());
    Described::of(TAG, "Puts a new key in the place of another, which goes on for its grace.")
        .body(learn(|mut form| drop(api::rotation(&mut form, Timestamp::MIN, String::new()))))
        .answers(201, created_key(is_customers).and(old).object())
        .fails(&[Code::KeyNotFound, Code::AmbiguousKey, Code::KeyLimitReached])
}

fn revokes() -> Described {
    Described::of(TAG, "Revokes a key, from the next request on.")
        .answers(200, revoked())
        .fails(&[Code::KeyNotFound, Code::AmbiguousKey])
}

pub(crate) fn create_for_customer() -> Described {
    creates(true).fails(&[Code::Quota])
}

pub(crate) fn list_of_customer() -> Described {
    Described::of(TAG, "Lists a customer's live keys.")
        .lists("keys", Kind::shared("Key"))
        .fails(&[Code::CustomerNotFound])
}

pub(crate) fn read_of_customer() -> Described {
    reads().fails(&[Code::CustomerNotFound])
}

pub(crate) fn revoke_of_customer() -> Described {
    revokes().fails(&[Code::CustomerNotFound])
}

pub(crate) fn rotate_of_customer() -> Described {
    rotates(true).fails(&[Code::CustomerNotFound])
}

pub(crate) fn revoke_self() -> Described {
    Described::of(TAG, "Revokes the key that is sent.").answers(200, revoked())
}

pub(crate) fn create() -> Described {
    creates(false)
}

pub(crate) fn list() -> Described {
    Described::of(TAG, "Lists a business's live keys.").lists("keys", Kind::shared("Key"))
}

pub(crate) fn read() -> Described {
    reads()
}

pub(crate) fn revoke() -> Described {
    revokes()
}

pub(crate) fn rotate() -> Described {
    rotates(false)
}
