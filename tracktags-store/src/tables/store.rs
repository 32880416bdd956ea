//! The store's traits, but for the configuration's (`configuration`). What the engine does its own way is behind `Access`.
//!
//! Closures that read or change may run again, where the engine tries again what met somebody else.

use super::access::Access;
use super::audit::{self, Action};
use super::dialect::Conn;
use super::identify::Lane;
use super::{history, keys, rotate, terms, trail};
use crate::admission::Admission;
use crate::cache::Caches;
use crate::secrets::Secrets;
use std::sync::Arc;
use tracktags_core::accounts::{Account, CustomerId, Identity};
use tracktags_core::audit::{AuditQuery, AuditRecord, Author, Correction, Event};
use tracktags_core::batch::Outcome;
use tracktags_core::demand::Operation;
use tracktags_core::error::StoreError;
use tracktags_core::history::Hour;
use tracktags_core::keys::KeyHash;
use tracktags_core::limits::Terms;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{
    AccountUsage, AuditTrail, Claim, Clock, CreatedKey, HistoryQuery, KeyOwner, KeyRecord, KeyStore, Ledger,
    NewKey, Page, PageRequest, RotatedKey, Rotation, StoreFuture, TermsStore,
};

const KEYS: &[&str] = &["business_keys", "customer_keys"];

/// Steps of the sweep before the trail is read; more than these were changed by SQL at once, and follow later.
const SWEEPS_MAX: usize = 100;

/// The store of one node.
pub(crate) struct EngineStore {
    pub(crate) access: Access,
    pub(crate) identify: Lane,
    pub(crate) caches: Caches,
    pub(crate) secrets: Secrets,
    /// For what this node alone goes by: its caches.
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) admission: Admission,
}

impl EngineStore {
    /// A read in one snapshot, at the engine's now.
    pub(super) fn read<T: Send + 'static>(
        &self,
        read: impl FnMut(&mut Conn, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        Box::pin(self.access.read(read))
    }

    /// A change in a transaction of its own, with its row of the trail.
    pub(super) fn change<T: Send + 'static>(
        &self,
        by: Author,
        action: Action,
        mut change: impl FnMut(&mut Conn, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let secrets = self.secrets.clone();
        Box::pin(self.access.change(move |conn, now| audited(conn, now, &secrets, &by, action, &mut change)))
    }
}

/// A change and its row of the trail.
pub(super) fn audited<T>(
    conn: &mut Conn,
    now: Timestamp,
    secrets: &Secrets,
    by: &Author,
    action: Action,
    change: impl FnOnce(&mut Conn, Timestamp) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mark = trail::begin(conn)?;
    let done = change(conn, now)?;
    trail::note_change(conn, secrets, now, by, action, mark)?;
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

impl Ledger for EngineStore {
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
        Box::pin(self.access.usage(terms, place))
    }

    fn history(&self, query: HistoryQuery) -> StoreFuture<'_, Vec<Hour>> {
        self.read(move |conn, _| history::hours(conn, &query))
    }
}

impl KeyStore for EngineStore {
    fn cached_identity(&self, hash: &KeyHash) -> Option<Arc<Identity>> {
        self.caches.identity(hash, self.clock.now())
    }

    fn identify(&self, hash: KeyHash, claimed: Option<CustomerId>) -> StoreFuture<'_, Claim> {
        Box::pin(async move {
            let now = self.clock.now();
            let found = if self.caches.identity(&hash, now).is_some() {
                let secrets = self.secrets.clone();
                let read =
                    move |conn: &mut Conn, now| terms::identify(conn, now, &secrets, hash, claimed.as_ref());
                self.access
                    .read(read)
                    .await?
                    .map_or(Claim::Refused, |identity| Claim::Proved(Arc::new(identity)))
            } else if self.caches.is_unknown(&hash, now) {
                Claim::Unknown
            } else {
                self.identify.look(hash, claimed).await?
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
        self.change(by, Action::of("key.create", KEYS), move |conn, now| {
            keys::create_key(conn, now, &secrets, key.clone())
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
        self.change(by, Action::of("key.rotate", KEYS), move |conn, now| {
            rotate::rotate_key(conn, now, &secrets, owner.clone(), &rotation)
        })
    }

    fn revoke_key(&self, by: Author, owner: KeyOwner, id_or_name: String) -> StoreFuture<'_, KeyRecord> {
        self.change(by, Action::of("key.revoke", KEYS), move |conn, now| {
            keys::revoke_key(conn, now, &owner, &id_or_name)
        })
    }
}

impl TermsStore for EngineStore {
    fn cached_terms(&self, account: &Account) -> Option<Arc<Terms>> {
        self.caches.terms(account)
    }

    fn read_terms(&self, account: Account) -> StoreFuture<'_, Option<Arc<Terms>>> {
        Box::pin(async move {
            let wanted = account.clone();
            let found = self.access.read(move |conn, now| terms::terms(conn, now, &wanted)).await?;
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
                .access
                .read(move |conn, now| {
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

impl AuditTrail for EngineStore {
    fn note(&self, by: Author, event: Event) -> StoreFuture<'_, ()> {
        let secrets = self.secrets.clone();
        Box::pin(
            self.access.change(move |conn, now| audit::note_event(conn, &secrets, now, &by, &event, None)),
        )
    }

    fn audit_logs(&self, query: AuditQuery) -> StoreFuture<'_, Page<AuditRecord>> {
        Box::pin(async move {
            for _step in 0..SWEEPS_MAX {
                let secrets = self.secrets.clone();
                if !self.access.change(move |conn, _| trail::sweep(conn, &secrets)).await? {
                    break;
                }
            }
            let secrets = self.secrets.clone();
            self.access.read(move |conn, _| audit::page(conn, &secrets, &query)).await
        })
    }
}
