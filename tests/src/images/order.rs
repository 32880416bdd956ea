//! The order of answers and syncs: whatever a call was counted by is on the disk before the target or the caller hears.
//!
//! A batch is one transaction of the write-ahead log, its frames written one after the other, the last with the database's
//! size in its head (SQLite's file format §4.1). The ledger's rows, read at the end, say which batch took and released
//! what; the end of a row, checksum included, is found in the frames of the transaction that wrote it. So it is known
//! from which sync on a batch is certain: from the end of the first that began after the last frame was written. Never
//! may more have been forwarded, or answered as admitted, for a customer than such batches took, nor more answered as
//! released than they released.

use super::calls::{Seen, Step};
use super::trace::{Event, Trace, What, find};
use std::collections::HashMap;

/// Bytes of the head of a frame.
const FRAME_HEAD: usize = 24;
/// Bytes of the head of the log.
const LOG_HEAD: usize = 32;

/// A batch as the ledger has it.
#[derive(Debug, Clone, Default)]
pub struct BatchRow {
    /// Its number.
    pub batch: i64,
    /// The last bytes of its row.
    pub end: Vec<u8>,
    /// Whose units it took, and how many.
    pub takes: Vec<(String, i64)>,
    /// Whose units it released, and how many.
    pub releases: Vec<(String, i64)>,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// Answers that admitted.
    pub acknowledged: usize,
    /// Forwards.
    pub forwarded: usize,
    /// Syncs of the log.
    pub syncs: usize,
    /// Batches found in the log.
    pub batches: usize,
    /// Answers and forwards before their sync.
    pub early: usize,
    /// The first of them, in words.
    pub first: Option<String>,
}

/// What is certain for a customer, and what became of it.
#[derive(Default)]
struct Standing {
    taken: i64,
    released: i64,
    forwarded: i64,
    admitted: i64,
    answered_released: i64,
}

/// The log, played forward.
#[derive(Default)]
struct Log {
    /// Pages of the transaction that is being written.
    pages: Vec<usize>,
    /// The page to come ends it.
    is_last: bool,
    /// Batches whose frames are all written; they are written in order.
    written: usize,
    /// How many were, when each sync under way began.
    syncing: HashMap<usize, usize>,
    /// Batches that are certain.
    certain: usize,
}

/// Checks a recording.
///
/// # Panics
/// Where the log is not written as SQLite writes it.
#[must_use]
pub fn check(trace: &Trace, steps: &[Step], rows: &[BatchRow]) -> Order {
    let mut order = Order::default();
    let mut customers: HashMap<&str, Standing> = HashMap::new();
    let mut log = Log::default();
    let mut steps = steps.iter().peekable();
    for (place, event) in trace.events.iter().enumerate() {
        if trace.call(*event).on.ends_with("-wal") {
            let before = log.certain;
            log.play(trace, *event, rows, &mut order);
            for row in &rows[before..log.certain] {
                for (customer, units) in &row.takes {
                    customers.entry(customer).or_default().taken += units;
                }
                for (customer, units) in &row.releases {
                    customers.entry(customer).or_default().released += units;
                }
            }
        }
        while let Some(step) = steps.next_if(|step| step.event == place) {
            let standing = customers.entry(&step.customer).or_default();
            if !standing.allows(step.seen, &mut order) {
                order.early += 1;
                order
                    .first
                    .get_or_insert_with(|| format!("event {place}: {} {:?}", step.customer, step.seen));
            }
        }
    }
    order.batches = log.written;
    order
}

impl Standing {
    /// Enters a step; whether it may be.
    fn allows(&mut self, seen: Seen, order: &mut Order) -> bool {
        match seen {
            Seen::Asked => true,
            Seen::Forwarded { .. } => {
                order.forwarded += 1;
                self.forwarded += 1;
                self.forwarded <= self.taken
            }
            Seen::Answered { is_admitted: false, .. } => true,
            Seen::Answered { is_kept, .. } => {
                order.acknowledged += 1;
                self.admitted += 1;
                self.answered_released += i64::from(!is_kept);
                self.admitted <= self.taken && self.answered_released <= self.released
            }
        }
    }
}

impl Log {
    fn play(&mut self, trace: &Trace, event: Event, rows: &[BatchRow], order: &mut Order) {
        let call = trace.call(event);
        match (event, call.what) {
            (Event::Begins(place), What::Write) => match call.data.len() {
                // Bytes 4 to 8 are the database's size, and 0 but in the last frame of a transaction.
                FRAME_HEAD => self.is_last = call.data[4..8] != [0; 4],
                LOG_HEAD => {}
                length => {
                    assert!(length.is_power_of_two() && length >= 512, "no frame of a log: {length} bytes");
                    self.pages.push(place);
                }
            },
            (Event::Ends(_), What::Write) if self.is_last && call.data.len() > LOG_HEAD => {
                if let Some(row) = rows.get(self.written) {
                    let mut pages = self.pages.iter().map(|page| trace.calls[*page].data.as_slice());
                    self.written += usize::from(pages.any(|page| find(page, &row.end).is_some()));
                }
                self.pages.clear();
                self.is_last = false;
            }
            (Event::Begins(place), What::Sync) => {
                self.syncing.insert(place, self.written);
            }
            (Event::Ends(place), What::Sync) if call.done => {
                order.syncs += 1;
                self.certain = self.certain.max(self.syncing.remove(&place).unwrap_or_default());
            }
            (Event::Begins(_) | Event::Ends(_), _) => {}
        }
    }
}
