//! ⑤ The batch on PostgreSQL: what a lane does in each step of [`group_commit`], in two round trips.
//!
//! The first begins, creates counters that are missing, locks all in one key order (`locks-in-key-order`), then reads
//! versions and changes without locking them, then the clock; each is a statement of its own, since a statement sees
//! what was committed when it began. The second writes counters and ledger, and commits. Between them everything is
//! decided in memory. The transaction holds an advisory lock of its lane, so that whoever looks for its marker knows
//! when it can no longer come (docs/RELIABILITY.md, "The batch").

use super::error::{is_from_server, is_lock_timeout, store_error};
use super::lane::{Lane, Opened, RETRY_WAIT, UNKNOWN_WAIT};
use super::statement::{Bind, statement};
use super::versions::Read;
use crate::admission::{Answer, Waiting};
use crate::ledger::{pack_entries, seal_row, unpack_row};
use crate::mailbox::Deliveries;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::future::join3;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use tracktags_core::accounts::BusinessId;
use tracktags_core::batch::Counters;
use tracktags_core::error::StoreError;
use tracktags_core::group_commit::{self, CommitFault, Decided, Fate, LockFault, Steps, Work};
use tracktags_core::limits::Terms;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, CounterMap, Taken};

const CREATE: &str = "INSERT INTO counters (business_id, customer_id, metric_name, state) \
    SELECT b, c, m, s FROM unnest(?, ?, ?, ?) AS k(b, c, m, s) \
    ORDER BY b COLLATE \"C\", c COLLATE \"C\", m COLLATE \"C\" ON CONFLICT DO NOTHING";
const LOCK: &str = "SELECT r.business_id, r.customer_id, r.metric_name, r.state \
    FROM unnest(?, ?, ?) AS k(b, c, m) JOIN counters AS r ON r.business_id = k.b COLLATE \"C\" \
        AND r.customer_id = k.c COLLATE \"C\" AND r.metric_name = k.m COLLATE \"C\" \
    ORDER BY r.business_id, r.customer_id, r.metric_name FOR UPDATE OF r";
/// As `LOCK`, but leaves out what somebody holds.
const LOCK_FREE: &str = "SELECT r.business_id, r.customer_id, r.metric_name, r.state \
    FROM unnest(?, ?, ?) AS k(b, c, m) JOIN counters AS r ON r.business_id = k.b COLLATE \"C\" \
        AND r.customer_id = k.c COLLATE \"C\" AND r.metric_name = k.m COLLATE \"C\" \
    ORDER BY r.business_id, r.customer_id, r.metric_name FOR UPDATE OF r SKIP LOCKED";
const VERSIONS: &str = "SELECT k.b, coalesce(v.version, 0), c.version, c.customer_id \
    FROM unnest(?, ?) AS k(b, since) LEFT JOIN config_versions AS v ON v.business_id = k.b COLLATE \"C\" \
    LEFT JOIN LATERAL (SELECT version, customer_id FROM config_changes \
        WHERE business_id = k.b COLLATE \"C\" AND version > k.since ORDER BY version LIMIT 10000) AS c ON true \
    ORDER BY k.b, c.version";
const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
const UPDATE: &str = "UPDATE counters AS r SET state = k.s FROM unnest(?, ?, ?, ?) AS k(b, c, m, s) \
    WHERE r.business_id = k.b COLLATE \"C\" AND r.customer_id = k.c COLLATE \"C\" AND r.metric_name = k.m COLLATE \"C\"";
const APPEND: &str = "INSERT INTO usage_ledger (boot, lane, batch, written_at, open_calls, open_units, entries) \
    VALUES (?, ?::int, ?, ?, ?, ?, ?)";
const MARKER: &str = "SELECT EXISTS (SELECT 1 FROM usage_ledger WHERE boot = ? AND lane = ?::int AND batch = ?)";
const TRY_LANE: &str = "SELECT pg_try_advisory_xact_lock(?)";

type CounterRow = (Text, Text, Text, Binary);
type VersionRow = (Text, BigInt, Nullable<BigInt>, Nullable<Text>);
/// A row of the first, as it is read.
type FoundCounter = (String, String, String, Vec<u8>);

