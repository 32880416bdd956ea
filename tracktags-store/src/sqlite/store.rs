//! The store's traits on SQLite: reads on the readers, changes as jobs of the writer.

use super::audit::Action;
use super::connection::Readers;
use super::identify::Lane;
use super::writer::Jobs;
use super::{accounts, audit, billing, define, history, keys, limits, metrics, rotate, terms};
use crate::admission::Admission;
use crate::cache::Caches;
use crate::secrets::Secrets;
use diesel::SqliteConnection;
use std::sync::Arc;
use tracktags_core::accounts::{
    Account, Billing, Business, BusinessId, Customer, CustomerId, Identity, MetricName, Scope, Settings,
};
use tracktags_core::audit::{AuditQuery, AuditRecord, Author, Correction, Event};
use tracktags_core::batch::{Outcome, read_state};
use tracktags_core::demand::Operation;
use tracktags_core::error::StoreError;
use tracktags_core::history::Hour;
use tracktags_core::keys::KeyHash;
use tracktags_core::limits::{Limit, Plan, Terms};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{
    AccountStore, AccountUsage, AuditTrail, BillingOverride, BusinessQuery, Claim, Clock, CreatedKey,
    CustomerFields, CustomerQuery, HistoryQuery, KeyOwner, KeyRecord, KeyStore, Ledger, LimitChange,
    LimitQuery, LimitStore, MetricDefinition, MetricFields, MetricRecord, MetricUsage, NewBusiness, NewKey,
    NewLimit, Page, PageRequest, PlanFields, RotatedKey, Rotation, SettingsChange, StoreFuture, TermsStore,
};

const KEYS: &[&str] = &["business_keys", "customer_keys"];
const BUSINESSES: &[&str] = &["businesses"];
const CUSTOMERS: &[&str] = &["customers"];
const PLANS: &[&str] = &["plans"];
const LIMITS: &[&str] = &["plan_limits"];
const METRICS: &[&str] = &["metrics", "plan_limits"];

/// Steps of the sweep before the trail is read; more than these were changed by SQL at once, and follow later.
const SWEEPS_MAX: usize = 100;

const fn action(name: &'static str, tables: &'static [&'static str]) -> Action {
    Action { name, tables }
}

/// The store of one node.
pub(crate) struct SqliteStore {
    pub(super) jobs: Jobs,
    pub(super) readers: Readers,
    pub(super) identify: Lane,
    pub(super) caches: Caches,
    pub(super) secrets: Secrets,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) admission: Admission,
}

impl SqliteStore {
    /// A read in one snapshot at the clock's now.
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut SqliteConnection, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let now = self.clock.now();
        Box::pin(self.readers.read(move |conn| read(conn, now)))
    }

    /// A change in a transaction of its own, with its row of the trail.
    fn change<T: Send + 'static>(
        &self,
        by: Author,
        action: Action,
        change: impl FnOnce(&mut SqliteConnection, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let secrets = self.secrets.clone();
        Box::pin(self.jobs.change(move |conn, now| audited(conn, now, &secrets, &by, action, change)))
    }
}

/// A change and its row of the trail.
fn audited<T>(
    conn: &mut SqliteConnection,
    now: Timestamp,
    secrets: &Secrets,
    by: &Author,
    action: Action,
    change: impl FnOnce(&mut SqliteConnection, Timestamp) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let before = audit::latest_change(conn)?;
    let done = change(conn, now)?;
    audit::note_change(conn, secrets, now, by, action, before)?;
    Ok(done)
}

async fn outcomes(
    answers: Vec<impl Future<Output = Result<Outcome, StoreError>> + Send>,
) -> Result<Vec<Outcome>, StoreError> {
    let mut outcomes = Vec::with_capacity(answers.len());
    for outcome in answers {
        outcomes.push(outcome.await?);
    }
    Ok(outcomes)
}

impl Ledger for SqliteStore {
    fn commit(&self, operations: Vec<Operation>) -> StoreFuture<'_, Vec<Outcome>> {
        Box::pin(async move { outcomes(self.admission.submit_all(operations, None)).await })
    }

    fn correct(&self, by: Author, correction: Correction) -> StoreFuture<'_, Vec<Outcome>> {
        Box::pin(async move {
            let Correction { event, operations } = correction;
            outcomes(self.admission.submit_all(operations, Some(Box::new((by, event))))).await
        })
    }

    fn usage(&self, terms: Arc<Terms>, place: Option<usize>) -> StoreFuture<'_, AccountUsage> {
        Box::pin(self.jobs.run(move |writer| {
            let as_of = writer.now();
            let places = match place {
                Some(place) => place..place.saturating_add(1),
                None => 0..terms.limits.metrics().len(),
            };
            let mut metrics = Vec::with_capacity(places.len());
            for place in places {
                let Some(entry) = terms.limits.get(place) else { continue };
                let counter = writer.counter(entry.counter)?;
                let held = writer.holds.of(entry.counter);
                if let Some(state) = read_state(&terms, place, &counter, as_of, &mut writer.cuts) {
                    metrics.push(MetricUsage { state, held });
                }
            }
            Ok(AccountUsage { as_of, metrics })
        }))
    }

    fn history(&self, query: HistoryQuery) -> StoreFuture<'_, Vec<Hour>> {
        self.read(move |conn, _| history::hours(conn, &query))
    }
}

