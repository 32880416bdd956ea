//! A small blocking HTTP/1.1 client with one kept connection. It sends exactly what it is told, once.

use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer, or that there was none.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// Its status; 0 where none was received.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
    unsent: bool,
}

impl Response {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The answer's code, where it has one: an error, a denial or a failure.
    #[must_use]
    pub fn code(&self) -> String {
        if self.status == 200 || self.body.is_empty() {
            return String::new();
        }
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether no connection could be made, so that the request never left.
    #[must_use]
    pub const fn is_unsent(&self) -> bool {
        self.unsent
    }
}

/// A client of one server.
pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client that connects when it first sends.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// A request with a key and a JSON body.
    pub fn json(&mut self, method: &str, path: &str, key: &str, body: Option<&Value>) -> Response {
        let authorization = format!("Bearer {key}");
        self.with_header(method, path, ("authorization", &authorization), body)
    }

    /// A request of the platform admin.
    pub fn admin(&mut self, method: &str, path: &str, key: &str, body: Option<&Value>) -> Response {
        self.with_header(method, path, ("x-admin-key", key), body)
    }

    fn with_header(
        &mut self,
        method: &str,
        path: &str,
        auth: (&str, &str),
        body: Option<&Value>,
    ) -> Response {
        let body = body.map(ToString::to_string);
        let mut headers = vec![auth];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        self.send(method, path, &headers, body.unwrap_or_default().as_bytes())
    }

    /// Any request. A kept connection that turns out to be closed is not tried again: the call may have been counted.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let bytes = request(self.address, method, path, headers, body);
        self.raw(&bytes, method == "HEAD")
    }

    /// Sends these bytes and reads an answer; after a fault the next request gets a new connection.
    pub fn raw(&mut self, bytes: &[u8], is_head: bool) -> Response {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => match connect(self.address) {
                Ok(stream) => stream,
                Err(_refused) => return Response { unsent: true, ..Response::default() },
            },
        };
        // What could not be sent whole may have been answered all the same (413).
        let _sent = stream.get_mut().write_all(bytes);
        let Ok(response) = read(&mut stream, is_head) else { return Response::default() };
        if response.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
            self.stream = Some(stream);
        }
        response
    }
}

/// A request as bytes; `Content-Length` is added unless given.
#[must_use]
pub fn request(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// Opens a connection with time limits.
///
/// # Errors
/// The connection's.
pub fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(BufReader::new(stream))
}

/// Reads an answer.
///
/// # Errors
/// The connection's, and `InvalidData` for what is no answer.
pub fn read(stream: &mut BufReader<TcpStream>, is_head: bool) -> io::Result<Response> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
    let mut response = Response { status, ..Response::default() };
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(bad());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        response.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if is_head {
        return Ok(response);
    }
    if response.header("transfer-encoding") == Some("chunked") {
        read_chunks(stream, &mut response.body)?;
        return Ok(response);
    }
    let length = response.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    response.body.resize(length, 0);
    stream.read_exact(&mut response.body)?;
    Ok(response)
}

fn read_chunks(stream: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16)
            .map_err(|_no_length| io::Error::from(io::ErrorKind::InvalidData))?;
        if stream.take(length).read_to_end(body)? as u64 != length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        line.clear();
        stream.read_line(&mut line)?;
        if length == 0 {
            return Ok(());
        }
    }
}
