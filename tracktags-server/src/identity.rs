//! ① ② Who calls: extractors, the only way to a proven caller.
//!
//! The tenant comes from the key, never from path, query or body. Cheapest first: form and checksum, keyed hash,
//! what this node knows, lock-out, then the store. Routes without admission read the identity afresh; the data
//! plane may go by what the node knows, since its batch compares the version.

use crate::app::App;
use crate::error::{ApiError, Code};
use crate::frame::X_REQUEST_ID;
use crate::lockout::{Tried, caller_address};
use crate::request::{app_of, query_of, refuse_oversize, segment_of};
use actix_web::dev::Payload;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HeaderName};
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use smallvec::SmallVec;
use std::sync::Arc;
use tracktags_core::accounts::{BusinessId, CustomerId, Identity};
use tracktags_core::audit::{ActorKind, Author};
use tracktags_core::error::Entity;
use tracktags_core::keys::{KeyHash, KeyScope, ParsedKey};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::Claim;

/// The platform's admin.
pub(crate) struct Admin {
    /// As whom the trail knows this call.
    pub(crate) by: Author,
}

/// A business, by its own key or through the admin.
pub(crate) struct Business {
    pub(crate) id: BusinessId,
    /// As whom the trail knows this call.
    pub(crate) by: Author,
}

/// A business whose key may make, replace and revoke keys, or the admin for one.
pub(crate) struct KeyKeeper(pub(crate) Business);

/// Whoever holds a key, whatever it may do.
pub(crate) struct Holder(pub(crate) Caller);

/// Who may read usage: a business, a customer its own, or the admin for a business.
pub(crate) struct Reader {
    pub(crate) business: BusinessId,
    /// The customer whose key it is.
    pub(crate) customer: Option<CustomerId>,
}

/// Who may use the data plane: a business or a customer.
pub(crate) struct Caller {
    pub(crate) identity: Arc<Identity>,
    pub(crate) hash: KeyHash,
    /// Whether the identity is what the node knew, and not read just now.
    pub(crate) is_cached: bool,
}

/// A business on the data plane.
pub(crate) struct BusinessCaller(pub(crate) Caller);

/// Who may read what the server measures: the admin, or everyone where it is configured so.
pub(crate) struct Scraper;

/// Anyone; the admin may see more.
pub(crate) struct Observer {
    pub(crate) is_admin: bool,
}

/// Anyone.
pub(crate) struct Anonymous;

/// When the key that was used expires; put into the answer's head.
#[derive(Clone, Copy)]
pub(crate) struct KeyExpires(pub(crate) Timestamp);

/// As whom the trail knows a call.
fn author(request: &HttpRequest, identity: Option<&Identity>) -> Author {
    let kind = match identity {
        None => ActorKind::Admin,
        Some(identity) if identity.account.customer.is_some() => ActorKind::Customer,
        Some(_) => ActorKind::Business,
    };
    let id = request.headers().get(&X_REQUEST_ID).and_then(|id| id.to_str().ok());
    Author {
        kind,
        key_id: identity.map(|identity| Arc::clone(&identity.key_id)),
        request_id: id.map(Arc::from),
    }
}

impl Caller {
    /// As whom the trail knows this call.
    pub(crate) fn author(&self, request: &HttpRequest) -> Author {
        author(request, Some(&self.identity))
    }

    /// What to answer where `refusal` rests on what the node knew: a key revoked since then comes first.
    pub(crate) async fn refused(&self, app: &App, refusal: ApiError) -> ApiError {
        if !self.is_cached {
            return refusal;
        }
        match app.store.identify(self.hash, self.identity.account.customer.clone()).await {
            Ok(Claim::Proved(_)) => refusal,
            Ok(Claim::Refused | Claim::Unknown) => ApiError::invalid_key(),
            Err(error) => error.into(),
        }
    }
}

enum Proof {
    Admin,
    Key(Caller),
}