impl KeyStore for SqliteStore {
    fn cached_identity(&self, hash: &KeyHash) -> Option<Arc<Identity>> {
        self.caches.identity(hash, self.clock.now())
    }

    fn identify(&self, hash: KeyHash, claimed: Option<CustomerId>) -> StoreFuture<'_, Claim> {
        Box::pin(async move {
            let now = self.clock.now();
            let found = if self.caches.identity(&hash, now).is_some() {
                let secrets = self.secrets.clone();
                let read = move |conn: &mut _| terms::identify(conn, now, &secrets, hash, claimed.as_ref());
                self.readers
                    .read(read)
                    .await?
                    .map_or(Claim::Refused, |identity| Claim::Proved(Arc::new(identity)))
            } else if self.caches.is_unknown(&hash, now) {
                Claim::Unknown
            } else {
                self.identify.look(hash, claimed, now).await?
            };
            match &found {
                Claim::Proved(identity) => self.caches.note_identity(hash, Some(identity), now),
                Claim::Refused => self.caches.note_identity(hash, None, now),
                Claim::Unknown => self.caches.note_unknown(hash, now),
            }
            Ok(found)
        })
    }

    fn create_key(&self, by: Author, key: NewKey) -> StoreFuture<'_, CreatedKey> {
        let secrets = self.secrets.clone();
        self.change(by, action("key.create", KEYS), move |conn, now| {
            keys::create_key(conn, now, &secrets, key)
        })
    }

    fn keys(&self, owner: KeyOwner, page: PageRequest) -> StoreFuture<'_, Page<KeyRecord>> {
        self.read(move |conn, now| keys::keys(conn, now, &owner, page))
    }

    fn key(&self, owner: KeyOwner, id_or_name: String) -> StoreFuture<'_, KeyRecord> {
        self.read(move |conn, now| keys::key(conn, now, &owner, &id_or_name))
    }

    fn rotate_key(&self, by: Author, owner: KeyOwner, rotation: Rotation) -> StoreFuture<'_, RotatedKey> {
        let secrets = self.secrets.clone();
        self.change(by, action("key.rotate", KEYS), move |conn, now| {
            rotate::rotate_key(conn, now, &secrets, owner, &rotation)
        })
    }

    fn revoke_key(&self, by: Author, owner: KeyOwner, id_or_name: String) -> StoreFuture<'_, KeyRecord> {
        self.change(by, action("key.revoke", KEYS), move |conn, now| {
            keys::revoke_key(conn, now, &owner, &id_or_name)
        })
    }
}

impl TermsStore for SqliteStore {
    fn cached_terms(&self, account: &Account) -> Option<Arc<Terms>> {
        self.caches.terms(account)
    }

    fn read_terms(&self, account: Account) -> StoreFuture<'_, Option<Arc<Terms>>> {
        Box::pin(async move {
            let now = self.clock.now();
            let wanted = account.clone();
            let found = self.readers.read(move |conn| terms::terms(conn, now, &wanted)).await?;
            Ok(self.caches.note_terms(&account, found))
        })
    }

    fn read_afresh(
        &self,
        hash: KeyHash,
        claimed: Option<CustomerId>,
        account: Account,
    ) -> StoreFuture<'_, Option<(Arc<Identity>, Option<Arc<Terms>>)>> {
        Box::pin(async move {
            let now = self.clock.now();
            let (wanted, secrets) = (account.clone(), self.secrets.clone());
            let (identity, terms) = self
                .readers
                .read(move |conn| {
                    let identity = terms::identify(conn, now, &secrets, hash, claimed.as_ref())?;
                    Ok((identity, terms::terms(conn, now, &wanted)?))
                })
                .await?;
            let identity = identity.map(Arc::new);
            self.caches.note_identity(hash, identity.as_ref(), now);
            let terms = self.caches.note_terms(&account, terms);
            Ok(identity.map(|identity| (identity, terms)))
        })
    }
}

