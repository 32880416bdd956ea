//! A target that misbehaves on demand, and keeps a log of its own: what arrived, and in which order.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is read of a request at once.
pub const READ_AHEAD_BYTES: usize = 8_192;

/// What arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its number, from 1 on.
    pub number: usize,
    /// Method, path and query.
    pub request_line: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Arrival {
    /// A header's value, or an empty text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Whose call it is.
    #[must_use]
    pub fn customer(&self) -> &str {
        self.header("x-tracktags-customer-id")
    }

    /// The path and query that were asked for.
    #[must_use]
    pub fn path(&self) -> &str {
        self.request_line.split(' ').nth(1).unwrap_or_default()
    }
}

/// Sees what happens at a target.
pub trait Watcher: Send + Sync {
    /// A request arrived; nothing was answered yet.
    fn arrives(&self, arrival: &Arrival);

    /// It is about to be answered, or to be left without an answer, so that its units are kept, or not.
    fn answers(&self, _arrival: &Arrival, _is_kept: bool) {}
}

impl<F: Fn(&Arrival) + Send + Sync> Watcher for F {
    fn arrives(&self, arrival: &Arrival) {
        self(arrival);
    }
}

/// How a target behaves that is a program of its own.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// The path that it behaves by, whatever is asked for.
    pub always: Option<String>,
    /// What it answers with at `/raw`, before it closes.
    pub raw: Vec<u8>,
    /// What it answers with at `/raw/NAME`, and goes on.
    pub named: HashMap<String, Vec<u8>>,
    /// It keeps nothing of what arrived.
    pub forgets: bool,
}

/// A running target. The path says how it behaves:
///
/// | path | answer |
/// |---|---|
/// | `/echo` | 200 with the request's body; `/delay/MS/echo` after a while |
/// | `/status/N` | that status; `/delay/MS/status/N` after a while |
/// | `/hang` | none, until the caller closes |
/// | `/slow` | a head and half a body, then nothing until the caller closes |
/// | `/reset` | none: the connection is reset, if the request's body is larger than [`READ_AHEAD_BYTES`] |
/// | `/gone` | none: the connection is closed |
/// | `/garbage` | what is no HTTP |
/// | `/cut` | half a head, then closed |
/// | `/short`, `/chunk` | a body cut short of its length, or in the middle of a chunk |
/// | `/large` | 9 MB |
/// | `/bytes/N` | N bytes |
/// | `/declared/N` | a length of N, and bytes until the caller closes |
/// | `/endless` | chunks until the caller closes |
/// | `/raw/NAME` | the bytes that it was started with under this name, then the connection waits |
/// | `/interim` | 103 first, then as `/echo` |
/// | `/surplus` | as `/echo`, and a second answer that nobody asked for |
/// | `/close` | as `/echo`, the body's end being the connection's |
/// | `/raw` | the bytes of its [`Manner`], then closed |
#[derive(Clone)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Arrival>>>,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    /// Starts it.
    #[must_use]
    pub fn start() -> Self {
        Self::peeking(|_| ())
    }

    /// Starts it; `peek` looks at every arrival before it is answered.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn peeking(peek: impl Fn(&Arrival) + Send + Sync + 'static) -> Self {
        Self::begin(Manner::default(), Arc::new(peek))
    }

    /// Starts one that keeps nothing of what arrived.
    #[must_use]
    pub fn forgetful() -> Self {
        Self::begin(Manner { forgets: true, ..Manner::default() }, Arc::new(|_: &Arrival| ()))
    }

    /// Starts it with answers of one's own, at `/raw/NAME`.
    #[must_use]
    pub fn answering(raw: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let named = raw.into_iter().collect();
        Self::begin(Manner { named, ..Manner::default() }, Arc::new(|_: &Arrival| ()))
    }

    fn begin(manner: Manner, watcher: Arc<dyn Watcher>) -> Self {
        match TcpListener::bind("127.0.0.1:0") {
            Ok(listener) => Self::on(listener, manner, watcher),
            Err(error) => panic!("{error}"),
        }
    }

    /// Starts it on a socket that listens.
    ///
    /// # Panics
    /// When the socket has no address.
    #[must_use]
    pub fn on(listener: TcpListener, manner: Manner, watcher: Arc<dyn Watcher>) -> Self {
        let address = listener.local_addr().unwrap_or_else(|error| panic!("{error}"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let opened = Arc::clone(&connections);
        let server =
            Arc::new(Server { manner, watcher, log: Arc::clone(&log), arrived: AtomicUsize::new(0) });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                opened.fetch_add(1, Ordering::SeqCst);
                let server = Arc::clone(&server);
                std::thread::spawn(move || server.serve(stream));
            }
        });
        Self { address, log, connections }
    }

    /// The URL of a behaviour.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What arrived so far.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        lock(&self.log).clone()
    }

    /// Connections that were opened so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How much arrived so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.log).len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Server {
    manner: Manner,
    watcher: Arc<dyn Watcher>,
    log: Arc<Mutex<Vec<Arrival>>>,
    arrived: AtomicUsize,
}

