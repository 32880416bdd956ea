//! Folds: what the ledger gained goes into the counters and the history, in key order, in small chunks between
//! batches. Also the ledger's retention, and the start from folds plus tail.
//!
//! A pass covers the batches up to the one it began after. It goes in key order and notes with each chunk how far it
//! came, so one that was cut short is taken up at the next start without counting twice. Chunks are not synced by
//! themselves: the ledger is the truth, and the next batch's sync covers them. A pass over many counters is spread over
//! most of the time until the next one, so that it holds up no batch for long and the write-ahead log grows evenly.

use super::live::{Live, Unfolded, UnfoldedMap};
use super::usage;
use super::writer::Writer;
use super::{connection, damage};
use crate::ledger::{pack_counter, unpack_counter, unpack_entries};
use crate::sqlite::error::store_error;
use crate::sqlite::live::corrupt;
use diesel::SqliteConnection;
use diesel::connection::SimpleConnection;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{CounterKey, CounterMap, Entry};

/// Counters folded in one transaction: at least so many, and up to so many where a pass is late.
const CHUNK: usize = 128;
const CHUNK_MAX: usize = 1_024;
/// The part of the time between two passes that one is spread over.
const SPREAD: f64 = 0.75;
/// Ledger rows removed in one transaction.
const PRUNE_CHUNK: i64 = 512;
/// Ledger rows read at once at start.
const TAIL_CHUNK: i64 = 4_096;
/// Folded batches that a start compares with the counters.
const FOLDED_CHECKED: i64 = 16;
/// Uses of keys written down at once.
const USES_CHUNK: usize = 1_000;
/// Between two looks at what may be pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(1);
/// Between two estimates of the ledger's size.
const MEASURE_EVERY: Duration = Duration::from_secs(60);

/// A pass to be sorted, and where it goes then.
pub(super) type Pass = (UnfoldedMap, Sender<Sorted>);

/// A pass in key order.
pub(super) type Sorted = Vec<(CounterKey, Unfolded)>;

/// Where the folds stand.
pub(super) struct Folding {
    stage: Stage,
    /// Everything up to this batch is folded.
    folded_to: i64,
    last_pass: Instant,
    /// Between the beginnings of two passes.
    every: Duration,
    last_prune: Instant,
    last_measure: Option<Instant>,
    too_large: bool,
    /// A step failed (somebody holds the lock, the disk is full): none is tried before then.
    blocked_until: Option<Instant>,
    /// To the thread that sorts.
    sorter: Sender<Pass>,
}

enum Stage {
    Idle,
    /// Being sorted on the side, so that batches go on.
    Sorting(Receiver<Sorted>, i64),
    Writing(Sorted, usize, i64),
}

/// Between two tries of a step that failed.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// Between two looks whether a pass is sorted.
const SORTING_PAUSE: Duration = Duration::from_millis(1);

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shares of a pass"
)]
impl Folding {
    /// How long the writer may sleep when nothing else waits: until a chunk is due.
    pub(super) fn pause(&self, idle: Duration, now: Instant) -> Duration {
        match &self.stage {
            _ if self.blocked_until.is_some() => idle,
            Stage::Idle => idle,
            Stage::Sorting(..) => SORTING_PAUSE,
            Stage::Writing(pass, done, _) => self.until_due(pass, *done, now).min(idle),
        }
    }

    /// How long until the next chunk of a pass is due.
    fn until_due(&self, pass: &Sorted, done: usize, now: Instant) -> Duration {
        let share = done as f64 / pass.len().max(1) as f64;
        self.every.mul_f64(SPREAD * share).saturating_sub(now.duration_since(self.last_pass))
    }

    /// How many counters of a pass are due: none before their time.
    fn due(&self, pass: &Sorted, done: usize, now: Instant) -> usize {
        if !self.until_due(pass, done, now).is_zero() {
            return 0;
        }
        let share = now.duration_since(self.last_pass).as_secs_f64() / (SPREAD * self.every.as_secs_f64());
        let until_now = pass.len() as f64 * share;
        (until_now as usize).saturating_sub(done).clamp(CHUNK, CHUNK_MAX)
    }

    pub(super) fn new(sorter: Sender<Pass>, folded_to: i64, every: Duration, now: Instant) -> Self {
        Self {
            stage: Stage::Idle,
            folded_to,
            last_pass: now,
            every,
            last_prune: now,
            last_measure: None,
            too_large: false,
            blocked_until: None,
            sorter,
        }
    }
}

