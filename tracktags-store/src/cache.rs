//! ②③ Identities and terms as last read, each with the configuration version it was read at. A batch compares that
//! version, so what is cached may be old but never decides wrongly.

use foldhash::fast::RandomState;
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tracktags_core::accounts::{Account, BusinessId, Identity};
use tracktags_core::keys::KeyHash;
use tracktags_core::limits::{Attachment, Limit, Terms};
use tracktags_core::time::Timestamp;

/// Unknown hashes remembered at most, and for how long: a key made later cannot have a hash asked for before.
const UNKNOWN_MAX: usize = 100_000;
const UNKNOWN_SECONDS: i64 = 60;

/// Kinds of terms, and businesses, that new entries share with at most.
const ALIKE_MAX: usize = 10_000;

/// Uses that wait to be written at most; what comes beyond is not noted.
const USES_WAITING_MAX: usize = 100_000;

/// Keys that were used, each with the latest time, until they are written down.
#[derive(Default)]
pub(crate) struct KeyUses(Mutex<HashMap<Arc<str>, (BusinessId, Timestamp)>>);

impl KeyUses {
    fn note(&self, identity: &Identity, now: Timestamp) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < USES_WAITING_MAX {
            waiting.insert(Arc::clone(&identity.key_id), (identity.account.business.clone(), now));
        }
    }

    /// Takes out so many at most.
    pub(crate) fn take(&self, count_max: usize) -> Vec<(Arc<str>, BusinessId, Timestamp)> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<_> = waiting.keys().take(count_max).cloned().collect();
        let taken = keys.into_iter().filter_map(|key| {
            let (business, at) = waiting.remove(&key)?;
            Some((key, business, at))
        });
        taken.collect()
    }
}

/// An identity, and the minute in which it was last asked for.
struct Known {
    identity: Arc<Identity>,
    used: AtomicI64,
}

const fn minute_of(now: Timestamp) -> i64 {
    now.as_seconds().div_euclid(60)
}

/// Terms by what many accounts have alike: the latest of each kind, for the next one to share with.
type Alike = HashMap<(BusinessId, Option<Arc<str>>, Option<u64>), Arc<Terms>, RandomState>;

const fn is_of_one(limit: &Limit) -> bool {
    matches!(limit.attachment, Attachment::Customer(_))
}

pub(crate) struct Caches {
    identities: Cache<KeyHash, Arc<Known>>,
    uses: Arc<KeyUses>,
    terms: Cache<Account, Arc<Terms>>,
    unknown: Cache<KeyHash, Timestamp>,
    alike: Mutex<Alike>,
    businesses: Cache<BusinessId, BusinessId>,
}

impl Caches {
    pub(crate) fn new(entries_max: usize, uses: Arc<KeyUses>) -> Self {
        Self {
            uses,
            identities: Cache::new(entries_max),
            terms: Cache::new(entries_max),
            unknown: Cache::new(UNKNOWN_MAX),
            alike: Mutex::default(),
            businesses: Cache::new(ALIKE_MAX),
        }
    }

    pub(crate) fn identity(&self, hash: &KeyHash, now: Timestamp) -> Option<Arc<Identity>> {
        let known = self.identities.get(hash)?;
        let minute = minute_of(now);
        if known.used.load(Ordering::Relaxed) != minute {
            known.used.store(minute, Ordering::Relaxed);
            self.uses.note(&known.identity, now);
        }
        Some(Arc::clone(&known.identity))
    }

    /// Takes in what was read of a key: whom it speaks for, or that nobody knows it.
    pub(crate) fn note_identity(&self, hash: KeyHash, identity: Option<&Arc<Identity>>, now: Timestamp) {
        match identity {
            Some(identity) => {
                let used = AtomicI64::new(minute_of(now));
                self.uses.note(identity, now);
                let identity = Arc::new(self.sharing(identity));
                self.identities.insert(hash, Arc::new(Known { identity, used }));
            }
            None => {
                self.identities.remove(&hash);
            }
        }
    }

    /// The identity, with its business's id kept once for all of them.
    fn sharing(&self, identity: &Identity) -> Identity {
        let mut identity = identity.clone();
        let business = &mut identity.account.business;
        match self.businesses.get(business) {
            Some(known) => *business = known,
            None => self.businesses.insert(business.clone(), business.clone()),
        }
        identity
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

    /// Takes in the terms that were read of an account; nobody's where it is not there.
    pub(crate) fn note_terms(&self, account: &Account, terms: Option<Terms>) -> Option<Arc<Terms>> {
        let Some(terms) = terms else {
            self.terms.remove(account);
            return None;
        };
        let terms = self.sharing_terms(terms);
        self.terms.insert(terms.account.clone(), Arc::clone(&terms));
        Some(terms)
    }

    fn sharing_terms(&self, terms: Terms) -> Arc<Terms> {
        let cut = terms.limits.get(0).map(|entry| entry.cut);
        let kind = (terms.account.business.clone(), terms.plan_in_force.clone(), cut);
        let mut alike = self.alike.lock().unwrap_or_else(PoisonError::into_inner);
        let terms = match alike.get(&kind) {
            Some(others) => terms.sharing(others),
            None => terms,
        };
        let terms = Arc::new(terms);
        if alike.len() >= ALIKE_MAX {
            alike.clear();
        }
        // What holds for one customer only is shared with nobody.
        if terms.limits.metrics().all(|entry| entry.limits.iter().all(|limit| !is_of_one(limit))) {
            alike.insert(kind, Arc::clone(&terms));
        }
        terms
    }
}
