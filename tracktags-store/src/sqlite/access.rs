//! How the store reads and changes: reads on the readers, changes as jobs of the writer, and what only the writer's
//! memory knows.

pub(crate) use super::connection::Reader;
use super::connection::Readers;
use super::dialect::Conn;
use super::tables::define::accounts_of;
use super::usage;
use super::writer::{Jobs, Writer};
use std::sync::Arc;
use tracktags_core::accounts::{Account, BusinessId, MetricName, Scope};
use tracktags_core::batch::read_state;
use tracktags_core::error::StoreError;
use tracktags_core::limits::Terms;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{AccountUsage, MetricUsage};

/// The way to the readers and to the writer.
pub(crate) struct Access {
    pub(super) jobs: Jobs,
    pub(super) readers: Readers,
}

impl Access {
    /// Reads in one snapshot, at the clock's now.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnMut(&mut Conn, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.read(read).await
    }

    /// Runs `change` in a transaction of its own; whatever it returns, all of it or nothing was done.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl FnMut(&mut Conn, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.jobs.change(change).await
    }

    /// As [`change`](Self::change), told whether anybody has a value of this metric; not if none is named.
    pub(crate) async fn change_by_use<T: Send + 'static>(
        &self,
        metric: Option<(BusinessId, MetricName, Scope)>,
        mut change: impl FnMut(&mut Conn, Timestamp, bool) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.jobs
            .run(move |writer| {
                let is_used = match &metric {
                    Some((business, name, scope)) => {
                        !writer.accounts_with(business, name, *scope)?.is_empty()
                    }
                    None => false,
                };
                writer.transaction(|conn, now| change(conn, now, is_used))
            })
            .await
    }

    /// The accounts of one scope that have a value of this metric.
    pub(crate) async fn accounts_with(
        &self,
        business: BusinessId,
        name: MetricName,
        scope: Scope,
    ) -> Result<Vec<Account>, StoreError> {
        self.jobs.run(move |writer| writer.accounts_with(&business, &name, scope)).await
    }

    /// What an account used: of the metric at a place of its terms, or of all.
    pub(crate) async fn usage(
        &self,
        terms: Arc<Terms>,
        place: Option<usize>,
    ) -> Result<AccountUsage, StoreError> {
        self.jobs.run(move |writer| writer.usage(&terms, place)).await
    }
}

impl Writer {
    /// The accounts of one scope that have a value of this metric, folded or not.
    fn accounts_with(
        &mut self,
        business: &BusinessId,
        name: &MetricName,
        scope: Scope,
    ) -> Result<Vec<Account>, StoreError> {
        let mut customers = self.live.customers_with(business, name);
        customers.extend(usage::customers_with(&mut self.conn, business, name)?);
        Ok(accounts_of(business, scope, customers))
    }

    fn usage(&mut self, terms: &Arc<Terms>, place: Option<usize>) -> Result<AccountUsage, StoreError> {
        let as_of = self.now();
        let places = match place {
            Some(place) => place..place.saturating_add(1),
            None => 0..terms.limits.metrics().len(),
        };
        let mut metrics = Vec::with_capacity(places.len());
        for place in places {
            let Some(entry) = terms.limits.get(place) else { continue };
            let counter = self.counter(entry.counter)?;
            let held = self.holds.of(entry.counter);
            if let Some(state) = read_state(terms, place, &counter, as_of, &mut self.cuts) {
                metrics.push(MetricUsage { state, held });
            }
        }
        Ok(AccountUsage { as_of, metrics })
    }
}