/// Sorts passes until nobody asks any more.
pub(super) fn sort_passes(passes: &Receiver<Pass>) {
    while let Ok((map, reply)) = passes.recv() {
        let _gone = reply.send(sorted(map));
    }
}

fn sorted(pass: impl IntoIterator<Item = (CounterKey, Unfolded)>) -> Sorted {
    let mut pass: Sorted = pass.into_iter().collect();
    pass.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
    pass
}

impl Writer {
    /// One small step: begin a pass, write a chunk of it, or prune.
    pub(super) fn fold_a_little(&mut self) {
        // While the store fails, waiting for its lock once more would only keep callers waiting.
        let blocked = self.folding.blocked_until.is_some_and(|until| self.instant() < until);
        if self.store_failed || blocked {
            return;
        }
        self.folding.blocked_until = None;
        let step = match std::mem::replace(&mut self.folding.stage, Stage::Idle) {
            Stage::Idle => self.begin_pass_when_due(),
            Stage::Sorting(sorted, to) => {
                match sorted.try_recv() {
                    Ok(pass) => self.folding.stage = Stage::Writing(pass, 0, to),
                    Err(_not_yet) => self.folding.stage = Stage::Sorting(sorted, to),
                }
                Ok(())
            }
            Stage::Writing(pass, done, to) => match self.due(&pass, done) {
                0 => {
                    self.folding.stage = Stage::Writing(pass, done, to);
                    Ok(())
                }
                count => self.write_chunk(pass, done, count, to),
            },
        };
        if let Err(error) = step.and_then(|()| self.prune_when_due()) {
            tracing::warn!(%error, "a fold waits");
            self.folding.blocked_until = self.instant().checked_add(RETRY_EVERY);
        }
    }

    /// How many counters of a pass are due; as many as may be where too much waits for the next one.
    fn due(&self, pass: &Sorted, done: usize) -> usize {
        if self.is_tail_too_long() {
            return CHUNK_MAX;
        }
        self.folding.due(pass, done, self.instant())
    }

    const fn is_tail_too_long(&self) -> bool {
        self.live.unfolded_entries() > self.limits.ledger_tail_entries_max
    }

    /// Everything, at once: before the store closes.
    pub(super) fn fold_all(&mut self) -> Result<(), StoreError> {
        match std::mem::replace(&mut self.folding.stage, Stage::Idle) {
            Stage::Idle => {}
            Stage::Sorting(sorted, to) => {
                let pass = sorted.recv().map_err(|error| StoreError::Backend(Box::new(error)))?;
                self.write_all(pass, 0, to)?;
            }
            Stage::Writing(pass, done, to) => self.write_all(pass, done, to)?,
        }
        let pass = sorted(self.live.take_unfolded());
        self.write_all(pass, 0, self.next_batch.saturating_sub(1))
    }

    fn write_all(&mut self, pass: Sorted, done: usize, to: i64) -> Result<(), StoreError> {
        self.write_chunk(pass, done, CHUNK_MAX, to)?;
        while let Stage::Writing(pass, done, to) = std::mem::replace(&mut self.folding.stage, Stage::Idle) {
            self.write_chunk(pass, done, CHUNK_MAX, to)?;
        }
        Ok(())
    }

    fn begin_pass_when_due(&mut self) -> Result<(), StoreError> {
        let now = self.instant();
        let due = now.duration_since(self.folding.last_pass) >= self.folding.every;
        if self.live.unfolded.is_empty() || !(due || self.is_tail_too_long()) {
            return Ok(());
        }
        self.folding.last_pass = now;
        let to = self.next_batch.saturating_sub(1);
        let behind = to.saturating_sub(self.folding.folded_to);
        tracing::trace!(behind, counters = self.live.unfolded.len(), "a fold begins");
        let (reply, pass) = channel();
        let map = self.live.take_unfolded();
        self.folding.stage = match self.folding.sorter.send((map, reply)) {
            Ok(()) => Stage::Sorting(pass, to),
            // The side thread is gone: sort here.
            Err(lost) => Stage::Writing(sorted(lost.0.0), 0, to),
        };
        Ok(())
    }

