//! Header hygiene, row by row: what a caller sends against what arrives, and back.

use crate::support::{RawUpstream, get, proxy, request, send};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use rand::SeedableRng;
use std::io::Write;
use tracktags_core::error::UpstreamError;
use tracktags_core::keys::PlainKey;
use tracktags_core::upstreams::RequestBody;
use tracktags_proxy::{HeaderFault, request_headers};

/// Sent, and whether it may arrive.
const OUT: &[(&str, &str, bool)] = &[
    ("accept", "text/html", true),
    ("authorization", "Bearer the-targets-own", true),
    ("cookie", "a=b", true),
    ("idempotency-key", "k", true),
    ("origin", "https://example.com", true),
    ("referer", "https://example.com/", true),
    ("user-agent", "mine/1.0", true),
    ("x-api-key", "the-targets-own", true),
    ("x-custom", "kept", true),
    ("x-ratelimit-limit", "1", true),
    ("if-none-match", "\"a\"", true),
    ("range", "bytes=0-1", true),
    ("connection", "keep-alive, x-named", false),
    ("x-named", "named by connection", false),
    ("keep-alive", "timeout=5", false),
    ("proxy-connection", "keep-alive", false),
    ("proxy-authenticate", "Basic", false),
    ("proxy-authorization", "Basic x", false),
    ("te", "trailers", false),
    ("trailer", "x", false),
    ("transfer-encoding", "chunked", false),
    ("upgrade", "h2c", false),
    ("expect", "100-continue", false),
    ("host", "evil.example", false),
    ("content-length", "999", false),
    ("via", "1.1 somebody", false),
    ("forwarded", "for=1.2.3.4", false),
    ("x-forwarded-for", "1.2.3.4", false),
    ("x-forwarded-host", "evil.example", false),
    ("x-forwarded-proto", "https", false),
    ("x-forwarded-anything", "x", false),
    ("x-tracktags-customer-id", "somebody_else", false),
    ("x-tracktags-limits", "[]", false),
    ("x-tracktags-anything", "x", false),
    ("x-webhook-signature", "x", false),
    ("x-admin-key", "guess", false),
    ("accept-encoding", "gzip, br", false),
    ("accept-encoding", "*", false),
    ("proxy-authentication-info", "x", false),
    ("proxy-anything", "x", false),
    ("x-forwarded-port", "443", false),
    ("x-forwarded-prefix", "/admin", false),
    ("x-forwarded-client-cert", "x", false),
    ("x-tracktags-business-id", "somebody_else", false),
    ("x-tracktags-plan-id", "enterprise", false),
    ("x-tracktags-scope", "business", false),
    ("x-tracktags-proxied", "true", false),
    ("x-tracktags-cost", "0", false),
    ("x-webhook-id", "x", false),
    ("x-webhook-timestamp", "1", false),
    // One name to CGI, WSGI and their like.
    ("x_tracktags_customer_id", "somebody_else", false),
    ("x-tracktags_customer_id", "somebody_else", false),
    ("x_forwarded_for", "1.2.3.4", false),
    ("x_webhook_signature", "x", false),
    ("x_admin_key", "guess", false),
    // Near misses travel.
    ("x-tracktag", "kept", true),
    ("x-forwarded", "kept", true),
    ("x-admin-keys", "kept", true),
    ("x-webhook", "kept", true),
    ("proxied", "kept", true),
    ("viable", "kept", true),
    ("forwarded-note", "kept", true),
    ("content-language", "de", true),
    ("content-type", "text/plain", true),
    ("content-disposition", "inline", true),
    ("ratelimit", "kept", true),
    ("ratelimit-policy", "kept", true),
    ("x-real-ip", "1.2.3.4", true),
    ("x-request-id", "theirs", true),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true),
];

async fn arrived(
    headers: HeaderMap,
    ours: Vec<(HeaderName, HeaderValue)>,
    body: Option<&'static [u8]>,
) -> String {
    let upstream = RawUpstream::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let proxy = proxy();
    let mut request = request(&proxy, &upstream.url("/path?q=1"));
    request.method = Method::POST;
    request.headers = headers;
    request.ours = ours;
    request.body = body.map_or(RequestBody::Empty, |body| RequestBody::Full(Bytes::from_static(body)));
    send(&proxy, request).await.unwrap();
    upstream.requests.lock().unwrap()[0].to_ascii_lowercase()
}

#[tokio::test]
async fn only_what_may_travel_arrives() {
    for (name, value, may) in OUT {
        let mut headers = HeaderMap::new();
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        if *name == "x-named" {
            headers.append("connection", HeaderValue::from_static("close, X-Named"));
        }
        let seen = arrived(headers, Vec::new(), Some(b"{}")).await;
        let line = format!("\r\n{name}: {}\r\n", value.to_ascii_lowercase());
        assert_eq!(seen.contains(&line), *may, "{name}: {seen}");
        assert_eq!(seen.matches("\r\nhost: ").count(), 1);
        assert_eq!(seen.matches("content-length: 2\r\n").count(), 1, "{seen}");
        assert!(seen.contains("\r\naccept-encoding: identity\r\n"));
    }
}

