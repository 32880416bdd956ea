//! ⑤ The batch on PostgreSQL: what a lane does in each step of [`group_commit`], in two round trips. The first locks and
//! reads (`locked`), the second writes counters and ledger, and commits; between them everything is decided in memory. The
//! transaction holds an advisory lock of its lane, so that whoever looks for its marker knows when it can no longer come
//! (docs/RELIABILITY.md, "The batch").

use super::error::{is_no_commit, is_refused, may_be_a_lock, store_error};
use super::lane::{ANSWER_WAIT, LOCK_TRIES, Lane, RETRY_WAIT, UNKNOWN_WAIT, lost};
use super::locked::{self, Fault, LOCK_FREE, Names, Opened, Wanted, names_of};
use super::schema::audit_logs;
use super::statement::{Bind, statement};
use super::tables::audit;
use super::usage::sealed;
use crate::admission::{Answer, Waiting};
use crate::holds::Holds;
use crate::ledger::pack_entries;
use crate::mailbox::Deliveries;
use diesel::result::QueryResult;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use tokio::time::timeout;
use tracktags_core::accounts::BusinessId;
use tracktags_core::batch::Counters;
use tracktags_core::error::StoreError;
use tracktags_core::group_commit::{self, CommitFault, Decided, Fate, LockFault, Steps};
use tracktags_core::limits::Terms;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey, Taken};

const UPDATE: &str = "UPDATE counters AS r SET state = k.s FROM unnest(?, ?, ?, ?) AS k(b, c, m, s) \
    WHERE r.business_id = k.b COLLATE \"C\" AND r.customer_id = k.c COLLATE \"C\" AND r.metric_name = k.m COLLATE \"C\"";
const APPEND: &str = "INSERT INTO usage_ledger (boot, lane, batch, written_at, open_calls, open_units, entries) \
    VALUES (?, ?::int, ?, ?, ?, ?, ?)";
const MARKER: &str =
    "SELECT EXISTS (SELECT 1 FROM usage_ledger WHERE boot = ? AND lane = ?::int AND batch = ?)";
const TRY_LANE: &str = "SELECT pg_try_advisory_xact_lock(?)";

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
    holds: &'a Holds,
}

impl Counters for Locked<'_> {
    fn load(&mut self, key: &CounterKey) -> Result<Counter, StoreError> {
        let missing = || StoreError::Unavailable("a counter is not locked".into());
        self.opened.counters.get(key).copied().ok_or_else(missing)
    }

    fn held(&self, key: &CounterKey) -> i64 {
        self.holds.of(key)
    }
}

fn keys_of(waiting: &[Waiting]) -> BTreeSet<&CounterKey> {
    waiting.iter().flat_map(|one| one.operation.counters()).collect()
}

impl Lane {
    /// The first round trip.
    async fn open(&mut self, waiting: &[Waiting]) -> Result<Opened, Fault> {
        self.connected().await.map_err(Fault::Other)?;
        self.batch = self.next_batch;
        self.next_batch = self.next_batch.saturating_add(1);
        let keys: Vec<&CounterKey> = keys_of(waiting).into_iter().collect();
        let unknown = keys.iter().copied().filter(|key| !self.known.contains(*key)).collect();
        let businesses: BTreeSet<&BusinessId> =
            waiting.iter().map(|one| &one.operation.terms().account.business).collect();
        // Of one that is not known yet only the version is asked for.
        let since = |business: &&BusinessId| self.versions.version_of(business).unwrap_or(i64::MAX);
        let since = businesses.iter().map(since).collect();
        let businesses = businesses.into_iter().map(BusinessId::as_str).collect();
        let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({})", self.lock_number);
        let wanted = Wanted { begin: &begin, keys, unknown, businesses, since };
        let Some(conn) = self.conn.as_deref() else { return Err(Fault::Other(lost())) };
        match timeout(ANSWER_WAIT, locked::open(conn, self.is_warm, &wanted)).await {
            Ok(opened) => opened,
            Err(_elapsed) => {
                self.conn = None;
                Err(Fault::Other(StoreError::Unavailable("the database does not answer".into())))
            }
        }
    }

    /// The places of all work of businesses with a counter that somebody holds.
    async fn blocked(&mut self, waiting: &[Waiting]) -> Result<Vec<usize>, StoreError> {
        match timeout(ANSWER_WAIT, self.look_for_blocked(waiting)).await {
            Ok(blocked) => blocked,
            Err(_elapsed) => {
                self.conn = None;
                Err(StoreError::Unavailable("the database does not answer".into()))
            }
        }
    }

