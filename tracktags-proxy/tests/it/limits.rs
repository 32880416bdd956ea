//! Time and size: every phase has its limit and its error, and so has every size.

use crate::support::{RawUpstream, capped, get, proxy, request, send};
use http::{Method, StatusCode};
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;
use tracktags_core::accounts::BusinessId;
use tracktags_core::error::{Phase, Sent, UpstreamError};
use tracktags_core::traits::Upstream;
use tracktags_core::upstreams::TargetClass;
use tracktags_proxy::{Proxy, ProxyError, ProxyOptions};

fn with_length(length: usize) -> RawUpstream {
    RawUpstream::start(move |_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(&[head.into_bytes(), vec![b'x'; length]].concat()).is_ok()
    })
}

#[tokio::test]
async fn the_cap_is_the_last_byte_that_passes() {
    for (length, passes) in [(999, true), (1_000, true), (1_001, false)] {
        let answer = get(&capped(1_000), &with_length(length).url("/")).await.unwrap();
        match answer.body {
            Ok(body) => assert!(passes && body.len() == length),
            Err(error) => {
                assert!(!passes && matches!(error, UpstreamError::TooLarge { bytes_max: 1_000 }), "{error}")
            }
        }
    }
}

#[tokio::test]
async fn endless_chunks_end_at_the_cap() {
    let upstream = RawUpstream::start(|_, stream| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while stream.write_all(b"400\r\n").is_ok() {
            if stream.write_all(&[b'x'; 0x400]).and_then(|()| stream.write_all(b"\r\n")).is_err() {
                break;
            }
        }
        false
    });
    let answer = get(&capped(100_000), &upstream.url("/")).await.unwrap();
    assert!(matches!(answer.body, Err(UpstreamError::TooLarge { .. })), "{:?}", answer.body);
}

/// An answer whose head is this long in all.
fn with_head(length: usize) -> RawUpstream {
    const FIELD: usize = 4_000;
    let start = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n";
    let mut head = start.to_owned();
    while head.len() + FIELD + 20 < length {
        head.push_str(&format!("x-{}: {}\r\n", head.len(), "a".repeat(FIELD)));
    }
    let rest = length - head.len() - "y: \r\n\r\n".len();
    let head = format!("{head}y: {}\r\n\r\n", "b".repeat(rest));
    assert_eq!(head.len(), length);
    RawUpstream::start(move |_, stream| stream.write_all(format!("{head}ok").as_bytes()).is_ok())
}

#[tokio::test]
async fn the_head_of_an_answer_has_a_limit() {
    let limit = ProxyOptions::default().answer_head_bytes_max;
    assert_eq!(get(&proxy(), &with_head(limit).url("/")).await.unwrap().body.unwrap(), "ok");
    for length in [limit + 100, 4 * limit, 16 * limit] {
        let found = get(&proxy(), &with_head(length).url("/")).await;
        assert!(matches!(found, Err(UpstreamError::Protocol(_))), "{length}: {found:?}");
    }
}

#[tokio::test]
async fn the_fields_of_an_answer_have_a_limit() {
    for (fields, passes) in [(100, true), (101, false)] {
        let upstream = RawUpstream::start(move |_, stream| {
            // Content-Length is one of them.
            let head: String = (1..fields).map(|field| format!("x-{field}: 1\r\n")).collect();
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\n{head}content-length: 2\r\n\r\nok").as_bytes())
                .is_ok()
        });
        let found = get(&proxy(), &upstream.url("/")).await;
        match found {
            Ok(answer) => assert!(passes && answer.body.unwrap() == "ok", "{fields}"),
            Err(error) => {
                assert!(!passes && matches!(error, UpstreamError::Protocol(_)), "{fields}: {error:?}")
            }
        }
    }
}

#[tokio::test]
async fn a_declared_length_beyond_the_cap_is_not_read() {
    // Ten GiB are promised and none sent: it is the length that refuses.
    let upstream = RawUpstream::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n");
    let answer = get(&capped(1_000), &upstream.url("/")).await.unwrap();
    assert!(matches!(answer.body, Err(UpstreamError::TooLarge { bytes_max: 1_000 })), "{:?}", answer.body);
    let proxy = proxy();
    let mut head = request(&proxy, &upstream.url("/"));
    head.method = Method::HEAD;
    assert!(send(&proxy, head).await.unwrap().body.unwrap().is_empty(), "HEAD promises nothing");
}

