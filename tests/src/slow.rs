//! Many clients that send a byte a second, or stop in the middle: one thread holds all of them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Between two looks at all of them; what they are told is known to this.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between two bytes.
const BYTE_EVERY: Duration = Duration::from_secs(1);

/// What a slow client sends.
#[derive(Debug, Clone, Default)]
pub struct Slow {
    /// At once.
    pub first: Vec<u8>,
    /// Then, a byte a second; after that nothing.
    pub rest: Vec<u8>,
}

/// How it ended for one of them.
#[derive(Debug, Clone)]
pub struct Ended {
    /// So long after it had connected; `None`: it was still waiting.
    pub after: Option<Duration>,
    /// What it was told.
    pub answer: Vec<u8>,
}

impl Ended {
    /// The status it was told; 0 where it was told none.
    #[must_use]
    pub fn status(&self) -> u16 {
        let digits = self.answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

struct Client {
    stream: TcpStream,
    rest: Vec<u8>,
    sent: usize,
    opened: Instant,
    ended: Ended,
}

/// Runs all of them until each was answered or closed, or `limit` passed; how it ended for each, in their order.
///
/// # Errors
/// A connection that cannot be opened.
#[expect(clippy::disallowed_methods, reason = "paces slow clients and measures how long they were borne")]
pub fn run(address: SocketAddr, clients: &[Slow], limit: Duration) -> io::Result<Vec<Ended>> {
    let mut running = Vec::with_capacity(clients.len());
    for client in clients {
        let mut stream = TcpStream::connect(address)?;
        let opened = Instant::now();
        stream.write_all(&client.first)?;
        stream.set_nonblocking(true)?;
        let ended = Ended { after: None, answer: Vec::new() };
        running.push(Client { stream, rest: client.rest.clone(), sent: 0, opened, ended });
    }
    let began = Instant::now();
    let is_waiting = |client: &Client| client.ended.after.is_none();
    while began.elapsed() < limit && running.iter().any(is_waiting) {
        for client in running.iter_mut().filter(|client| is_waiting(client)) {
            client.look(client.opened.elapsed());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(running.into_iter().map(|client| client.ended).collect())
}

impl Client {
    fn look(&mut self, now: Duration) {
        let mut buffer = [0; 4_096];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.ended.answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
                self.ended.after = Some(now);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.send(now),
            Err(_closed) => self.ended.after = Some(now),
        }
    }

    /// Sends the next byte where it is time. The first goes at once: the clock of a head starts with it, or before.
    fn send(&mut self, now: Duration) {
        let due = usize::try_from(now.as_secs() / BYTE_EVERY.as_secs()).unwrap_or(usize::MAX);
        if self.sent <= due
            && let Some(next) = self.rest.get(self.sent..=self.sent)
        {
            // What cannot be sent is seen by the next look.
            self.sent += self.stream.write(next).unwrap_or_default();
        }
    }
}
