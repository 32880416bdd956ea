//! What a batch reads in its first round trip: counters that are missing are created, all are locked in one key order
//! (`locks-in-key-order`), then versions and changes are read without locking them, then the clock. Each is a statement of
//! its own, since a statement sees what was committed when it began.

use super::error::{is_refused, store_error};
use super::statement::{Bind, statement};
use super::usage::{counter_of, sealed};
use super::versions;
use diesel::result::Error;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, CounterMap};

const CREATE: &str = "INSERT INTO counters (business_id, customer_id, metric_name, state) \
    SELECT b, c, m, s FROM unnest(?, ?, ?, ?) AS k(b, c, m, s) \
    ORDER BY b COLLATE \"C\", c COLLATE \"C\", m COLLATE \"C\" ON CONFLICT DO NOTHING";
pub(super) const LOCK: &str = "SELECT r.business_id, r.customer_id, r.metric_name, r.state \
    FROM unnest(?, ?, ?) AS k(b, c, m) JOIN counters AS r ON r.business_id = k.b COLLATE \"C\" \
        AND r.customer_id = k.c COLLATE \"C\" AND r.metric_name = k.m COLLATE \"C\" \
    ORDER BY r.business_id, r.customer_id, r.metric_name FOR UPDATE OF r";
/// As `LOCK`, but leaves out what somebody holds.
pub(super) const LOCK_FREE: &str = "SELECT r.business_id, r.customer_id, r.metric_name, r.state \
    FROM unnest(?, ?, ?) AS k(b, c, m) JOIN counters AS r ON r.business_id = k.b COLLATE \"C\" \
        AND r.customer_id = k.c COLLATE \"C\" AND r.metric_name = k.m COLLATE \"C\" \
    ORDER BY r.business_id, r.customer_id, r.metric_name FOR UPDATE OF r SKIP LOCKED";
const VERSIONS: &str = "SELECT k.b, coalesce(v.version, 0), c.version, c.customer_id \
    FROM unnest(?, ?) AS k(b, since) LEFT JOIN config_versions AS v ON v.business_id = k.b COLLATE \"C\" \
    LEFT JOIN LATERAL (SELECT version, customer_id FROM config_changes \
        WHERE business_id = k.b COLLATE \"C\" AND version > k.since ORDER BY version LIMIT 10000) AS c ON true \
    ORDER BY k.b, c.version";
const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

type CounterRow = (Text, Text, Text, Binary);
type VersionRow = (Text, BigInt, Nullable<BigInt>, Nullable<Text>);

/// The names of counters, column by column, as statements take them.
#[derive(Default)]
pub(super) struct Names<'a> {
    businesses: Vec<&'a str>,
    customers: Vec<&'a str>,
    metrics: Vec<&'a str>,
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

/// What keeps a batch from beginning.
pub(super) enum Fault {
    /// The server refused a statement: perhaps somebody holds a row.
    Refused(Error),
    Other(StoreError),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if is_refused(&error) { Self::Refused(error) } else { Self::Other(store_error(error)) }
    }
}

impl Fault {
    pub(super) fn into_store_error(self) -> StoreError {
        match self {
            Self::Refused(error) => store_error(error),
            Self::Other(error) => error,
        }
    }
}

/// What is asked for.
pub(super) struct Wanted<'a> {
    /// How the transaction begins.
    pub(super) begin: &'a str,
    /// The counters, in key order.
    pub(super) keys: Vec<&'a CounterKey>,
    /// Those of them that may have no row.
    pub(super) unknown: Vec<&'a CounterKey>,
    pub(super) businesses: Vec<&'a str>,
    /// After which version each business's changes are asked for.
    pub(super) since: Vec<i64>,
}

/// What a batch reads under its locks.
pub(super) struct Opened {
    pub(super) now: Timestamp,
    pub(super) counters: CounterMap<Counter>,
    pub(super) read: versions::Read,
}

