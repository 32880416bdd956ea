//! ① ② ③ What the node knows of a caller and its account, and when all of it is read afresh.
//!
//! What is cached may be out of date. A batch says so (`Stale`), and a refusal that rests on it is not told before it
//! was confirmed by a fresh read, from the key on.

use super::subject::{Subject, account_of};
use crate::app::App;
use crate::error::{ApiError, overloaded};
use crate::identity::Caller;
use std::sync::Arc;
use tracktags_core::accounts::Account;
use tracktags_core::demand::{Ask, Demand};
use tracktags_core::error::Entity;
use tracktags_core::limits::Terms;

/// How often a request reads afresh because its configuration moved meanwhile.
const FRESH_READS_MAX: u32 = 3;

/// Whose key it is, for which account, and how fresh that knowledge is.
pub(super) struct Known {
    caller: Caller,
    /// The account, where it is another than the key's own.
    named: Option<Account>,
    /// Read afresh with the identity; else the node's own terms are good enough.
    terms: Option<Arc<Terms>>,
    fresh_reads: u32,
}

impl Known {
    pub(super) async fn of(app: &App, caller: Caller, subject: &Subject) -> Result<Self, ApiError> {
        match account_of(&caller.identity, subject) {
            Ok(named) => Ok(Self { caller, named, terms: None, fresh_reads: 0 }),
            Err(refusal) => Err(caller.refused(app, refusal).await),
        }
    }

    fn account(&self) -> &Account {
        self.named.as_ref().unwrap_or(&self.caller.identity.account)
    }

    /// Prepares by what is known, then submits to the ledger. What the node knew may be out of date: then `submit`
    /// answers `None`, or `prepare` refuses, and everything is read afresh and tried again.
    pub(super) async fn decide<P, T>(
        mut self,
        app: &App,
        prepare: impl Fn(Arc<Terms>) -> Result<P, ApiError>,
        submit: impl AsyncFn(&Self, P) -> Result<Option<T>, ApiError>,
    ) -> Result<T, ApiError> {
        loop {
            match self.terms(app).await.and_then(&prepare) {
                Ok(prepared) => {
                    if let Some(decided) = submit(&self, prepared).await? {
                        return Ok(decided);
                    }
                }
                Err(refusal) if self.is_fresh() => return Err(refusal),
                Err(_) => {}
            }
            if self.fresh_reads == FRESH_READS_MAX {
                return Err(overloaded());
            }
            self.read_afresh(app).await?;
        }
    }

    /// Whether nothing of it is older than the request.
    fn is_fresh(&self) -> bool {
        self.terms.is_some()
    }

    async fn read_afresh(&mut self, app: &App) -> Result<(), ApiError> {
        let claimed = self.caller.identity.account.customer.clone();
        let read = app.store.read_afresh(self.caller.hash, claimed, self.account().clone()).await?;
        let (identity, terms) = read.ok_or_else(ApiError::invalid_key)?;
        self.terms = Some(terms.ok_or_else(|| self.no_account())?);
        self.caller.identity = identity;
        self.fresh_reads = self.fresh_reads.saturating_add(1);
        Ok(())
    }

    /// The account is not there: to a business its customer is unknown, to a customer its key is bad.
    fn no_account(&self) -> ApiError {
        match (&self.caller.identity.account.customer, &self.account().customer) {
            (None, Some(_)) => ApiError::not_found(Entity::Customer),
            _ => ApiError::invalid_key(),
        }
    }

    async fn terms(&self, app: &App) -> Result<Arc<Terms>, ApiError> {
        if let Some(fresh) = &self.terms {
            return Ok(Arc::clone(fresh));
        }
        if let Some(cached) = app.store.cached_terms(self.account()) {
            return Ok(cached);
        }
        app.store.read_terms(self.account().clone()).await?.ok_or_else(|| self.no_account())
    }

    /// ④ What is asked of the ledger, and on what it rests.
    pub(super) fn demand(&self, terms: &Arc<Terms>, ask: Ask, takes: bool) -> Demand {
        let identity = &self.caller.identity;
        Demand {
            terms: Arc::clone(terms),
            ask,
            version: identity.version.min(terms.version),
            key_expires_at: identity.expires_at,
            takes,
        }
    }
}
