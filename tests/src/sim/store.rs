//! The model of a store: configuration with versions, counters, the ledger, locks, and commits.

use super::locks::Locks;
use std::sync::Arc;
use tracktags_core::accounts::{Account, BusinessId, CustomerId};
use tracktags_core::limits::{Limit, Terms};
use tracktags_core::metrics::Units;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, CounterMap, Entry, Taken};
use tracktags_core::versions::Changes;
use tracktags_core::windows::Period;

/// Businesses, and customers of each.
const BUSINESSES: usize = 2;
const CUSTOMERS: usize = 2;

/// What an account's limits admit, by minute and by hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caps {
    pub(super) minute: i64,
    pub(super) hour: i64,
}

impl Caps {
    /// Those that terms say.
    pub(super) fn of(terms: &Terms) -> Option<Self> {
        let entry = terms.limits.get(0)?;
        let value =
            |period| entry.limits.iter().find(|limit| limit.period == period).map(|limit| limit.value.get());
        Some(Self { minute: value(Period::Minutely)?, hour: value(Period::Hourly)? })
    }
}

/// An account as configured.
pub(super) struct Configured {
    pub(super) account: Account,
    pub(super) business: usize,
    pub(super) key: CounterKey,
    pub(super) caps: Caps,
    /// Since which change of configuration which limits held.
    pub(super) history: Vec<(u64, Caps)>,
    terms: Option<Arc<Terms>>,
}

/// A business as configured.
pub(super) struct Tenant {
    pub(super) id: BusinessId,
    pub(super) version: i64,
    changes: Vec<(i64, Option<CustomerId>)>,
}

/// What an operation did, as the books want to know it.
#[derive(Clone)]
pub(super) enum Deed {
    /// Units were taken.
    Take { call: usize, taken: Taken, version: i64, terms: Arc<Terms>, key_expires_at: Option<Timestamp> },
    /// So many of them remain.
    Settle { call: usize, units: i64 },
}

/// A batch's row, and what it stands for.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) boot: u64,
    pub(super) batch: i64,
    pub(super) entries: Vec<Entry>,
    pub(super) deeds: Vec<Deed>,
}

pub(super) struct Store {
    pub(super) tenants: Vec<Tenant>,
    pub(super) accounts: Vec<Configured>,
    pub(super) counters: CounterMap<Counter>,
    pub(super) rows: Vec<Row>,
    /// Commits in all, and those of each node.
    commits: u64,
    commits_of: Vec<u64>,
    /// Commits that changed configuration.
    pub(super) changes: u64,
    pub(super) locks: Locks,
    /// Transactions of nodes whose connections were lost, and which may still commit.
    pub(super) late: Vec<Row>,
}

fn parsed<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

impl Store {
    pub(super) fn new(nodes: usize, mut caps: impl FnMut() -> Caps) -> Self {
        let tenant =
            |place: usize| Tenant { id: parsed(&format!("biz_{place}")), version: 1, changes: Vec::new() };
        let tenants: Vec<Tenant> = (0..BUSINESSES).map(tenant).collect();
        let mut accounts = Vec::new();
        for (business, tenant) in tenants.iter().enumerate() {
            for customer in 0..CUSTOMERS {
                let customer = parsed(&format!("customer_{customer}"));
                let account = Account::customer(tenant.id.clone(), customer);
                let key = CounterKey::new(account.clone(), parsed("calls"));
                let caps = caps();
                let history = vec![(0, caps)];
                accounts.push(Configured { account, business, key, caps, history, terms: None });
            }
        }
        let (counters, rows, commits_of) = (CounterMap::default(), Vec::new(), vec![0; nodes]);
        Self {
            tenants,
            accounts,
            counters,
            rows,
            commits: 0,
            commits_of,
            changes: 0,
            locks: Locks::default(),
            late: Vec::new(),
        }
    }

