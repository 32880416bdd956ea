//! All a handler may use: the open store, the way out, the tables of failures and of calls in flight.
//!
//! It is built once, and each worker thread has a handle of its own: a count of references that every thread writes
//! to is a cache line that travels between them on every call.

use crate::config::{Config, Secret};
use crate::lockout::Lockout;
use crate::meters::Meters;
use bytes::Bytes;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracktags_core::keys::KeyHasher;
use tracktags_core::limits::Terms;
use tracktags_core::traits::{Clock, Store};
use tracktags_proxy::Proxy;
use tracktags_store::{Admission, Health, Node};

/// The admin's key as it is kept: its keyed hash.
pub(crate) struct AdminKey {
    pepper: [u8; 32],
    hash: blake3::Hash,
}

impl AdminKey {
    fn new(pepper: [u8; 32], key: &Secret) -> Self {
        Self { hash: blake3::keyed_hash(&pepper, key.expose().as_bytes()), pepper }
    }

    /// Whether this is the key. Hashes are compared in constant time.
    pub(crate) fn is(&self, sent: &[u8]) -> bool {
        blake3::keyed_hash(&self.pepper, sent) == self.hash
    }
}

/// A key printed in the guide and the real key of the demo business that it stands for.
pub(crate) struct DemoKey {
    pub(crate) printed: &'static str,
    pub(crate) real: Secret,
}

/// All a handler may use, as one worker thread holds it.
pub(crate) struct App {
    shared: Arc<Shared>,
    pub(crate) admission: Admission,
    /// The whole `Via` field.
    pub(crate) via: http::HeaderValue,
    pub(crate) calls: Calls,
}

/// What all worker threads share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<dyn Store>,
    admission: Admission,
    pub(crate) upstream: Proxy,
    /// The first as keys are hashed now, then those of older master keys.
    pub(crate) hashers: Vec<KeyHasher>,
    pub(crate) cursor_key: [u8; 32],
    /// `tracktags-<deployment>`, as it stands in `Via`.
    pub(crate) via_name: String,
    pub(crate) admin: Option<AdminKey>,
    pub(crate) lockout: Lockout,
    calls: Arc<CallTable>,
    /// Empty but for `--demo`.
    pub(crate) demo_keys: Vec<DemoKey>,
    pub(crate) meters: Meters,
    /// `/openapi.json`.
    pub(crate) contract: Bytes,
    draining: AtomicBool,
    node: Mutex<Option<Node>>,
}

impl App {
    /// A worker's handle.
    pub(crate) fn of_worker(shared: &Arc<Shared>) -> Self {
        // A deployment's name is hex digits.
        let via = http::HeaderValue::try_from(format!("1.1 {}", shared.via_name));
        Self {
            shared: Arc::clone(shared),
            admission: shared.admission.apart(),
            via: via.unwrap_or_else(|_| http::HeaderValue::from_static("1.1 tracktags")),
            calls: Calls(Arc::new(CallHandle(Arc::clone(&shared.calls)))),
        }
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        clock: Arc<dyn Clock>,
        node: Node,
        upstream: Proxy,
        admin_key: Option<&Secret>,
        demo_keys: Vec<DemoKey>,
        contract: String,
    ) -> Self {
        let via_name = format!("tracktags-{}", node.deployment);
        Self {
            clock,
            store: Arc::clone(&node.store),
            admission: node.admission.clone(),
            upstream,
            hashers: node.hashers.to_vec(),
            cursor_key: node.cursor_key,
            via_name,
            admin: admin_key.map(|key| AdminKey::new(node.admin_pepper, key)),
            lockout: Lockout::new(config.lockout),
            calls: Arc::new(CallTable::new(config.proxy.customer_calls_max)),
            demo_keys,
            meters: Meters::new(&node),
            contract: contract.into(),
            draining: AtomicBool::new(false),
            node: Mutex::new(Some(node)),
            config,
        }
    }

    /// The key that is meant: one of the guide's stands for the demo's, every other for itself.
    pub(crate) fn meant_key<'a>(&'a self, sent: &'a str) -> &'a str {
        let demo = self.demo_keys.iter().find(|key| key.printed == sent);
        demo.map_or(sent, |key| key.real.expose())
    }

