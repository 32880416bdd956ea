//! Versions and changes as a batch read them under its locks.

use std::collections::HashMap;
use tracktags_core::accounts::{BusinessId, CustomerId};
use tracktags_core::error::StoreError;
use tracktags_core::versions::{ChangeSource, Changes};

/// Business, its version, and one change after the version known: its version, and whom it concerns.
pub(super) type Row = (String, i64, Option<i64>, Option<String>);

/// What was read of each business.
#[derive(Debug, Default)]
pub(super) struct Read(HashMap<String, OfBusiness>);

#[derive(Debug, Default)]
struct OfBusiness {
    version: i64,
    changes: Vec<(i64, Option<CustomerId>)>,
}

impl Read {
    pub(super) fn new(rows: Vec<Row>) -> Self {
        let mut read = HashMap::new();
        for (business, version, change, customer) in rows {
            let known: &mut OfBusiness = read.entry(business).or_default();
            known.version = version;
            // An id that is none concerns nobody who could be asked for; everybody is the safe reading.
            let customer = customer.and_then(|id| CustomerId::parse(&id).ok());
            known.changes.extend(change.map(|at| (at, customer)));
        }
        Self(read)
    }

    fn of(&self, business: &BusinessId) -> Result<&OfBusiness, StoreError> {
        let missing = || StoreError::Unavailable("a business's version was not read".into());
        self.0.get(business.as_str()).ok_or_else(missing)
    }
}

impl ChangeSource for Read {
    fn version(&mut self, business: &BusinessId) -> Result<i64, StoreError> {
        self.of(business).map(|known| known.version)
    }

    fn changes(&mut self, business: &BusinessId, since: i64) -> Result<Changes, StoreError> {
        let known = self.of(business)?;
        let rows: Vec<_> = known.changes.iter().filter(|(at, _)| *at > since).cloned().collect();
        // Every step of the version has its row; where rows are missing it is not known what happened.
        let complete =
            i64::try_from(rows.len()).is_ok_and(|rows| known.version.checked_sub(since) == Some(rows));
        Ok(Changes { rows, pruned: !complete })
    }
}