    /// What holds for an account, read in one snapshot.
    pub(super) fn terms(&mut self, place: usize) -> Arc<Terms> {
        let configured = &mut self.accounts[place];
        let version = self.tenants[configured.business].version;
        if let Some(terms) = configured.terms.as_ref().filter(|terms| terms.version == version) {
            return Arc::clone(terms);
        }
        let limit = |value: i64, period| {
            let units = Units::new(value).unwrap_or_else(|error| panic!("{value}: {error}"));
            Limit::new(configured.key.metric().clone(), units, period)
        };
        let limits =
            [limit(configured.caps.minute, Period::Minutely), limit(configured.caps.hour, Period::Hourly)];
        let mut terms = Terms::new(configured.account.clone(), limits);
        terms.version = version;
        Arc::clone(configured.terms.insert(Arc::new(terms)))
    }

    pub(super) fn account_of(&self, key: &CounterKey) -> Option<usize> {
        self.accounts.iter().position(|configured| configured.key == *key)
    }

    pub(super) fn version(&self, business: &BusinessId) -> i64 {
        self.tenants.iter().find(|tenant| tenant.id == *business).map_or(0, |tenant| tenant.version)
    }

    /// What changed of a business after a version.
    pub(super) fn changes(&self, business: &BusinessId, since: i64) -> Changes {
        let Some(tenant) = self.tenants.iter().find(|tenant| tenant.id == *business) else {
            return Changes::default();
        };
        let rows: Vec<_> = tenant.changes.iter().filter(|(version, _)| *version > since).cloned().collect();
        let complete = i64::try_from(rows.len()).is_ok_and(|rows| rows == tenant.version - since);
        Changes { rows, pruned: !complete }
    }

    /// Commits of everybody but this node: `data_version`.
    pub(super) fn commits_of_others(&self, node: usize) -> u64 {
        self.commits - self.commits_of[node]
    }

    /// Commits new limits for one account, or for all of its business.
    pub(super) fn configure(&mut self, place: usize, whole_business: bool, mut caps: impl FnMut() -> Caps) {
        self.commits += 1;
        self.changes += 1;
        let business = self.accounts[place].business;
        let customer = self.accounts[place].account.customer.clone().filter(|_| !whole_business);
        for (other, configured) in self.accounts.iter_mut().enumerate() {
            if other == place || (whole_business && configured.business == business) {
                configured.caps = caps();
                configured.history.push((self.changes, configured.caps));
            }
        }
        let tenant = &mut self.tenants[business];
        tenant.version += 1;
        tenant.changes.push((tenant.version, customer));
    }

    /// Forgets old rows of changes.
    pub(super) fn prune_changes(&mut self, place: usize) {
        let business = self.accounts[place].business;
        self.tenants[business].changes.clear();
        self.commits += 1;
    }

    /// Commits a batch, over the connection that this node has, if it still has it.
    pub(super) fn append(&mut self, node: Option<usize>, row: Row) {
        self.commits += 1;
        if let Some(node) = node {
            self.commits_of[node] += 1;
        }
        for entry in &row.entries {
            self.counters.insert(entry.counter.clone(), entry.state);
        }
        self.rows.push(row);
    }

    /// Whether the row is there that marks this batch of a boot.
    pub(super) fn is_marked(&self, batch: (u64, i64)) -> bool {
        self.rows.iter().any(|row| (row.boot, row.batch) == batch)
    }

    /// Whether it may appear although it is not there.
    pub(super) fn may_still_come(&self, batch: (u64, i64)) -> bool {
        self.late.iter().any(|row| (row.boot, row.batch) == batch)
    }

    /// Whether these limits held for the account at some time since that change.
    pub(super) fn held_since(&self, place: usize, change: u64, caps: Caps) -> bool {
        let history = &self.accounts[place].history;
        let first = history.iter().rposition(|(since, _)| *since <= change).unwrap_or(0);
        history.iter().skip(first).any(|(_, held)| *held == caps)
    }
}
