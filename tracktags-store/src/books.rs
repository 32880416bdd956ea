//! The books, checked: every state in the ledger follows from the one before it, numbers have no gaps, and counters and
//! history are what the ledger says. Engines hand in what they read of one snapshot; nothing here reads.

use crate::{OpenError, database_path, is_postgres, postgres, sqlite};
use std::collections::{BTreeMap, HashMap};
use tracktags_core::error::StoreError;
use tracktags_core::history::Gain;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, Entry};

/// Differences named at most; the rest is only counted.
const DIFFERENCES_MAX: usize = 100;

/// What `verify` found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// Counters compared.
    pub counters: u64,
    /// Entries followed.
    pub entries: u64,
    /// Batches read.
    pub batches: u64,
    /// What does not agree, in words; empty when the books do.
    pub differences: Vec<String>,
}

/// An entry of the ledger, and the batch that it committed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerLine {
    /// The batch's number.
    pub batch: i64,
    /// The entry.
    pub entry: Entry,
}

/// Checks the books of a database, which may be in use.
///
/// # Errors
/// [`OpenError`] when it cannot be read. Differences are no error: they are in the report.
pub fn verify(url: &str) -> Result<VerifyReport, OpenError> {
    if is_postgres(url) { postgres::verify::verify(url) } else { sqlite::verify::verify(database_path(url)?) }
}

/// Hands out every entry the ledger keeps, in order.
///
/// # Errors
/// [`OpenError`] when it cannot be read.
pub fn read_ledger(url: &str, each: &mut dyn FnMut(LedgerLine)) -> Result<(), OpenError> {
    LedgerReader::open(url)?.read(each)
}

/// Follows the ledger of a database in use, over a connection that cannot write.
pub struct LedgerReader(Follower);

enum Follower {
    Sqlite(Box<sqlite::verify::Follower>),
    Postgres(Box<postgres::verify::Follower>),
}

impl LedgerReader {
    /// Opens a database that is there.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be opened.
    pub fn open(url: &str) -> Result<Self, OpenError> {
        Ok(Self(if is_postgres(url) {
            Follower::Postgres(Box::new(postgres::verify::Follower::open(url)?))
        } else {
            Follower::Sqlite(Box::new(sqlite::verify::Follower::open(database_path(url)?)?))
        }))
    }

    /// Hands out every entry that was committed since the last time, in order; the first time all that are kept.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be read.
    pub fn read(&mut self, each: &mut dyn FnMut(LedgerLine)) -> Result<(), OpenError> {
        match &mut self.0 {
            Follower::Sqlite(follower) => follower.read(each),
            Follower::Postgres(follower) => follower.read(each),
        }
    }
}

/// Where an entry stands besides the ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Its state, or that of a later one, is in the counter's row.
    pub(crate) in_row: bool,
    /// Its units are in the history.
    pub(crate) in_history: bool,
}

/// What the ledger says of one counter.
struct Account {
    /// The number of the first entry that is kept. The whole history is there where that is 1.
    opening: u64,
    /// The state after the last entry followed; `None` before the first.
    last: Option<Counter>,
    /// The last state that its row must hold; `None` while nothing kept must be there.
    row: Option<Counter>,
    history: BTreeMap<Timestamp, Gain>,
    /// Read before those that come before them, by number: several nodes' batches are read in no certain order.
    early: BTreeMap<u64, (i64, Entry, Standing)>,
}

/// The books while they are read.
#[derive(Default)]
pub(crate) struct Books {
    accounts: HashMap<CounterKey, Account>,
    batches: u64,
    entries: u64,
    found: Vec<String>,
}

impl Books {
    /// One batch more was read.
    pub(crate) const fn count_batch(&mut self) {
        self.batches = self.batches.saturating_add(1);
    }

