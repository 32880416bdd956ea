//! Names: every answer is judged, rebinding never connects, and TLS proves the URL's name.

use crate::support::{RawUpstream, get, quick};
use std::collections::HashMap;
use std::net::{IpAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracktags_core::error::UpstreamError;
use tracktags_core::traits::Upstream;
use tracktags_core::upstreams::{ForwardRequest, RequestBody, TargetClass};
use tracktags_proxy::{Proxy, ProxyOptions, Resolve, ResolveFuture};

/// Answers from a table; a name with several lists goes through them in turn.
#[derive(Default)]
struct Table {
    answers: HashMap<&'static str, Vec<Vec<&'static str>>>,
    asked: Mutex<HashMap<String, usize>>,
}

impl Resolve for Table {
    fn resolve(&self, name: &str) -> ResolveFuture {
        let turn = {
            let mut asked = self.asked.lock().unwrap();
            let turn = asked.entry(name.to_owned()).or_default();
            *turn += 1;
            *turn - 1
        };
        let found = self.answers.get(name).map(|lists| lists[turn % lists.len()].clone());
        Box::pin(async move {
            let list = found.ok_or("no such name")?;
            Ok(list.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect())
        })
    }
}

fn proxy(answers: &[(&'static str, &[&[&'static str]])], options: ProxyOptions) -> (Proxy, Arc<Table>) {
    let answers = answers
        .iter()
        .map(|(name, lists)| (*name, lists.iter().map(|list| list.to_vec()).collect()))
        .collect();
    let table = Arc::new(Table { answers, ..Table::default() });
    let resolver: Arc<dyn Resolve> = Arc::clone(&table) as Arc<dyn Resolve>;
    (Proxy::new(ProxyOptions { resolver: Some(resolver), ..options }).unwrap(), table)
}

async fn forward(proxy: &Proxy, url: &str, class: TargetClass) -> Result<(), UpstreamError> {
    let target = proxy.check(url, class)?;
    let request = ForwardRequest {
        target,
        method: http::Method::GET,
        headers: http::HeaderMap::new(),
        ours: http::HeaderMap::new(),
        body: RequestBody::Empty,
    };
    proxy.forward(request).await.map(drop)
}

#[tokio::test]
async fn one_bad_answer_refuses_the_whole_name() {
    let lists: &[(&str, &[&[&str]])] = &[
        ("inside.example.com", &[&["127.0.0.1"]]),
        ("mixed.example.com", &[&["93.184.216.34", "10.0.0.1"]]),
        ("six.example.com", &[&["2606:4700::1111", "::1"]]),
        ("mapped.example.com", &[&["::ffff:169.254.169.254"]]),
        (
            "late.example.com",
            &[&[
                "9.9.9.1",
                "9.9.9.2",
                "9.9.9.3",
                "9.9.9.4",
                "9.9.9.5",
                "9.9.9.6",
                "9.9.9.7",
                "9.9.9.8",
                "9.9.9.9",
                "9.9.9.10",
                "9.9.9.11",
                "9.9.9.12",
                "9.9.9.13",
                "9.9.9.14",
                "9.9.9.15",
                "9.9.9.16",
                "9.9.9.17",
                "127.0.0.1",
            ]],
        ),
    ];
    let (proxy, table) = proxy(lists, quick());
    for (name, _) in lists {
        let url = format!("http://{name}/");
        assert!(
            matches!(forward(&proxy, &url, TargetClass::Public).await, Err(UpstreamError::Blocked)),
            "{name}"
        );
        // The verdict is kept: the next call is refused before it could be counted.
        assert!(matches!(proxy.check(&url, TargetClass::Public), Err(UpstreamError::Blocked)), "{name}");
        assert_eq!(table.asked.lock().unwrap()[*name], 1);
    }
}

#[tokio::test]
async fn rebinding_never_connects() {
    let upstream = RawUpstream::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    // Public first, ours the next time: the address judged is the one connected to, and each look-up is judged.
    let options = ProxyOptions { connect_timeout_ms: 1, dns_cache_seconds_max: 0, ..quick() };
    let (proxy, _) = proxy(&[("flip.example.com", &[&["192.0.2.1"], &["127.0.0.1"]])], options);
    for _ in 0..10_000 {
        assert!(forward(&proxy, "http://flip.example.com/", TargetClass::Public).await.is_err());
    }
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_without_answer_is_not_sent() {
    let (proxy, _) = proxy(&[("empty.example.com", &[&[]])], quick());
    for url in ["http://empty.example.com/", "http://unknown.example.com/"] {
        let found = forward(&proxy, url, TargetClass::Public).await;
        assert!(matches!(found, Err(UpstreamError::Resolve(_))), "{found:?}");
    }
}

struct TlsServer {
    port: u16,
    root: rustls::pki_types::CertificateDer<'static>,
    handshakes: Arc<AtomicUsize>,
}

/// Answers one request a connection over TLS, as `good.example.com`.
fn tls_server() -> TlsServer {
    let made = rcgen::generate_simple_self_signed(vec!["good.example.com".to_owned()]).unwrap();
    let root = made.cert.der().clone();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![root.clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let handshakes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handshakes);
    tokio::spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            count.fetch_add(1, Ordering::SeqCst);
            let mut buffer = [0; 1024];
            let _read = stream.read(&mut buffer).await;
            let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            let _closed = stream.shutdown().await;
        }
    });
    TlsServer { port, root, handshakes }
}

#[tokio::test]
async fn tls_proves_the_urls_name() {
    let server = tls_server();
    let lists: &[(&str, &[&[&str]])] =
        &[("good.example.com", &[&["127.0.0.1"]]), ("other.example.com", &[&["127.0.0.1"]])];
    let (trusting, _) = proxy(lists, ProxyOptions { extra_roots: vec![server.root.clone()], ..quick() });
    let good = format!("https://good.example.com:{}/", server.port);
    assert_eq!(get(&trusting, &good).await.unwrap().body.unwrap(), "ok");
    assert_eq!(server.handshakes.load(Ordering::SeqCst), 1);
    let wrong = get(&trusting, &format!("https://other.example.com:{}/", server.port)).await;
    assert!(matches!(wrong, Err(UpstreamError::Tls(_))), "{wrong:?}");
    let (strict, _) = proxy(lists, quick());
    let unknown = get(&strict, &good).await;
    assert!(matches!(unknown, Err(UpstreamError::Tls(_))), "{unknown:?}");
}
