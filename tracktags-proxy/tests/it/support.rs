//! A raw-socket upstream: it answers with the bytes a test gives it, and keeps what arrived.

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, StatusCode};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tracktags_core::error::UpstreamError;
use tracktags_core::traits::Upstream;
use tracktags_core::upstreams::{ForwardRequest, RequestBody, TargetClass};
use tracktags_proxy::{Proxy, ProxyOptions};

/// What a script does with a request once its head and body were read. `false` closes the connection.
pub(crate) type Script = dyn Fn(&str, &mut TcpStream) -> bool + Send + Sync;

pub(crate) struct RawUpstream {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
}

impl RawUpstream {
    pub(crate) fn start(script: impl Fn(&str, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(&str, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let (seen, count) = (Arc::clone(&requests), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream, &*script, &seen));
            }
        });
        Self { address, connections, requests }
    }

    /// Answers every request with these bytes and keeps the connection.
    pub(crate) fn answering(bytes: &'static [u8]) -> Self {
        Self::start(move |_, stream| stream.write_all(bytes).is_ok())
    }

    /// Answers with these bytes and closes.
    pub(crate) fn answering_and_closing(bytes: &'static [u8]) -> Self {
        Self::start(move |_, stream| {
            let _gone = stream.write_all(bytes);
            false
        })
    }

    /// How many connections were made so far.
    pub(crate) fn connected(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many whole requests arrived so far.
    pub(crate) fn received(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn serve(mut stream: TcpStream, script: &Script, seen: &Mutex<Vec<String>>) {
    stream.set_nodelay(true).unwrap();
    while let Some(request) = read_request(&mut stream) {
        seen.lock().unwrap().push(request.clone());
        if !script(&request, &mut stream) {
            return;
        }
    }
}

/// Reads one request with its `Content-Length` body; `None` at the end of the connection.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .map_or(0, |length| length.trim().parse::<usize>().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// A way out with the default limits: no time limit is near, however busy the machine is.
pub(crate) fn proxy() -> Proxy {
    Proxy::new(ProxyOptions::default()).unwrap()
}

/// A way out with this cap on bodies.
pub(crate) fn capped(bytes: u64) -> Proxy {
    Proxy::new(ProxyOptions { answer_body_bytes_max: bytes, ..ProxyOptions::default() }).unwrap()
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Result<Bytes, UpstreamError>,
}

pub(crate) fn request(proxy: &Proxy, url: &str) -> ForwardRequest {
    ForwardRequest {
        target: proxy.check(url, TargetClass::Open).unwrap(),
        method: Method::GET,
        headers: HeaderMap::new(),
        ours: Vec::new(),
        body: RequestBody::Empty,
    }
}

pub(crate) async fn send(proxy: &Proxy, request: ForwardRequest) -> Result<Answer, UpstreamError> {
    let mut response = proxy.forward(request).await?;
    let mut body = Vec::new();
    while let Some(chunk) = response.body.next().await {
        match chunk {
            Ok(chunk) => body.extend_from_slice(&chunk),
            Err(error) => {
                return Ok(Answer { status: response.status, headers: response.headers, body: Err(error) });
            }
        }
    }
    Ok(Answer { status: response.status, headers: response.headers, body: Ok(body.into()) })
}

pub(crate) async fn get(proxy: &Proxy, url: &str) -> Result<Answer, UpstreamError> {
    send(proxy, request(proxy, url)).await
}
