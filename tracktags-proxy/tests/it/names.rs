//! Names, through an own name server: every answer is judged, a name that changes its answer gains nothing, and what
//! could not be looked up was not sent. Keeps `only-checked-addresses`.

use crate::dns::{NameServer, Record, addresses};
use crate::support::{RawUpstream, get, send};
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracktags_core::error::{Phase, Sent, UpstreamError};
use tracktags_core::traits::Upstream;
use tracktags_core::upstreams::{ForwardRequest, RequestBody, Target, TargetClass};
use tracktags_proxy::{Proxy, ProxyOptions, Resolve, ResolveFuture};

fn proxy_asking(server: &NameServer, options: ProxyOptions) -> Proxy {
    Proxy::new(ProxyOptions { name_servers: vec![server.address], ..options }).unwrap()
}

async fn forward(proxy: &Proxy, target: Target) -> Result<Bytes, UpstreamError> {
    let request = ForwardRequest {
        target,
        method: Method::GET,
        headers: HeaderMap::new(),
        ours: Vec::new(),
        body: RequestBody::Empty,
    };
    send(proxy, request).await?.body
}

fn ok() -> RawUpstream {
    RawUpstream::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
}

#[tokio::test]
async fn a_name_is_looked_up_and_reached() {
    let upstream = ok();
    let server = NameServer::start(&[
        ("plain.example.com", &[addresses(&["127.0.0.1"])]),
        ("alias.example.com", &[Record::Alias("plain.example.com", vec![Ipv4Addr::LOCALHOST.into()])]),
    ]);
    let proxy = proxy_asking(&server, ProxyOptions::default());
    for name in ["plain.example.com", "alias.example.com", "PLAIN.example.com."] {
        let answer = get(&proxy, &format!("http://{name}:{}/", upstream.address.port())).await.unwrap();
        assert_eq!(answer.body.unwrap(), "ok");
    }
}

/// Names with a bad answer among good ones, in every place a bad one could hide.
fn bad_zone() -> Vec<(&'static str, Record)> {
    let mut many: Vec<IpAddr> = (0..1_000_u32).map(|n| Ipv4Addr::from(0x0808_0000 + n).into()).collect();
    many.push(Ipv4Addr::LOCALHOST.into());
    vec![
        ("inside.example.com", addresses(&["127.0.0.1"])),
        ("private.example.com", addresses(&["10.0.0.1"])),
        ("mixed.example.com", addresses(&["93.184.216.34", "10.0.0.1"])),
        ("last.example.com", addresses(&["93.184.216.34", "93.184.216.35", "0.0.0.0"])),
        ("six.example.com", addresses(&["2606:4700::1111", "::1"])),
        ("families.example.com", addresses(&["93.184.216.34", "fd00::1"])),
        ("mapped.example.com", addresses(&["::ffff:169.254.169.254"])),
        ("azure.example.com", addresses(&["168.63.129.16"])),
        ("alias.example.com", Record::Alias("inside.example.com", vec![Ipv4Addr::LOCALHOST.into()])),
        ("thousand.example.com", Record::Addresses(many)),
    ]
}

