//! Many clients at once, in a closed loop, and what became of every attempt.

use crate::http::Client;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// What became of the attempts of a load, in calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answered `allowed`: 200.
    pub allowed: usize,
    /// Answered `denied`: 429.
    pub denied: usize,
    /// No answer, or one that says nothing is known (503 `outcome_unknown`).
    pub unknown: usize,
    /// Refused, and nothing was counted: any other status.
    pub refused: usize,
}

impl Tally {
    /// Notes an answer; `status` 0 is none.
    pub fn note(&mut self, status: u16, code: &str) {
        match (status, code) {
            (200, _) => self.allowed += 1,
            (429, "limit_exceeded") => self.denied += 1,
            (0, _) | (503, "outcome_unknown") => self.unknown += 1,
            _ => self.refused += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.unknown += other.unknown;
        self.refused += other.refused;
    }
}

/// One attempt: number and connection in, status and code out.
type Attempt = dyn Fn(usize, &mut Client) -> (u16, String) + Send + Sync;

/// A running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// Starts `connections` clients that make attempts until `attempts` were made or the load is stopped.
    #[must_use]
    pub fn start(
        address: SocketAddr,
        connections: usize,
        attempts: usize,
        attempt: impl Fn(usize, &mut Client) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let attempt: Arc<Attempt> = Arc::new(attempt);
        let threads = (0..connections)
            .map(|_| {
                let (stop, begun, attempt) = (Arc::clone(&stop), Arc::clone(&begun), Arc::clone(&attempt));
                std::thread::spawn(move || {
                    let mut client = Client::new(address);
                    let mut tally = Tally::default();
                    while !stop.load(Ordering::SeqCst) {
                        let number = begun.fetch_add(1, Ordering::SeqCst);
                        if number >= attempts {
                            break;
                        }
                        let (status, code) = attempt(number, &mut client);
                        tally.note(status, &code);
                        if status == 0 {
                            // The server is gone, or this connection is: a new one, and no hot loop meanwhile.
                            client = Client::new(address);
                            std::thread::yield_now();
                        }
                    }
                    tally
                })
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
    #[must_use]
    pub fn wait(self) -> Tally {
        let mut sum = Tally::default();
        for thread in self.threads {
            sum.add(thread.join().unwrap_or_default());
        }
        sum
    }
}
