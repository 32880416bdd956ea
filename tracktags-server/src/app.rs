//! All a handler may use, built once: the open store, the way out, the tables of failures and of calls in flight.

use crate::config::{Config, Secret};
use crate::lockout::Lockout;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tracktags_core::accounts::Account;
use tracktags_core::keys::KeyHasher;
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

/// All a handler may use.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) admission: Admission,
    pub(crate) upstream: Proxy,
    /// The first as keys are hashed now, then those of older master keys.
    pub(crate) hashers: Vec<KeyHasher>,
    pub(crate) cursor_key: [u8; 32],
    /// `tracktags-<deployment>`, as it stands in `Via`.
    pub(crate) via_name: String,
    /// The whole `Via` field.
    pub(crate) via: http::HeaderValue,
    pub(crate) admin: Option<AdminKey>,
    pub(crate) lockout: Lockout,
    pub(crate) calls: Calls,
    /// Empty but for `--demo`.
    pub(crate) demo_keys: Vec<DemoKey>,
    draining: AtomicBool,
    node: Mutex<Option<Node>>,
}

impl App {
    pub(crate) fn new(
        config: Config,
        clock: Arc<dyn Clock>,
        node: Node,
        upstream: Proxy,
        admin_key: Option<&Secret>,
        demo_keys: Vec<DemoKey>,
    ) -> Self {
        let via_name = format!("tracktags-{}", node.deployment);
        // A deployment's name is hex digits.
        let via = http::HeaderValue::try_from(format!("1.1 {via_name}"));
        Self {
            clock,
            store: Arc::clone(&node.store),
            admission: node.admission.clone(),
            upstream,
            hashers: node.hashers.to_vec(),
            cursor_key: node.cursor_key,
            via: via.unwrap_or_else(|_| http::HeaderValue::from_static("1.1 tracktags")),
            via_name,
            admin: admin_key.map(|key| AdminKey::new(node.admin_pepper, key)),
            lockout: Lockout::new(config.lockout),
            calls: Calls::new(config.proxy.customer_calls_max),
            demo_keys,
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

/// Calls in flight of each customer.
pub(crate) struct Calls {
    calls_max: usize,
    hasher: RandomState,
    shards: Arc<[Mutex<HashMap<Account, usize, RandomState>>; SHARDS]>,
}

/// A place among the calls in flight of a customer; given back when dropped.
pub(crate) struct CallPlace {
    shards: Arc<[Mutex<HashMap<Account, usize, RandomState>>; SHARDS]>,
    shard: usize,
    account: Account,
}

impl Calls {
    fn new(calls_max: usize) -> Self {
        Self { calls_max, hasher: RandomState::default(), shards: Arc::default() }
    }

    /// Takes a place; `None` when the customer has all of its own in use.
    pub(crate) fn place(&self, account: &Account) -> Option<CallPlace> {
        let hash = usize::try_from(self.hasher.hash_one(account) % 16).unwrap_or_default();
        let mut shard = self.shards.get(hash)?.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = shard.entry(account.clone()).or_default();
        if *calls >= self.calls_max {
            return None;
        }
        *calls = calls.saturating_add(1);
        drop(shard);
        Some(CallPlace { shards: Arc::clone(&self.shards), shard: hash, account: account.clone() })
    }
}

impl Drop for CallPlace {
    fn drop(&mut self) {
        let Some(shard) = self.shards.get(self.shard) else { return };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
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
    use tracktags_core::accounts::{BusinessId, CustomerId};

    #[test]
    fn a_customer_has_so_many_places_and_gets_them_back() {
        let calls = Calls::new(2);
        let business = BusinessId::parse("biz_1").unwrap();
        let one = Account::customer(business.clone(), CustomerId::parse("one").unwrap());
        let two = Account::customer(business, CustomerId::parse("two").unwrap());
        let first = calls.place(&one).unwrap();
        let _second = calls.place(&one).unwrap();
        assert!(calls.place(&one).is_none());
        assert!(calls.place(&two).is_some());
        drop(first);
        assert!(calls.place(&one).is_some());
        let open: usize = calls.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(open, 1);
    }
}
