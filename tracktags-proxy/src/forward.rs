//! ⑦ Sending: deadlines by phase, and what goes wrong before the head of an answer as typed errors.
//!
//! Nothing that may have been sent is sent again, no redirect is followed, and an interim answer (1xx) is never the
//! answer. Until a connection is there nothing was sent, and the errors say so: units are kept or released by it.

use crate::answer::Answer;
use crate::connect::{ConnectFault, GuardedConnector};
use crate::decode::Decoder;
use crate::headers;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::task::AtomicWaker;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::capture_connection;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tracktags_core::error::{Cause, Phase, UpstreamError};
use tracktags_core::upstreams::{ForwardRequest, ForwardResponse, RequestBody};

/// The body of a request as the client takes it.
pub(crate) type OutgoingBody = UnsyncBoxBody<Bytes, Cause>;
/// A client of one class, for one thread.
pub(crate) type Client = hyper_util::client::legacy::Client<GuardedConnector, OutgoingBody>;

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
    client: Client,
    request: ForwardRequest,
    limits: CallLimits,
) -> Result<ForwardResponse, UpstreamError> {
    let end = Instant::now() + limits.total;
    let mut request = outgoing(request)?;
    let interim = Interim::watch(&mut request);
    let mut capture = capture_connection(&mut request);
    let mut connected = pin!(async { capture.wait_for_connection_metadata().await.is_some() });
    let mut sending = pin!(client.request(request));
    let mut late = pin!(sleep_until(end.min(Instant::now() + limits.connection)));
    let mut phase = Phase::Connect;
    let response = poll_fn(|cx| {
        if let Poll::Ready(response) = sending.as_mut().poll(cx) {
            return Poll::Ready(response.map_err(client_error));
        }
        if interim.poll_flood(cx).is_ready() {
            return Poll::Ready(Err(UpstreamError::Protocol("interim answers without end".into())));
        }
        if phase == Phase::Connect && connected.as_mut().poll(cx).is_ready() {
            let first_byte = Instant::now() + limits.first_byte;
            phase = if first_byte < end { Phase::FirstByte } else { Phase::Total };
            late.as_mut().reset(end.min(first_byte));
        }
        late.as_mut().poll(cx).map(|()| Err(UpstreamError::TimedOut { phase }))
    })
    .await?;
    incoming(response, end, limits)
}

fn outgoing(request: ForwardRequest) -> Result<Request<OutgoingBody>, UpstreamError> {
    let ForwardRequest { target, method, headers, ours, body } = request;
    if matches!(method, Method::CONNECT | Method::TRACE) {
        // One opens a tunnel past every rule here, the other has our headers read back.
        return Err(UpstreamError::InvalidTarget("its method cannot be forwarded"));
    }
    let body: OutgoingBody = match body {
        RequestBody::Empty => Empty::new().map_err(never).boxed_unsync(),
        RequestBody::Full(bytes) => Full::new(bytes).map_err(never).boxed_unsync(),
        RequestBody::Stream(stream) => {
            let frames = stream.map(|chunk| chunk.map(Frame::data).map_err(|error| Box::new(error) as Cause));
            StreamBody::new(frames).boxed_unsync()
        }
    };
    let headers = headers::outgoing(headers, ours, &target.authority, &method, !body.is_end_stream())?;
    let mut built = Request::new(body);
    *built.method_mut() = method;
    *built.uri_mut() = target.uri;
    *built.version_mut() = Version::HTTP_11;
    *built.headers_mut() = headers;
    Ok(built)
}

fn never(never: Infallible) -> Cause {
    match never {}
}

fn incoming(
    response: Response<Incoming>,
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
    let body = Box::pin(Answer::new(body, encoding, deadline, limits.body_bytes_max));
    Ok(ForwardResponse { status: head.status, headers, body })
}

/// Colon, space and line end of a field.
const FIELD_EXTRA: usize = 4;

/// Interim answers a target may send before the answer.
const INTERIM_MAX: usize = 64;

/// Counts interim answers. hyper reads over any number of them, so a target could keep a connection busy with them for
/// as long as the time limit lasts.
#[derive(Default)]
struct Interim {
    seen: AtomicUsize,
    waker: AtomicWaker,
}

impl Interim {
    fn watch<B>(request: &mut Request<B>) -> Arc<Self> {
        let interim = Arc::new(Self::default());
        let counted = Arc::clone(&interim);
        hyper::ext::on_informational(request, move |_| {
            if counted.seen.fetch_add(1, Ordering::AcqRel) >= INTERIM_MAX {
                counted.waker.wake();
            }
        });
        interim
    }

    /// Ready when there were too many.
    fn poll_flood(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.seen.load(Ordering::Acquire) > INTERIM_MAX { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What the client's error means: ours where the connector said it, else by what hyper knows.
fn client_error(error: hyper_util::client::legacy::Error) -> UpstreamError {
    let mut found: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(cause) = found {
        if let Some(fault) = cause.downcast_ref::<ConnectFault>() {
            return fault.to_error();
        }
        if let Some(fault) = cause.downcast_ref::<hyper::Error>() {
            let malformed = fault.is_parse() || fault.is_parse_status();
            let cause = Box::new(error);
            return if malformed { UpstreamError::Protocol(cause) } else { UpstreamError::Closed(cause) };
        }
        found = cause.source();
    }
    if error.is_connect() {
        UpstreamError::Connect(Box::new(error))
    } else {
        UpstreamError::Closed(Box::new(error))
    }
}
