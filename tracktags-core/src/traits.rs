//! Every trait between the crates, on one page, with the records that cross them.
//!
//! A method takes one set of parameters and returns one record. Futures are `Send`. Other tenants' rows are
//! `NotFound`, exactly as unknown ones.

use crate::accounts::{
    Account, Billing, Business, BusinessId, Customer, CustomerId, Identity, MetricName, Scope, Settings,
};
use crate::audit::{AuditQuery, AuditRecord, Author, Correction, Event};
use crate::batch::Outcome;
use crate::decide::MetricState;
use crate::demand::Operation;
use crate::error::{StoreError, UpstreamError};
use crate::history::Hour;
use crate::keys::{KeyHash, PlainKey, Scopes};
use crate::limits::{Limit, Plan, Terms};
pub use crate::lists::{Change, Page, PageRequest};
pub use crate::records::{
    BillingOverride, BusinessQuery, CustomerFields, CustomerQuery, InlineLimit, LimitChange, LimitQuery,
    MetricDefinition, MetricFields, MetricRecord, NewBusiness, NewLimit, PlanFields, SettingsChange,
};
use crate::time::Timestamp;
use crate::upstreams::{ForwardRequest, ForwardResponse, Target, TargetClass};
use crate::windows::Span;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// The future of a store method.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What time it is. Read once per batch; from there on time is a value.
pub trait Clock: Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// The way out towards peers nobody here trusts.
pub trait Upstream: Send + Sync + 'static {
    /// A place at a target; given back when dropped.
    type Place: Send + 'static;

    /// Judges a URL: syntax first, then policy. Asks no name server, sends nothing, counts nothing.
    ///
    /// # Errors
    /// `InvalidTarget` when the URL is not acceptable to anybody, `Blocked` when this class may not reach it.
    fn check(&self, url: &str, class: TargetClass) -> Result<Target, UpstreamError>;

    /// Takes a place among the calls in flight at this target for a business; `None` when all are taken, or when this
    /// business has half of them and others want some too.
    fn place(&self, target: &Target, business: &BusinessId) -> Option<Self::Place>;

    /// Sends the request and hands back the answer's head with its body still flowing. Every address is judged
    /// before connect (`only-checked-addresses`). Never sends twice what may have been sent; follows no redirect.
    ///
    /// # Errors
    /// Every [`UpstreamError`]; [`UpstreamError::sent`] says whether the target may have seen the request.
    fn forward(
        &self,
        request: ForwardRequest,
    ) -> impl Future<Output = Result<ForwardResponse, UpstreamError>> + Send;
}

/// Counting and deciding (`exact-under-concurrency`).
pub trait Ledger: Send + Sync + 'static {
    /// Does all operations, in order, as part of one batch. Durable on return.
    ///
    /// # Errors
    /// `Busy`, `Unavailable`, `StorageFull`: nothing was counted. `CommitUnknown`: perhaps counted, never acted upon.
    fn commit(&self, operations: Vec<Operation>) -> StoreFuture<'_, Vec<Outcome>>;

    /// Does a correction by hand, and notes it in the trail in the same transaction where it did anything.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    fn correct(&self, by: Author, correction: Correction) -> StoreFuture<'_, Vec<Outcome>>;

    /// Where an account stands, from the live counters: one metric of its terms by place, or all of them.
    ///
    /// # Errors
    /// `Busy`, `Unavailable`.
    fn usage(&self, terms: Arc<Terms>, place: Option<usize>) -> StoreFuture<'_, AccountUsage>;

    /// The hours of a metric that begin in the span asked for, oldest first. What was counted is in here within
    /// seconds, when it has been folded.
    ///
    /// # Errors
    /// `Busy`, `Unavailable`.
    fn history(&self, query: HistoryQuery) -> StoreFuture<'_, Vec<Hour>>;
}

/// Whose history, and which stretch of it.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// The tenant.
    pub business: BusinessId,
    /// Which of its accounts.
    pub accounts: Accounts,
    /// Of what.
    pub metric: MetricName,
    /// Hours that begin in here.
    pub span: Span,
}

/// Accounts of a business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accounts {
    /// The business's own.
    Own,
    /// A customer's.
    Customer(CustomerId),
    /// All of them added up.
    All,
}

/// Where an account stands.
#[derive(Clone, Debug)]
pub struct AccountUsage {
    /// The instant of reading.
    pub as_of: Timestamp,
    /// Its metrics, in the order of the terms.
    pub metrics: Vec<MetricUsage>,
}

/// Where an account stands with one metric.
#[derive(Clone, Debug)]
pub struct MetricUsage {
    /// Value and limits; `is_breached` says whether one more unit would breach.
    pub state: MetricState,
    /// Units of it held by open calls.
    pub held: i64,
}