/// The names of counters, column by column, as statements take them.
#[derive(Default)]
pub(super) struct Names<'a> {
    pub(super) businesses: Vec<&'a str>,
    pub(super) customers: Vec<&'a str>,
    pub(super) metrics: Vec<&'a str>,
}

impl<'a> FromIterator<&'a CounterKey> for Names<'a> {
    fn from_iter<I: IntoIterator<Item = &'a CounterKey>>(keys: I) -> Self {
        let mut names = Self::default();
        for key in keys {
            let [business, customer, metric] = names_of(key);
            names.businesses.push(business);
            names.customers.push(customer);
            names.metrics.push(metric);
        }
        names
    }
}

impl Names<'_> {
    pub(super) fn binds(&self) -> [Bind<'_>; 3] {
        [Bind::Texts(&self.businesses), Bind::Texts(&self.customers), Bind::Texts(&self.metrics)]
    }

    pub(super) fn binds_with<'b>(&'b self, states: &'b [&'b [u8]]) -> [Bind<'b>; 4] {
        let [businesses, customers, metrics] = self.binds();
        [businesses, customers, metrics, Bind::Blobs(states)]
    }
}

/// A counter's names as its row has them; no customer is the business's own account.
pub(super) fn names_of(key: &CounterKey) -> [&str; 3] {
    let account = key.account();
    let customer = account.customer.as_ref().map_or("", |customer| customer.as_str());
    [account.business.as_str(), customer, key.metric().as_str()]
}

/// What a batch is to write.
#[derive(Default)]
pub(super) struct Pending {
    entries: Vec<u8>,
    at: Timestamp,
    states: BTreeMap<CounterKey, Vec<u8>>,
}

/// The counters as a batch finds them: those it has locked.
struct Locked<'a> {
    opened: &'a Opened,
    holds: &'a crate::admission::Holds,
}

impl Counters for Locked<'_> {
    fn load(&mut self, key: &CounterKey) -> Result<Counter, StoreError> {
        self.opened.counters.get(key).copied().ok_or_else(|| StoreError::Unavailable("a counter is not locked".into()))
    }

    fn held(&self, key: &CounterKey) -> i64 {
        self.holds.of(key)
    }
}

impl Lane {
    /// The first round trip.
    async fn open(&mut self, waiting: &[Waiting]) -> Result<(), Fault> {
        let keys: BTreeSet<&CounterKey> = waiting.iter().flat_map(|one| one.operation.counters()).collect();
        let businesses: BTreeSet<&BusinessId> =
            waiting.iter().map(|one| &one.operation.terms().account.business).collect();
        self.connected().await.map_err(Fault::Other)?;
        self.batch = self.next_batch;
        self.next_batch = self.next_batch.saturating_add(1);
        let unknown: Vec<&CounterKey> = keys.iter().copied().filter(|key| !self.known.contains(*key)).collect();
        let since: Vec<i64> = businesses.iter().map(|business| self.versions.known(business)).collect();
        let businesses: Vec<&str> = businesses.into_iter().map(BusinessId::as_str).collect();
        let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({})", self.key);
        let Some(conn) = &self.conn else { return Err(Fault::Other(lost())) };
        let together = self.is_warm;
        let (counters, versions, now) =
            read_locked(conn, together, &begin, &keys, &unknown, &businesses, &since).await?;
        let mut opened = Opened { now: Timestamp::from_micros(now), counters, read: Read::new(versions) };
        let missing: Vec<&CounterKey> =
            keys.iter().copied().filter(|key| !opened.counters.contains_key(*key)).collect();
        if !missing.is_empty() {
            // Known, and gone: its business was purged, and is back.
            create(conn, &missing).await?;
            opened.counters.extend(lock_counters(conn, LOCK, &missing).await?);
        }
        self.is_warm = true;
        self.opened = Some(opened);
        Ok(())
    }