#[test]
fn the_tables_are_large_enough() {
    assert!(OUT.len() >= 60 && BACK.len() >= 25, "{} out, {} back", OUT.len(), BACK.len());
}

#[tokio::test]
async fn what_connection_names_is_dropped_however_it_is_written() {
    for connection in
        [&b"x-a, X-B"[..], b"close,x-a ,\tx-b", b"x-a;q, x-a, x-b", b"\xff, x-a, x-b", b",,x-a,x-b,"]
    {
        let mut headers = HeaderMap::new();
        headers.append("connection", HeaderValue::from_bytes(connection).unwrap());
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-b", HeaderValue::from_static("2"));
        headers.append("x-c", HeaderValue::from_static("3"));
        let seen = arrived(headers, Vec::new(), None).await;
        assert!(
            !seen.contains("x-a:") && !seen.contains("x-b:") && seen.contains("\r\nx-c: 3\r\n"),
            "{seen}"
        );
    }
}

#[tokio::test]
async fn an_empty_body_is_said_where_targets_wait_for_one() {
    for (method, said) in [
        ("POST", true),
        ("PUT", true),
        ("PATCH", true),
        ("GET", false),
        ("DELETE", false),
        ("OPTIONS", false),
    ] {
        for body in [RequestBody::Empty, RequestBody::Full(Bytes::new())] {
            let upstream = RawUpstream::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            let proxy = proxy();
            let mut request = request(&proxy, &upstream.url("/"));
            request.method = method.parse().unwrap();
            request.body = body;
            send(&proxy, request).await.unwrap();
            let seen = upstream.requests.lock().unwrap()[0].to_ascii_lowercase();
            assert_eq!(seen.contains("\r\ncontent-length: 0\r\n"), said, "{seen}");
            assert!(!seen.contains("transfer-encoding") && !seen.contains("content-type"), "{seen}");
        }
    }
}

#[tokio::test]
async fn a_method_that_opens_a_tunnel_or_echoes_is_refused() {
    let upstream = RawUpstream::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    for method in [Method::CONNECT, Method::TRACE] {
        let proxy = proxy();
        let mut request = request(&proxy, &upstream.url("/"));
        request.method = method;
        let found = send(&proxy, request).await;
        assert!(matches!(found, Err(UpstreamError::InvalidTarget(_))), "{found:?}");
    }
    assert_eq!(upstream.connected(), 0);
}