/// What a request shows.
enum Shown<'a> {
    Nothing,
    AdminKey(&'a [u8]),
    Key(&'a [u8]),
}

fn shown(request: &HttpRequest) -> Shown<'_> {
    let headers = request.headers();
    if let Some(key) = headers.get(&X_ADMIN_KEY) {
        return Shown::AdminKey(key.as_bytes());
    }
    if let Some(key) = headers.get(&X_API_KEY) {
        return Shown::Key(key.as_bytes());
    }
    let Some(value) = headers.get(AUTHORIZATION).map(actix_web::http::header::HeaderValue::as_bytes) else {
        return Shown::Nothing;
    };
    match value.split_at_checked(BEARER.len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(BEARER) => Shown::Key(key.trim_ascii()),
        _ => Shown::Nothing,
    }
}

const NOT_FOR_CUSTOMERS: &str = "A customer's key may not do this; use a business key.";
const BEARER: &[u8] = b"Bearer ";
static X_ADMIN_KEY: HeaderName = HeaderName::from_static("x-admin-key");
static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

fn unauthorized() -> ApiError {
    ApiError::new(
        Code::Unauthorized,
        "Send a key: Authorization: Bearer tk_live_… or ck_live_…, or X-Admin-Key for the platform's admin.",
    )
}

fn forbidden(message: &'static str) -> ApiError {
    ApiError::new(Code::Forbidden, message)
}

fn locked_out(seconds: u64) -> ApiError {
    let message = "Too many failed authentications from this address; wait, then check the key.";
    ApiError::new(Code::TooManyFailures, message).retry_after(seconds)
}

/// The answer to a guess: counted, and refused as long as its address is locked out.
fn guessed(app: &App, request: &HttpRequest, tried: Tried) -> ApiError {
    let (address, now) = (caller_address(request, &app.config.server.trusted_proxies), app.clock.now());
    if let Some(seconds) = app.lockout.locked_seconds(address, tried, now) {
        return locked_out(seconds);
    }
    app.lockout.failed(address, tried, now);
    ApiError::invalid_key()
}

/// A key whose form is right, and what this node knows of it.
enum Candidate {
    /// Known: its hash and whom it spoke for.
    Known(KeyHash, Arc<Identity>),
    /// Not known: its hash under each master key, and the customer id that stands in it.
    New(SmallVec<[KeyHash; 1]>, Option<CustomerId>),
}

fn candidate(app: &App, key: &[u8]) -> Option<Candidate> {
    let text = app.meant_key(std::str::from_utf8(key).ok()?);
    let parsed = ParsedKey::parse(text).ok()?;
    let mut hashes = SmallVec::new();
    for hasher in &app.hashers {
        let hash = hasher.hash(parsed.expose());
        if let Some(known) = app.store.cached_identity(&hash) {
            return Some(Candidate::Known(hash, known));
        }
        hashes.push(hash);
    }
    let claimed = parsed.customer().and_then(|customer| CustomerId::parse(customer).ok());
    Some(Candidate::New(hashes, claimed))
}

/// Reads whom a key speaks for, now.
async fn identify(app: &App, request: &HttpRequest, key: Candidate) -> Result<Caller, ApiError> {
    let (hashes, claimed) = match key {
        Candidate::Known(hash, known) => {
            // The row was compared with the id in the key when it was read. One that is refused now was revoked or
            // has expired since, which is no guess.
            return match app.store.identify(hash, known.account.customer.clone()).await? {
                Claim::Proved(identity) => Ok(proved(request, identity, hash)),
                Claim::Refused | Claim::Unknown => Err(ApiError::invalid_key()),
            };
        }
        Candidate::New(hashes, claimed) => (hashes, claimed),
    };
    let (address, now) = (caller_address(request, &app.config.server.trusted_proxies), app.clock.now());
    if let Some(seconds) = app.lockout.locked_seconds(address, Tried::Key, now) {
        return Err(locked_out(seconds));
    }
    for hash in hashes {
        match app.store.identify(hash, claimed.clone()).await? {
            Claim::Proved(identity) => return Ok(proved(request, identity, hash)),
            // A key that was good once is no guess.
            Claim::Refused => return Err(ApiError::invalid_key()),
            Claim::Unknown => {}
        }
    }
    Err(guessed(app, request, Tried::Key))
}

fn proved(request: &HttpRequest, identity: Arc<Identity>, hash: KeyHash) -> Caller {
    note_expiry(request, &identity);
    Caller { identity, hash, is_cached: false }
}

