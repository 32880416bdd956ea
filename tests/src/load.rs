//! Many clients at once, in a closed loop, and what became of every attempt: N, A, X and D of docs/RELIABILITY.md.

use crate::http::{Client, Response};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// What became of the attempts of a load, in calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// A: answered `allowed`.
    pub allowed: usize,
    /// D: answered `denied`.
    pub denied: usize,
    /// X: no answer, or one that says nothing is known (503 `outcome_unknown`).
    pub unknown: usize,
    /// Of these, calls to which no connection could be made: they never left.
    pub unsent: usize,
    /// Failed at the target: 502 or 504, in the shape of `failed`.
    pub failed: usize,
    /// Refused, and nothing was counted: every other answer.
    pub refused: usize,
    /// Every answer that was not `allowed`, by status and code.
    pub others: BTreeMap<(u16, String), usize>,
}

impl Tally {
    /// Notes an answer; status 0 is none.
    pub fn note(&mut self, answer: &Response) {
        let code = answer.code();
        match (answer.status, code.as_str()) {
            (200, _) => self.allowed += 1,
            (429, "limit_exceeded") => self.denied += 1,
            (0, _) | (503, "outcome_unknown") => self.unknown += 1,
            (502 | 504, _) => self.failed += 1,
            _ => self.refused += 1,
        }
        self.unsent += usize::from(answer.is_unsent());
        if answer.status != 200 {
            *self.others.entry((answer.status, code)).or_default() += 1;
        }
    }

    /// N: all attempts.
    #[must_use]
    pub const fn attempts(&self) -> usize {
        self.allowed + self.denied + self.unknown + self.failed + self.refused
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.unknown += other.unknown;
        self.unsent += other.unsent;
        self.failed += other.failed;
        self.refused += other.refused;
        for (answer, count) in &other.others {
            *self.others.entry(answer.clone()).or_default() += count;
        }
    }
}

/// One attempt: its number and a connection in, the answer out.
type Attempt = dyn Fn(usize, &mut Client) -> Response + Send + Sync;

/// A running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// Starts `connections` clients that make attempts until `attempts` were begun or the load is stopped.
    #[must_use]
    pub fn start(
        address: SocketAddr,
        connections: usize,
        attempts: usize,
        attempt: impl Fn(usize, &mut Client) -> Response + Send + Sync + 'static,
    ) -> Self {
        let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let attempt: Arc<Attempt> = Arc::new(attempt);
        let threads = (0..connections)
            .map(|_| {
                let (stop, begun, attempt) = (Arc::clone(&stop), Arc::clone(&begun), Arc::clone(&attempt));
                std::thread::spawn(move || one(address, &stop, &begun, attempts, &*attempt))
            })
            .collect();
        Self { stop, begun, threads }
    }

    /// How many attempts were begun.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// Ends it and adds up.
    #[must_use]
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        self.wait()
    }

    /// Waits until all attempts were made, and adds up.
    ///
    /// # Panics
    /// When a client of the load did: its own assertion failed.
    #[must_use]
    pub fn wait(self) -> Tally {
        let mut sum = Tally::default();
        for thread in self.threads {
            match thread.join() {
                Ok(tally) => sum.add(&tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        sum
    }
}

fn one(
    address: SocketAddr,
    stop: &AtomicBool,
    begun: &AtomicUsize,
    attempts: usize,
    attempt: &Attempt,
) -> Tally {
    let mut client = Client::new(address);
    let mut tally = Tally::default();
    while !stop.load(Ordering::SeqCst) {
        let number = begun.fetch_add(1, Ordering::SeqCst);
        if number >= attempts {
            break;
        }
        let answer = attempt(number, &mut client);
        tally.note(&answer);
        if answer.is_unsent() {
            // The server is gone: no hot loop until the load is stopped.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    tally
}