#[tokio::test]
async fn one_bad_answer_refuses_the_whole_name() {
    let zone = bad_zone();
    let records: Vec<(&'static str, &[Record])> =
        zone.iter().map(|(name, record)| (*name, std::slice::from_ref(record))).collect();
    let server = NameServer::start(&records);
    let proxy = proxy_asking(&server, ProxyOptions::default());
    for (name, _) in &zone {
        let url = format!("http://{name}/");
        let target = proxy.check(&url, TargetClass::Public).unwrap();
        let found = forward(&proxy, target).await;
        assert!(matches!(found, Err(UpstreamError::Blocked)), "{name}: {found:?}");
        // The next call is refused before it could be counted, however the name is written.
        for again in [url.clone(), format!("http://{}.:80/x", name.to_ascii_uppercase())] {
            let found = proxy.check(&again, TargetClass::Public);
            assert!(matches!(found, Err(UpstreamError::Blocked)), "{again}");
        }
    }
    assert!(server.over_tcp.load(Ordering::SeqCst) > 0, "a thousand answers do not fit into a datagram");
    assert!(proxy.check("http://other.example.com/", TargetClass::Public).is_ok());
}

#[tokio::test]
async fn rebinding_never_connects() {
    const CALLS: usize = 10_000;
    // 0.0.0.0 is forbidden to every class, and a socket opened to it reaches 127.0.0.1.
    let sink = ok();
    let port = sink.address.port();
    drop(TcpStream::connect((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    while sink.connected() == 0 {
        tokio::task::yield_now().await;
    }
    let _good = RawUpstream::on(TcpListener::bind(("127.0.0.2", port)).unwrap(), |_, stream| {
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\ngood";
        std::io::Write::write_all(stream, answer).unwrap();
        false
    });
    let flip = [addresses(&["127.0.0.2"]), addresses(&["0.0.0.0"]), addresses(&["127.0.0.2", "0.0.0.0"])];
    let server = NameServer::start(&[("flip.example.com", &flip)]);
    // Nothing is remembered, so that every call looks up and is judged anew.
    let proxy = proxy_asking(&server, ProxyOptions { dns_cache_seconds_max: 0, ..ProxyOptions::default() });
    let (mut passed, mut blocked) = (0, 0);
    for _ in 0..CALLS {
        let target = proxy.check(&format!("http://flip.example.com:{port}/"), TargetClass::Open).unwrap();
        match forward(&proxy, target).await {
            Ok(body) => {
                assert_eq!(body, "good");
                passed += 1;
            }
            Err(UpstreamError::Blocked) => blocked += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(passed >= CALLS / 4 && blocked >= CALLS / 4, "{passed} passed, {blocked} blocked");
    assert_eq!(sink.connected(), 1, "only the control reached the sink");
}

#[tokio::test]
async fn a_name_without_answer_was_not_sent() {
    let server = NameServer::start(&[
        ("empty.example.com", &[Record::Addresses(Vec::new())]),
        ("broken.example.com", &[Record::Failure]),
        ("silent.example.com", &[Record::Silence]),
    ]);
    let proxy = proxy_asking(&server, ProxyOptions { dns_timeout_ms: 300, ..ProxyOptions::default() });
    for name in ["empty", "broken", "unknown", "silent"] {
        let target = proxy.check(&format!("http://{name}.example.com/"), TargetClass::Public).unwrap();
        let error = forward(&proxy, target).await.unwrap_err();
        let fits = match name {
            "silent" => matches!(error, UpstreamError::TimedOut { phase: Phase::Resolve }),
            _ => matches!(error, UpstreamError::Resolve(_)),
        };
        assert!(fits, "{name}: {error:?}");
        assert_eq!(error.sent(), Sent::No);
    }
}

#[tokio::test]
async fn a_lost_datagram_is_asked_again() {
    let upstream = ok();
    let server = NameServer::start(&[("lossy.example.com", &[Record::Silence, addresses(&["127.0.0.1"])])]);
    let proxy = proxy_asking(&server, ProxyOptions { dns_timeout_ms: 900, ..ProxyOptions::default() });
    let answer =
        get(&proxy, &format!("http://lossy.example.com:{}/", upstream.address.port())).await.unwrap();
    assert_eq!(answer.body.unwrap(), "ok");
}

/// A resolver that never answers.
struct Never;

impl Resolve for Never {
    fn resolve(&self, _: &str) -> ResolveFuture {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn the_clock_of_the_first_byte_starts_with_the_connection() {
    let options = ProxyOptions {
        resolver: Some(std::sync::Arc::new(Never)),
        dns_timeout_ms: 200,
        first_byte_timeout_ms: 1,
        ..ProxyOptions::default()
    };
    let proxy = Proxy::new(options).unwrap();
    let error = get(&proxy, "http://slow.example.com/").await.unwrap_err();
    assert!(matches!(error, UpstreamError::TimedOut { phase: Phase::Resolve }), "{error:?}");
    assert_eq!(error.sent(), Sent::No, "so the units are released");
}

/// A target that no check made: what the connector alone refuses.
fn unchecked(host: &str, port: u16, class: TargetClass) -> Target {
    let authority = format!("{host}:{port}");
    let uri: Uri = format!("http://{authority}/").parse().unwrap();
    let host = authority.parse().unwrap();
    Target { uri, authority: authority.into(), host, class }
}

#[tokio::test]
async fn the_connector_alone_refuses_what_the_check_would() {
    let sink = RawUpstream::on(TcpListener::bind("0.0.0.0:0").unwrap(), |_, _| false);
    let sink_six = TcpListener::bind("[::1]:0").map(|listener| RawUpstream::on(listener, |_, _| false));
    let proxy = Proxy::new(ProxyOptions::default()).unwrap();
    let port = sink.address.port();
    let mut forms = 0;
    for host in ["127.0.0.1", "127.1.2.3", "0.0.0.0", "[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]", "[::]"] {
        for class in [TargetClass::Public, TargetClass::Allowlist] {
            let found = forward(&proxy, unchecked(host, port, class)).await;
            assert!(matches!(found, Err(UpstreamError::Blocked)), "{host}: {found:?}");
            forms += 1;
        }
    }
    if let Ok(six) = &sink_six {
        let found = forward(&proxy, unchecked("[::1]", six.address.port(), TargetClass::Public)).await;
        assert!(matches!(found, Err(UpstreamError::Blocked)), "{found:?}");
        assert_eq!(six.connected(), 0);
    }
    for host in ["0.0.0.0", "[::]", "169.254.169.254", "[fe80::1]", "224.0.0.1", "255.255.255.255"] {
        let found = forward(&proxy, unchecked(host, port, TargetClass::Open)).await;
        assert!(matches!(found, Err(UpstreamError::Blocked)), "{host}: {found:?}");
        forms += 1;
    }
    assert_eq!((forms, sink.connected()), (18, 0));
}

#[tokio::test]
async fn the_connector_never_reaches_our_own_listeners() {
    let own = RawUpstream::on(TcpListener::bind("0.0.0.0:0").unwrap(), |_, _| false);
    let echo = ok();
    let port = own.address.port();
    let server = NameServer::start(&[("us.example.com", &[addresses(&["127.0.0.3"])])]);
    let options = ProxyOptions {
        own_listeners: vec![own.address, echo.address],
        own_exceptions: vec![echo.address],
        ..ProxyOptions::default()
    };
    let proxy = proxy_asking(&server, options);
    for host in ["us.example.com", "127.0.0.1", "127.9.9.9", "[::ffff:127.0.0.1]"] {
        let found = forward(&proxy, unchecked(host, port, TargetClass::Open)).await;
        assert!(matches!(found, Err(UpstreamError::Blocked)), "{host}: {found:?}");
    }
    assert_eq!(own.connected(), 0);
    assert_eq!(get(&proxy, &echo.url("/")).await.unwrap().body.unwrap(), "ok", "the exception");
}

/// A listener whose queue is full: a connection to it is never there. Kept alive by what is returned.
fn full_listener(ip: Ipv4Addr) -> (tokio::net::TcpListener, TcpStream, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((ip, 0).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = TcpStream::connect(address).unwrap();
    (listener, waiting, address)
}

#[tokio::test]
async fn a_socket_that_does_not_open_was_not_sent() {
    let (_listener, _waiting, address) = full_listener(Ipv4Addr::LOCALHOST);
    let proxy = Proxy::new(ProxyOptions { connect_timeout_ms: 200, ..ProxyOptions::default() }).unwrap();
    let error = get(&proxy, &format!("http://{address}/")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::TimedOut { phase: Phase::Connect }), "{error:?}");
    assert_eq!(error.sent(), Sent::No);
}

#[tokio::test]
async fn a_silent_address_leaves_time_for_the_next_one() {
    let (_listener, _waiting, address) = full_listener(Ipv4Addr::LOCALHOST);
    let second = RawUpstream::on(TcpListener::bind(("127.0.0.2", address.port())).unwrap(), |_, stream| {
        std::io::Write::write_all(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok()
    });
    let mut here: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
    here.extend((0..15).map(|_| IpAddr::from([127, 0, 0, 2])));
    let server = NameServer::start(&[("many.example.com", &[Record::Addresses(here)])]);
    // A sixteenth of it for the silent one, and not all.
    let proxy = proxy_asking(&server, ProxyOptions { connect_timeout_ms: 16_000, ..ProxyOptions::default() });
    let url = format!("http://many.example.com:{}/", second.address.port());
    let found = tokio::time::timeout(Duration::from_secs(12), get(&proxy, &url)).await;
    assert_eq!(found.unwrap().unwrap().body.unwrap(), "ok");
}
