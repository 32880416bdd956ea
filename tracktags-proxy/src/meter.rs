//! How much a connection may read before the head of an answer is there.
//!
//! hyper reads over any number of interim answers (1xx), so a target could keep a connection busy with them for as long
//! as the time limit lasts. What comes before the head is counted where it is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes a connection may still read.
#[derive(Clone)]
pub(crate) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }

    /// An answer is waited for.
    pub(crate) fn limit(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Release);
    }

    /// Its head is there; the body has a limit of its own.
    pub(crate) fn lift(&self) {
        self.0.store(usize::MAX, Ordering::Release);
    }

    pub(crate) fn is_used_up(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    /// Takes what was read.
    fn take(&self, bytes: usize) -> io::Result<()> {
        let left = |left: usize| (left != usize::MAX).then(|| left.saturating_sub(bytes));
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, left) {
            Ok(before) if before <= bytes => Err(io::Error::other("too much before the head of an answer")),
            // An error says that there is no limit now.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// A stream whose reading is counted.
pub(crate) struct Metered<S> {
    stream: S,
    allowance: Allowance,
}

impl<S> Metered<S> {
    pub(crate) fn new(stream: S, allowance: Allowance) -> Self {
        Self { stream, allowance }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(self.allowance.take(buffer.filled().len().saturating_sub(before)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