/// The first round trip. Sends all statements together, which the server does in order. On a new connection one by one:
/// each is prepared first, and their order would not be certain.
pub(super) async fn open(
    conn: &AsyncPgConnection,
    is_warm: bool,
    wanted: &Wanted<'_>,
) -> Result<Opened, Fault> {
    let Wanted { begin: start, keys, unknown, businesses, since } = wanted;
    let (counters, versions, now) = if is_warm {
        let (begun, created, counters, versions, now) = futures_util::join!(
            begin(conn, start),
            create(conn, unknown),
            lock(conn, LOCK, keys),
            read_versions(conn, businesses, since),
            read_clock(conn),
        );
        // The first fault says what happened; those after it, that something had.
        begun?;
        created?;
        (counters?, versions?, now?)
    } else {
        begin(conn, start).await?;
        create(conn, unknown).await?;
        let counters = lock(conn, LOCK, keys).await?;
        (counters, read_versions(conn, businesses, since).await?, read_clock(conn).await?)
    };
    let now = Timestamp::from_micros(now);
    let mut opened = Opened { now, counters, read: versions::Read::new(versions) };
    let missing: Vec<&CounterKey> =
        keys.iter().copied().filter(|key| !opened.counters.contains_key(*key)).collect();
    if !missing.is_empty() {
        // Known, and gone: its business was purged, and is back.
        create(conn, &missing).await?;
        opened.counters.extend(lock(conn, LOCK, &missing).await?);
    }
    Ok(opened)
}

/// What keeps a transaction from beginning is no counter.
async fn begin(mut conn: &AsyncPgConnection, begin: &str) -> Result<(), Fault> {
    let begun = SimpleAsyncConnection::batch_execute(&mut conn, begin).await;
    begun.map_err(|error| Fault::Other(store_error(error)))
}

async fn create(mut conn: &AsyncPgConnection, keys: &[&CounterKey]) -> Result<(), Fault> {
    if keys.is_empty() {
        return Ok(());
    }
    let names: Names<'_> = keys.iter().copied().collect();
    let mut fresh = Vec::new();
    crate::ledger::pack_counter(&mut fresh, &Counter::default());
    let states: Vec<Vec<u8>> = keys.iter().map(|key| sealed(key, &fresh)).collect();
    let states: Vec<&[u8]> = states.iter().map(Vec::as_slice).collect();
    let binds = names.binds_with(&states);
    statement::<()>(CREATE, &binds).execute(&mut conn).await?;
    Ok(())
}

/// Locks counters, given in key order, by one of the statements for it.
pub(super) async fn lock(
    mut conn: &AsyncPgConnection,
    sql: &'static str,
    keys: &[&CounterKey],
) -> Result<CounterMap<Counter>, Fault> {
    let names: Names<'_> = keys.iter().copied().collect();
    let binds = names.binds();
    let rows =
        statement::<CounterRow>(sql, &binds).load::<(String, String, String, Vec<u8>)>(&mut conn).await?;
    let mut found = CounterMap::with_capacity_and_hasher(rows.len(), Default::default());
    // Both are in key order.
    let mut keys = keys.iter();
    for (business, customer, metric, state) in &rows {
        let names = [business.as_str(), customer.as_str(), metric.as_str()];
        let key = keys.by_ref().find(|key| names_of(key) == names);
        let key =
            key.ok_or_else(|| Fault::Other(StoreError::Corrupt("counters are out of order".to_owned())))?;
        found.insert((*key).clone(), counter_of(names, state).map_err(Fault::Other)?);
    }
    Ok(found)
}

async fn read_versions(
    mut conn: &AsyncPgConnection,
    businesses: &[&str],
    since: &[i64],
) -> Result<Vec<versions::Row>, Fault> {
    let binds = [Bind::Texts(businesses), Bind::Numbers(since)];
    Ok(statement::<VersionRow>(VERSIONS, &binds).load(&mut conn).await?)
}

async fn read_clock(mut conn: &AsyncPgConnection) -> Result<i64, Fault> {
    Ok(statement::<BigInt>(CLOCK, &[]).get_result(&mut conn).await?)
}
