//! A load at a fixed rate: requests go out when they are due, however long answers take.
//!
//! A client that waits for an answer before it sends again slows down with the server, and so hides its overload. Here
//! latencies count from the instant at which a request was due. One thread with non-blocking sockets does it, cheaply
//! enough to share two cores with the server. Requests are due to the millisecond, which is what the kernel's timer
//! gives.

mod connection;
mod tally;

use connection::{Connection, Progress};
use mio::{Events, Poll, Token};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
pub use tally::{Answer, Tally};

/// When requests of a class are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// So many in a second, whatever becomes of them.
    PerSecond(u32),
    /// The next one with each answer, on every connection: what the server can do.
    Closed,
}

/// Requests of one kind.
#[derive(Debug, Clone)]
pub struct Class {
    /// When they are due.
    pub pace: Pace,
    /// What is sent, in turn: whole requests.
    pub requests: Vec<Vec<u8>>,
    /// Connections that are open before the first request.
    pub connections: usize,
    /// Connections at once. A request that finds all of them taken waits, and its latency counts on.
    pub connections_max: usize,
}

/// A load.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub address: SocketAddr,
    /// What is sent to it, all at once.
    pub classes: Vec<Class>,
    /// For how long requests become due.
    pub lasts: Duration,
    /// How long answers are waited for after that.
    pub answers_within: Duration,
}

/// The longest sleep between two looks at what is due.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// How long the first connections may take to open.
const OPEN_WITHIN: Duration = Duration::from_secs(20);

/// Runs a load to its end: what became of each class.
///
/// # Errors
/// The sockets': a server that cannot be reached at the start, too few descriptors.
pub fn run(plan: &Plan) -> io::Result<Vec<Tally>> {
    let mut running = Running::new(plan)?;
    running.open_first()?;
    running.begin();
    while running.step()? {}
    Ok(running.finish())
}

#[expect(clippy::disallowed_methods, reason = "paces a load and measures its answers")]
fn now() -> Instant {
    Instant::now()
}

/// One class on its way.
struct Lane<'a> {
    class: &'a Class,
    tally: Tally,
    /// Requests that have become due.
    due: u32,
    /// Instants of requests that found no connection.
    waiting: VecDeque<Instant>,
    /// The one that has waited longest comes first: a server closes those that are never used.
    idle: VecDeque<Token>,
    open: usize,
}

struct Running<'a> {
    plan: &'a Plan,
    poll: Poll,
    lanes: Vec<Lane<'a>>,
    connections: Vec<Option<Connection>>,
    free: Vec<Token>,
    start: Instant,
}

impl<'a> Running<'a> {
    fn new(plan: &'a Plan) -> io::Result<Self> {
        let lanes = plan.classes.iter().map(|class| Lane {
            class,
            tally: Tally::default(),
            due: 0,
            waiting: VecDeque::new(),
            idle: VecDeque::new(),
            open: 0,
        });
        let lanes = lanes.collect();
        Ok(Self { plan, poll: Poll::new()?, lanes, connections: Vec::new(), free: Vec::new(), start: now() })
    }