    fn write_chunk(&mut self, pass: Sorted, done: usize, count: usize, to: i64) -> Result<(), StoreError> {
        let end = done.saturating_add(count).min(pass.len());
        let result = self.in_unsynced_transaction(|writer| {
            usage::fold(&mut writer.conn, pass.get(done..end).unwrap_or_default())?;
            match pass.get(end.saturating_sub(1)) {
                Some((last, _)) if end < pass.len() => usage::set_pass(&mut writer.conn, to, last),
                _ => usage::set_position(&mut writer.conn, to),
            }
        });
        match result {
            Ok(()) if end == pass.len() => {
                self.folding.folded_to = to;
                self.live.evict(pass.into_iter().map(|(key, _)| key));
                Ok(())
            }
            Ok(()) => {
                self.folding.stage = Stage::Writing(pass, end, to);
                Ok(())
            }
            Err(error) => {
                self.folding.stage = Stage::Writing(pass, done, to);
                Err(error)
            }
        }
    }

    /// A transaction whose loss in a power cut costs nothing but work.
    fn in_unsynced_transaction(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let level = connection::synchronous(self.durability);
        self.conn.batch_execute("PRAGMA synchronous = 1").map_err(store_error)?;
        let result = self.begin().and_then(|()| match write(self) {
            Ok(()) => self.conn.batch_execute("COMMIT").map_err(store_error),
            Err(error) => Err(error),
        });
        if result.is_err() {
            self.rollback();
        }
        self.conn.batch_execute(&format!("PRAGMA synchronous = {level}")).map_err(store_error)?;
        result
    }

    /// Removes folded batches that are old enough, or the oldest while the ledger is too large.
    fn prune_when_due(&mut self) -> Result<(), StoreError> {
        let now = self.instant();
        if now.duration_since(self.folding.last_prune) < PRUNE_EVERY {
            return Ok(());
        }
        self.folding.last_prune = now;
        let measured = self.folding.last_measure.is_some_and(|at| now.duration_since(at) < MEASURE_EVERY);
        if !measured {
            self.folding.last_measure = Some(now);
            self.folding.too_large = connection::ledger_bytes(&mut self.conn)? > self.limits.ledger_bytes_max;
        }
        let kept = i64::from(self.limits.ledger_retention_seconds);
        let now = self.clock.now();
        let before = if self.folding.too_large { Timestamp::MAX } else { now.plus_seconds(-kept) };
        let folded_to = self.folding.folded_to;
        let ledger_seconds = self.limits.ledger_retention_seconds;
        self.in_unsynced_transaction(|writer| {
            let pruned = usage::prune(&mut writer.conn, folded_to, before, PRUNE_CHUNK)?;
            super::tables::keys::note_uses(&mut writer.conn, &writer.uses.take(USES_CHUNK))?;
            // What SQL changed is written down before it is forgotten.
            if !super::trail::sweep(&mut writer.conn, &writer.secrets)? {
                super::tables::changes::prune_changes(&mut writer.conn, now)?;
            }
            if i64::try_from(pruned).is_ok_and(|pruned| pruned < PRUNE_CHUNK) {
                super::tables::purge::purge_a_little(&mut writer.conn, &writer.secrets, now, ledger_seconds)?;
            }
            Ok(())
        })
    }

    /// Reads position, tail and counters back, at start and after a commit that was not heard, and looks all of the
    /// database through for damage.
    pub(super) fn read_back(&mut self) -> Result<(), StoreError> {
        let path = self.path.clone();
        damage::look_beside(&path, || self.read_tail())
    }

