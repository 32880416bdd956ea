//! ②③ Identities and terms as last read, each with the configuration version it was read at. A batch compares that
//! version, so what is cached may be old but never decides wrongly.

use quick_cache::sync::Cache;
use std::sync::Arc;
use tracktags_core::accounts::{Account, Identity};
use tracktags_core::keys::KeyHash;
use tracktags_core::limits::Terms;
use tracktags_core::time::Timestamp;

/// Unknown hashes remembered at most, and for how long: a key made later cannot have a hash asked for before.
const UNKNOWN_MAX: usize = 100_000;
const UNKNOWN_SECONDS: i64 = 60;

pub(crate) struct Caches {
    identities: Cache<KeyHash, Arc<Identity>>,
    terms: Cache<Account, Arc<Terms>>,
    unknown: Cache<KeyHash, Timestamp>,
}

impl Caches {
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            identities: Cache::new(entries_max),
            terms: Cache::new(entries_max),
            unknown: Cache::new(UNKNOWN_MAX),
        }
    }

    pub(crate) fn identity(&self, hash: &KeyHash) -> Option<Arc<Identity>> {
        self.identities.get(hash)
    }

    /// Takes in what was read of a key: whom it speaks for, or that nobody knows it.
    pub(crate) fn note_identity(&self, hash: KeyHash, identity: Option<&Arc<Identity>>) {
        match identity {
            Some(identity) => self.identities.insert(hash, Arc::clone(identity)),
            None => {
                self.identities.remove(&hash);
            }
        }
    }

    pub(crate) fn note_unknown(&self, hash: KeyHash, now: Timestamp) {
        self.unknown.insert(hash, now);
    }

    pub(crate) fn is_unknown(&self, hash: &KeyHash, now: Timestamp) -> bool {
        self.unknown.get(hash).is_some_and(|at| now < at.plus_seconds(UNKNOWN_SECONDS) && at <= now)
    }

    pub(crate) fn terms(&self, account: &Account) -> Option<Arc<Terms>> {
        self.terms.get(account)
    }

    pub(crate) fn note_terms(&self, account: &Account, terms: Option<&Arc<Terms>>) {
        match terms {
            Some(terms) => self.terms.insert(account.clone(), Arc::clone(terms)),
            None => {
                self.terms.remove(account);
            }
        }
    }
}
