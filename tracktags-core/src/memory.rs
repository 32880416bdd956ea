//! A complete ledger in memory: for embedding, and the model that the engines are tested against.

use crate::accounts::Account;
use crate::batch::{Batch, Counters, CutCache, Outcome, Versions};
use crate::demand::Operation;
use crate::error::StoreError;
use crate::time::Timestamp;
use crate::usage::{Counter, CounterKey, CounterMap, Entry};
use std::collections::HashMap;

/// Counters and their ledger in memory. Not durable; exact all the same: what it does is what the engines do.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    counters: CounterMap<Counter>,
    ledger: Vec<Entry>,
    versions: MemoryVersions,
    cuts: CutCache,
}

#[derive(Debug, Default)]
struct MemoryVersions {
    changed: HashMap<Account, i64>,
    latest: i64,
}

impl Versions for MemoryVersions {
    fn current(&self, account: &Account, version: i64) -> Option<i64> {
        let whole = Account::business(account.business.clone());
        let changed = [account, &whole].into_iter().filter_map(|account| self.changed.get(account)).max();
        let stale = changed.is_some_and(|changed| *changed > version);
        (!stale).then_some(self.latest)
    }
}

struct MemoryCounters<'a>(&'a CounterMap<Counter>);

impl Counters for MemoryCounters<'_> {
    fn load(&mut self, key: &CounterKey) -> Result<Counter, StoreError> {
        Ok(self.0.get(key).copied().unwrap_or_default())
    }

    fn held(&self, _key: &CounterKey) -> i64 {
        0
    }
}

impl MemoryLedger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the configuration of `account` (of the whole business for its own account) changed: knowledge
    /// older than `version` is stale.
    pub fn configuration_changed(&mut self, account: Account, version: i64) {
        self.versions.latest = self.versions.latest.max(version);
        self.versions.changed.insert(account, version);
    }

    /// Does all operations at the instant `now`, in order, as one batch.
    pub fn commit(&mut self, now: Timestamp, operations: &[Operation]) -> Vec<Outcome> {
        let mut batch = Batch::with_room(now, operations.len());
        let mut counters = MemoryCounters(&self.counters);
        let outcomes = operations
            .iter()
            .map(|operation| {
                let outcome = batch.apply(operation, &mut counters, &self.versions, &mut self.cuts);
                // A map does not fail.
                outcome.unwrap_or(Outcome::Stale)
            })
            .collect();
        let entries = batch.into_entries();
        self.counters.extend(entries.iter().map(|entry| (entry.counter.clone(), entry.state)));
        self.ledger.extend(entries);
        outcomes
    }

    /// Does one operation.
    pub fn apply(&mut self, now: Timestamp, operation: Operation) -> Outcome {
        self.commit(now, &[operation]).pop().unwrap_or(Outcome::Stale)
    }

    /// The counter as it stands after its last change.
    #[must_use]
    pub fn counter(&self, key: &CounterKey) -> Counter {
        self.counters.get(key).copied().unwrap_or_default()
    }

    /// Every entry, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.ledger
    }
}
