//! Name look-up: absolute names only, no search domains, a bounded and short-lived cache, and a memory of names that
//! were refused, so that the next call is refused before it is counted.

use crate::addresses::is_allowed;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::Name;
use quick_cache::sync::Cache;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracktags_core::error::Cause;
use tracktags_core::upstreams::TargetClass;

/// The answers to a look-up.
pub type ResolveFuture = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Cause>> + Send>>;

/// Looks up the addresses of a name.
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of this absolute name.
    fn resolve(&self, name: &str) -> ResolveFuture;
}

/// The system's name servers.
pub(crate) struct SystemResolver(TokioResolver);

impl SystemResolver {
    pub(crate) fn new(timeout: Duration, cache_seconds_max: u64) -> Result<Self, Cause> {
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        options.timeout = timeout;
        options.attempts = 1;
        options.positive_max_ttl = Some(Duration::from_secs(cache_seconds_max));
        options.negative_max_ttl = Some(Duration::from_secs(cache_seconds_max));
        Ok(Self(builder.build()?))
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str) -> ResolveFuture {
        let resolver = self.0.clone();
        let name = Name::from_utf8(name);
        Box::pin(async move {
            let mut name = name?;
            // Absolute: no search domain is ever tried.
            name.set_fqdn(true);
            Ok(resolver.lookup_ip(name).await?.iter().collect())
        })
    }
}

/// Names that resolved to a forbidden address, for a while.
pub(crate) struct Refused {
    names: Cache<(String, TargetClass), Instant>,
    keep: Duration,
}

/// Refused names remembered at most.
const REFUSED_MAX: usize = 10_000;

impl Refused {
    pub(crate) fn new(keep: Duration) -> Self {
        Self { names: Cache::new(REFUSED_MAX), keep }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "ages a memory of refusals; decides only how long it lasts"
    )]
    pub(crate) fn note(&self, name: &str, class: TargetClass) {
        self.names.insert((name.to_owned(), class), Instant::now());
    }

    pub(crate) fn holds(&self, name: &str, class: TargetClass) -> bool {
        self.names.get(&(name.to_owned(), class)).is_some_and(|at| at.elapsed() < self.keep)
    }
}

/// Every answer is judged: one bad address refuses the whole name.
pub(crate) fn judge(answers: &[IpAddr], class: TargetClass) -> bool {
    !answers.is_empty() && answers.iter().all(|address| is_allowed(*address, class))
}

/// A resolver as it is shared.
pub(crate) type SharedResolver = Arc<dyn Resolve>;
