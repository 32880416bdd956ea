//! Encoded bodies: decoded although nobody asked for them, in small pieces, with the cap after decoding.

use crate::support::{RawUpstream, capped, get, proxy, request};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, StatusCode};
use std::io::Write;
use tracktags_core::error::{Sent, UpstreamError};
use tracktags_core::traits::Upstream;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bare_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let params = brotli::enc::BrotliEncoderParams { quality: 1, ..Default::default() };
    brotli::BrotliCompress(&mut &*bytes, &mut out, &params).unwrap();
    out
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

/// The same text in every way that is read here.
fn every_way(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("gzip", gzip(text)),
        ("GZIP", gzip(text)),
        ("x-gzip", gzip(text)),
        ("deflate", zlib(text)),
        ("deflate", bare_deflate(text)),
        ("br", brotli(text)),
        ("identity", text.to_vec()),
        ("gzip, identity", gzip(text)),
        ("gzip, gzip", gzip(&gzip(text))),
        ("gzip, br", brotli(&gzip(text))),
        ("br, deflate", zlib(&brotli(text))),
        ("deflate,gzip", gzip(&bare_deflate(text))),
    ]
}

#[tokio::test]
async fn an_encoded_body_is_decoded() {
    let long: Vec<u8> = (0..50_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for text in [&b"plain text, several times over, ".repeat(5_000)[..], &long, b"x", b""] {
        for (encoding, body) in every_way(text) {
            let answer = get(&proxy(), &encoded(encoding, body).url("/")).await.unwrap();
            assert!(answer.body.unwrap() == text, "{encoding}, {} bytes", text.len());
            assert!(encoding == "identity" || !answer.headers.contains_key("content-encoding"));
        }
    }
}

#[tokio::test]
async fn gzip_members_follow_each_other() {
    let body = [gzip(b"one "), gzip(b"two")].concat();
    let answer = get(&proxy(), &encoded("gzip", body).url("/")).await.unwrap();
    assert_eq!(answer.body.unwrap(), Bytes::from_static(b"one two"));
}

#[tokio::test]
async fn the_cap_counts_what_was_decoded() {
    for (length, passes) in [(99_999, true), (100_000, true), (100_001, false)] {
        for (encoding, body) in every_way(&vec![b'x'; length]) {
            let answer = get(&capped(100_000), &encoded(encoding, body).url("/")).await.unwrap();
            match answer.body {
                Ok(body) => assert!(passes && body.len() == length, "{encoding}"),
                Err(error) => {
                    assert!(
                        !passes && matches!(error, UpstreamError::TooLarge { .. }),
                        "{encoding}: {error:?}"
                    );
                    assert_eq!(error.sent(), Sent::Yes, "so the units are kept");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_bomb_ends_at_the_cap_with_little_of_it_in_memory() {
    // 1,024 bytes of deflate make at most 1,032 times as much; brotli is stopped before that.
    const PIECE_BYTES_MAX: usize = 1_100_000;
    const CAP: u64 = 8 * 1_024 * 1_024;
    for (encoding, body) in every_way(&vec![0; 20_000_000]) {
        if encoding == "identity" {
            continue;
        }
        assert!(body.len() < 400_000, "{encoding}: {}", body.len());
        let proxy = capped(CAP);
        let upstream = encoded(encoding, body);
        let mut answer = proxy.forward(request(&proxy, &upstream.url("/"))).await.unwrap();
        let mut total = 0;
        let error = loop {
            match answer.body.next().await.unwrap() {
                Ok(piece) => {
                    assert!(piece.len() <= PIECE_BYTES_MAX, "{encoding}: {}", piece.len());
                    total += piece.len();
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(error, UpstreamError::TooLarge { bytes_max: CAP }), "{encoding}: {error:?}");
        assert!(
            total as u64 > CAP / 2 && total as u64 <= CAP && answer.body.next().await.is_none(),
            "{encoding}"
        );
    }
}

#[tokio::test]
async fn input_that_decodes_to_nothing_has_a_limit() {
    // An empty gzip member is 20 bytes that make none; so is an empty stored block.
    let upstream = RawUpstream::start(|_, stream| {
        let member = gzip(b"").repeat(500);
        let _sent = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = [format!("{:x}\r\n", member.len()).into_bytes(), member, b"\r\n".to_vec()].concat();
        while stream.write_all(&chunk).is_ok() {}
        false
    });
    let answer = get(&capped(100_000), &upstream.url("/")).await.unwrap();
    assert!(matches!(answer.body, Err(UpstreamError::TooLarge { .. })), "{:?}", answer.body);
}

#[tokio::test]
async fn a_brotli_window_beyond_the_standard_is_refused() {
    // RFC 7932 knows windows up to 16 MiB; an extension of some libraries goes up to a gigabyte, which is not `br`.
    let text = b"large windows, ".repeat(1_000);
    for (large_window, passes) in [(true, false), (false, true)] {
        let mut body = Vec::new();
        let lgwin = if large_window { 28 } else { 24 };
        let params =
            brotli::enc::BrotliEncoderParams { quality: 1, lgwin, large_window, ..Default::default() };
        brotli::BrotliCompress(&mut &*text, &mut body, &params).unwrap();
        let answer = get(&proxy(), &encoded("br", body).url("/")).await.unwrap();
        match answer.body {
            Ok(body) => assert!(passes && body == text),
            Err(error) => assert!(!passes && matches!(error, UpstreamError::Truncated(_)), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn an_encoded_body_cut_short_is_cut_short() {
    let text = b"some text that is long enough to be cut, ".repeat(20);
    for (encoding, body) in every_way(&text) {
        if encoding == "identity" {
            continue;
        }
        for keep in [1, 2, body.len() / 2, body.len() - 1] {
            let answer = get(&proxy(), &encoded(encoding, body[..keep].to_vec()).url("/")).await.unwrap();
            assert!(matches!(answer.body, Err(UpstreamError::Truncated(_))), "{encoding}: {:?}", answer.body);
        }
    }
}

#[tokio::test]
async fn what_is_not_encoded_as_it_says_is_cut_short() {
    for encoding in ["gzip", "deflate", "br"] {
        let answer = get(&proxy(), &encoded(encoding, b"{\"no\": 1}".to_vec()).url("/")).await.unwrap();
        assert!(matches!(answer.body, Err(UpstreamError::Truncated(_))), "{encoding}: {:?}", answer.body);
    }
    for (encoding, mut body) in [("deflate", zlib(b"text")), ("br", brotli(b"text"))] {
        body.extend_from_slice(b"surplus");
        let answer = get(&proxy(), &encoded(encoding, body).url("/")).await.unwrap();
        assert!(matches!(answer.body, Err(UpstreamError::Truncated(_))), "{encoding}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn an_encoding_nobody_knows_cannot_be_handed_over() {
    for encoding in ["zstd", "compress", "gzip, zstd", "gzip, gzip, gzip", "\u{fc}"] {
        let answer = get(&proxy(), &encoded(encoding, gzip(b"opaque")).url("/")).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "the answer counts as one");
        let error = answer.body.unwrap_err();
        assert!(matches!(error, UpstreamError::Truncated(_)), "{encoding}: {error:?}");
        assert_eq!(error.sent(), Sent::Yes);
    }
}

#[tokio::test]
async fn an_answer_without_a_body_has_nothing_to_decode() {
    for encoding in ["gzip", "br", "zstd"] {
        let heads = [
            (Method::HEAD, "200 OK\r\ncontent-length: 900"),
            (Method::GET, "304 Not Modified"),
            (Method::GET, "204 No Content"),
            (Method::GET, "200 OK\r\ncontent-length: 0"),
            (Method::GET, "200 OK\r\ntransfer-encoding: chunked\r\n\r\n0"),
        ];
        for (method, head) in heads {
            let upstream = RawUpstream::start(move |_, stream| {
                let (status, rest) = head.split_once("\r\n\r\n").unwrap_or((head, ""));
                let (line, fields) = status.split_once("\r\n").unwrap_or((status, ""));
                let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
                let rest = if rest.is_empty() { String::new() } else { format!("{rest}\r\n\r\n") };
                let answer = format!("HTTP/1.1 {line}\r\ncontent-encoding: {encoding}\r\n{fields}\r\n{rest}");
                stream.write_all(answer.as_bytes()).is_ok()
            });
            let proxy = proxy();
            let mut asked = request(&proxy, &upstream.url("/"));
            asked.method = method;
            let answer = crate::support::send(&proxy, asked).await.unwrap();
            assert!(answer.body.unwrap().is_empty(), "{encoding}: {head:?}");
        }
    }
}

/// The body of an answer in HTTP chunks of these many bytes, so that the decoder sees its seams there.
fn chunked(encoding: &'static str, body: &[u8], seams: &[usize]) -> RawUpstream {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ntransfer-encoding: chunked\r\n\r\n")
            .into_bytes();
    let mut rest = body;
    for seam in seams.iter().copied().chain([body.len()]) {
        let (chunk, after) = rest.split_at(seam.min(rest.len()));
        rest = after;
        if !chunk.is_empty() {
            answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            answer.extend_from_slice(chunk);
            answer.extend_from_slice(b"\r\n");
        }
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    RawUpstream::start(move |_, stream| stream.write_all(&answer).is_ok())
}

#[tokio::test]
async fn the_seams_of_an_encoded_body_do_not_show() {
    let proxy = proxy();
    // Around the size of the decoders' buffer, where all input may be taken and the buffer just be full.
    for length in [1, 16_383, 16_384, 16_385, 32_768, 65_536] {
        let text = vec![b'x'; length];
        for (encoding, body) in every_way(&text) {
            let ones = vec![1; body.len()];
            let last: Vec<Vec<usize>> = (1..=9.min(body.len())).map(|tail| vec![body.len() - tail]).collect();
            let plain = encoding == "identity";
            for seams in last.into_iter().chain((!plain).then_some(ones)) {
                let answer = get(&proxy, &chunked(encoding, &body, &seams).url("/")).await.unwrap();
                let found = answer.body.map(|found| found == text);
                assert!(matches!(found, Ok(true)), "{encoding}, {length}, {seams:?}: {found:?}");
            }
        }
    }
}
