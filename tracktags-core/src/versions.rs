//! Configuration versions as a writer knows them (`version-checked-in-batch`).
//!
//! A business's version and its recent changes are read when its first demand comes, and again after any commit of
//! anybody else or of a configuration job: then everything known is in doubt until it was read anew.

use crate::accounts::{Account, BusinessId, CustomerId};
use crate::batch::Versions;
use crate::demand::Operation;
use crate::error::StoreError;
use crate::group_commit::Work;
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// Businesses known at most; beyond it the table starts anew.
const BUSINESSES_MAX: usize = 100_000;
/// Customers with a change noted for one business at most; beyond it all its knowledge becomes stale once.
const CUSTOMERS_MAX: usize = 50_000;

/// The changes of a business after a version.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Version and customer concerned (`None`: everybody), in order of versions.
    pub rows: Vec<(i64, Option<CustomerId>)>,
    /// Some are not there any more: everybody may be concerned.
    pub pruned: bool,
}

/// Where versions and changes are read.
pub trait ChangeSource {
    /// A business's version; 0 where nothing was ever configured.
    ///
    /// # Errors
    /// Whatever the store says.
    fn version(&mut self, business: &BusinessId) -> Result<i64, StoreError>;

    /// What changed after `since`.
    ///
    /// # Errors
    /// Whatever the store says.
    fn changes(&mut self, business: &BusinessId, since: i64) -> Result<Changes, StoreError>;
}

/// What is known of each business.
#[derive(Debug, Default)]
pub struct VersionTable {
    known: HashMap<BusinessId, Known, RandomState>,
    /// Grows whenever everything known is in doubt.
    epoch: u64,
}

#[derive(Debug)]
struct Known {
    epoch: u64,
    version: i64,
    /// Knowledge older than this is stale for every account.
    floor: i64,
    customers: HashMap<CustomerId, i64, RandomState>,
}

impl VersionTable {
    /// Somebody else, or a job of ours, changed configuration.
    pub fn doubt(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.known.len() > BUSINESSES_MAX {
            self.known.clear();
        }
    }

    /// The version at which a business is known, if it is.
    #[must_use]
    pub fn version_of(&self, business: &BusinessId) -> Option<i64> {
        self.known.get(business).map(|known| known.version)
    }

    /// Makes sure that every business with a demand among those waiting is known as of now.
    ///
    /// # Errors
    /// Whatever the source says.
    pub fn learn(&mut self, waiting: &[impl Work], source: &mut impl ChangeSource) -> Result<(), StoreError> {
        let takes = waiting.iter().map(Work::operation).filter(|one| matches!(one, Operation::Take(_)));
        let mut learned = None;
        for business in takes.map(|one| &one.terms().account.business) {
            // Neighbours are mostly of one business.
            if learned != Some(business) {
                self.learn_one(business, source)?;
                learned = Some(business);
            }
        }
        Ok(())
    }

    fn learn_one(&mut self, business: &BusinessId, source: &mut impl ChangeSource) -> Result<(), StoreError> {
        let epoch = self.epoch;
        if let Some(known) = self.known.get_mut(business) {
            if known.epoch == epoch {
                return Ok(());
            }
            let version = source.version(business)?;
            if version != known.version {
                known.take_in(version, source.changes(business, known.version)?);
            }
            known.epoch = epoch;
            return Ok(());
        }
        // Changes are kept for a day; what was read before this node first met the business is taken as stale.
        let version = source.version(business)?;
        let known = Known { epoch, version, floor: version, customers: HashMap::default() };
        self.known.insert(business.clone(), known);
        Ok(())
    }
}

impl Known {
    fn take_in(&mut self, version: i64, since: Changes) {
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