/// Whose keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOwner {
    /// A business's own keys (`tk_live_…`).
    Business(BusinessId),
    /// A customer's keys (`ck_live_…`).
    Customer(BusinessId, CustomerId),
}

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Whose. An unknown customer is created.
    pub owner: KeyOwner,
    /// A name for people, unique among the business's live keys; the key's id where none is given.
    pub key_name: Option<String>,
    /// A note.
    pub description: Option<String>,
    /// Refused from then on.
    pub expires_at: Option<Timestamp>,
    /// What it may do.
    pub scopes: Scopes,
}

/// A key just made: the only time it can be shown.
#[derive(Debug)]
pub struct CreatedKey {
    /// The key in the clear.
    pub plain: PlainKey,
    /// What is kept of it.
    pub record: KeyRecord,
}

/// How a key is replaced.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The id or name of the key.
    pub key: String,
    /// How long it goes on, in seconds; 0 ends it at once.
    pub grace_seconds: i64,
    /// The new key is refused from this instant on.
    pub expires_at: Option<Timestamp>,
}

/// A key that took another's place.
#[derive(Debug)]
pub struct RotatedKey {
    /// The new one.
    pub created: CreatedKey,
    /// The id of the old one.
    pub replaces: String,
    /// The old one is refused from this instant on.
    pub old_expires_at: Timestamp,
}

/// What is shown of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// `key_…`.
    pub id: String,
    /// Its name.
    pub key_name: String,
    /// Its customer; `None` for a business key.
    pub customer: Option<CustomerId>,
    /// Not revoked and not expired.
    pub is_active: bool,
    /// First 12 and last 4 characters.
    pub hint: String,
    /// A note.
    pub description: Option<String>,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Timestamp,
    /// Refused from then on.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute; what happened in the last seconds may be missing.
    pub last_used_at: Option<Timestamp>,
}

/// What the store says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It speaks for somebody.
    Proved(Arc<Identity>),
    /// Its row is there and refuses it: revoked, expired, its owner deleted. No guess.
    Refused,
    /// Nobody ever had it.
    Unknown,
}

/// Keys: who is who.
pub trait KeyStore: Send + Sync + 'static {
    /// The identity as last read, if this node knows the key. Good for a demand, whose batch compares its version.
    fn cached_identity(&self, hash: &KeyHash) -> Option<Arc<Identity>>;

    /// Reads whom the key speaks for, now. `claimed` is the customer id that stands in the key; a row of another
    /// customer is refused.
    ///
    /// # Errors
    /// `Busy` when too many unknown keys wait, `Unavailable`.
    fn identify(&self, hash: KeyHash, claimed: Option<CustomerId>) -> StoreFuture<'_, Claim>;

    /// Makes a key.
    ///
    /// # Errors
    /// `NotFound` (business), `Conflict`: `KeyLimitReached`, `KeyNameTaken`.
    fn create_key(&self, by: Author, key: NewKey) -> StoreFuture<'_, CreatedKey>;

    /// The live keys of an owner.
    ///
    /// # Errors
    /// `NotFound` for an unknown owner.
    fn keys(&self, owner: KeyOwner, page: PageRequest) -> StoreFuture<'_, Page<KeyRecord>>;

    /// One live key by id or name.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` `AmbiguousKey`.
    fn key(&self, owner: KeyOwner, id_or_name: String) -> StoreFuture<'_, KeyRecord>;

    /// Replaces a live key. The old one goes on for its grace, uncounted; one that was in grace before ends now.
    ///
    /// # Errors
    /// `NotFound`; `Conflict`: `AmbiguousKey`, `KeyLimitReached` (a key in grace, and no place for another).
    fn rotate_key(&self, by: Author, owner: KeyOwner, rotation: Rotation) -> StoreFuture<'_, RotatedKey>;

    /// Revokes a live key by id or name: it is refused from the next request on.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` `AmbiguousKey`.
    fn revoke_key(&self, by: Author, owner: KeyOwner, id_or_name: String) -> StoreFuture<'_, KeyRecord>;
}

/// Whom a key speaks for, and the terms of the account asked for, of one snapshot. `None`: nobody; no such account.
pub type Afresh = Option<(Arc<Identity>, Option<Arc<Terms>>)>;

/// What holds for an account.
pub trait TermsStore: Send + Sync + 'static {
    /// The terms as last read. Good for a demand, whose batch compares their version.
    fn cached_terms(&self, account: &Account) -> Option<Arc<Terms>>;

    /// Reads the terms, now; `None` where business or customer do not exist.
    ///
    /// # Errors
    /// `Busy`, `Unavailable`.
    fn read_terms(&self, account: Account) -> StoreFuture<'_, Option<Arc<Terms>>>;

    /// Reads key and terms in one consistent snapshot, past all caches: for a demand that was stale.
    ///
    /// # Errors
    /// `Busy`, `Unavailable`.
    fn read_afresh(
        &self,
        hash: KeyHash,
        claimed: Option<CustomerId>,
        account: Account,
    ) -> StoreFuture<'_, Afresh>;
}