impl AccountStore for SqliteStore {
    fn create_business(&self, by: Author, business: NewBusiness) -> StoreFuture<'_, Business> {
        self.change(by, action("business.create", BUSINESSES), move |conn, now| {
            accounts::create_business(conn, now, business)
        })
    }

    fn business(&self, id: BusinessId) -> StoreFuture<'_, Business> {
        self.read(move |conn, _| accounts::business(conn, &id))
    }

    fn businesses(&self, query: BusinessQuery) -> StoreFuture<'_, Page<Business>> {
        self.read(move |conn, _| accounts::businesses(conn, &query))
    }

    fn delete_business(&self, by: Author, id: BusinessId) -> StoreFuture<'_, Business> {
        self.change(by, action("business.delete", BUSINESSES), move |conn, now| {
            accounts::delete_business(conn, now, &id)
        })
    }

    fn restore_business(&self, by: Author, id: BusinessId) -> StoreFuture<'_, Business> {
        self.change(by, action("business.restore", BUSINESSES), move |conn, _| {
            accounts::restore_business(conn, &id)
        })
    }

    fn update_business(
        &self,
        by: Author,
        id: BusinessId,
        business_name: Option<String>,
        email: Option<String>,
    ) -> StoreFuture<'_, Business> {
        self.change(by, action("business.update", BUSINESSES), move |conn, now| {
            accounts::update_business(conn, now, &id, business_name, email)
        })
    }

    fn billing(&self, id: BusinessId) -> StoreFuture<'_, Billing> {
        self.read(move |conn, _| billing::billing(conn, &id))
    }

    fn override_billing(&self, by: Author, id: BusinessId, set: BillingOverride) -> StoreFuture<'_, Billing> {
        self.change(by, action("business.override", BUSINESSES), move |conn, _| {
            billing::override_billing(conn, &id, set)
        })
    }

    fn settings(&self, id: BusinessId) -> StoreFuture<'_, Settings> {
        self.read(move |conn, _| accounts::settings(conn, &id))
    }

    fn update_settings(
        &self,
        by: Author,
        id: BusinessId,
        change: SettingsChange,
    ) -> StoreFuture<'_, Settings> {
        self.change(by, action("settings.update", BUSINESSES), move |conn, now| {
            accounts::update_settings(conn, now, &id, change)
        })
    }

    fn create_customer(
        &self,
        by: Author,
        business: BusinessId,
        customer: CustomerId,
        fields: CustomerFields,
    ) -> StoreFuture<'_, Customer> {
        self.change(by, action("customer.create", CUSTOMERS), move |conn, now| {
            accounts::create_customer(conn, now, &business, &customer, fields)
        })
    }

    fn customer(&self, business: BusinessId, customer: CustomerId) -> StoreFuture<'_, Customer> {
        self.read(move |conn, now| accounts::customer(conn, now, &business, &customer))
    }

    fn customers(&self, query: CustomerQuery) -> StoreFuture<'_, Page<Customer>> {
        self.read(move |conn, now| accounts::customers(conn, now, &query))
    }

    fn update_customer(
        &self,
        by: Author,
        business: BusinessId,
        customer: CustomerId,
        fields: CustomerFields,
    ) -> StoreFuture<'_, Customer> {
        self.change(by, action("customer.update", CUSTOMERS), move |conn, now| {
            accounts::update_customer(conn, now, &business, &customer, fields)
        })
    }

    fn delete_customer(&self, by: Author, business: BusinessId, customer: CustomerId) -> StoreFuture<'_, ()> {
        self.change(by, action("customer.delete", CUSTOMERS), move |conn, now| {
            accounts::delete_customer(conn, now, &business, &customer)
        })
    }
}