    async fn look_for_blocked(&mut self, waiting: &[Waiting]) -> Result<Vec<usize>, StoreError> {
        self.roll_back().await;
        self.connected().await?;
        let keys: Vec<&CounterKey> = keys_of(waiting).into_iter().collect();
        let Some(conn) = self.conn.as_deref() else { return Err(lost()) };
        SimpleAsyncConnection::batch_execute(&mut &*conn, "BEGIN").await.map_err(store_error)?;
        let free = locked::lock(conn, LOCK_FREE, &keys).await.map_err(Fault::into_store_error)?;
        let there = rows_there(conn, &keys).await.map_err(store_error)?;
        self.roll_back().await;
        // One that is neither locked nor readable may be another's row that is not committed yet, or just not be there. It
        // is held only where no other is: its creation was what waited.
        let is_held = |key: &&&CounterKey| !free.contains_key(**key) && there.contains(**key);
        let mut held: HashSet<&BusinessId> =
            keys.iter().filter(is_held).map(|key| &key.account().business).collect();
        if held.is_empty() {
            held =
                keys.iter().filter(|key| !there.contains(**key)).map(|key| &key.account().business).collect();
        }
        let is_blocked = |one: &Waiting| held.contains(&one.operation.terms().account.business);
        Ok(waiting.iter().enumerate().filter(|(_, one)| is_blocked(one)).map(|(place, _)| place).collect())
    }

    /// Corrections by hand leave their row of the trail in the transaction that does them.
    async fn note_corrections(&self, waiting: &[Waiting], decided: &Decided) -> Result<(), StoreError> {
        for (one, outcome) in waiting.iter().zip(decided.outcomes()) {
            let Some(row) = audit::correction_row(&self.secrets, decided.now(), one, outcome) else {
                continue;
            };
            let Some(conn) = self.conn.as_deref() else { return Err(lost()) };
            diesel::insert_into(audit_logs::table)
                .values(row)
                .execute(&mut &*conn)
                .await
                .map_err(store_error)?;
        }
        Ok(())
    }

    /// The second round trip.
    async fn write_and_commit(&mut self) -> Result<(), CommitFault> {
        let Some(conn) = self.conn.as_deref() else { return Err(CommitFault::RolledBack(lost())) };
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
        let written = timeout(ANSWER_WAIT, write_together(conn, self.is_warm, &states, &row)).await;
        match written {
            Ok(result) => result,
            Err(_elapsed) => {
                Err(CommitFault::Unknown(StoreError::Unavailable("a commit is not answered".into())))
            }
        }
    }

    /// Whether the batch's row is there; `None` while it may still come.
    async fn marker(&mut self) -> Result<Option<bool>, StoreError> {
        // Its transaction may be open on the old connection, which goes.
        self.conn = None;
        match timeout(ANSWER_WAIT, self.look_for_marker()).await {
            Ok(found) => found,
            Err(_elapsed) => {
                self.conn = None;
                Err(StoreError::Unavailable("the database does not answer".into()))
            }
        }
    }

    async fn look_for_marker(&mut self) -> Result<Option<bool>, StoreError> {
        self.connected().await?;
        let Some(conn) = self.conn.as_deref() else { return Err(lost()) };
        let mut conn = conn;
        SimpleAsyncConnection::batch_execute(&mut conn, "BEGIN").await.map_err(store_error)?;
        let key = [Bind::Number(self.lock_number)];
        let is_over =
            statement::<Bool>(TRY_LANE, &key).get_result::<bool>(&mut conn).await.map_err(store_error)?;
        let name = [Bind::Text(&self.boot), Bind::Number(self.number.into()), Bind::Number(self.batch)];
        let is_there =
            statement::<Bool>(MARKER, &name).get_result::<bool>(&mut conn).await.map_err(store_error)?;
        self.roll_back().await;
        // While the old backend lives, "not there" says nothing.
        Ok((is_there || is_over).then_some(is_there))
    }
}

