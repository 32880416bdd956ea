//! One non-blocking connection that carries a request at a time.

use super::{Answer, now};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

/// Read at once.
const READ_BYTES: usize = 16_384;

/// The request that a connection carries.
struct Carried {
    request: usize,
    written: usize,
    due: Instant,
    sent: Instant,
}

pub(super) struct Connection {
    stream: TcpStream,
    place: usize,
    is_open: bool,
    carried: Option<Carried>,
    read: Vec<u8>,
    /// Of the answer that is being read: where its head ends, and where its body does.
    ends: Option<(usize, usize)>,
}

/// How far a connection came.
pub(super) enum Progress {
    /// It waits for its peer.
    Waits,
    /// An answer is there.
    Answered { answer: Answer, code: Option<String>, is_kept: bool },
    /// It is closed; with the request that got no answer.
    Ended(Option<Answer>),
}

impl Connection {
    pub(super) fn open(
        address: SocketAddr,
        place: usize,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, place, is_open: false, carried: None, read: Vec::new(), ends: None })
    }

    pub(super) const fn place(&self) -> usize {
        self.place
    }

    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Looks whether it is open by now.
    pub(super) fn opened(&mut self) -> io::Result<()> {
        if !self.is_open {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            self.is_open = self.stream.peer_addr().is_ok();
            if self.is_open {
                self.stream.set_nodelay(true)?;
            }
        }
        Ok(())
    }

    pub(super) fn give(&mut self, request: usize, due: Instant) {
        self.carried = Some(Carried { request, written: 0, due, sent: now() });
    }

    pub(super) fn close(&self, registry: &Registry) {
        let _closed = self.stream.shutdown(std::net::Shutdown::Both);
        let _gone = registry;
    }

    /// Writes and reads what can be.
    pub(super) fn progress(&mut self, requests: &[Vec<u8>]) -> Progress {
        match self.opened() {
            Err(_refused) => return self.ended(),
            Ok(()) if !self.is_open => return Progress::Waits,
            Ok(()) => {}
        }
        if !self.write(requests) {
            return self.ended();
        }
        self.receive()
    }

    /// Whether all is well.
    fn write(&mut self, requests: &[Vec<u8>]) -> bool {
        let Some(carried) = &mut self.carried else { return true };
        let Some(bytes) = requests.get(carried.request) else { return false };
        while let Some(left) = bytes.get(carried.written..).filter(|left| !left.is_empty()) {
            match self.stream.write(left) {
                Ok(written) => carried.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It may have been answered all the same.
                Err(_closed) => return true,
            }
        }
        true
    }

    fn receive(&mut self) -> Progress {
        loop {
            let before = self.read.len();
            self.read.resize(before + READ_BYTES, 0);
            let room = self.read.get_mut(before..).unwrap_or_default();
            let count = match self.stream.read(room) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.read.truncate(before);
                    return Progress::Waits;
                }
                Err(_broken) => 0,
            };
            self.read.truncate(before + count);
            if count == 0 {
                return self.ended();
            }
            if let Some(answered) = self.answered() {
                return answered;
            }
        }
    }

    fn ended(&mut self) -> Progress {
        let unanswered = self.carried.take();
        Progress::Ended(unanswered.map(|carried| carried.answer(0, false)))
    }

    /// The answer, if all of it is there.
    fn answered(&mut self) -> Option<Progress> {
        if self.ends.is_none() {
            let head = self.read.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
            let length = header(self.read.get(..head)?, "content-length").and_then(|text| text.parse().ok());
            self.ends = Some((head, head + length.unwrap_or(0)));
        }
        let (head_end, end) = self.ends?;
        if self.read.len() < end {
            return None;
        }
        let head = self.read.get(..head_end)?;
        let status = std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()?;
        let is_kept = header(head, "connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
        let has_retry_after = status < 400 || header(head, "retry-after").is_some();
        let code = (status >= 400).then(|| code_of(self.read.get(head_end..end).unwrap_or_default()));
        self.read.clear();
        self.ends = None;
        let answer = self.carried.take()?.answer(status, has_retry_after);
        Some(Progress::Answered { answer, code: code.flatten(), is_kept })
    }
}

impl Carried {
    fn answer(&self, status: u16, has_retry_after: bool) -> Answer {
        let now = now();
        let since = |instant: Instant| now.saturating_duration_since(instant);
        Answer { status, since_due: since(self.due), since_sent: since(self.sent), has_retry_after }
    }
}

/// A field of a head.
fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let lines = std::str::from_utf8(head).ok()?.split("\r\n").skip(1);
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// The code of a refusal.
fn code_of(body: &[u8]) -> Option<String> {
    let (_, after) = std::str::from_utf8(body).ok()?.split_once("\"code\":\"")?;
    after.split('"').next().map(str::to_owned)
}