    /// The places of all work of businesses with a counter that somebody holds.
    async fn blocked(&mut self, waiting: &[Waiting]) -> Result<Vec<usize>, StoreError> {
        self.roll_back().await;
        self.connected().await?;
        let keys: BTreeSet<&CounterKey> = waiting.iter().flat_map(|one| one.operation.counters()).collect();
        let keys: Vec<&CounterKey> = keys.into_iter().collect();
        let Some(conn) = &self.conn else { return Err(lost()) };
        SimpleAsyncConnection::batch_execute(&mut &*conn, "BEGIN").await.map_err(store_error)?;
        // What comes back neither locked nor readable, another's row that is not committed yet, is not among them.
        let free = lock_counters(conn, LOCK_FREE, &keys).await.map_err(Fault::into_store_error)?;
        self.roll_back().await;
        let blocked: HashSet<&BusinessId> = keys
            .iter()
            .filter(|key| self.known.contains(**key) && !free.contains_key(**key))
            .map(|key| &key.account().business)
            .collect();
        let is_blocked = |one: &Waiting| blocked.contains(&one.operation.terms().account.business);
        Ok(waiting.iter().enumerate().filter(|(_, one)| is_blocked(one)).map(|(place, _)| place).collect())
    }

    /// The second round trip.
    async fn write_and_commit(&mut self) -> Result<(), CommitFault> {
        let unheard = |error: Error| CommitFault::Unknown(store_error(error));
        let Some(conn) = &self.conn else { return Err(CommitFault::RolledBack(lost())) };
        let Pending { entries, at, states } = std::mem::take(&mut self.pending);
        let names: Names<'_> = states.keys().collect();
        let packed: Vec<&[u8]> = states.values().map(Vec::as_slice).collect();
        let (open_calls, open_units) = self.holds.totals();
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let row = [
            Bind::Text(&self.boot),
            Bind::Number(self.number.into()),
            Bind::Number(self.batch),
            Bind::Number(at.as_micros()),
            Bind::Number(number(open_calls)),
            Bind::Number(number(open_units)),
            Bind::Bytes(&entries),
        ];
        let states = names.binds_with(&packed);
        let (mut first, mut second, mut third) = (conn, conn, conn);
        let update = statement::<()>(UPDATE, &states).execute(&mut first);
        let append = statement::<()>(APPEND, &row).execute(&mut second);
        let commit = SimpleAsyncConnection::batch_execute(&mut third, "COMMIT");
        let (updated, appended, committed) = join3(update, append, commit).await;
        match (updated, appended, committed) {
            (Ok(_), Ok(_), Ok(())) => Ok(()),
            // A transaction with a fault in it rolls back when it is to commit.
            (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) if is_from_server(&error) => {
                Err(CommitFault::RolledBack(store_error(error)))
            }
            (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => Err(unheard(error)),
        }
    }

    /// Whether the batch's row is there; `None` while it may still come.
    async fn marker(&mut self) -> Result<Option<bool>, StoreError> {
        self.conn = None;
        self.connected().await?;
        let Some(conn) = &self.conn else { return Err(lost()) };
        let mut conn = conn;
        SimpleAsyncConnection::batch_execute(&mut conn, "BEGIN").await.map_err(store_error)?;
        let key = [Bind::Number(self.key)];
        let free = statement::<Bool>(TRY_LANE, &key).get_result::<bool>(&mut conn).await.map_err(store_error)?;
        let name = [Bind::Text(&self.boot), Bind::Number(self.number.into()), Bind::Number(self.batch)];
        let there = statement::<Bool>(MARKER, &name).get_result::<bool>(&mut conn).await.map_err(store_error)?;
        self.roll_back().await;
        // While the old backend lives, "not there" says nothing.
        Ok((there || free).then_some(there))
    }
}

/// What keeps a batch from beginning.
enum Fault {
    /// Somebody holds a row.
    Held,
    Other(StoreError),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if is_lock_timeout(&error) { Self::Held } else { Self::Other(store_error(error)) }
    }
}

impl Fault {
    fn into_store_error(self) -> StoreError {
        match self {
            Self::Held => StoreError::Unavailable("somebody holds a counter".into()),
            Self::Other(error) => error,
        }
    }
}

fn lost() -> StoreError {
    StoreError::Unavailable("the connection to the database was lost".into())
}

