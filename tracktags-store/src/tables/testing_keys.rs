//! Keys: their rules.

use super::super::{changes, claims, keys, rotate, terms};
use super::*;
use crate::secrets::Secrets;
use tracktags_core::accounts::Identity;
use tracktags_core::error::{Conflict, StoreError};
use tracktags_core::keys::KeyHash;
use tracktags_core::keys::Scopes;
use tracktags_core::traits::{CreatedKey, KeyOwner, NewKey, PageRequest, RotatedKey, Rotation};

const ALL: PageRequest = PageRequest { after: None, count_max: 500 };

pub(crate) fn of_customer(id: &str) -> KeyOwner {
    KeyOwner::Customer(business("b1"), customer(id))
}

pub(crate) fn of_business() -> KeyOwner {
    KeyOwner::Business(business("b1"))
}

fn new(owner: KeyOwner) -> NewKey {
    NewKey { owner, key_name: None, description: None, expires_at: None, scopes: Scopes::ALL }
}

pub(crate) fn make(conn: &mut Conn, owner: KeyOwner) -> CreatedKey {
    keys::create_key(conn, day(1), &secrets(), new(owner)).unwrap()
}

pub(crate) fn hash(key: &CreatedKey) -> KeyHash {
    secrets().hasher().hash(key.plain.expose())
}

pub(crate) fn who(conn: &mut Conn, key: &CreatedKey, claimed: Option<&str>) -> Option<Identity> {
    who_at(conn, day(1), &secrets(), hash(key), claimed)
}

pub(crate) fn who_at(
    conn: &mut Conn,
    now: Timestamp,
    secrets: &Secrets,
    hash: KeyHash,
    claimed: Option<&str>,
) -> Option<Identity> {
    terms::identify(conn, now, secrets, hash, claimed.map(customer).as_ref()).unwrap()
}

fn conflict<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Conflict {
    match result {
        Err(StoreError::Conflict { conflict, .. }) => conflict,
        other => panic!("no conflict: {other:?}"),
    }
}

#[test]
fn a_key_speaks_for_its_owner() {
    let conn = &mut two_businesses();
    let key = make(conn, of_customer("c1"));
    let found = who(conn, &key, Some("c1")).unwrap();
    assert_eq!((&*found.key_id, found.account.customer.unwrap()), (&*key.record.id, customer("c1")));
    assert_eq!(found.version, changes::version(conn, &business("b1")).unwrap());
    assert_eq!(key.record.key_name, key.record.id);
    assert!(key.record.id.starts_with("key_") && key.plain.expose().starts_with("ck_live_c1_"));
    // The id in the key is another's, or is missing.
    assert_eq!(who(conn, &key, Some("c2")), None);
    assert_eq!(who(conn, &key, None), None);
    let key = make(conn, of_business());
    assert_eq!(who(conn, &key, None).unwrap().account.customer, None);
    assert_eq!(who(conn, &key, Some("c1")), None);
    // Another master key's hash of the same key is unknown; its row mac would not fit either.
    let other = Secrets::derive(&[MasterKey::new([8; 32])]).unwrap();
    assert_eq!(who_at(conn, day(1), &other, hash(&key), None), None);
    let both = Secrets::derive(&[MasterKey::new([8; 32]), MasterKey::new([7; 32])]).unwrap();
    let found: Vec<_> = both.hashers().map(|hasher| hasher.hash(key.plain.expose())).collect();
    assert_eq!(who_at(conn, day(1), &both, found[0], None), None);
    assert!(who_at(conn, day(1), &both, found[1], None).is_some());
    assert_eq!(claims::known_hashes(conn, &found).unwrap().into_iter().collect::<Vec<_>>(), vec![found[1]]);
}

#[test]
fn an_owner_has_at_most_two_live_keys() {
    let conn = &mut two_businesses();
    for owner in [of_customer("c1"), of_business()] {
        let first = make(conn, owner.clone());
        make(conn, owner.clone());
        let third = keys::create_key(conn, day(1), &secrets(), new(owner.clone()));
        assert_eq!(conflict(third), Conflict::KeyLimitReached);
        keys::revoke_key(conn, day(1), &owner, &first.record.id).unwrap();
        make(conn, owner.clone());
        assert_eq!(keys::keys(conn, day(1), &owner, ALL).unwrap().items.len(), 2);
    }
    make(conn, of_customer("c2"));
}

#[test]
fn an_expired_key_is_refused_and_makes_room() {
    let conn = &mut two_businesses();
    let short = NewKey { expires_at: Some(day(3)), key_name: Some("phone".into()), ..new(of_customer("c1")) };
    let key = keys::create_key(conn, day(1), &secrets(), short.clone()).unwrap();
    make(conn, of_customer("c1"));
    assert_eq!(who(conn, &key, Some("c1")).unwrap().expires_at, Some(day(3)));
    assert_eq!(who_at(conn, day(3), &secrets(), hash(&key), Some("c1")), None);
    assert_eq!(keys::keys(conn, day(3), &of_customer("c1"), ALL).unwrap().items.len(), 1);
    let next = NewKey { expires_at: None, ..short };
    let next = keys::create_key(conn, day(3), &secrets(), next).unwrap();
    assert!(who_at(conn, day(3), &secrets(), hash(&next), Some("c1")).is_some());
}