/// Counters, ledger and commit: sent together where each statement is prepared.
async fn write_together(
    conn: &AsyncPgConnection,
    is_warm: bool,
    states: &[Bind<'_>],
    row: &[Bind<'_>],
) -> Result<(), CommitFault> {
    let (mut first, mut second, mut third) = (conn, conn, conn);
    let update = statement::<()>(UPDATE, states).execute(&mut first);
    let append = statement::<()>(APPEND, row).execute(&mut second);
    let commit = SimpleAsyncConnection::batch_execute(&mut third, "COMMIT");
    let (updated, appended, committed) = if is_warm {
        futures_util::join!(update, append, commit)
    } else {
        let updated = update.await;
        let appended = append.await;
        (updated, appended, commit.await)
    };
    ended(updated.map(drop), appended.map(drop), committed)
}

/// How a transaction ended, by the answers to what was sent together.
fn ended(
    updated: QueryResult<()>,
    appended: QueryResult<()>,
    committed: QueryResult<()>,
) -> Result<(), CommitFault> {
    for written in [updated, appended] {
        match written {
            Ok(()) => {}
            // A transaction with a fault in it rolls back when it is to commit.
            Err(error) if is_refused(&error) => return Err(CommitFault::RolledBack(store_error(error))),
            Err(error) => return Err(CommitFault::Unknown(store_error(error))),
        }
    }
    committed.map_err(|error| {
        let is_no_commit = is_no_commit(&error);
        let error = store_error(error);
        if is_no_commit { CommitFault::RolledBack(error) } else { CommitFault::Unknown(error) }
    })
}

/// Which of these counters have a row, held or not.
async fn rows_there(mut conn: &AsyncPgConnection, keys: &[&CounterKey]) -> QueryResult<HashSet<CounterKey>> {
    use diesel::sql_types::Text;
    const THERE: &str = "SELECT r.business_id, r.customer_id, r.metric_name FROM unnest(?, ?, ?) AS k(b, c, m) \
        JOIN counters AS r ON r.business_id = k.b COLLATE \"C\" AND r.customer_id = k.c COLLATE \"C\" \
        AND r.metric_name = k.m COLLATE \"C\" ORDER BY r.business_id, r.customer_id, r.metric_name";
    let names: Names<'_> = keys.iter().copied().collect();
    let binds = names.binds();
    let rows =
        statement::<(Text, Text, Text)>(THERE, &binds).load::<(String, String, String)>(&mut conn).await?;
    let mut keys = keys.iter();
    let there = rows.iter().filter_map(|(business, customer, metric)| {
        let names = [business.as_str(), customer.as_str(), metric.as_str()];
        keys.by_ref().find(|key| names_of(key) == names).map(|key| (*key).clone())
    });
    Ok(there.collect())
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
        let mut tries = 0..LOCK_TRIES;
        loop {
            match self.open(waiting).await {
                Ok(opened) => {
                    self.opened = Some(opened);
                    return Ok(());
                }
                Err(Fault::Refused(error)) if !self.is_quarantine && may_be_a_lock(&error) => {
                    let blocked = self.blocked(waiting).await?;
                    if !blocked.is_empty() {
                        return Err(LockFault::Blocked(blocked));
                    }
                    if tries.next().is_none() {
                        return Err(store_error(error).into());
                    }
                }
                Err(fault) => return Err(fault.into_store_error().into()),
            }
        }
    }

    fn set_aside(&mut self, blocked: Vec<Waiting>) {
        let now = self.instant();
        self.quarantine.take_in(blocked, now);
    }

    async fn write(&mut self, waiting: &[Waiting], decided: &Decided) -> Result<(), StoreError> {
        let states = &mut self.pending.states;
        let entries = pack_entries(decided.entries(), decided.now(), |entry, state| {
            states.insert(entry.counter.clone(), sealed(&entry.counter, state));
        });
        self.pending.entries = entries;
        self.pending.at = decided.now();
        self.note_corrections(waiting, decided).await
    }

    async fn commit(&mut self) -> Result<(), CommitFault> {
        let result = self.write_and_commit().await;
        match &result {
            Ok(()) => self.is_warm = true,
            Err(CommitFault::Unknown(error)) => {
                tracing::error!(%error, lane = self.number, batch = self.batch, "a commit was not heard");
                self.unheard_since = Some(self.instant());
            }
            Err(CommitFault::RolledBack(_)) => {}
        }
        result
    }

    async fn roll_back(&mut self) {
        self.opened = None;
        self.pending = Pending::default();
        let Some(conn) = self.conn.as_deref() else { return };
        let mut conn = conn;
        let ended = timeout(ANSWER_WAIT, SimpleAsyncConnection::batch_execute(&mut conn, "ROLLBACK")).await;
        if !matches!(ended, Ok(Ok(()))) {
            self.conn = None;
        }
    }

    async fn fate(&mut self) -> Fate {
        let batch = self.batch;
        match self.marker().await {
            Ok(Some(committed)) => {
                tracing::warn!(lane = self.number, batch, committed, "the outcome of a batch is known now");
                self.unheard_since = None;
                if committed { Fate::Committed } else { Fate::Lost }
            }
            Ok(None) => {
                self.store_fails(&StoreError::Unavailable("a commit is neither done nor undone".into()));
                Fate::Unknown
            }
            Err(error) => {
                tracing::error!(%error, lane = self.number, batch, "the outcome of a batch is still not known");
                self.store_fails(&error);
                Fate::Unknown
            }
        }
    }

    fn is_patience_over(&mut self) -> bool {
        self.unheard_since.is_some_and(|since| self.instant().duration_since(since) >= UNKNOWN_WAIT)
    }

    fn gives_up(&mut self) -> bool {
        self.queue.gives_up()
    }

    async fn pause(&mut self) {
        self.refuse_if_failing();
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
        // One that waits for what somebody holds says nothing of the database.
        if !self.is_quarantine {
            self.store_fails(error);
        }
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