    fn read_tail(&mut self) -> Result<(), StoreError> {
        let position = usage::position(&mut self.conn)?;
        let mut live = Live::new(self.limits.counters_live_max);
        let mut batch = position.folded_to;
        // Entries in all, and those that come after a pass that was cut short.
        let (mut entries, mut later) = (0_usize, 0_usize);
        let mut tail = Tail::default();
        loop {
            let rows = usage::rows_after(&mut self.conn, batch, TAIL_CHUNK)?;
            let Some(last) = rows.last() else { break };
            batch = last.batch;
            for row in &rows {
                let at = Timestamp::from_micros(row.written_at);
                let in_pass = position.pass.as_ref().is_some_and(|(to, _)| row.batch <= *to);
                for entry in unpack_entries(&row.entries, at).map_err(corrupt)? {
                    entries = entries.saturating_add(1);
                    if !position.is_folded(row.batch, &entry.counter) {
                        tail.take_back(&entry, in_pass)?;
                        later += usize::from(!in_pass);
                    }
                }
            }
        }
        usage::check_counters(&mut self.conn, &tail.first())?;
        check_folded(&mut self.conn, position.folded_to)?;
        let (rest_of_pass, unfolded) = tail.split();
        rest_of_pass.iter().for_each(|(key, unfolded)| live.keep(key, unfolded));
        unfolded.iter().for_each(|(key, unfolded)| live.keep(key, unfolded));
        live.resume(unfolded, later);
        self.live = live;
        // A pass that was cut short is finished first: what it has written is known by its last key only.
        self.folding.stage = match &position.pass {
            Some((to, _)) => Stage::Writing(rest_of_pass, 0, *to),
            None => Stage::Idle,
        };
        self.folding.folded_to = position.folded_to;
        // A pass cut short has folded batches that the ledger may no longer be asked about: go on after them.
        let pass_to = position.pass.map_or(0, |(to, _)| to);
        self.next_batch = batch.max(position.folded_to).max(pass_to).saturating_add(1);
        tracing::debug!(entries, next_batch = self.next_batch, "read the ledger's tail");
        Ok(())
    }
}

/// What was folded last must be in the counters.
fn check_folded(conn: &mut SqliteConnection, folded_to: i64) -> Result<(), StoreError> {
    for row in usage::rows_upto(conn, folded_to, FOLDED_CHECKED)? {
        let at = Timestamp::from_micros(row.written_at);
        for entry in unpack_entries(&row.entries, at).map_err(corrupt)? {
            // A counter that is gone was purged with its business.
            let Some(row) = usage::counter_row(conn, &entry.counter)? else { continue };
            if unpack_counter(&row).map_err(corrupt)?.entry < entry.number {
                return Err(usage::torn());
            }
        }
    }
    Ok(())
}

/// What the ledger holds beyond the folds, by counter.
#[derive(Default)]
struct Tail {
    counters: CounterMap<Found>,
    scratch: Vec<u8>,
}

/// What the tail holds of one counter.
struct Found {
    /// The numbers of its entries: the first and the last, without a gap between them.
    first: u64,
    last: u64,
    /// What belongs to a pass that was cut short.
    rest_of_pass: Option<Unfolded>,
    unfolded: Option<Unfolded>,
}

impl Tail {
    /// One entry of it: recovery copies the state, it does not recompute. Packed at once: a map of whole counters is
    /// ten times as large, and to make room for that takes most of a start.
    fn take_back(&mut self, entry: &Entry, in_pass: bool) -> Result<(), StoreError> {
        let before = entry.number.wrapping_sub(1);
        let found = self.counters.entry(entry.counter.clone()).or_insert(Found {
            first: entry.number,
            last: before,
            rest_of_pass: None,
            unfolded: None,
        });
        if found.last != before {
            return Err(usage::torn());
        }
        found.last = entry.number;
        let place = if in_pass { &mut found.rest_of_pass } else { &mut found.unfolded };
        let gained = place.get_or_insert_with(Unfolded::new);
        self.scratch.clear();
        pack_counter(&mut self.scratch, &entry.state);
        gained.state = Some(self.scratch.as_slice().into());
        gained.add(entry);
        Ok(())
    }

    /// Each counter's first entry, in the order of the counters' rows.
    fn first(&self) -> Vec<(CounterKey, u64)> {
        let mut first: Vec<_> = self.counters.iter().map(|(key, found)| (key.clone(), found.first)).collect();
        first.sort_unstable_by(|(left, _), (right, _)| usage::names_of(left).cmp(&usage::names_of(right)));
        first
    }

    /// The rest of the pass that was cut short, and what came after it.
    fn split(self) -> (Sorted, UnfoldedMap) {
        let mut rest_of_pass = Vec::new();
        let mut later = UnfoldedMap::with_capacity_and_hasher(self.counters.len(), Default::default());
        for (key, found) in self.counters {
            if let Some(rest) = found.rest_of_pass {
                rest_of_pass.push((key.clone(), rest));
            }
            if let Some(unfolded) = found.unfolded {
                later.insert(key, unfolded);
            }
        }
        (sorted(rest_of_pass), later)
    }
}
