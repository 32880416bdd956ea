//! Bodies that are too large, in both directions, also when they only become so by decoding: they end at the cap, and
//! no more of them is ever in memory.

#![cfg(test)]

use serde_json::json;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use tracktags_tests::http::{Response, connect, read, request};
use tracktags_tests::process::{forget_peak, resident_bytes, resident_bytes_peak};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp, call, envelope};

/// The caps, as they are by default.
const REQUEST_BYTES_MAX: usize = 1_000_000;
const ANSWER_BYTES_MAX: usize = 8 << 20;
const GIB: u64 = 1 << 30;

/// The server's memory, in bytes: what is resident when it has just started.
fn idle(app: &TestApp) -> u64 {
    resident_bytes(app.node.id().unwrap())
}

/// By how much more the server's memory was at most while `work` ran, in bytes.
fn grown<T>(app: &TestApp, idle: u64, work: impl FnOnce() -> T) -> (T, u64) {
    let id = app.node.id().unwrap();
    forget_peak(id);
    let done = work();
    (done, resident_bytes_peak(id).saturating_sub(idle))
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// A request's head with these fields about its body's length.
fn head(app: &TestApp, key: &str, length: (&str, &str)) -> Vec<u8> {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json"), length];
    let mut bytes = request(app.node.address, "POST", "/api/v1/proxy", &headers, b"");
    if length.0 != "content-length" {
        let text = String::from_utf8(bytes).unwrap().replace("content-length: 0\r\n", "");
        bytes = text.into_bytes();
    }
    bytes
}

/// Sends chunks without end, until the server says or does something; what it said, and how much was sent.
fn endless(app: &TestApp, key: &str) -> (Response, usize) {
    let mut stream = connect(app.node.address).unwrap();
    stream.get_mut().write_all(&head(app, key, ("transfer-encoding", "chunked"))).unwrap();
    let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
    stream.get_mut().set_nonblocking(true).unwrap();
    let mut sent = 0;
    while !is_answered(&stream) {
        sent += stream.get_mut().write(chunk.as_bytes()).unwrap_or_default();
    }
    stream.get_mut().set_nonblocking(false).unwrap();
    (read(&mut stream, false).unwrap_or_default(), sent)
}

fn is_answered(stream: &BufReader<TcpStream>) -> bool {
    !matches!(stream.get_ref().peek(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn a_request_beyond_the_cap_is_refused_without_reading_on() {
    const AT_ONCE: usize = 16;
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1_000, "yearly");
    let key = app.customer_key("customer_1");
    let envelope = envelope(&target.url("/echo"), 1).to_string();
    let (mut client, idle) = (app.client(), idle(&app));
    for (length, status) in
        [(REQUEST_BYTES_MAX - 1, 200), (REQUEST_BYTES_MAX, 200), (REQUEST_BYTES_MAX + 1, 413)]
    {
        let padded = format!("{envelope}{}", " ".repeat(length - envelope.len()));
        let whole = head(&app, &key, ("content-length", &length.to_string()));
        let answer = client.raw(&[whole.as_slice(), padded.as_bytes()].concat(), false);
        assert_eq!(answer.status, status, "{length} bytes: {}", answer.text());
    }
    for length in [REQUEST_BYTES_MAX as u64 + 1, 10 * GIB] {
        // Only the head is sent: the answer waits for nothing.
        let answer = app.client().raw(&head(&app, &key, ("content-length", &length.to_string())), false);
        assert_eq!((answer.status, answer.code().as_str()), (413, "request_too_large"), "{length} bytes");
    }
    let work = || {
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| endless(&app, &key))).collect();
            running.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        })
    };
    let (ended, grown) = grown(&app, idle, work);
    let sent = ended.iter().map(|(_, sent)| *sent).max().unwrap();
    println!("{AT_ONCE} endless bodies: {} bytes of each left, memory grew by {} MiB", sent, mib(grown));
    for (answer, _) in &ended {
        assert_eq!((answer.status, answer.code().as_str()), (413, "request_too_large"), "{}", answer.text());
    }
    // Beyond the cap there are the buffers of two sockets.
    assert!(sent <= REQUEST_BYTES_MAX + (16 << 20), "{sent} bytes");
    assert!(grown <= (2 * REQUEST_BYTES_MAX * AT_ONCE) as u64, "{} MiB", mib(grown));
    assert_eq!((target.count(), app.usage("customer_1")), (2, 2), "only those that fit were calls");
}

