//! Framing: an interim answer is not the answer, a body's end counts only when its framing says so, and no byte of
//! one answer ever reaches another caller.

use crate::support::{RawUpstream, get, proxy, request, send};
use bytes::Bytes;
use http::{Method, StatusCode};
use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;
use tracktags_core::error::UpstreamError;
use tracktags_core::upstreams::RequestBody;
use tracktags_proxy::{Proxy, ProxyOptions};

#[tokio::test]
async fn an_interim_answer_is_not_the_answer() {
    let upstream = RawUpstream::answering(
        b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
          HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nreal",
    );
    let proxy = proxy();
    for _ in 0..3 {
        let answer = get(&proxy, &upstream.url("/")).await.unwrap();
        assert_eq!((answer.status, answer.body.unwrap()), (StatusCode::OK, Bytes::from_static(b"real")));
    }
}

#[tokio::test]
async fn a_body_shorter_than_its_length_is_cut_short() {
    let upstream = RawUpstream::answering_and_closing(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    let answer = get(&proxy(), &upstream.url("/")).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(matches!(answer.body, Err(UpstreamError::Truncated(_))));
}

#[tokio::test]
async fn a_chunk_cut_in_the_middle_is_cut_short() {
    for cut in ["a\r\nhalf", "4\r\nhalf\r\n", "4\r\nhalf\r\n0\r\n", "zz\r\nhalf\r\n0\r\n\r\n"] {
        let upstream = RawUpstream::start(move |_, stream| {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let _gone = stream.write_all(format!("{head}{cut}").as_bytes());
            false
        });
        let answer = get(&proxy(), &upstream.url("/")).await.unwrap();
        assert!(matches!(answer.body, Err(UpstreamError::Truncated(_))), "{cut:?}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_whole() {
    let upstream = RawUpstream::answering_and_closing(b"HTTP/1.1 200 OK\r\n\r\nall of it");
    let answer = get(&proxy(), &upstream.url("/")).await.unwrap();
    assert_eq!(answer.body.unwrap(), Bytes::from_static(b"all of it"));
}

#[tokio::test]
async fn surplus_bytes_close_the_connection_and_reach_nobody() {
    let upstream = RawUpstream::answering(
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmineHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nothers",
    );
    let proxy = proxy();
    for _ in 0..20 {
        let answer = get(&proxy, &upstream.url("/")).await.unwrap();
        assert_eq!(answer.body.unwrap(), Bytes::from_static(b"mine"));
    }
    assert_eq!(upstream.connected(), 20, "no connection was used twice");
}

#[tokio::test]
async fn what_is_no_answer_is_a_protocol_fault() {
    let many: String = (0..200).map(|field| format!("x-{field}: 1\r\n")).collect();
    let cases: Vec<Vec<u8>> = vec![
        b"SSH-2.0-OpenSSH_9\r\n\r\n".to_vec(),
        b"HTTP/1.1 banana\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nmine!".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: -4\r\n\r\nmine".to_vec(),
        b"HTTP/1.1 200 OK\r\nbad name: 1\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n".to_vec(),
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n".to_vec(),
        format!("HTTP/1.1 200 OK\r\n{many}\r\n").into_bytes(),
        [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 1 << 20], b"\r\n\r\n".to_vec()].concat(),
    ];
    for case in cases {
        let shown = String::from_utf8_lossy(&case[..case.len().min(60)]).into_owned();
        let upstream = RawUpstream::start(move |_, stream| stream.write_all(&case).is_ok());
        let found = get(&proxy(), &upstream.url("/")).await;
        assert!(matches!(found, Err(UpstreamError::Protocol(_))), "{shown:?}: {found:?}");
    }
}

#[tokio::test]
async fn both_lengths_never_leave_bytes_for_the_next_caller() {
    let upstream = RawUpstream::answering(
        b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\ntransfer-encoding: chunked\r\n\r\n4\r\nmine\r\n0\r\n\r\n",
    );
    let proxy = proxy();
    for _ in 0..5 {
        // RFC 9112, 6.3: the chunked coding wins; or the answer is refused.
        match get(&proxy, &upstream.url("/")).await {
            Ok(answer) => assert_eq!(answer.body.unwrap(), Bytes::from_static(b"mine")),
            Err(error) => assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_connection_closed_before_the_head_is_closed() {
    for bytes in [&b""[..], &b"HTTP/1.1 20"[..]] {
        let upstream = RawUpstream::start(move |_, stream| {
            let _gone = stream.write_all(bytes);
            false
        });
        let proxy = proxy();
        let mut request = request(&proxy, &upstream.url("/"));
        request.method = Method::POST;
        request.body = RequestBody::Full(Bytes::from_static(b"{}"));
        let found = send(&proxy, request).await;
        assert!(matches!(found, Err(UpstreamError::Closed(_))), "{found:?}");
        assert_eq!(upstream.received(), 1, "it was not sent again");
    }
}

/// Answers with so many interim answers before the answer.
fn interim(count: usize) -> RawUpstream {
    let train = "HTTP/1.1 102 Processing\r\n\r\n".repeat(count);
    let answer = format!("{train}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nreal");
    RawUpstream::start(move |_, stream| stream.write_all(answer.as_bytes()).is_ok())
}

#[tokio::test]
async fn a_train_of_interim_answers_has_a_limit() {
    let answer = get(&proxy(), &interim(64).url("/")).await.unwrap();
    assert_eq!(answer.body.unwrap(), Bytes::from_static(b"real"));
}

#[tokio::test]
async fn a_flood_of_interim_answers_is_a_protocol_fault_and_ends_the_connection() {
    let (tell, closed) = mpsc::channel();
    let upstream = RawUpstream::start(move |_, stream| {
        while stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
        tell.send(()).unwrap();
        false
    });
    // No time limit is near: it is the count that ends it.
    let patient = Proxy::new(ProxyOptions::default()).unwrap();
    let found = get(&patient, &upstream.url("/")).await;
    assert!(matches!(found, Err(UpstreamError::Protocol(_))), "{found:?}");
    tokio::task::spawn_blocking(move || closed.recv_timeout(Duration::from_secs(20)).unwrap()).await.unwrap();
}

#[tokio::test]
async fn what_was_sent_on_a_kept_connection_is_not_sent_again() {
    let upstream = RawUpstream::start(|request, stream| {
        let first = request.contains("/first");
        let answered = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok();
        first && answered
    });
    let dropping = RawUpstream::start(|request, stream| {
        request.contains("/first")
            && stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok()
    });
    let proxy = proxy();
    for upstream in [&upstream, &dropping] {
        assert!(get(&proxy, &upstream.url("/first")).await.is_ok());
        let mut second = request(&proxy, &upstream.url("/second"));
        second.method = Method::POST;
        second.body = RequestBody::Full(Bytes::from_static(b"{}"));
        let found = send(&proxy, second).await;
        assert!(matches!(found, Ok(_) | Err(UpstreamError::Closed(_))), "{found:?}");
        assert_eq!((upstream.received(), upstream.connected()), (2, 1), "kept, and sent once");
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_target_closed_is_replaced() {
    let upstream = RawUpstream::answering_and_closing(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let proxy = proxy();
    for call in 1..=200 {
        let found = get(&proxy, &upstream.url("/")).await;
        // The target may close between our look and our write: then it is an error, and never a second request.
        assert!(matches!(found, Ok(_) | Err(UpstreamError::Closed(_))), "{found:?}");
        assert!(upstream.received() <= call);
    }
    assert!(upstream.received() > 0);
}

#[tokio::test]
async fn a_redirect_is_handed_back_and_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let upstream = RawUpstream::start(move |_, stream| {
            let answer = format!("HTTP/1.1 {status} Moved\r\nlocation: /next\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).is_ok()
        });
        let answer = get(&proxy(), &upstream.url("/")).await.unwrap();
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.headers["location"], "/next");
        assert_eq!(upstream.received(), 1);
    }
}

/// Runs another test of this binary with every proxy variable set: it must pass, and the proxy must see nobody.
#[test]
fn proxy_variables_of_the_environment_are_ignored() {
    let trap = RawUpstream::answering(b"HTTP/1.1 502 Trapped\r\ncontent-length: 0\r\n\r\n");
    let test = "framing::an_interim_answer_is_not_the_answer";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, trap.url(""));
    }
    for name in ["NO_PROXY", "no_proxy", "REQUEST_METHOD"] {
        child.env_remove(name);
    }
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(trap.connected(), 0);
}

#[tokio::test]
async fn a_broken_answer_ends_its_connection() {
    let broken: &[&'static [u8]] = &[
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhalf\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        b"no http at all\r\n\r\n",
    ];
    for bytes in broken {
        let upstream = RawUpstream::answering(bytes);
        // The first waits for the rest of its body, and in vain.
        let proxy = Proxy::new(ProxyOptions { total_timeout_ms: 1_000, ..ProxyOptions::default() }).unwrap();
        for _ in 0..2 {
            let found = get(&proxy, &upstream.url("/")).await;
            assert!(found.is_err() || found.is_ok_and(|answer| answer.body.is_err()));
        }
        assert_eq!(upstream.connected(), 2, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn ten_thousand_mixed_calls_get_their_own_bytes() {
    const THREADS: usize = 4;
    const CALLS: usize = 2_500;
    let upstream = RawUpstream::start(|request, stream| {
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let number: usize = path.rsplit('/').next().and_then(|n| n.parse().ok()).unwrap_or_default();
        let body = path.as_str();
        let answer = match number % 7 {
            0 => format!(
                "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
            1 => format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ),
            2 => format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nforeign",
                body.len()
            ),
            3 => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len() + 5),
            _ => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
        };
        let kept = stream.write_all(answer.as_bytes()).is_ok();
        kept && number % 7 != 3
    });
    let proxy = std::sync::Arc::new(Proxy::new(ProxyOptions::default()).unwrap());
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (proxy, base) = (std::sync::Arc::clone(&proxy), upstream.url(""));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(calls(&proxy, &base, thread, CALLS))
            })
        })
        .collect();
    let own: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(own > THREADS * CALLS / 2, "{own} calls were answered whole");
}

/// Calls of one thread, sixteen at a time; how many were answered whole.
async fn calls(proxy: &Proxy, base: &str, thread: usize, calls: usize) -> usize {
    let mut own = 0;
    for group in 0..calls.div_ceil(16) {
        let urls: Vec<String> = (0..16).map(|n| format!("{base}/{thread}/{}", group * 16 + n)).collect();
        let answers = futures_util::future::join_all(urls.iter().map(|url| get(proxy, url))).await;
        for (url, answer) in urls.iter().zip(answers) {
            let Ok(answer) = answer else { continue };
            if let Ok(body) = answer.body {
                assert!(url.as_bytes().ends_with(&body), "{url} got {body:?}");
                own += 1;
            }
        }
    }
    own
}