#[test]
fn keys_are_found_by_id_or_name() {
    let conn = &mut two_businesses();
    let owner = of_customer("c1");
    let named =
        NewKey { key_name: Some("phone".into()), description: Some("mine".into()), ..new(owner.clone()) };
    let key = keys::create_key(conn, day(1), &secrets(), named.clone()).unwrap();
    assert_eq!(conflict(keys::create_key(conn, day(1), &secrets(), named.clone())), Conflict::KeyNameTaken);
    for text in ["phone", &key.record.id] {
        assert_eq!(keys::key(conn, day(1), &owner, text).unwrap(), key.record);
    }
    assert!(matches!(keys::key(conn, day(1), &owner, "tablet"), Err(StoreError::NotFound { .. })));
    assert!(matches!(keys::key(conn, day(1), &of_customer("c2"), "phone"), Err(StoreError::NotFound { .. })));
    assert!(matches!(keys::keys(conn, day(1), &of_customer("c9"), ALL), Err(StoreError::NotFound { .. })));
    // A key in its grace (later) holds no slot and may share its name.
    sql(conn, "UPDATE customer_keys SET slot = NULL");
    keys::create_key(conn, day(1), &secrets(), named).unwrap();
    assert_eq!(conflict(keys::key(conn, day(1), &owner, "phone")), Conflict::AmbiguousKey);
    assert!(!keys::revoke_key(conn, day(1), &owner, &key.record.id).unwrap().is_active);
    assert!(keys::key(conn, day(1), &owner, "phone").is_ok());
}

#[test]
fn a_key_for_an_unknown_customer_creates_it_and_an_unknown_business_is_refused() {
    let conn = &mut two_businesses();
    let key = make(conn, of_customer("new"));
    assert!(who(conn, &key, Some("new")).is_some());
    let stranger = KeyOwner::Business(business("b9"));
    assert!(matches!(
        keys::create_key(conn, day(1), &secrets(), new(stranger)),
        Err(StoreError::NotFound { .. })
    ));
}

#[test]
fn pages_of_keys_follow_each_other() {
    let conn = &mut two_businesses();
    let (first, second) = (make(conn, of_customer("c1")), make(conn, of_customer("c1")));
    let page =
        keys::keys(conn, day(1), &of_customer("c1"), PageRequest { after: None, count_max: 1 }).unwrap();
    assert_eq!(page.items, vec![first.record]);
    let page = PageRequest { after: page.next, count_max: 1 };
    let page = keys::keys(conn, day(1), &of_customer("c1"), page).unwrap();
    assert_eq!((page.items, page.next), (vec![second.record], None));
}

fn rotated(conn: &mut Conn, owner: KeyOwner, key: &str, grace_seconds: i64) -> RotatedKey {
    let rotation = Rotation { key: key.to_owned(), grace_seconds, expires_at: None };
    rotate::rotate_key(conn, day(1), &secrets(), owner, &rotation).unwrap()
}

#[test]
fn a_replaced_key_goes_on_for_its_grace_and_no_longer() {
    for owner in [of_customer("c1"), of_business()] {
        let conn = &mut two_businesses();
        let claimed = matches!(owner, KeyOwner::Customer(..)).then_some("c1");
        let first = make(conn, owner.clone());
        let second = make(conn, owner.clone());
        let third = rotated(conn, owner.clone(), &first.record.id, 60);
        assert_eq!((&third.replaces, third.old_expires_at), (&first.record.id, day(1).plus_seconds(60)));
        // Its name was its id; the new one's is its own.
        assert_eq!(third.created.record.key_name, third.created.record.id);
        for key in [&first, &second, &third.created] {
            assert!(who(conn, key, claimed).is_some());
        }
        let ended = day(1).plus_seconds(60);
        assert!(who_at(conn, ended, &secrets(), hash(&first), claimed).is_none());
        assert!(who_at(conn, ended, &secrets(), hash(&third.created), claimed).is_some());
        // Two are counted, the one in grace is not; there is no place for a third.
        let listed = keys::keys(conn, day(1), &owner, ALL).unwrap().items;
        assert_eq!(listed.len(), 3);
        assert_eq!(
            conflict(keys::create_key(conn, day(1), &secrets(), new(owner.clone()))),
            Conflict::KeyLimitReached
        );
        // Rotating again ends the older grace; without grace the old one ends at once.
        let fourth = rotated(conn, owner.clone(), &second.record.id, 60);
        assert!(who(conn, &first, claimed).is_none() && who(conn, &second, claimed).is_some());
        let fifth = rotated(conn, owner.clone(), &fourth.created.record.id, 0);
        assert!(who(conn, &second, claimed).is_none() && who(conn, &fourth.created, claimed).is_none());
        assert_eq!(fifth.old_expires_at, day(1));
        for key in [&third.created, &fifth.created] {
            assert!(who(conn, key, claimed).is_some());
        }
        let gone = Rotation { key: first.record.id.clone(), grace_seconds: 0, expires_at: None };
        let refused = rotate::rotate_key(conn, day(1), &secrets(), owner, &gone);
        assert!(matches!(refused, Err(StoreError::NotFound { .. })), "{refused:?}");
    }
}

#[test]
fn a_name_goes_on_and_an_end_is_never_put_off() {
    let conn = &mut two_businesses();
    let ends_at = day(1).plus_seconds(30);
    let named = NewKey { key_name: Some("ci".into()), expires_at: Some(ends_at), ..new(of_business()) };
    let first = keys::create_key(conn, day(1), &secrets(), named).unwrap();
    let second = rotated(conn, of_business(), "ci", 3_600);
    assert_eq!((second.created.record.key_name.as_str(), second.old_expires_at), ("ci", ends_at));
    assert!(who_at(conn, ends_at, &secrets(), hash(&first), None).is_none());
    // Both bear the name while the old one is in grace, so it takes the id to say which.
    assert_eq!(conflict(keys::key(conn, day(1), &of_business(), "ci")), Conflict::AmbiguousKey);
    // The one in grace can be replaced too, while there is a place.
    let third = rotated(conn, of_business(), &first.record.id, 0);
    assert!(who(conn, &first, None).is_none() && who(conn, &third.created, None).is_some());
}
