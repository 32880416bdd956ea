//! The way out, for every request to a peer that nobody here trusts.
//!
//! [`Proxy`] implements the core's `Upstream`: `target` judges the URL, `connect` judges every address, `headers` keeps
//! what must not travel, `forward` sends and `answer` reads back within limits. Databases and customers are unknown here.
//!
//! HTTP/1.1 only. No redirect is followed, no proxy variable is read, and nothing is sent twice that may have been
//! sent.

mod addresses;
mod answer;
mod connect;
mod decode;
mod forward;
mod headers;
mod meter;
mod options;
mod places;
mod pool;
mod resolve;
mod target;
#[cfg(test)]
mod testing_headers;

pub use addresses::is_allowed;
pub use headers::{HeaderFault, REQUEST_FIELDS_MAX, REQUEST_HEADER_BYTES_MAX, request_headers};
pub use options::{ProxyError, ProxyOptions};
pub use places::Place;
pub use resolve::{Resolve, ResolveFuture};
pub use target::URL_BYTES_MAX;

use connect::Guard;
use forward::{CallLimits, Origins};
use hyper::client::conn::http1;
use places::{Handle, Places};
use pool::Pool;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::cell::RefCell;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;
use target::{Own, Passed};
use tracktags_core::accounts::BusinessId;
use tracktags_core::error::UpstreamError;
use tracktags_core::traits::Upstream;
use tracktags_core::upstreams::{ForwardRequest, ForwardResponse, Target, TargetClass};

/// The way out. Cheap to share; each thread keeps connections of its own, since waking a connection that lives on
/// another thread costs a system call each way.
pub struct Proxy {
    options: ProxyOptions,
    guard: Arc<Guard>,
    places: Arc<Places>,
    /// Tells this proxy from others, and threads that it is still there.
    alive: Arc<()>,
}

/// What one thread has of one proxy. Counts of references are the thread's own: on one that all threads shared every
/// call would wait for the others.
struct Local {
    proxy: Weak<()>,
    places: Arc<Handle>,
    classes: [LocalClass; 3],
}

/// One thread's connections for one class, and the URLs that passed. The pool's key is the authority and not the
/// address, so a pool shared by classes would hand a connection to a call that may not have it.
struct LocalClass {
    origins: Arc<Origins>,
    passed: Passed,
}

impl Local {
    fn class(&mut self, class: TargetClass) -> &mut LocalClass {
        let [public, allowlist, open] = &mut self.classes;
        match class {
            TargetClass::Public => public,
            TargetClass::Allowlist => allowlist,
            TargetClass::Open => open,
        }
    }
}

thread_local! {
    static LOCAL: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
}

impl Proxy {
    /// Makes a way out.
    ///
    /// # Errors
    /// [`ProxyError`] when a limit makes no sense, names cannot be looked up or TLS not be set up.
    pub fn new(options: ProxyOptions) -> Result<Self, ProxyError> {
        options.validate()?;
        let resolver = match &options.resolver {
            Some(resolver) => Arc::clone(resolver),
            None => Arc::new(resolve::NameServers::new(&options).map_err(ProxyError::Resolver)?),
        };
        let guard = Guard {
            resolver,
            refused: resolve::Refused::new(Duration::from_secs(options.dns_cache_seconds_max)),
            own: Own::new(&options),
            tls: tls_config(&options.extra_roots)?,
            dns_timeout: Duration::from_millis(options.dns_timeout_ms),
            dns_answers_max: options.dns_answers_max,
            connect_timeout: Duration::from_millis(options.connect_timeout_ms),
            tls_timeout: Duration::from_millis(options.tls_timeout_ms),
        };
        let places = Places::new(options.calls_per_origin_max);
        Ok(Self { options, guard: Arc::new(guard), places, alive: Arc::new(()) })
    }

    /// What this thread has of it.
    fn local<T>(&self, with: impl FnOnce(&mut Local) -> T) -> T {
        LOCAL.with_borrow_mut(|all| {
            let ours = |local: &Local| local.proxy.as_ptr() == Arc::as_ptr(&self.alive);
            let place = all.iter().position(ours).unwrap_or_else(|| {
                // What proxies left behind that are gone.
                all.retain(|local| local.proxy.strong_count() > 0);
                all.push(self.make_local());
                all.len() - 1
            });
            match all.get_mut(place) {
                Some(local) => with(local),
                // Just found or made; a proxy without memory serves as well.
                None => with(&mut self.make_local()),
            }
        })
    }

    fn make_local(&self) -> Local {
        Local {
            proxy: Arc::downgrade(&self.alive),
            places: self.places.handle(),
            classes: std::array::from_fn(|_| LocalClass {
                origins: Arc::new(self.make_origins()),
                passed: Passed::new(),
            }),
        }
    }

    fn make_origins(&self) -> Origins {
        let options = &self.options;
        let mut http = http1::Builder::new();
        http.max_buf_size(options.answer_head_bytes_max).max_headers(options.answer_fields_max);
        let idle_timeout = Duration::from_millis(options.idle_timeout_ms);
        let pool = Pool::new(options.idle_per_origin_max, idle_timeout);
        Origins { pool, guard: Arc::clone(&self.guard), http }
    }
}

fn tls_config(extra: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, ProxyError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for root in extra {
        roots.add(root.clone()).map_err(ProxyError::Tls)?;
    }
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
        let passed = self.local(|local| local.class(class).passed.get(url));
        let target = match passed {
            Some(target) => target,
            None => {
                let target = target::check(url, class, &self.guard.own)?;
                self.local(|local| local.class(class).passed.note(url, &target));
                target
            }
        };
        let refused = self.guard.refused.holds(&target.authority, class);
        if refused { Err(UpstreamError::Blocked) } else { Ok(target) }
    }

    fn place(&self, target: &Target, business: &BusinessId) -> Option<Place> {
        self.local(|local| local.places.take(&target.authority, business.as_str()))
    }

    fn forward(
        &self,
        request: ForwardRequest,
    ) -> impl Future<Output = Result<ForwardResponse, UpstreamError>> + Send {
        let origins = self.local(|local| Arc::clone(&local.class(request.target.class).origins));
        let limits = CallLimits {
            connection: self.options.connection_timeout(),
            first_byte: Duration::from_millis(self.options.first_byte_timeout_ms),
            total: Duration::from_millis(self.options.total_timeout_ms),
            head_bytes_max: self.options.answer_head_bytes_max,
            body_bytes_max: self.options.answer_body_bytes_max,
        };
        forward::send(origins, request, limits)
    }
}