    /// An entry will be followed, perhaps before others that come before it: an account opens with its least number.
    pub(crate) fn expect(&mut self, entry: &Entry) {
        match self.accounts.get_mut(&entry.counter) {
            Some(account) => account.opening = account.opening.min(entry.number),
            None => drop(self.accounts.insert(entry.counter.clone(), Account::opening_at(entry.number))),
        }
    }

    /// Follows an entry. One that was not expected opens its counter's account if it is the first.
    pub(crate) fn follow(&mut self, batch: i64, entry: Entry, standing: Standing) {
        self.entries = self.entries.saturating_add(1);
        if !self.accounts.contains_key(&entry.counter) {
            self.expect(&entry);
        }
        let Some(account) = self.accounts.get_mut(&entry.counter) else { return };
        if entry.number > account.next() {
            account.early.insert(entry.number, (batch, entry, standing));
            return;
        }
        account.go_on(batch, &entry, standing, &mut self.found);
        while let Some(next) = account.early.remove(&account.next()) {
            let (batch, entry, standing) = next;
            account.go_on(batch, &entry, standing, &mut self.found);
        }
    }

    /// Compares with the counters' rows, and with the history of a counter: units by hour.
    pub(crate) fn finish(
        mut self,
        rows: &HashMap<CounterKey, Counter>,
        mut history: impl FnMut(&CounterKey) -> Result<HashMap<i64, i64>, StoreError>,
    ) -> Result<VerifyReport, StoreError> {
        let found = &mut self.found;
        for (key, account) in &mut self.accounts {
            for (_, (batch, entry, standing)) in std::mem::take(&mut account.early) {
                account.go_on(batch, &entry, standing, found);
            }
            if let Some(state) = &account.row
                && rows.get(key) != Some(state)
            {
                found.push(format!("{key:?}: the counter's row is not the state of its last folded entry"));
            }
            if account.opening == 1 {
                account.compare_history(key, &history(key)?, found);
            }
        }
        let more = found.len().saturating_sub(DIFFERENCES_MAX);
        found.truncate(DIFFERENCES_MAX);
        if more > 0 {
            found.push(format!("and {more} more"));
        }
        Ok(VerifyReport {
            counters: u64::try_from(self.accounts.len()).unwrap_or(u64::MAX),
            entries: self.entries,
            batches: self.batches,
            differences: self.found,
        })
    }
}

impl Account {
    const fn opening_at(opening: u64) -> Self {
        Self { opening, last: None, row: None, history: BTreeMap::new(), early: BTreeMap::new() }
    }

    /// The number of the entry that comes next.
    fn next(&self) -> u64 {
        self.last.map_or(self.opening, |last| last.entry.saturating_add(1))
    }

    fn go_on(&mut self, batch: i64, entry: &Entry, standing: Standing, found: &mut Vec<String>) {
        let (key, number) = (&entry.counter, entry.number);
        match &self.last {
            Some(last) if !last.leads_to(entry) => {
                found.push(format!(
                    "{key:?}: entry {number} (batch {batch}) does not follow from the one before"
                ));
            }
            None if number == 1 && !Counter::default().leads_to(entry) => {
                found.push(format!("{key:?}: entry 1 (batch {batch}) does not follow from nothing"));
            }
            _ => {}
        }
        self.take_in(entry, standing);
    }

    fn take_in(&mut self, entry: &Entry, standing: Standing) {
        self.last = Some(entry.state);
        if standing.in_row {
            self.row = Some(entry.state);
        }
        if standing.in_history {
            self.history.entry(entry.bucket).or_default().add(entry);
        }
    }

    fn compare_history(&self, key: &CounterKey, kept: &HashMap<i64, i64>, found: &mut Vec<String>) {
        for (bucket, gain) in &self.history {
            let units = kept.get(&bucket.as_seconds()).copied().unwrap_or_default();
            if units != gain.units {
                found.push(format!("{key:?}: history of {bucket} says {units}, the ledger {}", gain.units));
            }
        }
    }
}
