//! How the store reads and changes: on sessions of its own for each, beside the lanes. What counts stands in the rows of
//! the counters, so usage is read there.

use super::dialect::Conn;
pub(crate) use super::sessions::Session as Reader;
use super::sessions::Sessions;
use super::tables::define::accounts_of;
use super::usage;
use crate::holds::Holds;
use std::sync::Arc;
use tracktags_core::accounts::{Account, BusinessId, MetricName, Scope};
use tracktags_core::batch::{CutCache, read_state};
use tracktags_core::error::StoreError;
use tracktags_core::limits::Terms;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{AccountUsage, MetricUsage};

/// The way to the sessions that read, and to those that change.
pub(crate) struct Access {
    pub(super) reads: Sessions,
    pub(super) changes: Sessions,
    pub(super) holds: Arc<Holds>,
}

impl Access {
    /// Reads in one snapshot, at the database's now.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnMut(&mut Conn, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.reads.run(move |session| session.read(read)).await
    }

    /// Runs `change` in a transaction of its own; whatever it returns, all of it or nothing was done.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl FnMut(&mut Conn, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.changes.run(move |session| session.change(change)).await
    }

    /// As [`change`](Self::change), told whether anybody has a value of this metric; not if none is named. No batch
    /// commits meanwhile, so nobody comes to have one.
    pub(crate) async fn change_by_use<T: Send + 'static>(
        &self,
        metric: Option<(BusinessId, MetricName, Scope)>,
        mut change: impl FnMut(&mut Conn, Timestamp, bool) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some((business, name, scope)) = metric else {
            return self.change(move |conn, now| change(conn, now, false)).await;
        };
        // Once somebody has a value, somebody has one: batches need not stop for that.
        if !self.accounts_with(business.clone(), name.clone(), scope).await?.is_empty() {
            return self.change(move |conn, now| change(conn, now, true)).await;
        }
        let change = move |conn: &mut Conn, now: Timestamp| {
            let is_used = !accounts_with(conn, &business, &name, scope)?.is_empty();
            change(conn, now, is_used)
        };
        self.changes.run(move |session| session.change_without_batches(change)).await
    }

    /// The accounts of one scope that have a value of this metric.
    pub(crate) async fn accounts_with(
        &self,
        business: BusinessId,
        name: MetricName,
        scope: Scope,
    ) -> Result<Vec<Account>, StoreError> {
        self.read(move |conn, _| accounts_with(conn, &business, &name, scope)).await
    }

    /// What an account used: of the metric at a place of its terms, or of all.
    pub(crate) async fn usage(
        &self,
        terms: Arc<Terms>,
        place: Option<usize>,
    ) -> Result<AccountUsage, StoreError> {
        let holds = Arc::clone(&self.holds);
        self.read(move |conn, now| usage_of(conn, now, &holds, &terms, place)).await
    }
}

fn accounts_with(
    conn: &mut Conn,
    business: &BusinessId,
    name: &MetricName,
    scope: Scope,
) -> Result<Vec<Account>, StoreError> {
    Ok(accounts_of(business, scope, usage::customers_with(conn, business, name)?))
}

fn usage_of(
    conn: &mut Conn,
    as_of: Timestamp,
    holds: &Holds,
    terms: &Arc<Terms>,
    place: Option<usize>,
) -> Result<AccountUsage, StoreError> {
    let places = match place {
        Some(place) => place..place.saturating_add(1),
        None => 0..terms.limits.metrics().len(),
    };
    let entries: Vec<_> = places.filter_map(|place| Some((place, terms.limits.get(place)?))).collect();
    let counters = usage::counters(conn, entries.iter().map(|(_, entry)| entry.counter))?;
    let mut cuts = CutCache::default();
    let metrics = entries.into_iter().filter_map(|(place, entry)| {
        let counter = counters.get(entry.counter).copied().unwrap_or_default();
        let state = read_state(terms, place, &counter, as_of, &mut cuts)?;
        Some(MetricUsage { state, held: holds.of(entry.counter) })
    });
    Ok(AccountUsage { as_of, metrics: metrics.collect() })
}
