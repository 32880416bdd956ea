//! A target that misbehaves on demand, and keeps a log of its own: what arrived, and what it answered.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Method, path and query.
    pub request_line: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

type Peek = dyn Fn(&Arrival) + Send + Sync;

/// A running target. The path says how it behaves: `/echo`, `/status/503`, `/hang`, `/reset`, `/garbage`, `/short`,
/// `/large`, `/gone` (no answer, closed), `/slow` (a body that never ends); anything else answers `ok`.
#[derive(Clone)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Arrival>>>,
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
        let listener = match TcpListener::bind("127.0.0.1:0") {
            Ok(listener) => listener,
            Err(error) => panic!("{error}"),
        };
        let address = listener.local_addr().unwrap_or_else(|error| panic!("{error}"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (seen, peek): (_, Arc<Peek>) = (Arc::clone(&log), Arc::new(peek));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, peek) = (Arc::clone(&seen), Arc::clone(&peek));
                std::thread::spawn(move || serve(stream, &seen, &*peek));
            }
        });
        Self { address, log }
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

    /// How much arrived so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.log).len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Arrival>>, peek: &Peek) {
    let _fast = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    while let Some(arrival) = read(&mut stream) {
        peek(&arrival);
        lock(log).push(arrival.clone());
        if !answer(&arrival, stream.get_mut()) {
            return;
        }
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Arrival> {
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
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Arrival { request_line, headers, body })
}

/// Answers as the path says; whether the connection goes on.
fn answer(arrival: &Arrival, stream: &mut TcpStream) -> bool {
    let path = arrival.request_line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut send = |bytes: &[u8]| stream.write_all(bytes).is_ok();
    let mut parts = path.trim_start_matches('/').split('/');
    match (parts.next(), parts.next()) {
        (Some("echo"), _) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", arrival.body.len());
            send(&[head.into_bytes(), arrival.body.clone()].concat())
        }
        (Some("status"), Some(status)) => {
            send(format!("HTTP/1.1 {status} Status\r\ncontent-length: 2\r\n\r\nok").as_bytes())
        }
        (Some("hang"), _) => {
            let _until_closed = stream.read(&mut [0; 1]);
            false
        }
        (Some("slow"), _) => {
            send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
            let _until_closed = stream.read(&mut [0; 1]);
            false
        }
        (Some("garbage"), _) => {
            send(b"this is not HTTP\r\n\r\n");
            false
        }
        (Some("short"), _) => {
            send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
            false
        }
        (Some("large"), _) => {
            send(&[b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n".to_vec(), vec![b'x'; 9_000_000]].concat());
            false
        }
        (Some("gone" | "reset"), _) => false,
        _ => send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"),
    }
}
