//! ⑦ Sending and reading back: deadlines, size limits, and framing faults as typed errors.
//!
//! Nothing that may have been sent is sent again. A body's end counts only when its framing says so.

use crate::connect::ConnectFault;
use crate::decode::Decoder;
use crate::headers;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tracktags_core::error::{Cause, Phase, UpstreamError};
use tracktags_core::upstreams::{ByteStream, ForwardRequest, ForwardResponse, RequestBody};

/// The body of a request as the client takes it.
pub(crate) type OutgoingBody = UnsyncBoxBody<Bytes, Cause>;
/// A client of one class, for one thread.
pub(crate) type Client = hyper_util::client::legacy::Client<crate::connect::GuardedConnector, OutgoingBody>;

/// The limits of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallLimits {
    pub(crate) first_byte: Duration,
    pub(crate) total: Duration,
    pub(crate) body_bytes_max: u64,
}

/// Sends a request and hands back the head of its answer with the body still flowing.
pub(crate) async fn send(
    client: Client,
    request: ForwardRequest,
    limits: CallLimits,
) -> Result<ForwardResponse, UpstreamError> {
    let began = Instant::now();
    let first_byte = began + limits.first_byte.min(limits.total);
    let request = outgoing(request)?;
    let response = timeout_at(first_byte, client.request(request))
        .await
        .map_err(|_late| UpstreamError::TimedOut { phase: Phase::FirstByte })?
        .map_err(client_error)?;
    incoming(response, began + limits.total, limits.body_bytes_max)
}

fn outgoing(request: ForwardRequest) -> Result<Request<OutgoingBody>, UpstreamError> {
    let ForwardRequest { target, method, headers, ours, body } = request;
    let has_body = !matches!(body, RequestBody::Empty);
    let body: OutgoingBody = match body {
        RequestBody::Empty => Empty::new().map_err(never).boxed_unsync(),
        RequestBody::Full(bytes) => Full::new(bytes).map_err(never).boxed_unsync(),
        RequestBody::Stream(stream) => {
            let frames = stream.map(|chunk| chunk.map(Frame::data).map_err(|error| Box::new(error) as Cause));
            StreamBody::new(frames).boxed_unsync()
        }
    };
    let mut built = Request::new(body);
    *built.method_mut() = method;
    *built.uri_mut() = target.uri;
    *built.version_mut() = Version::HTTP_11;
    *built.headers_mut() = headers::outgoing(headers, ours, &target.authority, has_body);
    Ok(built)
}

fn never(never: std::convert::Infallible) -> Cause {
    match never {}
}

fn incoming(
    response: Response<Incoming>,
    deadline: Instant,
    bytes_max: u64,
) -> Result<ForwardResponse, UpstreamError> {
    let (head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for another protocol. Dropping the body closes the connection.
        return Err(UpstreamError::Protocol("an upgrade that nobody asked for".into()));
    }
    let declared = http_body::Body::size_hint(&body).exact();
    let mut headers = head.headers;
    let decoder = Decoder::for_headers(&mut headers, bytes_max)?;
    headers::incoming(&mut headers);
    let too_large = decoder.is_none() && declared.is_some_and(|declared| declared > bytes_max);
    let answer = Answer {
        body: BodyStream::new(body),
        decoder,
        late: Box::pin(sleep_until(deadline)),
        left: bytes_max,
        bytes_max,
        stage: if too_large { Stage::TooLarge } else { Stage::Flowing },
    };
    let body: ByteStream = Box::pin(answer);
    Ok(ForwardResponse { status: head.status, headers, body })
}

/// A body on its way back.
struct Answer {
    body: BodyStream<Incoming>,
    decoder: Option<Decoder>,
    late: Pin<Box<Sleep>>,
    left: u64,
    bytes_max: u64,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Flowing,
    TooLarge,
    Ended,
}

impl Answer {
    /// What a chunk, or the end, hands over. `None`: nothing yet.
    fn take(&mut self, chunk: Option<&Bytes>) -> Result<Option<Bytes>, UpstreamError> {
        let bytes = match (&mut self.decoder, chunk) {
            (Some(decoder), Some(chunk)) => decoder.push(chunk)?,
            (Some(decoder), None) => decoder.finish()?,
            (None, Some(chunk)) => chunk.clone(),
            (None, None) => Bytes::new(),
        };
        let length = bytes.len() as u64;
        let too_large = UpstreamError::TooLarge { bytes_max: self.bytes_max };
        self.left = self.left.checked_sub(length).ok_or(too_large)?;
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    fn end(&mut self, error: UpstreamError) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        self.stage = Stage::Ended;
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Answer {
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        match this.stage {
            Stage::Ended => return Poll::Ready(None),
            Stage::TooLarge => return this.end(UpstreamError::TooLarge { bytes_max: this.bytes_max }),
            Stage::Flowing => {}
        }
        loop {
            let Poll::Ready(frame) = this.body.poll_next_unpin(cx) else {
                ready!(this.late.as_mut().poll(cx));
                return this.end(UpstreamError::TimedOut { phase: Phase::Total });
            };
            let taken = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => this.take(Some(&chunk)),
                    // Trailers describe the connection's message; they are not handed on.
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => Err(UpstreamError::Truncated(Box::new(error))),
                None => {
                    let last = this.take(None);
                    this.stage = Stage::Ended;
                    last
                }
            };
            match taken {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Ok(None) if this.stage == Stage::Ended => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return this.end(error),
            }
        }
    }
}

use std::future::Future;

/// What the client's error means: ours where the connector said it, else by what hyper knows.
fn client_error(error: hyper_util::client::legacy::Error) -> UpstreamError {
    let mut found: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(cause) = found {
        if let Some(fault) = cause.downcast_ref::<ConnectFault>() {
            return copy_of(&fault.0);
        }
        if let Some(fault) = cause.downcast_ref::<hyper::Error>() {
            let malformed = fault.is_parse() || fault.is_parse_status();
            let cause = Box::new(error);
            return if malformed { UpstreamError::Protocol(cause) } else { UpstreamError::Closed(cause) };
        }
        found = cause.source();
    }
    UpstreamError::Closed(Box::new(error))
}

/// The connector's error again: the client keeps it behind a reference.
fn copy_of(error: &UpstreamError) -> UpstreamError {
    let cause = |cause: &Cause| -> Cause { cause.to_string().into() };
    match error {
        UpstreamError::InvalidTarget(why) => UpstreamError::InvalidTarget(why),
        UpstreamError::Resolve(source) => UpstreamError::Resolve(cause(source)),
        UpstreamError::Connect(source) => UpstreamError::Connect(cause(source)),
        UpstreamError::Tls(source) => UpstreamError::Tls(cause(source)),
        UpstreamError::TimedOut { phase } => UpstreamError::TimedOut { phase: *phase },
        _ => UpstreamError::Blocked,
    }
}
