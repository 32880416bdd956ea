//! The store's traits for the configuration: each read in a snapshot, each change with its row of the trail.

use super::audit::Action;
use super::store::{EngineStore, audited};
use super::{accounts, billing, customers, define, limits, metrics, plans};
use tracktags_core::accounts::{
    Account, Billing, Business, BusinessId, Customer, CustomerId, MetricName, Scope, Settings,
};
use tracktags_core::audit::Author;
use tracktags_core::limits::{Limit, Plan};
use tracktags_core::traits::{
    AccountStore, BillingOverride, BusinessQuery, CustomerFields, CustomerQuery, LimitChange, LimitQuery,
    LimitStore, MetricDefinition, MetricFields, MetricRecord, NewBusiness, NewLimit, Page, PageRequest,
    PlanFields, SettingsChange, StoreFuture,
};

const BUSINESSES: &[&str] = &["businesses"];
const CUSTOMERS: &[&str] = &["customers"];
const PLANS: &[&str] = &["plans"];
const LIMITS: &[&str] = &["plan_limits"];
const METRICS: &[&str] = &["metrics", "plan_limits"];

impl AccountStore for EngineStore {
    fn create_business(&self, by: Author, business: NewBusiness) -> StoreFuture<'_, Business> {
        self.change(by, Action::of("business.create", BUSINESSES), move |conn, now| {
            accounts::create_business(conn, now, business.clone())
        })
    }

    fn business(&self, id: BusinessId) -> StoreFuture<'_, Business> {
        self.read(move |conn, _| accounts::business(conn, &id))
    }

    fn businesses(&self, query: BusinessQuery) -> StoreFuture<'_, Page<Business>> {
        self.read(move |conn, _| accounts::businesses(conn, &query))
    }

    fn delete_business(&self, by: Author, id: BusinessId) -> StoreFuture<'_, Business> {
        self.change(by, Action::of("business.delete", BUSINESSES), move |conn, now| {
            accounts::delete_business(conn, now, &id)
        })
    }

    fn restore_business(&self, by: Author, id: BusinessId) -> StoreFuture<'_, Business> {
        self.change(by, Action::of("business.restore", BUSINESSES), move |conn, _| {
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
        self.change(by, Action::of("business.update", BUSINESSES), move |conn, now| {
            accounts::update_business(conn, now, &id, business_name.clone(), email.clone())
        })
    }

    fn billing(&self, id: BusinessId) -> StoreFuture<'_, Billing> {
        self.read(move |conn, _| billing::billing(conn, &id))
    }

    fn override_billing(&self, by: Author, id: BusinessId, set: BillingOverride) -> StoreFuture<'_, Billing> {
        self.change(by, Action::of("business.override", BUSINESSES), move |conn, _| {
            billing::override_billing(conn, &id, set.clone())
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
        self.change(by, Action::of("settings.update", BUSINESSES), move |conn, now| {
            accounts::update_settings(conn, now, &id, change.clone())
        })
    }

    fn create_customer(
        &self,
        by: Author,
        business: BusinessId,
        customer: CustomerId,
        fields: CustomerFields,
    ) -> StoreFuture<'_, Customer> {
        self.change(by, Action::of("customer.create", CUSTOMERS), move |conn, now| {
            customers::create_customer(conn, now, &business, &customer, fields.clone())
        })
    }

    fn customer(&self, business: BusinessId, customer: CustomerId) -> StoreFuture<'_, Customer> {
        self.read(move |conn, now| customers::customer(conn, now, &business, &customer))
    }

    fn customers(&self, query: CustomerQuery) -> StoreFuture<'_, Page<Customer>> {
        self.read(move |conn, now| customers::customers(conn, now, &query))
    }

    fn update_customer(
        &self,
        by: Author,
        business: BusinessId,
        customer: CustomerId,
        fields: CustomerFields,
    ) -> StoreFuture<'_, Customer> {
        self.change(by, Action::of("customer.update", CUSTOMERS), move |conn, now| {
            customers::update_customer(conn, now, &business, &customer, fields.clone())
        })
    }

    fn delete_customer(&self, by: Author, business: BusinessId, customer: CustomerId) -> StoreFuture<'_, ()> {
        self.change(by, Action::of("customer.delete", CUSTOMERS), move |conn, now| {
            customers::delete_customer(conn, now, &business, &customer)
        })
    }
}

impl LimitStore for EngineStore {
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
        self.change(by, Action::of("metric.create", METRICS), move |conn, now| {
            define::define_metric(conn, now, metric.clone())
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
        let metric = fields.operation.is_some().then(|| (business.clone(), name.clone(), scope));
        Box::pin(self.access.change_by_use(metric, move |conn, now, is_used| {
            audited(conn, now, &secrets, &by, Action::of("metric.update", METRICS), |conn, _| {
                define::update_metric(conn, &business, &name, scope, fields.clone(), is_used)
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
        self.change(by, Action::of("metric.delete", METRICS), move |conn, _| {
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
        self.change(by, Action::of("metric.delete", LIMITS), move |conn, _| {
            define::delete_inline_limits(conn, &business, &name, &customer)
        })
    }

    fn accounts_with(
        &self,
        business: BusinessId,
        name: MetricName,
        scope: Scope,
    ) -> StoreFuture<'_, Vec<Account>> {
        Box::pin(self.access.accounts_with(business, name, scope))
    }

    fn create_plan(&self, by: Author, business: BusinessId, fields: PlanFields) -> StoreFuture<'_, Plan> {
        self.change(by, Action::of("plan.create", PLANS), move |conn, now| {
            plans::create_plan(conn, now, &business, fields.clone())
        })
    }

    fn plan(&self, business: BusinessId, id: String) -> StoreFuture<'_, Plan> {
        self.read(move |conn, _| plans::plan(conn, &business, &id))
    }

    fn plans(&self, business: BusinessId, page: PageRequest) -> StoreFuture<'_, Page<Plan>> {
        self.read(move |conn, _| plans::plans(conn, &business, page))
    }

    fn update_plan(
        &self,
        by: Author,
        business: BusinessId,
        id: String,
        fields: PlanFields,
    ) -> StoreFuture<'_, Plan> {
        self.change(by, Action::of("plan.update", PLANS), move |conn, now| {
            plans::update_plan(conn, now, &business, &id, fields.clone())
        })
    }

    fn delete_plan(&self, by: Author, business: BusinessId, id: String, force: bool) -> StoreFuture<'_, ()> {
        self.change(by, Action::of("plan.delete", PLANS), move |conn, now| {
            plans::delete_plan(conn, now, &business, &id, force)
        })
    }

    fn create_limit(&self, by: Author, limit: NewLimit) -> StoreFuture<'_, Limit> {
        self.change(by, Action::of("limit.create", LIMITS), move |conn, now| {
            limits::create_limit(conn, now, limit.clone())
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
        self.change(by, Action::of("limit.update", LIMITS), move |conn, now| {
            limits::update_limit(conn, now, &business, &id, change.clone())
        })
    }

    fn delete_limit(&self, by: Author, business: BusinessId, id: String) -> StoreFuture<'_, ()> {
        self.change(by, Action::of("limit.delete", LIMITS), move |conn, now| {
            limits::delete_limit(conn, now, &business, &id)
        })
    }
}