async fn create(mut conn: &AsyncPgConnection, keys: &[&CounterKey]) -> Result<(), Fault> {
    if keys.is_empty() {
        return Ok(());
    }
    let names: Names<'_> = keys.iter().copied().collect();
    let mut fresh = Vec::new();
    crate::ledger::pack_counter(&mut fresh, &Counter::default());
    let states: Vec<Vec<u8>> = keys.iter().map(|key| seal_row(names_of(key), &fresh)).collect();
    let states: Vec<&[u8]> = states.iter().map(Vec::as_slice).collect();
    let binds = names.binds_with(&states);
    statement::<()>(CREATE, &binds).execute(&mut conn).await?;
    Ok(())
}

async fn lock_counters(
    mut conn: &AsyncPgConnection,
    sql: &'static str,
    keys: &[&CounterKey],
) -> Result<CounterMap<Counter>, Fault> {
    let names: Names<'_> = keys.iter().copied().collect();
    let binds = names.binds();
    let rows = statement::<CounterRow>(sql, &binds).load::<FoundCounter>(&mut conn).await?;
    let mut found = CounterMap::with_capacity_and_hasher(rows.len(), Default::default());
    // Both are in key order.
    let mut keys = keys.iter();
    for (business, customer, metric, state) in &rows {
        let names = [business.as_str(), customer.as_str(), metric.as_str()];
        let key = keys.by_ref().find(|key| names_of(key) == names);
        let key = key.ok_or_else(|| Fault::Other(StoreError::Corrupt("counters are out of order".to_owned())))?;
        let counter = unpack_row(names, state);
        let corrupt = |error: crate::LedgerError| Fault::Other(StoreError::Corrupt(error.to_string()));
        found.insert((*key).clone(), counter.map_err(corrupt)?);
    }
    Ok(found)
}

async fn read_versions(
    mut conn: &AsyncPgConnection,
    businesses: &[&str],
    since: &[i64],
) -> Result<Vec<super::versions::Row>, Fault> {
    let binds = [Bind::Texts(businesses), Bind::Numbers(since)];
    Ok(statement::<VersionRow>(VERSIONS, &binds).load(&mut conn).await?)
}

async fn read_clock(mut conn: &AsyncPgConnection) -> Result<i64, Fault> {
    Ok(statement::<BigInt>(CLOCK, &[]).get_result(&mut conn).await?)
}

async fn begin(mut conn: &AsyncPgConnection, begin: &str) -> Result<(), Fault> {
    Ok(SimpleAsyncConnection::batch_execute(&mut conn, begin).await?)
}

type Found = (CounterMap<Counter>, Vec<super::versions::Row>, i64);

/// Sends all statements together, which the server does in order. On a new connection one by one: each is prepared
/// first, and their order would not be certain.
async fn read_locked(
    conn: &AsyncPgConnection,
    together: bool,
    start: &str,
    keys: &BTreeSet<&CounterKey>,
    unknown: &[&CounterKey],
    businesses: &[&str],
    since: &[i64],
) -> Result<Found, Fault> {
    let keys: Vec<&CounterKey> = keys.iter().copied().collect();
    if !together {
        begin(conn, start).await?;
        create(conn, unknown).await?;
        let counters = lock_counters(conn, LOCK, &keys).await?;
        let versions = read_versions(conn, businesses, since).await?;
        return Ok((counters, versions, read_clock(conn).await?));
    }
    let (begun, created, counters, versions, now) = futures_util::join!(
        begin(conn, start),
        create(conn, unknown),
        lock_counters(conn, LOCK, &keys),
        read_versions(conn, businesses, since),
        read_clock(conn),
    );
    begun?;
    created?;
    Ok((counters?, versions?, now?))
}

impl Steps for Lane {
    type Work = Waiting;
    /// Other nodes change the same counters: only under their locks are they ours.
    const DECIDES_AHEAD: bool = false;

    async fn clock(&mut self) -> Result<Timestamp, StoreError> {
        self.opened.as_ref().map(|opened| opened.now).ok_or_else(lost)
    }

    async fn decide(&mut self, waiting: &[Waiting], now: Timestamp) -> Result<Decided, StoreError> {
        let opened = self.opened.as_mut().ok_or_else(lost)?;
        self.versions.doubt();
        self.versions.learn(waiting, &mut opened.read)?;
        let mut locked = Locked { opened, holds: &self.holds };
        Decided::new(waiting, now, &mut locked, &self.versions, &mut self.cuts)
    }

