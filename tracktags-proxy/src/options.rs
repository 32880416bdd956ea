//! Every limit of the way out, each with its unit in its name, checked before anything is built on it.

use crate::resolve::Resolve;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tracktags_core::error::Cause;

/// The longest time limit: an hour.
const TIMEOUT_MS_MAX: u64 = 3_600_000;
/// hyper refuses a smaller buffer.
const ANSWER_HEAD_BYTES_MIN: u64 = 8_192;
/// The largest head, or body, of an answer: it is held in memory.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// The largest number of things counted here.
const COUNT_MAX: u64 = 1_000_000;

/// Every limit of the way out, and what it must know of the server it serves.
#[derive(Clone)]
pub struct ProxyOptions {
    /// A name look-up.
    pub dns_timeout_ms: u64,
    /// Addresses tried of one name; all of them are judged.
    pub dns_answers_max: usize,
    /// Answers of name servers, and refusals, are kept so long at most; 0 keeps none.
    pub dns_cache_seconds_max: u64,
    /// Opening a socket, all addresses of the name together.
    pub connect_timeout_ms: u64,
    /// A TLS handshake.
    pub tls_timeout_ms: u64,
    /// From the connection being there to the head of the answer.
    pub first_byte_timeout_ms: u64,
    /// The whole call.
    pub total_timeout_ms: u64,
    /// The head of an answer; at least 8,192.
    pub answer_head_bytes_max: usize,
    /// Fields in it.
    pub answer_fields_max: usize,
    /// Its body, after decoding.
    pub answer_body_bytes_max: u64,
    /// Calls in flight to one origin.
    pub calls_per_origin_max: usize,
    /// Idle connections kept for one origin, per thread: two threads keep what an origin may have in flight. Fewer
    /// would open and close connections all the time under many callers.
    pub idle_per_origin_max: usize,
    /// How long they are kept.
    pub idle_timeout_ms: u64,
    /// Where this server listens: never a target, at any address of this machine.
    pub own_listeners: Vec<SocketAddr>,
    /// The host of the server's public URL: never a target. A loopback one says nothing that `own_listeners` does
    /// not say better, and is passed over.
    pub public_host: Option<String>,
    /// Listeners of this process that may be a target all the same (the demo's echo).
    pub own_exceptions: Vec<SocketAddr>,
    /// Roots trusted besides the web's.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Name servers asked instead of the system's; empty: the system's, and its hosts file.
    pub name_servers: Vec<SocketAddr>,
    /// Looks up names instead of any name server.
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
            idle_per_origin_max: 128,
            idle_timeout_ms: 15_000,
            own_listeners: Vec::new(),
            public_host: None,
            own_exceptions: Vec::new(),
            extra_roots: Vec::new(),
            name_servers: Vec::new(),
            resolver: None,
        }
    }
}

/// A way out that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// A limit is outside its range.
    #[error("{name} is {value}, but must be {min} to {max}")]
    Option {
        /// The field of [`ProxyOptions`].
        name: &'static str,
        /// As given.
        value: u64,
        /// The least that makes sense.
        min: u64,
        /// The most.
        max: u64,
    },
    /// The system's name servers are not known.
    #[error("the system's resolver configuration cannot be read")]
    Resolver(#[source] Cause),
    /// TLS is not to be had, or an extra root is no certificate.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

impl ProxyOptions {
    /// Refuses what no way out can be built on.
    pub(crate) fn validate(&self) -> Result<(), ProxyError> {
        let times = 1..=TIMEOUT_MS_MAX;
        let counts = 1..=COUNT_MAX;
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let ranges: [(&'static str, u64, RangeInclusive<u64>); 13] = [
            ("dns_timeout_ms", self.dns_timeout_ms, times.clone()),
            ("dns_answers_max", wide(self.dns_answers_max), counts.clone()),
            ("dns_cache_seconds_max", self.dns_cache_seconds_max, 0..=3_600),
            ("connect_timeout_ms", self.connect_timeout_ms, times.clone()),
            ("tls_timeout_ms", self.tls_timeout_ms, times.clone()),
            ("first_byte_timeout_ms", self.first_byte_timeout_ms, times.clone()),
            ("total_timeout_ms", self.total_timeout_ms, times.clone()),
            (
                "answer_head_bytes_max",
                wide(self.answer_head_bytes_max),
                ANSWER_HEAD_BYTES_MIN..=ANSWER_BYTES_MAX,
            ),
            ("answer_fields_max", wide(self.answer_fields_max), counts.clone()),
            ("answer_body_bytes_max", self.answer_body_bytes_max, 0..=ANSWER_BYTES_MAX),
            ("calls_per_origin_max", wide(self.calls_per_origin_max), counts),
            ("idle_per_origin_max", wide(self.idle_per_origin_max), 0..=COUNT_MAX),
            ("idle_timeout_ms", self.idle_timeout_ms, times),
        ];
        for (name, value, range) in ranges {
            if !range.contains(&value) {
                return Err(ProxyError::Option { name, value, min: *range.start(), max: *range.end() });
            }
        }
        Ok(())
    }

    /// The longest that a connection may take to be there: look-up, socket and TLS together.
    pub(crate) fn connection_timeout(&self) -> Duration {
        let parts = [self.dns_timeout_ms, self.connect_timeout_ms, self.tls_timeout_ms];
        Duration::from_millis(parts.into_iter().fold(0, u64::saturating_add))
    }
}