#[tokio::test]
async fn a_streamed_body_arrives_whole() {
    let upstream = RawUpstream::start(|request, stream| {
        // The raw upstream reads a chunked request's head only; what follows it came along or comes now.
        let mut seen = request.to_owned();
        let mut buffer = [0; 1_024];
        while !seen.ends_with("0\r\n\r\n") {
            let read = std::io::Read::read(stream, &mut buffer).unwrap();
            seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        let fits =
            seen.contains("\r\ntransfer-encoding: chunked\r\n") && seen.contains("3\r\none\r\n3\r\ntwo\r\n");
        let status = if fits { "200 OK" } else { "400 Bad" };
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).is_ok()
    });
    let proxy = proxy();
    let mut request = request(&proxy, &upstream.url("/"));
    request.method = Method::POST;
    let chunks = ["one", "two"].map(|chunk| Ok(Bytes::from_static(chunk.as_bytes())));
    request.body = RequestBody::Stream(Box::pin(futures_util::stream::iter(chunks)));
    assert_eq!(send(&proxy, request).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_header_with_a_whole_key_is_dropped() {
    let mut rng = rand::rngs::StdRng::seed_from_u64(3);
    for key in [
        PlainKey::for_business(&mut rng),
        PlainKey::for_customer(&"customer_123".parse().unwrap(), &mut rng),
        PlainKey::for_admin(&mut rng),
    ] {
        for (name, value) in [
            ("authorization", format!("Bearer {}", key.expose())),
            ("x-api-key", key.expose().to_owned()),
            ("cookie", format!("a={}; b=c", key.expose())),
            ("x-note", format!("prefix{}suffix", key.expose())),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
            let seen = arrived(headers, Vec::new(), None).await;
            assert!(!seen.contains(&key.expose().to_ascii_lowercase()), "{name}");
        }
    }
}

#[tokio::test]
async fn ours_win() {
    let mut theirs = HeaderMap::new();
    theirs.insert("x-request-id", HeaderValue::from_static("theirs"));
    let ours = [
        ("x-request-id", "ours"),
        ("x-tracktags-customer-id", "customer_123"),
        ("via", "1.1 tracktags-1"),
        ("host", "framing-is-not-ours"),
        ("content-length", "framing-is-not-ours"),
        ("connection", "framing-is-not-ours"),
        ("transfer-encoding", "framing-is-not-ours"),
    ];
    let ours =
        ours.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).into();
    let seen = arrived(theirs, ours, None).await;
    assert!(seen.contains("x-request-id: ours") && !seen.contains("theirs"));
    assert!(seen.contains("x-tracktags-customer-id: customer_123") && seen.contains("via: 1.1 tracktags-1"));
    assert!(!seen.contains("framing-is-not-ours"), "{seen}");
}

#[tokio::test]
async fn a_body_without_a_type_is_json() {
    assert!(
        arrived(HeaderMap::new(), Vec::new(), Some(b"{}")).await.contains("content-type: application/json")
    );
    assert!(!arrived(HeaderMap::new(), Vec::new(), None).await.contains("content-type"));
}

/// Answered, and whether it may be handed over.
const BACK: &[(&str, &str, bool)] = &[
    ("content-type", "text/plain", true),
    ("set-cookie", "a=1", true),
    ("location", "http://127.0.0.1:1/inside", true),
    ("etag", "\"x\"", true),
    ("retry-after", "5", true),
    ("www-authenticate", "Basic", true),
    ("x-ratelimit-limit", "7", true),
    ("ratelimit", "\"a\";r=1", true),
    ("cache-control", "no-store", true),
    ("x-custom", "kept", true),
    ("connection", "x-named", false),
    ("keep-alive", "timeout=5", false),
    ("proxy-connection", "keep-alive", false),
    ("proxy-authenticate", "Basic", false),
    ("te", "trailers", false),
    ("trailer", "x", false),
    ("upgrade", "h2c", false),
    ("x-tracktags-status", "allowed", false),
    ("x-tracktags-anything", "x", false),
    ("x-webhook-id", "x", false),
    ("x_tracktags_status", "allowed", false),
    ("proxy-authentication-info", "x", false),
    ("expect", "x", false),
    ("content-language", "de", true),
    ("link", "</a>; rel=next", true),
    ("via", "1.1 theirs", true),
];

#[tokio::test]
async fn an_answers_field_with_a_whole_key_is_dropped() {
    let key = PlainKey::for_business(&mut rand::rngs::StdRng::seed_from_u64(9));
    let text = key.expose().to_owned();
    let upstream = RawUpstream::start(move |_, stream| {
        let fields = format!("x-leak: a {text} b\r\nx-leak: harmless\r\nx-kept: {}\r\n", &text[..20]);
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n").as_bytes()).is_ok()
    });
    let answer = get(&proxy(), &upstream.url("/")).await.unwrap();
    assert!(!answer.headers.contains_key("x-leak") && answer.headers.contains_key("x-kept"));
}

#[tokio::test]
async fn only_what_may_travel_comes_back() {
    for (name, value, may) in BACK {
        let upstream = RawUpstream::start(move |_, stream| {
            let answer = format!("HTTP/1.1 302 Found\r\n{name}: {value}\r\ncontent-length: 2\r\n\r\nok");
            stream.write_all(answer.as_bytes()).is_ok()
        });
        let answer = get(&proxy(), &upstream.url("/")).await.unwrap();
        assert_eq!(answer.status, StatusCode::FOUND, "a redirect is handed on");
        assert_eq!(answer.headers.get(*name).is_some_and(|found| found == value), *may, "{name}");
        assert!(!answer.headers.contains_key("content-length"), "it is rebuilt");
    }
}

#[tokio::test]
async fn repeated_headers_all_come_back() {
    let upstream = RawUpstream::answering(
        b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n",
    );
    let answer = get(&proxy(), &upstream.url("/")).await.unwrap();
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
}

#[test]
fn a_callers_headers_are_checked() {
    let one = |name: &str, value: &str| request_headers([(name, value)].into_iter());
    assert!(one("X-Fine", "value with spaces\tand tabs").is_ok());
    assert!(one("x-umlaut", "grüße").is_ok());
    for name in ["", "with space", "colon:", "new\nline", "ümlaut", "(", "a\0b"] {
        assert!(matches!(one(name, "x"), Err(HeaderFault::Name(_))), "{name:?}");
    }
    for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\u{7f}", "\u{1}"] {
        assert!(matches!(one("x", value), Err(HeaderFault::Value(_))), "{value:?}");
    }
    let many: Vec<String> = (0..65).map(|n| format!("x-{n}")).collect();
    assert!(request_headers(many.iter().take(64).map(|name| (name.as_str(), "1"))).is_ok());
    assert_eq!(request_headers(many.iter().map(|name| (name.as_str(), "1"))), Err(HeaderFault::TooMany));
    assert_eq!(one("x", &"a".repeat(33_000)), Err(HeaderFault::TooLarge));
}
