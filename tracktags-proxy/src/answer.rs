//! A body on its way back: the deadline of the call, the cap on what is handed over, and an end that counts only when
//! the framing, and the encoding if there is one, say so.

use crate::decode::{Decoder, Encoding, Step};
use crate::pool::Lease;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body::Body;
use http_body_util::BodyStream;
use hyper::body::Incoming;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};
use tracktags_core::error::{Phase, UpstreamError};

/// The body of an answer, as it is handed over: a stream that ends after its first error.
pub(crate) struct Answer {
    source: Source,
    kind: Kind,
    /// Bytes that may still be handed over.
    left: u64,
    bytes_max: u64,
    ended: bool,
}

enum Kind {
    Plain,
    Encoded(Box<Decoder>),
    /// Encoded so that nobody here can read it; without a byte it is as good as any.
    Unreadable,
    /// Its length says that it will pass the cap, so it is not read at all.
    TooLarge,
}

impl Answer {
    pub(crate) fn new(
        body: Incoming,
        lease: Lease,
        encoding: Encoding,
        deadline: Instant,
        bytes_max: u64,
    ) -> Self {
        let kind = match encoding {
            // HEAD, 204, 304: nothing to decode, and nothing cut short.
            _ if body.is_end_stream() => Kind::Plain,
            Encoding::Known(decoder) => Kind::Encoded(decoder),
            Encoding::Unknown => Kind::Unreadable,
            Encoding::Plain if body.size_hint().lower() > bytes_max => Kind::TooLarge,
            Encoding::Plain => Kind::Plain,
        };
        let source = Source { body: BodyStream::new(body), lease: Some(lease), deadline, late: None };
        Self { source, kind, left: bytes_max, bytes_max, ended: false }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, UpstreamError>> {
        let bytes_max = self.bytes_max;
        let piece = match &mut self.kind {
            Kind::TooLarge => return Poll::Ready(Err(UpstreamError::TooLarge { bytes_max })),
            Kind::Plain => ready!(self.source.poll_chunk(cx))?,
            Kind::Unreadable => match ready!(self.source.poll_chunk(cx))? {
                None => None,
                Some(_) => {
                    let why = "encoded in a way that was not asked for and is not known";
                    return Poll::Ready(Err(UpstreamError::Truncated(why.into())));
                }
            },
            Kind::Encoded(decoder) => loop {
                match decoder.step()? {
                    Step::Piece(piece) => break Some(piece),
                    Step::Whole => break None,
                    Step::Hungry => match ready!(self.source.poll_chunk(cx))? {
                        Some(chunk) => decoder.feed(chunk)?,
                        None => decoder.end(),
                    },
                }
            },
        };
        let length = piece.as_ref().map_or(0, Bytes::len);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(length).ok_or(UpstreamError::TooLarge { bytes_max })?;
        Poll::Ready(Ok(piece))
    }
}

impl Stream for Answer {
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = ready!(self.poll_piece(cx));
        self.ended = !matches!(piece, Ok(Some(_)));
        Poll::Ready(piece.transpose())
    }
}

/// The connection's side of the body.
struct Source {
    body: BodyStream<Incoming>,
    /// Given back at the end of the body, and only there (`answers-stay-apart`).
    lease: Option<Lease>,
    deadline: Instant,
    /// Made when the body first has to be waited for.
    late: Option<Pin<Box<Sleep>>>,
}

impl Source {
    /// The next chunk that holds something; `None` at the end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, UpstreamError>> {
        loop {
            let Poll::Ready(frame) = self.body.poll_next_unpin(cx) else {
                let late = self.late.get_or_insert_with(|| Box::pin(sleep_until(self.deadline)));
                ready!(late.as_mut().poll(cx));
                return Poll::Ready(Err(UpstreamError::TimedOut { phase: Phase::Total }));
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Err(UpstreamError::Truncated(Box::new(error)))),
                None => {
                    if let Some(lease) = self.lease.take() {
                        lease.give_back();
                    }
                    return Poll::Ready(Ok(None));
                }
            };
            // Trailers describe the message on its connection; they are not handed on.
            if let Ok(chunk) = frame.into_data()
                && !chunk.is_empty()
            {
                return Poll::Ready(Ok(Some(chunk)));
            }
        }
    }
}
