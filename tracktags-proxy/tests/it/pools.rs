//! Connections and the threads they live on: each thread keeps its own, none outlives its idle time, and neither a
//! runtime that ended nor a class of targets leaves anything behind for the next.

use crate::dns::{NameServer, addresses};
use crate::support::{RawUpstream, get, proxy, request, send};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tracktags_core::error::UpstreamError;
use tracktags_core::upstreams::TargetClass;
use tracktags_proxy::{Proxy, ProxyOptions};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn on_a_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[tokio::test]
async fn a_kept_connection_is_used_again() {
    let upstream = RawUpstream::answering(OK);
    let proxy = proxy();
    for _ in 0..50 {
        assert_eq!(get(&proxy, &upstream.url("/")).await.unwrap().body.unwrap(), "ok");
    }
    assert_eq!(upstream.connected(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (tell, closed) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4_096];
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
            stream.write_all(OK).unwrap();
        }
        tell.send(()).unwrap();
    });
    let proxy = Proxy::new(ProxyOptions { idle_timeout_ms: 100, ..ProxyOptions::default() }).unwrap();
    assert!(get(&proxy, &url).await.is_ok());
    // Closed by its age alone: no further call looks at the pool.
    let heard = tokio::task::spawn_blocking(move || closed.recv_timeout(Duration::from_secs(20)));
    assert!(heard.await.unwrap().is_ok());
}

#[test]
fn every_thread_has_connections_of_its_own() {
    const THREADS: usize = 4;
    let upstream = RawUpstream::answering(OK);
    let proxy = Arc::new(proxy());
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (proxy, url) = (Arc::clone(&proxy), upstream.url("/"));
            std::thread::spawn(move || {
                on_a_runtime(async {
                    for _ in 0..20 {
                        assert!(get(&proxy, &url).await.unwrap().body.is_ok());
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(upstream.connected(), THREADS);
}

#[test]
fn a_runtime_that_ended_leaves_nothing_the_next_one_trips_over() {
    let upstream = RawUpstream::answering(OK);
    let zone = ["a.example.com", "b.example.com", "c.example.com"];
    let here = [addresses(&["127.0.0.1"])];
    let server = NameServer::start(&zone.map(|name| (name, &here[..])));
    let options = ProxyOptions { name_servers: vec![server.address], ..ProxyOptions::default() };
    let proxy = Arc::new(Proxy::new(options).unwrap());
    let port = upstream.address.port();
    // The same thread, one runtime after the other: connections and look-ups of the first ended with it.
    for name in zone {
        for url in [upstream.url("/"), format!("http://{name}:{port}/")] {
            let answer = on_a_runtime(get(&proxy, &url)).unwrap();
            assert_eq!(answer.body.unwrap(), "ok", "{url}");
        }
    }
}

#[tokio::test]
async fn a_connection_of_one_class_serves_no_other() {
    let upstream = RawUpstream::answering(OK);
    let proxy = proxy();
    let allowed = request(&proxy, &upstream.url("/"));
    let mut stricter = request(&proxy, &upstream.url("/"));
    stricter.target.class = TargetClass::Public;
    assert!(send(&proxy, allowed).await.unwrap().body.is_ok());
    // The connection stands idle in the pool of `open`, under the very same authority.
    let found = send(&proxy, stricter).await;
    assert!(matches!(found, Err(UpstreamError::Blocked)), "{found:?}");
    assert_eq!((upstream.connected(), upstream.received()), (1, 1));
}

#[tokio::test]
async fn a_proxy_made_anew_shares_nothing_with_the_one_before() {
    let upstream = RawUpstream::answering(OK);
    for count in 1..=5 {
        let proxy = proxy();
        assert!(get(&proxy, &upstream.url("/")).await.is_ok());
        assert_eq!(upstream.connected(), count);
    }
}
