//! The calls in a recording: what the server was asked, what it forwarded and what it answered, each at its instant.
//!
//! A request counts as asked once it was received whole, a forward and an answer as made from the moment their sending
//! begins. On one connection an answer belongs to the last request.

use super::trace::{Event, Trace, What, find};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// What happened to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The server received it.
    Asked,
    /// The server sent it to the target.
    Forwarded {
        /// The target's answer keeps the unit.
        is_kept: bool,
    },
    /// The server answered it.
    Answered {
        /// It passed.
        is_admitted: bool,
        /// The target's answer kept the unit.
        is_kept: bool,
    },
}

/// One step of a customer's call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The place of the event in the recording.
    pub event: usize,
    /// Whose call.
    pub customer: String,
    /// What happened.
    pub seen: Seen,
}

/// A connection's state.
#[derive(Default)]
struct Socket {
    received: Vec<u8>,
    /// The call that waits for its answer: whose, and whether the target's answer keeps the unit.
    open: Option<(String, bool)>,
}

/// Every step of every proxied call, in order.
#[must_use]
pub fn steps(trace: &Trace) -> Vec<Step> {
    let mut sockets: HashMap<&str, Socket> = HashMap::new();
    let mut steps = Vec::new();
    for (place, event) in trace.events.iter().enumerate() {
        let call = trace.call(*event);
        let found = match (event, call.what) {
            (Event::Ends(_), What::Receive) => received(sockets.entry(&call.on).or_default(), &call.data),
            (Event::Begins(_), What::Send) => sent(sockets.entry(&call.on).or_default(), &call.data),
            (Event::Begins(_) | Event::Ends(_), _) => None,
        };
        if let Some((customer, seen)) = found {
            steps.push(Step { event: place, customer, seen });
        }
    }
    steps
}

/// Whether a target at this URL or path answers so that the unit is kept.
fn keeps(url: &str) -> bool {
    !url.contains("/status/5")
}

fn received(socket: &mut Socket, data: &[u8]) -> Option<(String, Seen)> {
    if data.is_empty() {
        // Closed, or nothing there yet: then what began is not lost.
        return None;
    }
    if socket.received.is_empty() && !data.starts_with(b"POST /api/v1/proxy ") {
        return None;
    }
    socket.received.extend_from_slice(data);
    let head_bytes = find(&socket.received, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&socket.received[..head_bytes]).into_owned();
    let body_bytes: usize = header(&head, "content-length").and_then(|length| length.parse().ok())?;
    let body: Value =
        serde_json::from_slice(socket.received.get(head_bytes..head_bytes + body_bytes)?).ok()?;
    socket.received.clear();
    let customer = body["customer_id"].as_str()?.to_owned();
    socket.open = Some((customer.clone(), keeps(body["target_url"].as_str()?)));
    Some((customer, Seen::Asked))
}

fn sent(socket: &mut Socket, data: &[u8]) -> Option<(String, Seen)> {
    if let Some(rest) = data.strip_prefix(b"HTTP/1.1 ") {
        let (customer, is_kept) = socket.open.take()?;
        let is_admitted = rest.starts_with(b"200 ");
        return Some((customer, Seen::Answered { is_admitted, is_kept: is_admitted && is_kept }));
    }
    let head = String::from_utf8_lossy(&data[..find(data, b"\r\n\r\n")?]).into_owned();
    let customer = header(&head, "x-tracktags-customer-id")?.to_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    Some((customer, Seen::Forwarded { is_kept: keeps(path) }))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// What is known of a customer's calls at an instant, in calls of one unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Book {
    /// Received by the server.
    pub asked: i64,
    /// Answered, whatever the answer.
    pub answered: i64,
    /// Answered `allowed`.
    pub admitted: i64,
    /// Of these, kept: A.
    pub kept: i64,
    /// Sent to the target.
    pub forwarded: i64,
    /// Of these, those that the target's answer keeps: K + F.
    pub forwarded_kept: i64,
}

impl Book {
    /// Enters a step.
    pub const fn enter(&mut self, seen: Seen) {
        match seen {
            Seen::Asked => self.asked += 1,
            Seen::Forwarded { is_kept } => {
                self.forwarded += 1;
                self.forwarded_kept += is_kept as i64;
            }
            Seen::Answered { is_admitted, is_kept } => {
                self.answered += 1;
                self.admitted += is_admitted as i64;
                self.kept += is_kept as i64;
            }
        }
    }

    /// The least that must be counted: what was acknowledged (INV1), and what the target saw and keeps (INV4).
    #[must_use]
    pub fn least(&self) -> i64 {
        self.kept.max(self.forwarded_kept)
    }

    /// The most that may be counted: what was acknowledged and what is still open (INV3).
    #[must_use]
    pub const fn most(&self) -> i64 {
        self.kept + self.asked - self.answered
    }
}

/// A book for each customer.
pub type Books = BTreeMap<String, Book>;

#[cfg(test)]
mod tests {
    use super::super::trace::Call;
    use super::*;

    #[test]
    fn a_call_is_followed_from_its_request_to_its_answer() {
        let body = r#"{"customer_id":"c7","target_url":"http://127.0.0.1:1/status/500"}"#;
        let request = format!("POST /api/v1/proxy HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (first, second) = request.as_bytes().split_at(60);
        let call =
            |what, on: &str, data: &[u8]| Call { what, on: on.into(), data: data.into(), at: 0, done: true };
        let calls = vec![
            call(What::Receive, "s1", first),
            call(What::Receive, "s1", second),
            call(What::Send, "s2", b"POST /status/500 HTTP/1.1\r\nX-TrackTags-Customer-Id: c7\r\n\r\n"),
            call(What::Receive, "s2", b"HTTP/1.1 500 Status\r\n\r\n"),
            call(What::Send, "s1", b"HTTP/1.1 200 OK\r\n\r\n"),
            call(What::Send, "s1", b"HTTP/1.1 200 OK\r\n\r\n"),
        ];
        let events = (0..calls.len()).flat_map(|place| [Event::Begins(place), Event::Ends(place)]).collect();
        let trace = Trace { calls, events };
        let steps = steps(&trace);
        let shown: Vec<_> =
            steps.iter().map(|step| (step.event, step.customer.as_str(), step.seen)).collect();
        assert_eq!(
            shown,
            [
                (3, "c7", Seen::Asked),
                (4, "c7", Seen::Forwarded { is_kept: false }),
                (8, "c7", Seen::Answered { is_admitted: true, is_kept: false }),
            ]
        );
        let mut book = Book::default();
        for step in &steps[..2] {
            book.enter(step.seen);
        }
        assert_eq!((book.least(), book.most()), (0, 1), "while it is open it may be counted");
        book.enter(steps[2].seen);
        assert_eq!((book.least(), book.most()), (0, 0), "it was released");
    }
}