impl LimitStore for SqliteStore {
    fn metric(&self, business: BusinessId, name: MetricName) -> StoreFuture<'_, Vec<MetricRecord>> {
        self.read(move |conn, _| metrics::metric(conn, &business, &name))
    }

    fn metrics(
        &self,
        business: BusinessId,
        scope: Option<Scope>,
        page: PageRequest,
    ) -> StoreFuture<'_, Page<MetricRecord>> {
        self.read(move |conn, _| metrics::metrics_page(conn, &business, scope, page))
    }

    fn define_metric(&self, by: Author, metric: MetricDefinition) -> StoreFuture<'_, (MetricRecord, bool)> {
        self.change(by, action("metric.create", METRICS), move |conn, now| {
            define::define_metric(conn, now, metric)
        })
    }

    fn update_metric(
        &self,
        by: Author,
        business: BusinessId,
        name: MetricName,
        scope: Scope,
        fields: MetricFields,
    ) -> StoreFuture<'_, MetricRecord> {
        let secrets = self.secrets.clone();
        Box::pin(self.jobs.run(move |writer| {
            let asked = fields.operation.is_some();
            let is_used = asked && !writer.accounts_with(&business, &name, scope)?.is_empty();
            writer.transaction(|conn, now| {
                audited(conn, now, &secrets, &by, action("metric.update", METRICS), |conn, _| {
                    define::update_metric(conn, &business, &name, scope, fields, is_used)
                })
            })
        }))
    }

    fn delete_metric(
        &self,
        by: Author,
        business: BusinessId,
        name: MetricName,
        scope: Scope,
    ) -> StoreFuture<'_, ()> {
        self.change(by, action("metric.delete", METRICS), move |conn, _| {
            define::delete_metric(conn, &business, &name, scope)
        })
    }

    fn delete_inline_limits(
        &self,
        by: Author,
        business: BusinessId,
        name: MetricName,
        customer: CustomerId,
    ) -> StoreFuture<'_, usize> {
        self.change(by, action("metric.delete", LIMITS), move |conn, _| {
            define::delete_inline_limits(conn, &business, &name, &customer)
        })
    }

    fn accounts_with(
        &self,
        business: BusinessId,
        name: MetricName,
        scope: Scope,
    ) -> StoreFuture<'_, Vec<Account>> {
        Box::pin(self.jobs.run(move |writer| writer.accounts_with(&business, &name, scope)))
    }

    fn create_plan(&self, by: Author, business: BusinessId, fields: PlanFields) -> StoreFuture<'_, Plan> {
        self.change(by, action("plan.create", PLANS), move |conn, now| {
            limits::create_plan(conn, now, &business, fields)
        })
    }

    fn plan(&self, business: BusinessId, id: String) -> StoreFuture<'_, Plan> {
        self.read(move |conn, _| limits::plan(conn, &business, &id))
    }

    fn plans(&self, business: BusinessId, page: PageRequest) -> StoreFuture<'_, Page<Plan>> {
        self.read(move |conn, _| limits::plans(conn, &business, page))
    }

    fn update_plan(
        &self,
        by: Author,
        business: BusinessId,
        id: String,
        fields: PlanFields,
    ) -> StoreFuture<'_, Plan> {
        self.change(by, action("plan.update", PLANS), move |conn, now| {
            limits::update_plan(conn, now, &business, &id, fields)
        })
    }

    fn delete_plan(&self, by: Author, business: BusinessId, id: String, force: bool) -> StoreFuture<'_, ()> {
        self.change(by, action("plan.delete", PLANS), move |conn, now| {
            limits::delete_plan(conn, now, &business, &id, force)
        })
    }

    fn create_limit(&self, by: Author, limit: NewLimit) -> StoreFuture<'_, Limit> {
        self.change(by, action("limit.create", LIMITS), move |conn, now| {
            limits::create_limit(conn, now, limit)
        })
    }

    fn limit(&self, business: BusinessId, id: String) -> StoreFuture<'_, Limit> {
        self.read(move |conn, _| limits::limit(conn, &business, &id))
    }

    fn limits(&self, query: LimitQuery) -> StoreFuture<'_, Page<Limit>> {
        self.read(move |conn, _| limits::limits(conn, &query))
    }

    fn update_limit(
        &self,
        by: Author,
        business: BusinessId,
        id: String,
        change: LimitChange,
    ) -> StoreFuture<'_, Limit> {
        self.change(by, action("limit.update", LIMITS), move |conn, now| {
            limits::update_limit(conn, now, &business, &id, change)
        })
    }

    fn delete_limit(&self, by: Author, business: BusinessId, id: String) -> StoreFuture<'_, ()> {
        self.change(by, action("limit.delete", LIMITS), move |conn, now| {
            limits::delete_limit(conn, now, &business, &id)
        })
    }
}

impl AuditTrail for SqliteStore {
    fn note(&self, by: Author, event: Event) -> StoreFuture<'_, ()> {
        let secrets = self.secrets.clone();
        Box::pin(self.jobs.change(move |conn, now| audit::note_event(conn, &secrets, now, &by, &event, None)))
    }

    fn audit_logs(&self, query: AuditQuery) -> StoreFuture<'_, Page<AuditRecord>> {
        Box::pin(async move {
            for _step in 0..SWEEPS_MAX {
                let secrets = self.secrets.clone();
                if !self.jobs.change(move |conn, _| audit::sweep(conn, &secrets)).await? {
                    break;
                }
            }
            let secrets = self.secrets.clone();
            self.readers.read(move |conn| audit::page(conn, &secrets, &query)).await
        })
    }
}
