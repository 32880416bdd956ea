//! The way out, for every request to a peer that nobody here trusts.
//!
//! [`Proxy`] implements the core's `Upstream`: [`target`] judges the URL, `connect` judges every address, `headers`
//! keeps what must not travel, `forward` sends and reads back within limits. Databases and customers are unknown here.
//!
//! HTTP/1.1 only. No redirect is followed, no proxy variable is read, and nothing is sent twice that may have been
//! sent.

mod addresses;
mod connect;
mod decode;
mod forward;
mod headers;
mod resolve;
pub mod target;

pub use addresses::is_allowed;
pub use headers::{HeaderFault, REQUEST_FIELDS_MAX, REQUEST_HEADER_BYTES_MAX, request_headers};
pub use resolve::{Resolve, ResolveFuture};

use connect::{Guard, GuardedConnector};
use forward::{CallLimits, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use target::Own;
use tracktags_core::error::{Cause, UpstreamError};
use tracktags_core::traits::{ForwardFuture, Upstream};
use tracktags_core::upstreams::{ForwardRequest, Target, TargetClass};

/// Every limit of the way out, with its unit in the name.
#[derive(Clone)]
pub struct ProxyOptions {
    /// A name look-up.
    pub dns_timeout_ms: u64,
    /// Addresses tried of one name.
    pub dns_answers_max: usize,
    /// Answers of name servers, and refusals, are kept so long at most.
    pub dns_cache_seconds_max: u64,
    /// Opening a socket.
    pub connect_timeout_ms: u64,
    /// A TLS handshake.
    pub tls_timeout_ms: u64,
    /// From sending to the head of the answer.
    pub first_byte_timeout_ms: u64,
    /// The whole call.
    pub total_timeout_ms: u64,
    /// The head of an answer.
    pub answer_head_bytes_max: usize,
    /// Fields in it.
    pub answer_fields_max: usize,
    /// Its body, after decoding.
    pub answer_body_bytes_max: u64,
    /// Calls in flight to one origin.
    pub calls_per_origin_max: usize,
    /// Idle connections kept for one origin, per thread.
    pub idle_per_origin_max: usize,
    /// How long they are kept.
    pub idle_timeout_ms: u64,
    /// Where this server listens: never a target.
    pub own_listeners: Vec<SocketAddr>,
    /// The host of the server's public URL: never a target.
    pub public_host: Option<String>,
    /// Listeners of this process that may be a target all the same (the demo's echo).
    pub own_exceptions: Vec<SocketAddr>,
    /// Roots trusted besides the web's.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Looks up names instead of the system's name servers.
    pub resolver: Option<Arc<dyn Resolve>>,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            dns_timeout_ms: 2_000,
            dns_answers_max: 16,
            dns_cache_seconds_max: 60,
            connect_timeout_ms: 3_000,
            tls_timeout_ms: 5_000,
            first_byte_timeout_ms: 30_000,
            total_timeout_ms: 60_000,
            answer_head_bytes_max: 64 * 1_024,
            answer_fields_max: 100,
            answer_body_bytes_max: 8 * 1_024 * 1_024,
            calls_per_origin_max: 256,
            idle_per_origin_max: 32,
            idle_timeout_ms: 15_000,
            own_listeners: Vec::new(),
            public_host: None,
            own_exceptions: Vec::new(),
            extra_roots: Vec::new(),
            resolver: None,
        }
    }
}