    fn open(&mut self, place: usize) -> io::Result<Token> {
        let token = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            Token(self.connections.len().saturating_sub(1))
        });
        let connection = Connection::open(self.plan.address, place, token, self.poll.registry())?;
        if let Some(slot) = self.connections.get_mut(token.0) {
            *slot = Some(connection);
        }
        if let Some(lane) = self.lanes.get_mut(place) {
            lane.open += 1;
        }
        Ok(token)
    }

    fn close(&mut self, token: Token) {
        let Some(closed) = self.connections.get_mut(token.0).and_then(Option::take) else { return };
        closed.close(self.poll.registry());
        self.free.push(token);
        if let Some(lane) = self.lanes.get_mut(closed.place()) {
            lane.open = lane.open.saturating_sub(1);
            lane.idle.retain(|idle| *idle != token);
        }
    }

    /// Opens what is to be open before the first request.
    fn open_first(&mut self) -> io::Result<()> {
        for place in 0..self.lanes.len() {
            let count = self.lanes.get(place).map_or(0, |lane| lane.class.connections);
            for _ in 0..count {
                let token = self.open(place)?;
                if let Some(lane) = self.lanes.get_mut(place) {
                    lane.idle.push_back(token);
                }
            }
        }
        let began = now();
        let mut events = Events::with_capacity(1_024);
        let is_open = |one: &Option<Connection>| one.as_ref().is_none_or(Connection::is_open);
        while !self.connections.iter().all(is_open) {
            if began.elapsed() > OPEN_WITHIN {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.poll.poll(&mut events, Some(SLEEP_MAX))?;
            for event in &events {
                if let Some(Some(connection)) = self.connections.get_mut(event.token().0) {
                    connection.opened()?;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self) {
        self.start = now();
        for place in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(place) else { continue };
            if lane.class.pace == Pace::Closed {
                lane.waiting.extend(std::iter::repeat_n(self.start, lane.idle.len()));
                self.send_waiting(place);
            }
        }
    }

    /// Sends what is due and takes in what came; whether anything is left to do.
    fn step(&mut self) -> io::Result<bool> {
        let so_far = self.start.elapsed();
        let is_sending = so_far < self.plan.lasts;
        let is_open =
            |lane: &Lane<'_>| lane.tally.answers.len() < lane.tally.sent || !lane.waiting.is_empty();
        if !is_sending
            && (so_far > self.plan.lasts + self.plan.answers_within || !self.lanes.iter().any(is_open))
        {
            return Ok(false);
        }
        let mut sleep = SLEEP_MAX;
        for place in 0..self.lanes.len() {
            let next = self.lanes.get_mut(place).and_then(|lane| lane.fall_due(self.start, self.plan.lasts));
            self.send_waiting(place);
            if let Some(next) = next {
                sleep = sleep.min(next.saturating_duration_since(now()));
            }
        }
        let mut events = Events::with_capacity(4_096);
        self.poll.poll(&mut events, Some(sleep))?;
        for event in &events {
            self.progress(event.token());
        }
        Ok(true)
    }

    /// Gives waiting requests to connections, as far as there are any.
    fn send_waiting(&mut self, place: usize) {
        loop {
            let Some(lane) = self.lanes.get_mut(place) else { return };
            let Some(due) = lane.waiting.front().copied() else { return };
            let idle = lane.idle.pop_front();
            let token = match idle {
                Some(token) => token,
                None if lane.open < lane.class.connections_max => match self.open(place) {
                    Ok(token) => token,
                    Err(_no_descriptor) => return,
                },
                None => return,
            };
            let Some(lane) = self.lanes.get_mut(place) else { return };
            lane.waiting.pop_front();
            let request = lane.tally.sent % lane.class.requests.len().max(1);
            lane.tally.sent += 1;
            if let Some(Some(connection)) = self.connections.get_mut(token.0) {
                connection.give(request, due);
            }
            self.progress(token);
        }
    }

    /// Moves a connection on as far as it goes.
    fn progress(&mut self, token: Token) {
        let Some(Some(connection)) = self.connections.get_mut(token.0) else { return };
        let place = connection.place();
        let Some(lane) = self.lanes.get_mut(place) else { return };
        match connection.progress(&lane.class.requests) {
            Progress::Waits => return,
            Progress::Answered { answer, code, is_kept } => {
                lane.tally.note(answer, code);
                if is_kept {
                    lane.idle.push_back(token);
                } else {
                    self.close(token);
                }
            }
            Progress::Ended(unanswered) => {
                if let Some(answer) = unanswered {
                    lane.tally.note(answer, None);
                }
                self.close(token);
            }
        }
        let is_sending = self.start.elapsed() < self.plan.lasts;
        let Some(lane) = self.lanes.get_mut(place) else { return };
        if is_sending && lane.class.pace == Pace::Closed {
            lane.waiting.push_back(now());
        }
        if !lane.waiting.is_empty() {
            self.send_waiting(place);
        }
    }

    fn finish(mut self) -> Vec<Tally> {
        let elapsed = self.start.elapsed().min(self.plan.lasts);
        for lane in &mut self.lanes {
            lane.tally.lasted = elapsed;
            lane.tally.unsent = lane.waiting.len();
        }
        self.lanes.into_iter().map(|lane| lane.tally).collect()
    }
}

impl Lane<'_> {
    /// Lets requests become due; when the next one is.
    fn fall_due(&mut self, start: Instant, lasts: Duration) -> Option<Instant> {
        let Pace::PerSecond(rate) = self.class.pace else { return None };
        let now = now();
        loop {
            let offset = Duration::from_secs(1) * self.due / rate.max(1);
            if offset >= lasts {
                return None;
            }
            let instant = start + offset;
            if instant > now {
                return Some(instant);
            }
            self.due += 1;
            self.waiting.push_back(instant);
        }
    }
}