    /// Operations that wait for a batch.
    pub(crate) fn waiting(&self) -> u64 {
        u64::try_from(self.admission.waiting()).unwrap_or(u64::MAX)
    }

    /// Calls and units admitted and not settled.
    pub(crate) fn open(&self) -> (u64, u64) {
        self.admission.open()
    }

    /// The write-ahead log in use.
    pub(crate) fn wal_bytes(&self) -> u64 {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        node.as_ref().map_or(0, Node::wal_bytes)
    }

    /// Whether the server is about to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on `/ready` says no and connections close after their answer.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why calls cannot be served now, if so.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if self.is_draining() {
            return Some("the server is shutting down".to_owned());
        }
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        match node.as_ref().map(Node::health) {
            Some(Health::Ready) => None,
            Some(Health::NotReady(reason)) => Some(reason),
            None => Some("the store is closed".to_owned()),
        }
    }

    /// Takes the store out, to be closed after the last request.
    pub(crate) fn take_node(&self) -> Option<Node> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

const SHARDS: usize = 16;

/// Calls in flight of each customer. A customer without any is not in it.
struct CallTable {
    calls_max: usize,
    hasher: RandomState,
    shards: [Mutex<HashMap<OfAccount, usize, RandomState>>; SHARDS],
}

/// Terms as the account they are for.
struct OfAccount(Arc<Terms>);

impl PartialEq for OfAccount {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.account == other.0.account
    }
}
impl Eq for OfAccount {}
impl Hash for OfAccount {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.account.hash(state);
    }
}

impl CallTable {
    fn new(calls_max: usize) -> Self {
        Self { calls_max, hasher: RandomState::default(), shards: Default::default() }
    }

    fn shard(&self, account: &OfAccount) -> MutexGuard<'_, HashMap<OfAccount, usize, RandomState>> {
        let [first, ..] = &self.shards;
        let place = usize::try_from(self.hasher.hash_one(account) % SHARDS as u64).unwrap_or_default();
        self.shards.get(place).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker's handle of the calls in flight of each customer.
pub(crate) struct Calls(Arc<CallHandle>);

/// Places count their references on it, so that no other worker touches that count.
struct CallHandle(Arc<CallTable>);

/// A place among the calls in flight of a customer; given back when dropped.
pub(crate) struct CallPlace {
    handle: Arc<CallHandle>,
    account: OfAccount,
}

impl Calls {
    /// Takes a place; `None` when the customer has all of its own in use.
    pub(crate) fn place(&self, terms: &Arc<Terms>) -> Option<CallPlace> {
        let account = OfAccount(Arc::clone(terms));
        let table = &self.0.0;
        let mut shard = table.shard(&account);
        match shard.get_mut(&account) {
            Some(calls) if *calls >= table.calls_max => return None,
            Some(calls) => *calls = calls.saturating_add(1),
            None => drop(shard.insert(OfAccount(Arc::clone(terms)), 1)),
        }
        drop(shard);
        Some(CallPlace { handle: Arc::clone(&self.0), account })
    }
}

impl Drop for CallPlace {
    fn drop(&mut self) {
        let mut shard = self.handle.0.shard(&self.account);
        let Some(calls) = shard.get_mut(&self.account) else { return };
        *calls = calls.saturating_sub(1);
        if *calls == 0 {
            shard.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracktags_core::accounts::{Account, BusinessId, CustomerId};

    #[test]
    fn a_customer_has_so_many_places_and_gets_them_back() {
        let calls = Calls(Arc::new(CallHandle(Arc::new(CallTable::new(2)))));
        let business = BusinessId::parse("biz_1").unwrap();
        let terms = |customer| {
            let account = Account::customer(business.clone(), CustomerId::parse(customer).unwrap());
            Arc::new(Terms::new(account, []))
        };
        let first = calls.place(&terms("one")).unwrap();
        // Read again, the account is the same.
        let _second = calls.place(&terms("one")).unwrap();
        assert!(calls.place(&terms("one")).is_none());
        assert!(calls.place(&terms("two")).is_some());
        drop(first);
        assert!(calls.place(&terms("one")).is_some());
        let open: usize = calls.0.0.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(open, 1);
    }
}
