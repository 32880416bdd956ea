//! TLS proves the URL's host name, with no switch that turns it off.

use crate::support::get;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracktags_core::error::{Phase, Sent, UpstreamError};
use tracktags_proxy::{Proxy, ProxyError, ProxyOptions, Resolve, ResolveFuture};

/// Every name is here.
struct Here;

impl Resolve for Here {
    fn resolve(&self, _: &str) -> ResolveFuture {
        Box::pin(std::future::ready(Ok(vec![Ipv4Addr::LOCALHOST.into()])))
    }
}

fn options(extra_roots: Vec<rustls::pki_types::CertificateDer<'static>>) -> ProxyOptions {
    ProxyOptions { extra_roots, resolver: Some(Arc::new(Here)), ..ProxyOptions::default() }
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
    let trusting = Proxy::new(options(vec![server.root.clone()])).unwrap();
    let good = format!("https://good.example.com:{}/", server.port);
    assert_eq!(get(&trusting, &good).await.unwrap().body.unwrap(), "ok");
    assert_eq!(server.handshakes.load(Ordering::SeqCst), 1);
    let wrong = get(&trusting, &format!("https://other.example.com:{}/", server.port)).await;
    assert!(matches!(wrong, Err(UpstreamError::Tls(_))), "{wrong:?}");
    let strict = Proxy::new(options(Vec::new())).unwrap();
    let unknown = get(&strict, &good).await;
    assert!(matches!(unknown, Err(UpstreamError::Tls(_))), "{unknown:?}");
}

#[tokio::test]
async fn a_handshake_that_hangs_was_not_sent() {
    // Takes connections into its queue and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::new(ProxyOptions { tls_timeout_ms: 200, ..options(Vec::new()) }).unwrap();
    let url = format!("https://good.example.com:{}/", silent.local_addr().unwrap().port());
    let error = get(&proxy, &url).await.unwrap_err();
    assert!(matches!(error, UpstreamError::TimedOut { phase: Phase::Tls }), "{error:?}");
    assert_eq!(error.sent(), Sent::No);
}

#[tokio::test]
async fn a_target_that_speaks_no_tls_is_a_tls_fault() {
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closing.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in closing.incoming().flatten() {
            let mut stream = stream;
            let _sent = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let proxy = Proxy::new(options(Vec::new())).unwrap();
    let error = get(&proxy, &format!("https://good.example.com:{port}/")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Tls(_)), "{error:?}");
    assert_eq!(error.sent(), Sent::No);
}

#[test]
fn a_root_that_is_no_certificate_is_refused() {
    let made = Proxy::new(options(vec![vec![1, 2, 3].into()]));
    assert!(matches!(made, Err(ProxyError::Tls(_))));
}
