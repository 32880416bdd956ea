//! The guarded connector: it resolves, judges every answer, opens the socket to a judged address only, judges the
//! peer again, and speaks TLS with the URL's host name. Keeps `only-checked-addresses`.
//!
//! A resolver that checks would not be enough: an HTTP client asks none for a literal address. No address that was not
//! judged in this very look-up is connected to, so a name that changes its answer (rebinding) gains nothing.

use crate::addresses::is_allowed;
use crate::resolve::{Refused, SharedResolver};
use crate::target::Own;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracktags_core::error::{Phase, UpstreamError};
use tracktags_core::upstreams::{Target, TargetClass};

/// What every connection of a proxy shares.
pub(crate) struct Guard {
    pub(crate) resolver: SharedResolver,
    pub(crate) refused: Refused,
    pub(crate) own: Own,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) dns_timeout: Duration,
    pub(crate) dns_answers_max: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) tls_timeout: Duration,
}

/// What an address is given to take a connection, even where many wait after it (RFC 8305, 5).
const CONNECT_SHARE_MIN: Duration = Duration::from_millis(250);

/// A connection, with TLS or without.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Guard {
    /// Opens a connection for a target, judged by the target's class.
    pub(crate) async fn connect(&self, target: &Target) -> Result<Stream, UpstreamError> {
        let (uri, class) = (&target.uri, target.class);
        let host = uri.host().ok_or(UpstreamError::InvalidTarget("it names no host"))?;
        let port = uri.port_u16().unwrap_or(if target.is_tls() { 443 } else { 80 });
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let addresses = self.addresses(host, port).await?;
        if !addresses.iter().all(|address| self.allows(*address, class)) {
            tracing::warn!("a target with a forbidden address is refused");
            self.refused.note(&target.authority, class);
            return Err(UpstreamError::Blocked);
        }
        let tried = addresses.get(..self.dns_answers_max).unwrap_or(&addresses);
        let tcp = self.open(tried, class).await?;
        if !target.is_tls() {
            return Ok(Stream::Plain(tcp));
        }
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| UpstreamError::Tls(Box::new(error)))?;
        let handshake = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp);
        let stream = timeout(self.tls_timeout, handshake)
            .await
            .map_err(|_late| UpstreamError::TimedOut { phase: Phase::Tls })?
            .map_err(|error| UpstreamError::Tls(Box::new(error)))?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// All addresses of a host: the caller judges every one, also those that will not be tried, for a bad answer must
    /// not hide behind many good ones.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, UpstreamError> {
        if let Ok(literal) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(literal, port)]);
        }
        let answers = timeout(self.dns_timeout, self.resolver.resolve(host))
            .await
            .map_err(|_late| UpstreamError::TimedOut { phase: Phase::Resolve })?
            .map_err(UpstreamError::Resolve)?;
        if answers.is_empty() {
            return Err(UpstreamError::Resolve("the name has no address".into()));
        }
        Ok(answers.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// Whether a socket to this address may be opened for this class.
    fn allows(&self, address: SocketAddr, class: TargetClass) -> bool {
        is_allowed(address.ip(), class) && !self.own.is_own(address)
    }

    /// Opens a socket to the first address that takes it. Each gets its share of what time is left, so that one that
    /// is silent does not use up the others'.
    async fn open(&self, addresses: &[SocketAddr], class: TargetClass) -> Result<TcpStream, UpstreamError> {
        let deadline = Instant::now() + self.connect_timeout;
        let mut last = UpstreamError::Connect("no address was tried".into());
        let shares = (1..=u32::try_from(addresses.len()).unwrap_or(u32::MAX)).rev();
        for (address, shares) in addresses.iter().zip(shares) {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = (left / shares).max(CONNECT_SHARE_MIN).min(left);
            last = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return self.judged(stream, class),
                Ok(Err(error)) => UpstreamError::Connect(Box::new(error)),
                Err(_late) => UpstreamError::TimedOut { phase: Phase::Connect },
            };
        }
        Err(last)
    }

    /// The peer is judged again: what counts is where the socket ended.
    fn judged(&self, stream: TcpStream, class: TargetClass) -> Result<TcpStream, UpstreamError> {
        let peer = stream.peer_addr().map_err(|error| UpstreamError::Connect(Box::new(error)))?;
        if !self.allows(peer, class) {
            return Err(UpstreamError::Blocked);
        }
        stream.set_nodelay(true).map_err(|error| UpstreamError::Connect(Box::new(error)))?;
        Ok(stream)
    }
}