/// A way out that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The system's name servers are not known.
    #[error("the system's resolver configuration cannot be read")]
    Resolver(#[source] Cause),
    /// TLS is not to be had.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// The way out. Cheap to share; each thread keeps connections of its own, since waking a connection that lives on
/// another thread costs a system call each way.
pub struct Proxy {
    id: u64,
    options: ProxyOptions,
    guard: Arc<Guard>,
    places: Arc<Places>,
}

thread_local! {
    /// This thread's clients, by proxy and class: a connection never outlives the permission it was made under.
    static CLIENTS: RefCell<HashMap<(u64, TargetClass), Client>> = RefCell::new(HashMap::new());
}

/// Clients one thread keeps at most; a process has one proxy and three classes.
const CLIENTS_MAX: usize = 64;

/// Tells proxies of one process apart.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Proxy {
    /// Makes a way out.
    ///
    /// # Errors
    /// [`ProxyError`] when names cannot be looked up or TLS not be set up.
    pub fn new(options: ProxyOptions) -> Result<Self, ProxyError> {
        let dns_timeout = Duration::from_millis(options.dns_timeout_ms);
        let resolver = match &options.resolver {
            Some(resolver) => Arc::clone(resolver),
            None => Arc::new(
                resolve::SystemResolver::new(dns_timeout, options.dns_cache_seconds_max)
                    .map_err(ProxyError::Resolver)?,
            ),
        };
        let guard = Guard {
            resolver,
            refused: resolve::Refused::new(Duration::from_secs(options.dns_cache_seconds_max)),
            own: Own {
                listeners: options.own_listeners.clone(),
                public_host: options.public_host.clone(),
                exceptions: options.own_exceptions.clone(),
            },
            tls: tls_config(&options.extra_roots)?,
            dns_timeout,
            dns_answers_max: options.dns_answers_max,
            connect_timeout: Duration::from_millis(options.connect_timeout_ms),
            tls_timeout: Duration::from_millis(options.tls_timeout_ms),
        };
        let places = Arc::new(Places { taken: Mutex::default(), max: options.calls_per_origin_max });
        Ok(Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), options, guard: Arc::new(guard), places })
    }

    /// This thread's client for a class.
    fn client(&self, class: TargetClass) -> Client {
        CLIENTS.with_borrow_mut(|clients| {
            if clients.len() >= CLIENTS_MAX {
                clients.clear();
            }
            clients.entry((self.id, class)).or_insert_with(|| self.make_client(class)).clone()
        })
    }

    fn make_client(&self, class: TargetClass) -> Client {
        let options = &self.options;
        hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_millis(options.idle_timeout_ms))
            .pool_max_idle_per_host(options.idle_per_origin_max)
            .http1_max_buf_size(options.answer_head_bytes_max.max(HYPER_BUFFER_BYTES_MIN))
            .http1_max_headers(options.answer_fields_max)
            // Only what was not written at all is tried again, on another connection.
            .retry_canceled_requests(true)
            .set_host(false)
            .build(GuardedConnector { guard: Arc::clone(&self.guard), class })
    }
}

/// hyper refuses a smaller one.
const HYPER_BUFFER_BYTES_MIN: usize = 8_192;

fn tls_config(extra: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, ProxyError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(extra.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ProxyError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Upstream for Proxy {
    type Place = Place;

    fn check(&self, url: &str, class: TargetClass) -> Result<Target, UpstreamError> {
        let target = target::check(url, class, &self.guard.own)?;
        let host = target.uri.host().unwrap_or_default();
        if self.guard.refused.holds(host, class) { Err(UpstreamError::Blocked) } else { Ok(target) }
    }

    fn place(&self, target: &Target) -> Option<Place> {
        self.places.take(&target.authority)
    }

    fn forward(&self, request: ForwardRequest) -> ForwardFuture<'_> {
        let client = self.client(request.target.class);
        let limits = CallLimits {
            first_byte: Duration::from_millis(self.options.first_byte_timeout_ms),
            total: Duration::from_millis(self.options.total_timeout_ms),
            body_bytes_max: self.options.answer_body_bytes_max,
        };
        Box::pin(forward::send(client, request, limits))
    }
}

/// Calls in flight by origin. An origin without any is not in the map.
struct Places {
    taken: Mutex<HashMap<Arc<str>, usize>>,
    max: usize,
}

/// A place among the calls in flight at one origin; given back when dropped.
pub struct Place {
    places: Arc<Places>,
    origin: Arc<str>,
}

impl Places {
    fn take(self: &Arc<Self>, origin: &Arc<str>) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = taken.entry(Arc::clone(origin)).or_default();
        if *calls >= self.max {
            return None;
        }
        *calls += 1;
        drop(taken);
        Some(Place { places: Arc::clone(self), origin: Arc::clone(origin) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = taken.get_mut(&self.origin) {
            *calls = calls.saturating_sub(1);
            if *calls == 0 {
                taken.remove(&self.origin);
            }
        }
    }
}
