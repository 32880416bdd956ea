//! Configuration versions as the writer knows them (`version-checked-in-batch`).
//!
//! A business's version and its recent changes are read when its first demand comes, and again after any commit of
//! another connection or of a configuration job: then everything known is in doubt until it was read anew.

use super::changes;
use diesel::SqliteConnection;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use tracktags_core::accounts::{Account, BusinessId, CustomerId};
use tracktags_core::batch::Versions;
use tracktags_core::error::StoreError;

/// Businesses known at most; beyond it the table starts anew.
const BUSINESSES_MAX: usize = 100_000;

#[derive(Default)]
pub(crate) struct VersionTable {
    known: HashMap<BusinessId, Known, RandomState>,
    /// Grows whenever everything known is in doubt.
    epoch: u64,
}

struct Known {
    epoch: u64,
    version: i64,
    /// Knowledge older than this is stale for every account.
    floor: i64,
    customers: HashMap<CustomerId, i64, RandomState>,
}

/// Customers with a change noted for one business at most; beyond it all its knowledge becomes stale once.
const CUSTOMERS_MAX: usize = 50_000;

impl VersionTable {
    /// Another connection, or a job of ours, changed configuration.
    pub(crate) fn doubt(&mut self) {
        self.epoch += 1;
        if self.known.len() > BUSINESSES_MAX {
            self.known.clear();
        }
    }

    /// Makes sure the business is known as of now.
    pub(crate) fn learn(
        &mut self,
        conn: &mut SqliteConnection,
        business: &BusinessId,
    ) -> Result<(), StoreError> {
        let epoch = self.epoch;
        if let Some(known) = self.known.get_mut(business) {
            if known.epoch == epoch {
                return Ok(());
            }
            let version = changes::version(conn, business)?;
            if version != known.version {
                known.take_in(version, changes::since(conn, business, known.version)?);
            }
            known.epoch = epoch;
            return Ok(());
        }
        // Changes are kept for a day; what was read before this node first met the business is taken as stale.
        let version = changes::version(conn, business)?;
        let known = Known { epoch, version, floor: version, customers: HashMap::default() };
        self.known.insert(business.clone(), known);
        Ok(())
    }
}

impl Known {
    fn take_in(&mut self, version: i64, since: changes::Changes) {
        if since.pruned {
            self.floor = version;
        }
        for (at, customer) in since.rows {
            match customer {
                Some(customer) => {
                    self.customers.insert(customer, at);
                }
                None => self.floor = self.floor.max(at),
            }
        }
        if self.customers.len() > CUSTOMERS_MAX {
            self.customers.clear();
            self.floor = version;
        }
        self.version = version;
    }
}

impl Versions for VersionTable {
    fn current(&self, account: &Account, version: i64) -> Option<i64> {
        let known = self.known.get(&account.business).filter(|known| known.epoch == self.epoch)?;
        let changed = account.customer.as_ref().and_then(|customer| known.customers.get(customer));
        let good = version >= known.floor && changed.is_none_or(|changed| version >= *changed);
        good.then_some(known.version)
    }
}