impl Server {
    fn serve(&self, stream: TcpStream) {
        let _fast = stream.set_nodelay(true);
        let mut stream = BufReader::with_capacity(READ_AHEAD_BYTES, stream);
        while let Some(mut arrival) = read(&mut stream) {
            arrival.number = self.arrived.fetch_add(1, Ordering::SeqCst) + 1;
            self.watcher.arrives(&arrival);
            if !self.manner.forgets {
                lock(&self.log).push(arrival.clone());
            }
            let mut path = self.manner.always.as_deref().unwrap_or(arrival.path());
            while let Some((milliseconds, rest)) = path
                .strip_prefix("/delay/")
                .map(|delay| delay.split_at(delay.find('/').unwrap_or(delay.len())))
            {
                std::thread::sleep(Duration::from_millis(milliseconds.parse().unwrap_or(0)));
                path = rest;
            }
            self.watcher.answers(&arrival, is_kept(path));
            let named = path.strip_prefix("/raw/").and_then(|name| self.manner.named.get(name));
            let goes_on = match (path, named) {
                (_, Some(bytes)) => send(stream.get_mut(), bytes),
                ("/raw", None) => last(stream.get_mut(), &self.manner.raw),
                (_, None) => answer(path, &arrival.body, stream.get_mut()),
            };
            if !goes_on {
                return;
            }
        }
    }
}

/// Whether a behaviour keeps the call's units (docs/RELIABILITY.md). Of raw bytes nobody knows.
fn is_kept(path: &str) -> bool {
    match path.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default() {
        "status" => !path.starts_with("/status/5"),
        "reset" | "gone" | "cut" | "garbage" | "raw" => false,
        _ => true,
    }
}

/// Reads a request; `None` where none comes.
pub fn read(stream: &mut BufReader<TcpStream>) -> Option<Arrival> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let request_line = line.trim_end().to_owned();
    let mut headers = HashMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    // A socket that is closed with bytes unread is reset.
    let is_read = !request_line.contains(" /reset");
    let length = headers.get("content-length").filter(|_| is_read).and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some(Arrival { number: 0, request_line, headers, body })
}

/// Answers as the path says; whether the connection goes on.
fn answer(path: &str, body: &[u8], stream: &mut TcpStream) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (mode, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match mode {
        "echo" => send(stream, &ok(body)),
        "status" => {
            send(stream, format!("HTTP/1.1 {value} Status\r\ncontent-length: 2\r\n\r\nok").as_bytes())
        }
        "interim" => {
            let hints = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".to_vec();
            send(stream, &[hints, ok(body)].concat())
        }
        "surplus" => send(stream, &[ok(body), ok(b"of nobody")].concat()),
        "close" => {
            send(stream, &[b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", body].concat());
            false
        }
        "hang" | "slow" => {
            if mode == "slow" {
                send(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
            }
            let _until_closed = stream.read(&mut [0; 1]);
            false
        }
        "garbage" => last(stream, b"this is not HTTP\r\n\r\n"),
        "cut" => last(stream, b"HTTP/1.1 200 OK\r\ncontent-le"),
        "short" => last(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"),
        "chunk" => last(stream, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nha"),
        "large" => last(
            stream,
            &[b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n".to_vec(), vec![b'x'; 9_000_000]].concat(),
        ),
        "bytes" => send(stream, &ok(&vec![b'x'; value.parse().unwrap_or(0)])),
        "declared" => {
            send(stream, format!("HTTP/1.1 200 OK\r\ncontent-length: {value}\r\n\r\n").as_bytes());
            while send(stream, &[b'x'; READ_AHEAD_BYTES]) {}
            false
        }
        "endless" => {
            send(stream, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            let chunk = format!("2000\r\n{}\r\n", "x".repeat(READ_AHEAD_BYTES));
            while send(stream, chunk.as_bytes()) {}
            false
        }
        "gone" | "reset" => false,
        _ => send(stream, &ok(b"ok")),
    }
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn send(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

/// Sends these bytes and ends the connection.
fn last(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    send(stream, bytes);
    let _closed = stream.shutdown(Shutdown::Write);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_behaves_as_it_was_told_whatever_is_asked_for() {
        let answer_of = |always: &str| {
            let raw = b"HTTP/1.1 299 Odd\r\ncontent-length: 3\r\n\r\nraw".to_vec();
            let manner = Manner { always: Some(always.to_owned()), raw, forgets: true, ..Manner::default() };
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let target = Upstream::on(listener, manner, Arc::new(|_: &Arrival| ()));
            let answer = crate::http::Client::new(target.address).send("POST", "/echo", &[], b"said");
            assert_eq!(target.count(), 0, "it forgets");
            (answer.status, answer.text())
        };
        assert_eq!(answer_of("/raw"), (299, "raw".to_owned()));
        assert_eq!(answer_of("/delay/1/status/503"), (503, "ok".to_owned()));
        assert_eq!(answer_of("/delay/1/delay/1/echo"), (200, "said".to_owned()));
    }
}
