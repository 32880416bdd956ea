//! The hand-over between callers and the engine: one mailbox for each thread that runs a single-threaded runtime.
//!
//! Waking another thread costs a system call. So a small task on each thread carries both ways: operations of all
//! callers that are runnable at the moment go to the queue together, and a batch's answers come back together.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, oneshot};

use crate::admission::{Answer, Links, Waiting};

struct Mailbox {
    answers: Mutex<Vec<(oneshot::Sender<Answer>, Answer)>>,
    /// On their way to the queue, in the order in which they were submitted.
    leaving: Mutex<Vec<(Arc<Links>, Waiting)>>,
    arrived: Notify,
    closed: AtomicBool,
}

thread_local! {
    static MAILBOX: RefCell<Option<Arc<Mailbox>>> = const { RefCell::new(None) };
}

/// Closes the mailbox when the runtime that served it ends.
struct Closing(Arc<Mailbox>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.send_off();
        self.0.hand_out();
    }
}

impl Mailbox {
    /// Takes an operation along. The first one wakes the task, which waits on this very thread.
    fn take_along(&self, links: &Arc<Links>, waiting: Waiting) {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = leaving.is_empty();
        leaving.push((Arc::clone(links), waiting));
        drop(leaving);
        if is_first {
            self.arrived.notify_one();
        }
    }

    /// Queues what was taken along: each run of operations for one engine at once.
    fn send_off(&self) {
        let leaving = std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        let mut leaving = leaving.into_iter().peekable();
        while let Some((links, first)) = leaving.next() {
            let mut together = vec![first];
            while let Some((_, one)) = leaving.next_if(|(other, _)| other.is_of_one_engine_with(&links)) {
                together.push(one);
            }
            links.push_each(together);
        }
    }

    fn has_leaving(&self) -> bool {
        !self.leaving.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn hand_out(&self) {
        let answers = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        for (sender, answer) in answers {
            // The receiver may be gone; that changes nothing.
            let _gone = sender.send(answer);
        }
    }
}

/// Where one answer goes.
pub(crate) struct Slot {
    sender: oneshot::Sender<Answer>,
    mailbox: Option<Arc<Mailbox>>,
}

/// A slot for the current thread.
pub(crate) fn slot(sender: oneshot::Sender<Answer>) -> Slot {
    Slot { sender, mailbox: mailbox_here() }
}

/// Queues an operation with those of its neighbours. Answers it at once where there is no place for it.
pub(crate) fn submit(links: &Arc<Links>, waiting: Waiting) {
    match &waiting.slot.mailbox {
        Some(mailbox) if !mailbox.closed.load(Ordering::SeqCst) => {
            let mailbox = Arc::clone(mailbox);
            mailbox.take_along(links, waiting);
        }
        _ => links.push_each(vec![waiting]),
    }
}

fn mailbox_here() -> Option<Arc<Mailbox>> {
    let runtime = Handle::try_current().ok()?;
    if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread {
        return None;
    }
    MAILBOX.with_borrow_mut(|here| {
        if let Some(mailbox) = here.as_ref().filter(|mailbox| !mailbox.closed.load(Ordering::SeqCst)) {
            return Some(Arc::clone(mailbox));
        }
        let mailbox = Arc::new(Mailbox {
            answers: Mutex::default(),
            leaving: Mutex::default(),
            arrived: Notify::new(),
            closed: AtomicBool::new(false),
        });
        let serving = Closing(Arc::clone(&mailbox));
        runtime.spawn(async move {
            loop {
                serving.0.arrived.notified().await;
                serving.0.hand_out();
                if serving.0.has_leaving() {
                    // Once round: every caller that can run now adds its own.
                    tokio::task::yield_now().await;
                    serving.0.send_off();
                }
            }
        });
        *here = Some(Arc::clone(&mailbox));
        Some(mailbox)
    })
}

/// Answers gathered for delivery: each thread is woken once, when this is dropped or delivered.
#[derive(Default)]
pub(crate) struct Deliveries {
    woken: Vec<Arc<Mailbox>>,
}

impl Deliveries {
    /// Adds an answer.
    pub(crate) fn add(&mut self, slot: Slot, answer: Answer) {
        let Some(mailbox) = slot.mailbox else {
            let _gone = slot.sender.send(answer);
            return;
        };
        let mut answers = mailbox.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push((slot.sender, answer));
        drop(answers);
        if !self.woken.iter().any(|woken| Arc::ptr_eq(woken, &mailbox)) {
            self.woken.push(mailbox);
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        for mailbox in &self.woken {
            mailbox.arrived.notify_one();
            if mailbox.closed.load(Ordering::SeqCst) {
                mailbox.hand_out();
            }
        }
    }
}
