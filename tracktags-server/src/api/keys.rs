//! Keys of businesses and customers: made (and shown once), listed, read, replaced, revoked.

use super::accounts::customer_in_path;
use super::{Answer, Shape, shape, words_of};
use crate::error::ApiError;
use crate::form::{Form, set};
use crate::identity::{Business, Holder, KeyKeeper};
use crate::lists::List;
use crate::request::Input;
use actix_web::HttpResponse;
use tracktags_core::accounts::{BusinessId, CustomerId};
use tracktags_core::audit::Author;
use tracktags_core::error::Entity;
use tracktags_core::keys::{KeyScope, Scopes};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{CreatedKey, KeyOwner, KeyRecord, NewKey, Rotation};

const WARNING: &str = "Save this key securely. It will not be shown again";
const BUSINESS_TYPE: &str = "business";
const CUSTOMER_TYPE: &str = "customer_api";
const DESCRIPTION_CHARS_MAX: usize = 1_000;
/// How long a replaced key goes on, in seconds: a day, where nothing is said; thirty at most.
const GRACE_SECONDS: i64 = 86_400;
const GRACE_SECONDS_MAX: i64 = 2_592_000;

fn shown(key: KeyRecord) -> Shape {
    let is_customers = key.customer.is_some();
    shape! {
        "id": key.id,
        "key_name": key.key_name,
        "key_type": if is_customers { CUSTOMER_TYPE } else { BUSINESS_TYPE },
        "is_active": key.is_active,
        "hint": key.hint,
        "description": key.description,
        // A customer's key has none of these.
        "scopes": if is_customers { Vec::new() } else { key.scopes.iter().collect::<Vec<_>>() },
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    }
}

/// When a new key ends, if it does.
fn end_of(form: &mut Form, now: Timestamp) -> Option<Timestamp> {
    let expires_at = set(form.time_change("expires_at"));
    if expires_at.is_some_and(|expires_at| expires_at <= now) {
        form.problem("expires_at", "must be in the future");
    }
    expires_at
}

/// The fields of a new key.
pub(crate) struct NewFields {
    key_name: Option<String>,
    description: Option<String>,
    expires_at: Option<Timestamp>,
    scopes: Scopes,
}

impl NewFields {
    fn of(self, owner: KeyOwner) -> NewKey {
        let Self { key_name, description, expires_at, scopes } = self;
        NewKey { owner, key_name, description, expires_at, scopes }
    }
}

/// Reads the fields of a new key. Only a business's may be made for less than everything.
pub(crate) fn new_fields(form: &mut Form, now: Timestamp, is_customers: bool) -> NewFields {
    let (key_type, name_chars_max) = if is_customers { (CUSTOMER_TYPE, 100) } else { (BUSINESS_TYPE, 50) };
    form.word("key_type", &[(key_type, ())]);
    NewFields {
        key_name: form.optional_text("key_name", 1..=name_chars_max),
        description: form.string_in_object("credentials", "description", 0..=DESCRIPTION_CHARS_MAX),
        expires_at: end_of(form, now),
        scopes: if is_customers { Scopes::ALL } else { scopes(form) },
    }
}

fn scopes(form: &mut Form) -> Scopes {
    match form.word_list("scopes", words_of!(KeyScope)) {
        Some(scopes) if scopes.len() < KeyScope::ALL.len() => Scopes::only(scopes).unwrap_or(Scopes::ALL),
        Some(_) | None => Scopes::ALL,
    }
}

/// A key just made, as it is shown once.
fn shown_once(owner: &KeyOwner, created: &CreatedKey) -> Shape {
    let CreatedKey { plain, record } = created;
    match owner {
        KeyOwner::Customer(_, customer) => shape! {
            "status": "created",
            "api_key": plain.expose(),
            "customer_id": customer,
            "key_id": record.id,
            "key_name": record.key_name,
            "expires_at": record.expires_at,
            "warning": WARNING,
        },
        KeyOwner::Business(business) => shape! {
            "api_key": plain.expose(),
            "key_id": record.id,
            "key_name": record.key_name,
            "key_type": BUSINESS_TYPE,
            "business_id": business,
            "expires_at": record.expires_at,
            "warning": WARNING,
        },
    }
}

async fn make(input: &Input, by: Author, new: NewKey) -> Answer {
    let owner = new.owner.clone();
    let created = input.app.store.create_key(by, new).await?;
    Ok(HttpResponse::Created().json(shown_once(&owner, &created)))
}

/// `POST …/customers/{cid}/keys`
pub(crate) async fn create_for_customer(KeyKeeper(business): KeyKeeper, mut input: Input) -> Answer {
    let mut form = input.form().await?;
    // An unknown customer is created, so an id against the grammar is a bad request here.
    let customer = CustomerId::parse(&input.segment("cid"));
    let customer = customer.map_err(|error| ApiError::field("customer_id", error.to_string()))?;
    let new = new_fields(&mut form, input.app.clock.now(), true);
    form.finish()?;
    make(&input, business.by, new.of(KeyOwner::Customer(business.id, customer))).await
}