/// Businesses, their settings and customers.
pub trait AccountStore: Send + Sync + 'static {
    /// Creates a business.
    ///
    /// # Errors
    /// Those of the store.
    fn create_business(&self, by: Author, business: NewBusiness) -> StoreFuture<'_, Business>;

    /// One business.
    ///
    /// # Errors
    /// `NotFound`.
    fn business(&self, id: BusinessId) -> StoreFuture<'_, Business>;

    /// Businesses, oldest first.
    ///
    /// # Errors
    /// Those of the store.
    fn businesses(&self, query: BusinessQuery) -> StoreFuture<'_, Page<Business>>;

    /// Deletes a business: its keys are refused from the next request on, for good. Everything it has stays for
    /// [`BUSINESS_KEPT_SECONDS`](crate::accounts::BUSINESS_KEPT_SECONDS), then goes.
    ///
    /// # Errors
    /// `NotFound`.
    fn delete_business(&self, by: Author, id: BusinessId) -> StoreFuture<'_, Business>;

    /// Brings a deleted business back, with everything but its keys. One that is there stays as it is.
    ///
    /// # Errors
    /// `NotFound` where it never was, or is gone.
    fn restore_business(&self, by: Author, id: BusinessId) -> StoreFuture<'_, Business>;

    /// Changes name or email.
    ///
    /// # Errors
    /// `NotFound`.
    fn update_business(
        &self,
        by: Author,
        id: BusinessId,
        business_name: Option<String>,
        email: Option<String>,
    ) -> StoreFuture<'_, Business>;

    /// What is known of a business's own subscription, also of a deleted one's.
    ///
    /// # Errors
    /// `NotFound`.
    fn billing(&self, id: BusinessId) -> StoreFuture<'_, Billing>;

    /// Sets it by hand.
    ///
    /// # Errors
    /// `NotFound`.
    fn override_billing(&self, by: Author, id: BusinessId, set: BillingOverride) -> StoreFuture<'_, Billing>;

    /// A business's settings.
    ///
    /// # Errors
    /// `NotFound`.
    fn settings(&self, id: BusinessId) -> StoreFuture<'_, Settings>;

    /// Changes settings; they hold on the next request.
    ///
    /// # Errors
    /// `NotFound` of the business or the metric.
    fn update_settings(
        &self,
        by: Author,
        id: BusinessId,
        change: SettingsChange,
    ) -> StoreFuture<'_, Settings>;

    /// Creates a customer, or revives a deleted one with its usage.
    ///
    /// # Errors
    /// `NotFound` (plan), `Conflict`: `CustomerExists`, `Quota`.
    fn create_customer(
        &self,
        by: Author,
        business: BusinessId,
        customer: CustomerId,
        fields: CustomerFields,
    ) -> StoreFuture<'_, Customer>;

    /// One customer.
    ///
    /// # Errors
    /// `NotFound`.
    fn customer(&self, business: BusinessId, customer: CustomerId) -> StoreFuture<'_, Customer>;

    /// Customers, oldest first.
    ///
    /// # Errors
    /// `NotFound` of a plan asked for.
    fn customers(&self, query: CustomerQuery) -> StoreFuture<'_, Page<Customer>>;

    /// Changes a customer; it holds on the next request.
    ///
    /// # Errors
    /// `NotFound` of the customer or plan.
    fn update_customer(
        &self,
        by: Author,
        business: BusinessId,
        customer: CustomerId,
        fields: CustomerFields,
    ) -> StoreFuture<'_, Customer>;

    /// Deletes a customer; its keys are refused from the next request on, for good.
    ///
    /// # Errors
    /// `NotFound`.
    fn delete_customer(&self, by: Author, business: BusinessId, customer: CustomerId) -> StoreFuture<'_, ()>;
}

