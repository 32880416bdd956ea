//! ⑤ The batch on SQLite: what the writer does in each step of [`group_commit`], whose order is binding
//! (docs/RELIABILITY.md, "The batch"). Steps block, as everything on the writer's thread does.

use super::connection::{self, data_version};
use super::live::Running;
use super::tables::audit;
use super::usage::{self, LedgerRow};
use super::versions::Source;
use super::writer::{RETRY_WAIT, UNKNOWN_WAIT, Writer};
use crate::admission::{Answer, Waiting};
use crate::ledger::{Packed, pack_entries};
use crate::mailbox::Deliveries;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tracktags_core::error::StoreError;
use tracktags_core::group_commit::{self, CommitFault, Decided, Fate, LockFault, Steps};
use tracktags_core::limits::Terms;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{CounterKey, Taken};

impl Writer {
    /// Does a batch and answers it.
    pub(super) fn batch(&mut self, waiting: Vec<Waiting>) {
        done(group_commit::run(self, waiting));
    }

    /// Whether another connection committed since the last look; then every version known is in doubt.
    fn note_outside_commits(&mut self) -> Result<bool, StoreError> {
        let version = data_version(&mut self.conn)?;
        let moved = version != self.data_version;
        if moved {
            self.data_version = version;
            self.versions.doubt();
        }
        Ok(moved)
    }

    fn append(&mut self, decided: &Decided) -> Result<(), StoreError> {
        let at = decided.now();
        let packed = &mut self.packed;
        packed.clear();
        let entries = pack_entries(decided.entries(), at, |_, state| packed.push(Packed::from(state)));
        let (open_calls, open_units) = self.holds.totals();
        let row = LedgerRow {
            batch: self.next_batch,
            boot: self.boot.clone(),
            lane: 0,
            written_at: at.as_micros(),
            open_calls: i64::try_from(open_calls).unwrap_or(i64::MAX),
            open_units: i64::try_from(open_units).unwrap_or(i64::MAX),
            entries,
        };
        usage::append(&mut self.conn, &row)
    }

    /// Corrections by hand leave their row of the trail in the transaction that does them.
    fn note_corrections(&mut self, waiting: &[Waiting], decided: &Decided) -> Result<(), StoreError> {
        for (one, outcome) in waiting.iter().zip(decided.outcomes()) {
            if let Some(row) = audit::correction_row(&self.secrets, decided.now(), one, outcome) {
                row.insert(&mut self.conn)?;
            }
        }
        Ok(())
    }
}

impl Steps for Writer {
    type Work = Waiting;
    const DECIDES_AHEAD: bool = true;

    async fn clock(&mut self) -> Result<Timestamp, StoreError> {
        Ok(self.now())
    }

    async fn decide(&mut self, waiting: &[Waiting], now: Timestamp) -> Result<Decided, StoreError> {
        self.versions.learn(waiting, &mut Source(&mut self.conn))?;
        let mut running = Running { live: &mut self.live, conn: &mut self.conn, holds: &self.holds };
        Decided::new(waiting, now, &mut running, &self.versions, &mut self.cuts)
    }

    async fn others_committed(&mut self) -> Result<bool, StoreError> {
        self.note_outside_commits()
    }

    async fn lock(&mut self, _waiting: &[Waiting]) -> Result<(), LockFault> {
        self.begin()?;
        self.locked = Some(self.instant());
        Ok(())
    }

    fn set_aside(&mut self, blocked: Vec<Waiting>) {
        // One lock for all: nothing is blocked by itself. What would be is done with the next batch.
        self.queue.put_back(blocked);
    }

    async fn write(&mut self, waiting: &[Waiting], decided: &Decided) -> Result<(), StoreError> {
        self.append(decided)?;
        self.note_corrections(waiting, decided)
    }

    async fn commit(&mut self) -> Result<(), CommitFault> {
        let result = connection::commit(&mut self.conn);
        self.note_held();
        if let Err(CommitFault::Unknown(error)) = &result {
            tracing::error!(%error, batch = self.next_batch, "a commit was not heard");
            self.unheard_since = Some(self.instant());
        }
        result
    }

    async fn roll_back(&mut self) {
        self.rollback();
        self.note_held();
    }

    async fn fate(&mut self) -> Fate {
        let batch = self.next_batch;
        match self.reopen_and_look(batch) {
            Ok(committed) => {
                tracing::warn!(batch, committed, "the outcome of a batch is known now");
                self.unheard_since = None;
                if committed { Fate::Committed } else { Fate::Lost }
            }
            Err(error) => {
                tracing::error!(%error, batch, "the outcome of a batch is still not known");
                Fate::Unknown
            }
        }
    }

    fn is_patience_over(&mut self) -> bool {
        self.unheard_since.is_some_and(|since| since.elapsed() >= UNKNOWN_WAIT)
    }

    fn gives_up(&mut self) -> bool {
        self.queue.gives_up()
    }

    async fn pause(&mut self) {
        std::thread::park_timeout(RETRY_WAIT);
    }

    fn publish(&mut self, decided: &Decided) {
        self.store_answers();
        if !decided.entries().is_empty() {
            self.next_batch = self.next_batch.saturating_add(1);
        }
        for (entry, state) in decided.entries().iter().zip(self.packed.drain(..)) {
            self.live.commit(entry, state);
        }
    }

    fn failed(&mut self, error: &StoreError) {
        tracing::warn!(%error, "a batch was rolled back");
        self.store_fails(error);
    }

    fn hold(&mut self, key: &CounterKey, units: i64) {
        self.holds.open(key, units);
    }

    fn note_denied(&mut self, terms: &Arc<Terms>, place: usize, at: Timestamp) {
        if let Some(entry) = terms.limits.get(place) {
            let bucket = self.cuts.cuts(terms, &entry, at).bucket();
            self.live.deny(entry.counter, bucket, entry.metric.operation);
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

/// The result of a future none of whose steps waits for anything but this thread.
fn done<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
    }
}
