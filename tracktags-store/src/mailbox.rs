//! Answers on their way back: one mailbox for each thread that runs a single-threaded runtime.
//!
//! Waking a task of another thread costs a system call. The engine therefore puts a batch's answers into the
//! mailboxes of the threads that wait and wakes each thread once; a small task there hands them out.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, oneshot};

use crate::admission::Answer;

struct Mailbox {
    answers: Mutex<Vec<(oneshot::Sender<Answer>, Answer)>>,
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
        self.0.hand_out();
    }
}

impl Mailbox {
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
            arrived: Notify::new(),
            closed: AtomicBool::new(false),
        });
        let serving = Closing(Arc::clone(&mailbox));
        runtime.spawn(async move {
            loop {
                serving.0.arrived.notified().await;
                serving.0.hand_out();
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