fn note_expiry(request: &HttpRequest, identity: &Identity) {
    if let Some(expires_at) = identity.expires_at {
        request.extensions_mut().insert(KeyExpires(expires_at));
    }
}

fn prove_admin(app: &App, request: &HttpRequest, sent: &[u8]) -> Result<(), ApiError> {
    match &app.admin {
        Some(key) if key.is(sent) => Ok(()),
        _ => Err(guessed(app, request, Tried::AdminKey)),
    }
}

/// Proves the caller with an identity read just now.
async fn prove(app: &App, request: &HttpRequest) -> Result<Proof, ApiError> {
    match shown(request) {
        Shown::Nothing => Err(unauthorized()),
        Shown::AdminKey(sent) => prove_admin(app, request, sent).map(|()| Proof::Admin),
        Shown::Key(sent) => match candidate(app, sent) {
            Some(key) => identify(app, request, key).await.map(Proof::Key),
            None => Err(guessed(app, request, Tried::Key)),
        },
    }
}

/// The tenant that the path or, on a short path, the query names.
fn named_tenant(request: &HttpRequest) -> Option<String> {
    segment_of(request, "bid").or_else(|| query_of(request, "business_id"))
}

/// The business the admin acts for.
async fn tenant_of_admin(app: &App, request: &HttpRequest) -> Result<BusinessId, ApiError> {
    let Some(name) = named_tenant(request) else {
        let message = "Name the business you act for: /api/v1/businesses/{business_id}/… or ?business_id=.";
        return Err(ApiError::new(Code::BusinessRequired, message));
    };
    let id = BusinessId::parse(&name).map_err(|_against_grammar| ApiError::not_found(Entity::Business))?;
    Ok(app.store.business(id).await?.business_id)
}

/// Refuses a tenant in path or query that is not the key's own, as an unknown one.
fn own_tenant(request: &HttpRequest, own: &BusinessId) -> Result<(), ApiError> {
    let names = [segment_of(request, "bid"), query_of(request, "business_id")];
    if names.iter().flatten().all(|name| name == own.as_str()) {
        Ok(())
    } else {
        Err(ApiError::not_found(Entity::Business))
    }
}

async fn admin(request: HttpRequest) -> Result<Admin, ApiError> {
    let app = app_of(&request)?;
    if app.admin.is_none() {
        return Err(crate::routes::no_such_route());
    }
    refuse_oversize(&request)?;
    match prove(&app, &request).await? {
        Proof::Admin => Ok(Admin { by: author(&request, None) }),
        Proof::Key(_) => Err(forbidden("This is for the platform's admin only (X-Admin-Key).")),
    }
}

/// Refuses a key that was not made for this.
fn in_scope(identity: &Identity, scope: KeyScope) -> Result<(), ApiError> {
    if identity.scopes.allows(scope) {
        return Ok(());
    }
    Err(ApiError::new(
        Code::Forbidden,
        format!("This key was made without the scope `{scope}`; use another one."),
    ))
}

async fn scraper(request: HttpRequest) -> Result<Scraper, ApiError> {
    if app_of(&request)?.config.server.metrics_public {
        return Ok(Scraper);
    }
    admin(request).await.map(|_| Scraper)
}

async fn business(request: HttpRequest) -> Result<Business, ApiError> {
    let scope = if request.method() == Method::GET { KeyScope::Read } else { KeyScope::Write };
    business_for(request, scope).await
}

async fn keeper(request: HttpRequest) -> Result<KeyKeeper, ApiError> {
    business_for(request, KeyScope::Keys).await.map(KeyKeeper)
}

async fn business_for(request: HttpRequest, scope: KeyScope) -> Result<Business, ApiError> {
    let app = app_of(&request)?;
    refuse_oversize(&request)?;
    match prove(&app, &request).await? {
        Proof::Admin => {
            Ok(Business { id: tenant_of_admin(&app, &request).await?, by: author(&request, None) })
        }
        Proof::Key(caller) if caller.identity.account.customer.is_some() => Err(forbidden(NOT_FOR_CUSTOMERS)),
        Proof::Key(caller) => {
            own_tenant(&request, &caller.identity.account.business)?;
            in_scope(&caller.identity, scope)?;
            let by = caller.author(&request);
            Ok(Business { id: caller.identity.account.business.clone(), by })
        }
    }
}

