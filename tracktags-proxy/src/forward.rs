//! ⑦ Sending: deadlines by phase, and what goes wrong before the head of an answer as typed errors.
//!
//! Nothing that may have been sent is sent again, no redirect is followed, and an interim answer (1xx) is never the
//! answer. Until a connection is there nothing was sent, and the errors say so: units are kept or released by it.

use crate::answer::Answer;
use crate::connect::{Guard, Stream};
use crate::decode::Decoder;
use crate::headers;
use crate::meter::{Allowance, Metered};
use crate::pool::{Lease, OutgoingBody, Pool, Sender};
use futures_util::{FutureExt, StreamExt};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tracktags_core::error::{Cause, Phase, UpstreamError};
use tracktags_core::upstreams::{ForwardRequest, ForwardResponse, RequestBody, Target};

/// How connections of one class are opened and kept, on this thread.
pub(crate) struct Origins {
    pub(crate) pool: Pool,
    pub(crate) guard: Arc<Guard>,
    pub(crate) http: http1::Builder,
}

/// The limits of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallLimits {
    /// Until a connection is there. Its parts have limits of their own; this one ends what waits for none of them.
    pub(crate) connection: Duration,
    /// From then on to the head of the answer.
    pub(crate) first_byte: Duration,
    /// The whole call.
    pub(crate) total: Duration,
    /// Names and values of the answer's headers.
    pub(crate) head_bytes_max: usize,
    /// The body, decoded.
    pub(crate) body_bytes_max: u64,
}

/// Sends a request and hands back the head of its answer with the body still flowing.
pub(crate) async fn send(
    origins: Arc<Origins>,
    request: ForwardRequest,
    limits: CallLimits,
) -> Result<ForwardResponse, UpstreamError> {
    let end = Instant::now() + limits.total;
    let (target, mut request) = outgoing(request)?;
    loop {
        let mut lease = match origins.pool.take(&target) {
            Some(lease) => lease,
            None => origins.connect(&target, end.min(Instant::now() + limits.connection)).await?,
        };
        lease.allowance.limit(limits.head_bytes_max.saturating_mul(BEFORE_HEAD));
        let first_byte = Instant::now() + limits.first_byte;
        let (late, phase) =
            if first_byte < end { (first_byte, Phase::FirstByte) } else { (end, Phase::Total) };
        let head = timeout_at(late, lease.sender.try_send_request(request)).await;
        match head.map_err(|_late| UpstreamError::TimedOut { phase })? {
            Ok(response) => {
                lease.allowance.lift();
                return incoming(response, lease, end, limits);
            }
            Err(_) if lease.allowance.is_used_up() => {
                return Err(UpstreamError::Protocol("interim answers without end".into()));
            }
            Err(mut unsent) => match unsent.take_message() {
                // An idle connection that ended meanwhile: not a byte was sent, so another one may.
                Some(message) if lease.is_reused => request = message,
                _ => return Err(client_error(unsent.into_error())),
            },
        }
    }
}

/// What may be read until the head is there, in heads of the largest size: interim answers, the head itself, and what of
/// the body comes along with it.
const BEFORE_HEAD: usize = 4;

impl Origins {
    /// A connection just opened. It lives on a task of its own.
    async fn connect(&self, target: &Target, late: Instant) -> Result<Lease, UpstreamError> {
        let allowance = Allowance::new();
        let opened = timeout_at(late, self.guard.connect(target)).await;
        let sender = match opened.map_err(|_late| UpstreamError::TimedOut { phase: Phase::Connect })?? {
            Stream::Plain(stream) => self.speak(stream, &allowance).await?,
            Stream::Tls(stream) => self.speak(*stream, &allowance).await?,
        };
        Ok(self.pool.lease(target, sender, allowance))
    }

    async fn speak<S>(&self, stream: S, allowance: &Allowance) -> Result<Sender, UpstreamError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = self
            .http
            .handshake(TokioIo::new(Metered::new(stream, allowance.clone())))
            .await
            .map_err(|error| UpstreamError::Connect(error.into()))?;
        // How it ends is told to whoever waits for an answer on it.
        tokio::spawn(connection.map(drop));
        Ok(sender)
    }
}

fn outgoing(request: ForwardRequest) -> Result<(Target, Request<OutgoingBody>), UpstreamError> {
    let ForwardRequest { target, method, headers, ours, body } = request;
    if matches!(method, Method::CONNECT | Method::TRACE) {
        // One opens a tunnel past every rule here, the other has our headers read back.
        return Err(UpstreamError::InvalidTarget("its method cannot be forwarded"));
    }
    let body: OutgoingBody = match body {
        RequestBody::Empty => Either::Left(Full::default()),
        RequestBody::Full(bytes) => Either::Left(Full::new(bytes)),
        RequestBody::Stream(stream) => {
            let frames = stream.map(|chunk| chunk.map(Frame::data).map_err(|error| Box::new(error) as Cause));
            Either::Right(StreamBody::new(frames).boxed_unsync())
        }
    };
    let headers = headers::outgoing(headers, ours, target.host.clone(), &method, !body.is_end_stream());
    let mut built = Request::new(body);
    *built.method_mut() = method;
    // Origin form (RFC 9112, 3.2.1): the host is said by `Host`.
    *built.uri_mut() = target.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    *built.version_mut() = Version::HTTP_11;
    *built.headers_mut() = headers;
    Ok((target, built))
}

fn incoming(
    response: Response<Incoming>,
    lease: Lease,
    deadline: Instant,
    limits: CallLimits,
) -> Result<ForwardResponse, UpstreamError> {
    let (head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for another protocol. Dropping the body closes the connection.
        return Err(UpstreamError::Protocol("an upgrade that nobody asked for".into()));
    }
    let mut headers = head.headers;
    // The client's buffer ends a head that never ends, but takes one that came in whole up to twice its size.
    let length: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_EXTRA).sum();
    if length > limits.head_bytes_max {
        return Err(UpstreamError::Protocol("the head is too large".into()));
    }
    let encoding = Decoder::of(&mut headers, limits.body_bytes_max);
    headers::incoming(&mut headers);
    let body = Box::pin(Answer::new(body, lease, encoding, deadline, limits.body_bytes_max));
    Ok(ForwardResponse { status: head.status, headers, body })
}

/// Colon, space and line end of a field.
const FIELD_EXTRA: usize = 4;

/// What the error of a connection means.
fn client_error(error: hyper::Error) -> UpstreamError {
    let malformed = error.is_parse() || error.is_parse_status();
    let cause = Box::new(error);
    if malformed { UpstreamError::Protocol(cause) } else { UpstreamError::Closed(cause) }
}