/// Plans, limits and metrics. Every change holds on the next request and keeps the usage (`raise-keeps-usage`).
pub trait LimitStore: Send + Sync + 'static {
    /// The business's metric of this name in each scope that has one, the customers' first.
    ///
    /// # Errors
    /// `Busy`, `Unavailable`.
    fn metric(&self, business: BusinessId, name: MetricName) -> StoreFuture<'_, Vec<MetricRecord>>;

    /// A business's metrics, of one scope or of both, oldest first.
    ///
    /// # Errors
    /// `NotFound` of the business.
    fn metrics(
        &self,
        business: BusinessId,
        scope: Option<Scope>,
        page: PageRequest,
    ) -> StoreFuture<'_, Page<MetricRecord>>;

    /// Defines a metric, with a limit if one is said; whether this call defined it. One that is defined stays as it is.
    ///
    /// # Errors
    /// `NotFound` (customer); `Conflict`: `MetricConflict` says what differs, `Quota`.
    fn define_metric(&self, by: Author, metric: MetricDefinition) -> StoreFuture<'_, (MetricRecord, bool)>;

    /// Changes a metric's definition; its operation only while it is unused.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` `MetricConflict` says why.
    fn update_metric(
        &self,
        by: Author,
        business: BusinessId,
        name: MetricName,
        scope: Scope,
        fields: MetricFields,
    ) -> StoreFuture<'_, MetricRecord>;

    /// Deletes a metric's definition. History stays; values are reset apart.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` `MetricInUse`.
    fn delete_metric(
        &self,
        by: Author,
        business: BusinessId,
        name: MetricName,
        scope: Scope,
    ) -> StoreFuture<'_, ()>;

    /// Deletes a customer's own limits on a metric; how many there were.
    ///
    /// # Errors
    /// `NotFound` of the customer.
    fn delete_inline_limits(
        &self,
        by: Author,
        business: BusinessId,
        name: MetricName,
        customer: CustomerId,
    ) -> StoreFuture<'_, usize>;

    /// The accounts of one scope that have a value of this metric.
    ///
    /// # Errors
    /// Those of the store.
    fn accounts_with(
        &self,
        business: BusinessId,
        name: MetricName,
        scope: Scope,
    ) -> StoreFuture<'_, Vec<Account>>;

    /// Creates a plan.
    ///
    /// # Errors
    /// `Conflict`: `PlanExists`, `PriceTaken`, `FreePlanExists`, `Quota`.
    fn create_plan(&self, by: Author, business: BusinessId, fields: PlanFields) -> StoreFuture<'_, Plan>;

    /// One plan.
    ///
    /// # Errors
    /// `NotFound`.
    fn plan(&self, business: BusinessId, id: String) -> StoreFuture<'_, Plan>;

    /// A business's plans.
    ///
    /// # Errors
    /// Those of the store.
    fn plans(&self, business: BusinessId, page: PageRequest) -> StoreFuture<'_, Page<Plan>>;

    /// Changes a plan.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` as for creation.
    fn update_plan(
        &self,
        by: Author,
        business: BusinessId,
        id: String,
        fields: PlanFields,
    ) -> StoreFuture<'_, Plan>;

    /// Deletes a plan and its limits; with `force` also while customers are on it, who then have none.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` `PlanInUse`.
    fn delete_plan(&self, by: Author, business: BusinessId, id: String, force: bool) -> StoreFuture<'_, ()>;

    /// Creates a limit, and its metric if nobody did.
    ///
    /// # Errors
    /// `NotFound` (plan, customer); `Conflict`: `LimitExists`, `MetricConflict`, `Quota`.
    fn create_limit(&self, by: Author, limit: NewLimit) -> StoreFuture<'_, Limit>;

    /// One limit.
    ///
    /// # Errors
    /// `NotFound`.
    fn limit(&self, business: BusinessId, id: String) -> StoreFuture<'_, Limit>;

    /// Limits, oldest first.
    ///
    /// # Errors
    /// `NotFound` of a plan or customer asked for.
    fn limits(&self, query: LimitQuery) -> StoreFuture<'_, Page<Limit>>;

    /// Changes a limit.
    ///
    /// # Errors
    /// `NotFound`; `Conflict`: `LimitExists`, `MetricConflict`.
    fn update_limit(
        &self,
        by: Author,
        business: BusinessId,
        id: String,
        change: LimitChange,
    ) -> StoreFuture<'_, Limit>;

    /// Deletes a limit. The usage stays.
    ///
    /// # Errors
    /// `NotFound`.
    fn delete_limit(&self, by: Author, business: BusinessId, id: String) -> StoreFuture<'_, ()>;
}

/// The trail of changes. Every change appends its own row, in its transaction; here it is read, and what is no change
/// of the configuration is added.
pub trait AuditTrail: Send + Sync + 'static {
    /// Notes what happened.
    ///
    /// # Errors
    /// Those of the store.
    fn note(&self, by: Author, event: Event) -> StoreFuture<'_, ()>;

    /// The trail, newest first, with everything that SQL changed until now.
    ///
    /// # Errors
    /// Those of the store.
    fn audit_logs(&self, query: AuditQuery) -> StoreFuture<'_, Page<AuditRecord>>;
}

/// Everything a node keeps.
pub trait Store: Ledger + KeyStore + TermsStore + AccountStore + LimitStore + AuditTrail {}
impl<T: Ledger + KeyStore + TermsStore + AccountStore + LimitStore + AuditTrail> Store for T {}
