//! Time and size: every phase has its limit and its error, and the cap applies after decoding.

use crate::support::{RawUpstream, get, proxy, quick};
use bytes::Bytes;
use http::StatusCode;
use std::io::Write;
use std::net::TcpListener;
use tracktags_core::error::{Phase, Sent, UpstreamError};
use tracktags_core::traits::Upstream;
use tracktags_core::upstreams::TargetClass;
use tracktags_proxy::{Proxy, ProxyOptions};

fn capped(bytes: u64) -> Proxy {
    Proxy::new(ProxyOptions { answer_body_bytes_max: bytes, ..quick() }).unwrap()
}

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

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn encoded(encoding: &'static str, body: Vec<u8>) -> RawUpstream {
    RawUpstream::start(move |_, stream| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.into_bytes(), body.clone()].concat()).is_ok()
    })
}

#[tokio::test]
async fn an_encoded_body_is_decoded() {
    let text = b"plain text, several times over, ".repeat(50);
    let twice = gzip(&gzip(&text));
    for (encoding, body) in [("gzip", gzip(&text)), ("GZIP", gzip(&text)), ("gzip, gzip", twice)] {
        let answer = get(&proxy(), &encoded(encoding, body).url("/")).await.unwrap();
        assert_eq!(answer.body.unwrap(), text, "{encoding}");
        assert!(!answer.headers.contains_key("content-encoding"));
    }
}

#[tokio::test]
async fn a_bomb_ends_at_the_cap() {
    let bomb = gzip(&vec![0; 50_000_000]);
    let nested = gzip(&bomb);
    assert!(nested.len() < 10_000);
    for (encoding, body) in [("gzip", bomb), ("gzip, gzip", nested)] {
        let answer = get(&capped(1_000_000), &encoded(encoding, body).url("/")).await.unwrap();
        assert!(matches!(answer.body, Err(UpstreamError::TooLarge { bytes_max: 1_000_000 })), "{encoding}");
    }
}

#[tokio::test]
async fn an_encoded_body_cut_short_is_cut_short() {
    let mut cut = gzip(&b"some text that is long enough to be cut".repeat(20));
    cut.truncate(cut.len() / 2);
    let answer = get(&proxy(), &encoded("gzip", cut).url("/")).await.unwrap();
    assert!(matches!(answer.body, Err(UpstreamError::Truncated(_))), "{:?}", answer.body);
}

#[tokio::test]
async fn an_unknown_encoding_is_handed_on() {
    let answer = get(&proxy(), &encoded("zstd", b"opaque".to_vec()).url("/")).await.unwrap();
    assert_eq!(answer.headers.get("content-encoding").unwrap(), "zstd");
    assert_eq!(answer.body.unwrap(), Bytes::from_static(b"opaque"));
}

#[tokio::test]
async fn three_layers_are_refused() {
    let found = get(&proxy(), &encoded("gzip, gzip, gzip", gzip(b"x")).url("/")).await;
    assert!(matches!(found, Err(UpstreamError::Protocol(_))), "{found:?}");
}

#[tokio::test]
async fn an_answer_that_never_comes_times_out_after_sending() {
    let upstream = RawUpstream::start(|_, stream| {
        let mut rest = [0; 1];
        let _closed = std::io::Read::read(stream, &mut rest);
        false
    });
    let error = get(&proxy(), &upstream.url("/")).await.unwrap_err();
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
    let answer = get(&proxy(), &upstream.url("/")).await.unwrap();
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
    let proxy = Proxy::new(ProxyOptions { calls_per_origin_max: 2, ..quick() }).unwrap();
    let target = proxy.check("http://127.0.0.1:9/", TargetClass::Open).unwrap();
    let other = proxy.check("http://127.0.0.1:10/", TargetClass::Open).unwrap();
    let first = proxy.place(&target).unwrap();
    let second = proxy.place(&target).unwrap();
    assert!(proxy.place(&target).is_none());
    assert!(proxy.place(&other).is_some(), "another origin has places of its own");
    drop(first);
    let third = proxy.place(&target);
    assert!(third.is_some());
    drop((second, third));
}