async fn reader(request: HttpRequest) -> Result<Reader, ApiError> {
    let app = app_of(&request)?;
    refuse_oversize(&request)?;
    match prove(&app, &request).await? {
        Proof::Admin => Ok(Reader { business: tenant_of_admin(&app, &request).await?, customer: None }),
        Proof::Key(caller) => {
            own_tenant(&request, &caller.identity.account.business)?;
            in_scope(&caller.identity, KeyScope::Read)?;
            let own = &caller.identity.account;
            Ok(Reader { business: own.business.clone(), customer: own.customer.clone() })
        }
    }
}

fn observer(request: &HttpRequest) -> Result<Observer, ApiError> {
    let Shown::AdminKey(sent) = shown(request) else { return Ok(Observer { is_admin: false }) };
    let app = app_of(request)?;
    prove_admin(&app, request, sent).map(|()| Observer { is_admin: true })
}

/// What the node knows, without waiting: the way of nearly every call.
fn known_caller(request: &HttpRequest) -> Result<Option<Caller>, ApiError> {
    let app = app_of(request)?;
    refuse_oversize(request)?;
    let Shown::Key(sent) = shown(request) else { return Ok(None) };
    let Some(Candidate::Known(hash, identity)) = candidate(&app, sent) else { return Ok(None) };
    if identity.expires_at.is_some_and(|expires_at| expires_at <= app.clock.now()) {
        return Err(ApiError::invalid_key());
    }
    own_tenant(request, &identity.account.business)?;
    in_scope(&identity, KeyScope::Proxy)?;
    note_expiry(request, &identity);
    Ok(Some(Caller { identity, hash, is_cached: true }))
}

async fn caller(request: HttpRequest) -> Result<Caller, ApiError> {
    let Holder(caller) = holder(request).await?;
    in_scope(&caller.identity, KeyScope::Proxy)?;
    Ok(caller)
}

async fn holder(request: HttpRequest) -> Result<Holder, ApiError> {
    let app = app_of(&request)?;
    match prove(&app, &request).await? {
        Proof::Admin => {
            Err(forbidden("The admin does not use the data plane; use a business or customer key."))
        }
        Proof::Key(caller) => {
            own_tenant(&request, &caller.identity.account.business)?;
            Ok(Holder(caller))
        }
    }
}

macro_rules! extractors {
    ($($who:ident by $prove:ident;)+) => {$(
        impl FromRequest for $who {
            type Error = ApiError;
            type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;
            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                Box::pin($prove(request.clone()))
            }
        }
    )+};
}

extractors! {
    Admin by admin;
    Business by business;
    KeyKeeper by keeper;
    Holder by holder;
    Scraper by scraper;
    Reader by reader;
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = futures_util::future::Either<
        std::future::Ready<Result<Self, ApiError>>,
        LocalBoxFuture<'static, Result<Self, ApiError>>,
    >;
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        match known_caller(request) {
            Ok(Some(known)) => futures_util::future::Either::Left(std::future::ready(Ok(known))),
            Ok(None) => futures_util::future::Either::Right(Box::pin(caller(request.clone()))),
            Err(refusal) => futures_util::future::Either::Left(std::future::ready(Err(refusal))),
        }
    }
}

impl FromRequest for BusinessCaller {
    type Error = ApiError;
    type Future = futures_util::future::Map<
        <Caller as FromRequest>::Future,
        fn(Result<Caller, ApiError>) -> Result<Self, ApiError>,
    >;
    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        Caller::from_request(request, payload).map(|caller| {
            let caller = caller?;
            match caller.identity.account.customer {
                Some(_) => Err(forbidden(NOT_FOR_CUSTOMERS)),
                None => Ok(Self(caller)),
            }
        })
    }
}

impl FromRequest for Anonymous {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;
    fn from_request(_: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(Ok(Self))
    }
}

impl FromRequest for Observer {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(observer(request))
    }
}
