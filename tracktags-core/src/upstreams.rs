//! ⑦ What a forward carries: the request towards a target and the answer that comes back, both streamed.

use crate::error::UpstreamError;
use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// A body as it flows. An item is a chunk or the error that ends it.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, UpstreamError>> + Send>>;

/// Which targets a call may reach (`docs/SECURITY.md`, where requests may go).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetClass {
    /// Any public address on port 80 or 443.
    Public,
    /// Registered upstreams only.
    Allowlist,
    /// Loopback and private addresses too, any port. For a server on loopback.
    Open,
}

/// A target that passed the policy: the one parse of its URL, used for the check, `Host`, SNI and connect.
///
/// Made by [`Upstream::check`](crate::traits::Upstream::check) only.
#[derive(Clone)]
pub struct Target {
    /// The URL as it will be requested, normalised.
    pub uri: http::Uri,
    /// `host` or `host:port`: what calls and connections are counted by.
    pub authority: Arc<str>,
    /// The authority as the `Host` header says it.
    pub host: HeaderValue,
    /// The class that allowed it; the connector judges resolved addresses by it.
    pub class: TargetClass,
}

impl Target {
    /// Whether TLS is spoken with it.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.uri.scheme() == Some(&http::uri::Scheme::HTTPS)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path and query are the caller's and may hold secrets.
        f.debug_struct("Target").field("authority", &self.authority).field("class", &self.class).finish()
    }
}

/// A body to send.
pub enum RequestBody {
    /// None: no `Content-Length` is sent for methods that need none.
    Empty,
    /// All of it.
    Full(Bytes),
    /// As it arrives.
    Stream(ByteStream),
}

/// A request towards a target. Its headers are the caller's own: hop-by-hop fields, credentials and forwarding
/// headers are dropped on the way out; `ours` is set last and wins.
pub struct ForwardRequest {
    /// Where to.
    pub target: Target,
    /// How.
    pub method: Method,
    /// The caller's headers, as given.
    pub headers: HeaderMap,
    /// The headers we add (`X-TrackTags-*`, `X-Request-Id`, `Via`), each name once.
    pub ours: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: RequestBody,
}

/// An answer: its head, and a body that flows.
pub struct ForwardResponse {
    /// The target's status.
    pub status: StatusCode,
    /// The target's headers without hop-by-hop ones.
    pub headers: HeaderMap,
    /// The body, decoded if the target encoded it although `identity` was asked for.
    pub body: ByteStream,
}
