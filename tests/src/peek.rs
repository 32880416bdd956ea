//! A look at the counters of a database in use: its ledger, followed through a connection that cannot write, so that the
//! server's own word is not needed.

use crate::upstream::{Arrival, Watcher};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tracktags_core::CustomerId;
use tracktags_store::{LedgerReader, OpenError};

/// Counters by customer. It expects one metric.
pub struct Peek {
    reader: LedgerReader,
    counted: HashMap<String, i64>,
}

impl Peek {
    /// Opens a database that is there, by its store URL.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(url: &str) -> Result<Self, OpenError> {
        Ok(Self { reader: LedgerReader::open(url)?, counted: HashMap::new() })
    }

    /// What is counted for a customer now, by all that has committed.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn counted(&mut self, customer: &str) -> Result<i64, OpenError> {
        let counted = &mut self.counted;
        self.reader.read(&mut |line| {
            let customer = line.entry.counter.account().customer.as_ref().map_or("", CustomerId::as_str);
            counted.insert(customer.to_owned(), line.entry.state.level.units);
        })?;
        Ok(self.counted.get(customer).copied().unwrap_or_default())
    }
}

/// What was seen at the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Arrivals.
    pub arrived: usize,
    /// Arrivals at which fewer units were counted than the target had seen and keeps.
    pub late: usize,
    /// The first of them, or why nothing could be read.
    pub first: Option<String>,
}

/// INV4, checked at every arrival: what is counted is at least what was answered so that it is kept, and what is still
/// open, this call included.
pub struct PeekingWatcher(Mutex<State>);

struct State {
    peek: Peek,
    /// K + F of each customer.
    owed: HashMap<String, i64>,
    sight: Sight,
}

impl PeekingWatcher {
    /// Looks at what `peek` shows.
    #[must_use]
    pub fn new(peek: Peek) -> Self {
        Self(Mutex::new(State { peek, owed: HashMap::new(), sight: Sight::default() }))
    }

    /// What was seen so far.
    #[must_use]
    pub fn sight(&self) -> Sight {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).sight.clone()
    }
}

impl Watcher for PeekingWatcher {
    fn arrives(&self, arrival: &Arrival) {
        // Held until the counter was read: no answer releases a unit meanwhile that is still owed here.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { peek, owed, sight } = &mut *state;
        let owed = owed.entry(arrival.customer().to_owned()).or_default();
        *owed += 1;
        sight.arrived += 1;
        let shown = match peek.counted(arrival.customer()) {
            Ok(counted) if counted >= *owed => return,
            Ok(counted) => format!("counted {counted}, owed {owed}"),
            Err(error) => error.to_string(),
        };
        sight.late += 1;
        sight
            .first
            .get_or_insert_with(|| format!("arrival {} of {}: {shown}", arrival.number, arrival.customer()));
    }

    fn answers(&self, arrival: &Arrival, is_kept: bool) {
        if !is_kept {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *state.owed.entry(arrival.customer().to_owned()).or_default() -= 1;
        }
    }
}
