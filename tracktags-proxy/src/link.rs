//! A connection, driven by whoever uses it: it has no task of its own.
//!
//! What waits for an answer or for a piece of its body polls the connection itself, so an answer passes from the socket
//! to its call in one go, where a task between them would cost two hand-overs. While nobody uses it a connection does
//! nothing; what became of it meanwhile is seen when it is looked at again.

use crate::pool::{OutgoingBody, Sender};
use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use hyper::client::conn::http1::Connection;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// How often a connection is polled in one go before its task lets others run.
const ROUNDS_MAX: usize = 8;

/// Both ends of a connection: the one that takes requests, and the one that moves bytes.
pub(crate) struct Link {
    sender: Sender,
    driver: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    relay: Arc<Relay>,
    waker: Waker,
}

/// Passes wake-ups on to the task that waits, and keeps those back that come while that very task drives: it looks
/// again anyway.
#[derive(Default)]
struct Relay {
    state: AtomicU8,
    waiting: AtomicWaker,
}

/// The connection is being driven.
const DRIVEN: u8 = 1;
/// Something may have changed since it was driven last.
const WOKEN: u8 = 2;

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) & DRIVEN == 0 {
            self.waiting.wake();
        }
    }
}

impl Link {
    pub(crate) fn new<S>(sender: Sender, connection: Connection<S, OutgoingBody>) -> Self
    where
        S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let relay = Arc::new(Relay::default());
        // How it ends is told to whoever waits for an answer on it.
        let driver = Box::pin(connection.map(drop));
        Self { sender, driver, ended: false, waker: Waker::from(Arc::clone(&relay)), relay }
    }

    pub(crate) const fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// Polls `wanted` and the connection in turn until it is there or neither gets further.
    pub(crate) fn poll_with<T>(
        &mut self,
        cx: &Context<'_>,
        mut wanted: impl FnMut(&mut Sender, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.relay.waiting.register(cx.waker());
        let mut found = Poll::Pending;
        for _round in 0..ROUNDS_MAX {
            self.relay.state.store(DRIVEN, Ordering::Release);
            let mut ours = Context::from_waker(&self.waker);
            found = wanted(&mut self.sender, &mut ours);
            if found.is_ready() {
                break;
            }
            self.drive();
            if self.relay.state.load(Ordering::Acquire) & WOKEN == 0 {
                break;
            }
        }
        // What came while it was driven is not lost: this task looks again.
        if self.relay.state.fetch_and(!DRIVEN, Ordering::AcqRel) & WOKEN != 0 && found.is_pending() {
            cx.waker().wake_by_ref();
        }
        found
    }

    /// Whether it takes a request now. Asked of one that nobody waits on.
    pub(crate) fn is_ready(&mut self) -> bool {
        drop(self.relay.waiting.take());
        for _round in 0..ROUNDS_MAX {
            if self.relay.state.load(Ordering::Acquire) & WOKEN == 0 {
                break;
            }
            self.relay.state.store(DRIVEN, Ordering::Release);
            self.drive();
            self.relay.state.fetch_and(!DRIVEN, Ordering::AcqRel);
        }
        self.sender.is_ready()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.ended || self.sender.is_closed()
    }

    fn drive(&mut self) {
        let mut ours = Context::from_waker(&self.waker);
        self.ended = self.ended || self.driver.as_mut().poll(&mut ours).is_ready();
    }
}