    /// They are looked for under the locks, with the rest of what the lock reads.
    async fn others_committed(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn lock(&mut self, waiting: &[Waiting]) -> Result<(), LockFault> {
        match self.open(waiting).await {
            Ok(()) => Ok(()),
            Err(Fault::Other(error)) => Err(error.into()),
            Err(Fault::Held) if self.set_aside.is_none() => Err(Fault::Held.into_store_error().into()),
            Err(Fault::Held) => match self.blocked(waiting).await {
                Ok(places) => Err(LockFault::Blocked(places)),
                Err(error) => Err(error.into()),
            },
        }
    }

    fn set_aside(&mut self, blocked: Vec<Waiting>) {
        if let Some(first) = blocked.first() {
            let business = &first.operation.terms().account.business;
            tracing::warn!(%business, calls = blocked.len(), "somebody holds a counter: its business waits by itself");
        }
        match &self.set_aside {
            Some(queue) => queue.push_each(blocked),
            None => self.queue.put_back(blocked),
        }
    }

    async fn write(&mut self, _waiting: &[Waiting], decided: &Decided) -> Result<(), StoreError> {
        let states = &mut self.pending.states;
        let entries = pack_entries(decided.entries(), decided.now(), |entry, state| {
            states.insert(entry.counter.clone(), seal_row(names_of(&entry.counter), state));
        });
        self.pending.entries = entries;
        self.pending.at = decided.now();
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), CommitFault> {
        let result = self.write_and_commit().await;
        if let Err(CommitFault::Unknown(error)) = &result {
            tracing::error!(%error, batch = self.batch, "a commit was not heard");
            self.unheard_since = Some(self.instant());
        }
        result
    }

    async fn roll_back(&mut self) {
        self.opened = None;
        self.pending = Pending::default();
        let Some(conn) = &self.conn else { return };
        let mut conn = conn;
        if SimpleAsyncConnection::batch_execute(&mut conn, "ROLLBACK").await.is_err() {
            self.conn = None;
        }
    }

    async fn fate(&mut self) -> Fate {
        let batch = self.batch;
        match self.marker().await {
            Ok(Some(committed)) => {
                tracing::warn!(batch, committed, "the outcome of a batch is known now");
                self.unheard_since = None;
                if committed { Fate::Committed } else { Fate::Lost }
            }
            Ok(None) => Fate::Unknown,
            Err(error) => {
                tracing::error!(%error, batch, "the outcome of a batch is still not known");
                Fate::Unknown
            }
        }
    }

    fn is_patience_over(&mut self) -> bool {
        self.unheard_since.is_some_and(|since| since.elapsed() >= UNKNOWN_WAIT)
    }

    async fn pause(&mut self) {
        tokio::time::sleep(RETRY_WAIT).await;
    }

    fn publish(&mut self, _decided: &Decided) {
        self.store_answers();
        if let Some(opened) = self.opened.take() {
            self.remember(opened.counters.into_keys());
        }
    }

    fn failed(&mut self, error: &StoreError) {
        tracing::warn!(%error, lane = self.number, "a batch was rolled back");
        self.store_fails(error);
    }

    fn hold(&mut self, key: &CounterKey, units: i64) {
        self.holds.open(key, units);
    }

    fn note_denied(&mut self, terms: &Arc<Terms>, place: usize, at: Timestamp) {
        if let Some(entry) = terms.limits.get(place) {
            let bucket = self.cuts.cuts(terms, &entry, at).bucket();
            self.denied.note(entry.counter, bucket, entry.metric.operation);
        }
    }

    fn release(one: &Waiting, place: usize, taken: Taken) -> Waiting {
        let (release, _nobody_waits) = Waiting::new(group_commit::release_of(one, place, taken), false);
        release
    }

    fn put_back(&mut self, waiting: Vec<Waiting>) {
        self.queue.put_back(waiting);
    }

    fn answer(&mut self, answers: impl Iterator<Item = (Waiting, Answer)>) {
        let mut deliveries = Deliveries::default();
        for (one, answer) in answers {
            deliveries.add(one.slot, answer);
        }
    }
}
