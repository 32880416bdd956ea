//! The guarded connector: it resolves, judges every answer, opens the socket to a judged address only, judges the
//! peer again, and speaks TLS with the URL's host name. Keeps `only-checked-addresses`.
//!
//! A resolver that checks would not be enough: an HTTP client asks none for a literal address.

use crate::addresses::is_allowed;
use crate::resolve::{Refused, SharedResolver, judge};
use crate::target::Own;
use http::Uri;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;
use tracktags_core::error::{Phase, UpstreamError};
use tracktags_core::upstreams::TargetClass;

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

/// Why there is no connection; found again in the client's error by its type.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct ConnectFault(pub(crate) UpstreamError);

/// Connects for one class of targets.
#[derive(Clone)]
pub(crate) struct GuardedConnector {
    pub(crate) guard: Arc<Guard>,
    pub(crate) class: TargetClass,
}

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Service<Uri> for GuardedConnector {
    type Response = Stream;
    type Error = ConnectFault;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectFault>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (guard, class) = (Arc::clone(&self.guard), self.class);
        Box::pin(async move { guard.connect(&uri, class).await.map_err(ConnectFault) })
    }
}

impl Guard {
    async fn connect(&self, uri: &Uri, class: TargetClass) -> Result<Stream, UpstreamError> {
        let host = uri.host().ok_or(UpstreamError::InvalidTarget("it names no host"))?;
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let addresses = self.addresses(host, class).await?;
        let tcp = self.open(&addresses, port, class).await?;
        if !is_tls {
            return Ok(MaybeHttpsStream::Http(TokioIo::new(tcp)));
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|error| UpstreamError::Tls(Box::new(error)))?;
        let handshake =
            TlsConnector::from(Arc::clone(&self.tls)).connect(name, TokioIo::new(TokioIo::new(tcp)));
        let stream = timeout(self.tls_timeout, handshake)
            .await
            .map_err(|_late| UpstreamError::TimedOut { phase: Phase::Tls })?
            .map_err(|error| UpstreamError::Tls(Box::new(error)))?;
        Ok(MaybeHttpsStream::Https(TokioIo::new(stream)))
    }

    /// The judged addresses of a host. One bad answer refuses the name, and the verdict is kept.
    async fn addresses(&self, host: &str, class: TargetClass) -> Result<Vec<IpAddr>, UpstreamError> {
        if let Ok(literal) = host.parse::<IpAddr>() {
            return if is_allowed(literal, class) { Ok(vec![literal]) } else { Err(UpstreamError::Blocked) };
        }
        let mut answers = timeout(self.dns_timeout, self.resolver.resolve(host))
            .await
            .map_err(|_late| UpstreamError::TimedOut { phase: Phase::Resolve })?
            .map_err(UpstreamError::Resolve)?;
        if answers.is_empty() {
            return Err(UpstreamError::Resolve("the name has no address".into()));
        }
        // Judged before the list is cut: a bad answer must not hide behind many good ones.
        if !judge(&answers, class) {
            tracing::warn!("a target's name has a forbidden address and is refused");
            self.refused.note(host, class);
            return Err(UpstreamError::Blocked);
        }
        answers.truncate(self.dns_answers_max);
        Ok(answers)
    }

    /// Opens a socket to the first address that takes it.
    async fn open(
        &self,
        addresses: &[IpAddr],
        port: u16,
        class: TargetClass,
    ) -> Result<TcpStream, UpstreamError> {
        let attempt = async {
            let mut last = UpstreamError::Connect("no address was tried".into());
            for address in addresses {
                let address = SocketAddr::new(*address, port);
                if self.own.is_own(address) {
                    return Err(UpstreamError::Blocked);
                }
                match TcpStream::connect(address).await {
                    Ok(stream) => return self.judged(stream, class),
                    Err(error) => last = UpstreamError::Connect(Box::new(error)),
                }
            }
            Err(last)
        };
        let late = |_late| UpstreamError::TimedOut { phase: Phase::Connect };
        timeout(self.connect_timeout, attempt).await.map_err(late)?
    }

    /// The peer is judged again: what counts is where the socket ended.
    fn judged(&self, stream: TcpStream, class: TargetClass) -> Result<TcpStream, UpstreamError> {
        let peer = stream.peer_addr().map_err(|error| UpstreamError::Connect(Box::new(error)))?;
        if !is_allowed(peer.ip(), class) {
            return Err(UpstreamError::Blocked);
        }
        stream.set_nodelay(true).map_err(|error| UpstreamError::Connect(Box::new(error)))?;
        Ok(stream)
    }
}