#[test]
fn an_answer_beyond_the_cap_is_cut_off_and_counted() {
    const AT_ONCE: usize = 8;
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1_000, "yearly");
    let key = app.customer_key("customer_1");
    let (mut client, idle) = (app.client(), idle(&app));
    for (number, (path, status)) in [
        (format!("/bytes/{}", ANSWER_BYTES_MAX - 1), 200),
        (format!("/bytes/{ANSWER_BYTES_MAX}"), 200),
        (format!("/bytes/{}", ANSWER_BYTES_MAX + 1), 502),
        (format!("/declared/{}", 10 * GIB), 502),
        ("/endless".to_owned(), 502),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = call(&mut client, &key, &envelope(&target.url(&path), 1));
        assert_eq!(answer.status, status, "{path}");
        let code = if status == 200 { "" } else { "response_too_large" };
        assert_eq!(answer.code(), code, "{path}");
        assert_eq!(
            app.usage("customer_1"),
            i64::try_from(number).unwrap() + 1,
            "{path}: it is an answer, and kept"
        );
    }
    for path in
        [format!("/bytes/{ANSWER_BYTES_MAX}"), format!("/declared/{}", 10 * GIB), "/endless".to_owned()]
    {
        let body = envelope(&target.url(&path), 1);
        let work = || {
            std::thread::scope(|scope| {
                for _ in 0..AT_ONCE {
                    scope.spawn(|| call(&mut app.client(), &key, &body));
                }
            });
        };
        let ((), grown) = grown(&app, idle, work);
        println!("{AT_ONCE} × {path}: memory grew by {} MiB", mib(grown));
        // On top of the bodies there is what a server that has just started has not needed yet.
        let bound = (2 * ANSWER_BYTES_MAX * AT_ONCE + (16 << 20)) as u64;
        assert!(grown <= bound, "{path}: {} MiB", mib(grown));
    }
    app.node.verify();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::best());
    encoder.read_to_end(&mut encoded).unwrap();
    encoded
}

fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let params = brotli::enc::BrotliEncoderParams { quality: 1, ..Default::default() };
    brotli::BrotliCompress(&mut &*bytes, &mut encoded, &params).unwrap();
    encoded
}

/// Bombs, with what their encoding is called. Members of gzip follow each other, so ten gigabytes are made of ten
/// megabytes without ever being there.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let zeros = vec![0; 10 << 20];
    let ten_gigabytes = gzip(&zeros).repeat(1_000);
    assert!(ten_gigabytes.len() <= 11_000_000, "{}", ten_gigabytes.len());
    let brotli_bomb = brotli(&vec![0; 32 << 20]);
    vec![
        ("gzip, gzip", gzip(&ten_gigabytes)),
        ("br, gzip", gzip(&brotli_bomb)),
        ("gzip, br", brotli(&gzip(&zeros))),
        ("br", brotli_bomb),
        ("gzip", ten_gigabytes),
    ]
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures how soon a bomb is cut off")]
fn a_compression_bomb_ends_at_the_cap() {
    let bombs = bombs();
    let raw = bombs.iter().enumerate().map(|(number, (encoding, body))| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        (number.to_string(), [head.as_bytes(), body].concat())
    });
    let target = Upstream::answering(raw);
    let app = TestApp::with(NodeOptions::default());
    let _id = app.limit("api_calls", 1_000, "yearly");
    let (key, idle) = (app.customer_key("customer_1"), idle(&app));
    for (number, (encoding, body)) in bombs.iter().enumerate() {
        let sent = envelope(&target.url(&format!("/raw/{number}")), 1);
        let began = std::time::Instant::now();
        let (answer, grown) = grown(&app, idle, || call(&mut app.client(), &key, &sent));
        println!(
            "{encoding}, {} bytes: after {:.1?}, memory grew by {} MiB",
            body.len(),
            began.elapsed(),
            mib(grown)
        );
        assert_eq!((answer.status, answer.code().as_str()), (502, "response_too_large"), "{encoding}");
        // On top there is what decoding looks back on: a window of 16 MiB at most (RFC 7932).
        assert!(grown <= 2 * ANSWER_BYTES_MAX as u64 + (16 << 20), "{encoding}: {} MiB", mib(grown));
        let counted = i64::try_from(number).unwrap() + 1;
        assert_eq!(app.usage("customer_1"), counted, "{encoding}: it is an answer, and kept");
    }
    // Nobody decodes what callers send.
    let mut client = app.client();
    let authorization = format!("Bearer {key}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ];
    let answer = client.send("POST", "/api/v1/proxy", &headers, &gzip(json!({}).to_string().as_bytes()));
    assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_media_type"));
    app.node.verify();
}