/// `POST …/keys`
pub(crate) async fn create(KeyKeeper(business): KeyKeeper, mut input: Input) -> Answer {
    let mut form = input.form().await?;
    let new = new_fields(&mut form, input.app.clock.now(), false);
    form.finish()?;
    make(&input, business.by, new.of(KeyOwner::Business(business.id))).await
}

/// Reads how `key` is to be replaced.
pub(crate) fn rotation(form: &mut Form, now: Timestamp, key: String) -> Rotation {
    Rotation {
        key,
        grace_seconds: form.number("grace_seconds", 0..=GRACE_SECONDS_MAX).unwrap_or(GRACE_SECONDS),
        expires_at: end_of(form, now),
    }
}

/// Puts a new key in the place of `key`.
async fn rotate_key(mut input: Input, by: Author, owner: KeyOwner, key: String) -> Answer {
    let mut form = input.form().await?;
    let rotation = rotation(&mut form, input.app.clock.now(), key);
    form.finish()?;
    let rotated = input.app.store.rotate_key(by, owner.clone(), rotation).await?;
    let old = shape! {"replaces": rotated.replaces, "old_key_expires_at": rotated.old_expires_at};
    Ok(HttpResponse::Created().json(shown_once(&owner, &rotated.created).and(old)))
}

/// `POST …/keys/{type}/{name}/rotate`
pub(crate) async fn rotate(KeyKeeper(business): KeyKeeper, input: Input) -> Answer {
    let by = business.by;
    let owner = owner_by_type(business.id, &input)?;
    let key = input.segment("name");
    rotate_key(input, by, owner, key).await
}

/// `POST …/customers/{cid}/keys/{key}/rotate`
pub(crate) async fn rotate_of_customer(KeyKeeper(business): KeyKeeper, input: Input) -> Answer {
    let by = business.by;
    let owner = KeyOwner::Customer(business.id, customer_in_path(&input)?);
    let key = input.segment("key");
    rotate_key(input, by, owner, key).await
}

/// `GET …/keys`
pub(crate) async fn list(business: Business, input: Input) -> Answer {
    let list = List::asked(&input, "keys", business.id.as_str())?;
    let page = input.app.store.keys(KeyOwner::Business(business.id), list.page).await?;
    Ok(list.answer(page, shown))
}

/// `GET …/customers/{cid}/keys`
pub(crate) async fn list_of_customer(business: Business, input: Input) -> Answer {
    let list = List::asked(&input, "keys", business.id.as_str())?;
    let owner = KeyOwner::Customer(business.id, customer_in_path(&input)?);
    let page = input.app.store.keys(owner, list.page).await?;
    Ok(list.answer(page, shown))
}

/// Whose key `…/keys/{type}/{name}` means. Customers' keys are found below their customers.
fn owner_by_type(business: BusinessId, input: &Input) -> Result<KeyOwner, ApiError> {
    if input.segment("type") == BUSINESS_TYPE {
        Ok(KeyOwner::Business(business))
    } else {
        Err(ApiError::not_found(Entity::Key))
    }
}

/// `GET …/keys/{type}/{name}`
pub(crate) async fn read(business: Business, input: Input) -> Answer {
    let owner = owner_by_type(business.id, &input)?;
    let key = input.app.store.key(owner, input.segment("name")).await?;
    Ok(HttpResponse::Ok().json(shown(key)))
}

/// `DELETE …/keys/{type}/{name}`
pub(crate) async fn revoke(KeyKeeper(business): KeyKeeper, input: Input) -> Answer {
    let owner = owner_by_type(business.id, &input)?;
    let key = input.app.store.revoke_key(business.by, owner, input.segment("name")).await?;
    Ok(HttpResponse::Ok().json(shape! {"status": "revoked", "key_id": key.id}))
}

/// `GET …/customers/{cid}/keys/{key}`
pub(crate) async fn read_of_customer(business: Business, input: Input) -> Answer {
    let owner = KeyOwner::Customer(business.id, customer_in_path(&input)?);
    let key = input.app.store.key(owner, input.segment("key")).await?;
    Ok(HttpResponse::Ok().json(shown(key)))
}

/// `DELETE …/customers/{cid}/keys/{key}`
pub(crate) async fn revoke_of_customer(KeyKeeper(business): KeyKeeper, input: Input) -> Answer {
    let owner = KeyOwner::Customer(business.id, customer_in_path(&input)?);
    let key = input.app.store.revoke_key(business.by, owner, input.segment("key")).await?;
    Ok(HttpResponse::Ok().json(shape! {"status": "revoked", "key_id": key.id}))
}

/// `DELETE /api/v1/keys/self`: the key that was sent.
pub(crate) async fn revoke_self(Holder(caller): Holder, input: Input) -> Answer {
    let account = caller.identity.account.clone();
    let owner = match account.customer {
        Some(customer) => KeyOwner::Customer(account.business, customer),
        None => KeyOwner::Business(account.business),
    };
    let by = caller.author(&input.request);
    match input.app.store.revoke_key(by, owner, caller.identity.key_id.to_string()).await {
        Ok(key) => Ok(HttpResponse::Ok().json(shape! {"status": "revoked", "key_id": key.id})),
        // The key may have been revoked since the node last read it.
        Err(error) => Err(caller.refused(&input.app, error.into()).await),
    }
}
