//! Name look-up: absolute names only, no search domains, a bounded and short-lived cache, and a memory of names that
//! were refused, so that the next call is refused before it is counted.

use crate::options::ProxyOptions;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use quick_cache::sync::Cache;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
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

/// Name servers: the system's, or those of the options.
pub(crate) struct NameServers(TokioResolver);

/// A query of which nothing is heard is asked once more within the time limit, since UDP loses packets: the first try
/// has two thirds of it. Two tries would take longer than the limit, so it is always the limit that ends a look-up.
const TRY_THIRDS: u32 = 2;

impl NameServers {
    pub(crate) fn new(options: &ProxyOptions) -> Result<Self, Cause> {
        let mut builder = if options.name_servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = options.name_servers.iter().map(|address| name_server(*address)).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.options_mut().use_hosts_file = ResolveHosts::Never;
            builder
        };
        let keep = Duration::from_secs(options.dns_cache_seconds_max);
        let chosen = builder.options_mut();
        chosen.timeout = Duration::from_millis(options.dns_timeout_ms) * TRY_THIRDS / 3;
        chosen.attempts = 1;
        // Both families, always: an address that is not asked for could not be judged.
        chosen.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        chosen.cache_size = CACHE_ENTRIES_MAX;
        chosen.positive_max_ttl = Some(keep);
        chosen.negative_max_ttl = Some(keep);
        Ok(Self(builder.build()?))
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .into_iter()
        .map(|mut connection| {
            connection.port = address.port();
            connection
        })
        .collect();
    NameServerConfig::new(address.ip(), true, connections)
}

impl Resolve for NameServers {
    fn resolve(&self, name: &str) -> ResolveFuture {
        let resolver = self.0.clone();
        // Already punycode; no second reading of it.
        let name = Name::from_ascii(name);
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

/// Answers of name servers kept at most.
const CACHE_ENTRIES_MAX: u64 = 8_192;
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
    pub(crate) fn note(&self, authority: &str, class: TargetClass) {
        self.names.insert((authority.to_owned(), class), Instant::now());
    }

    pub(crate) fn holds(&self, authority: &str, class: TargetClass) -> bool {
        // Nothing was refused yet, which is the rule: no copy of the name is made to ask.
        if self.names.is_empty() {
            return false;
        }
        self.names.get(&(authority.to_owned(), class)).is_some_and(|at| at.elapsed() < self.keep)
    }
}

/// A resolver as it is shared.
pub(crate) type SharedResolver = Arc<dyn Resolve>;