#[tokio::test]
async fn the_whole_call_has_a_limit_of_its_own() {
    let upstream = RawUpstream::start(|_, stream| {
        let mut rest = [0; 1];
        let _closed = std::io::Read::read(stream, &mut rest);
        false
    });
    let proxy = Proxy::new(ProxyOptions { total_timeout_ms: 150, ..ProxyOptions::default() }).unwrap();
    let error = get(&proxy, &upstream.url("/")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::TimedOut { phase: Phase::Total }), "{error:?}");
    assert_eq!(error.sent(), Sent::Maybe);
}

#[tokio::test]
async fn a_body_that_never_stops_flowing_still_ends_in_time() {
    let upstream = RawUpstream::start(|_, stream| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while stream.write_all(b"1\r\nx\r\n").is_ok() {}
        false
    });
    let options =
        ProxyOptions { total_timeout_ms: 300, answer_body_bytes_max: 1 << 30, ..ProxyOptions::default() };
    let answer = get(&Proxy::new(options).unwrap(), &upstream.url("/")).await.unwrap();
    assert!(
        matches!(answer.body, Err(UpstreamError::TimedOut { phase: Phase::Total })),
        "{:?}",
        answer.body.err()
    );
}

#[test]
fn a_limit_outside_its_range_is_refused_by_name() {
    type Spoil = fn(&mut ProxyOptions);
    let bad: [(&str, Spoil); 6] = [
        ("connect_timeout_ms", |options| options.connect_timeout_ms = 0),
        ("total_timeout_ms", |options| options.total_timeout_ms = u64::MAX),
        ("answer_head_bytes_max", |options| options.answer_head_bytes_max = 100),
        ("calls_per_origin_max", |options| options.calls_per_origin_max = 0),
        ("dns_answers_max", |options| options.dns_answers_max = 0),
        ("answer_body_bytes_max", |options| options.answer_body_bytes_max = u64::MAX),
    ];
    for (field, spoil) in bad {
        let mut options = ProxyOptions::default();
        spoil(&mut options);
        let found = Proxy::new(options).err();
        assert!(
            matches!(found, Some(ProxyError::Option { name, .. }) if name == field),
            "{field}: {found:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_times_out_after_sending() {
    let upstream = RawUpstream::start(|_, stream| {
        let mut rest = [0; 1];
        let _closed = std::io::Read::read(stream, &mut rest);
        false
    });
    let proxy = Proxy::new(ProxyOptions { first_byte_timeout_ms: 150, ..ProxyOptions::default() }).unwrap();
    // Long before the time limits of the connection, which is there already.
    let found = tokio::time::timeout(Duration::from_secs(8), get(&proxy, &upstream.url("/"))).await;
    let error = found.unwrap().unwrap_err();
    assert!(matches!(error, UpstreamError::TimedOut { phase: Phase::FirstByte }), "{error:?}");
    assert_eq!(error.sent(), Sent::Maybe);
}

#[tokio::test]
async fn a_body_that_hangs_times_out() {
    let upstream = RawUpstream::start(|_, stream| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        let mut rest = [0; 1];
        let _closed = std::io::Read::read(stream, &mut rest);
        false
    });
    // Long enough for the head to arrive on a busy machine.
    let proxy = Proxy::new(ProxyOptions { total_timeout_ms: 1_500, ..ProxyOptions::default() }).unwrap();
    let answer = get(&proxy, &upstream.url("/")).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(matches!(answer.body, Err(UpstreamError::TimedOut { phase: Phase::Total })), "{:?}", answer.body);
}

#[tokio::test]
async fn a_refused_connection_was_not_sent() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = get(&proxy(), &format!("http://{free}/")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Connect(_)), "{error:?}");
    assert_eq!(error.sent(), Sent::No);
}

#[test]
fn places_at_an_origin_are_given_back() {
    let proxy = Proxy::new(ProxyOptions { calls_per_origin_max: 2, ..ProxyOptions::default() }).unwrap();
    let business = BusinessId::parse("biz_1").unwrap();
    let target = proxy.check("http://127.0.0.1:9/", TargetClass::Open).unwrap();
    let other = proxy.check("http://127.0.0.1:10/", TargetClass::Open).unwrap();
    let first = proxy.place(&target, &business).unwrap();
    let second = proxy.place(&target, &business).unwrap();
    assert!(proxy.place(&target, &business).is_none());
    assert!(proxy.place(&other, &business).is_some(), "another origin has places of its own");
    drop(first);
    let third = proxy.place(&target, &business);
    assert!(third.is_some());
    drop((second, third));
}
