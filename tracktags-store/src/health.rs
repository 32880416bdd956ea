//! What is wrong with the store, if anything.

use std::collections::BTreeMap;

/// Whether the store can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Ready,
    /// It cannot, and why.
    NotReady(String),
}

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alert {
    /// Batches fail.
    Store,
    /// The clock went back.
    Clock,
    /// The write-ahead log is larger than it may be: a reader pins it. Serving goes on.
    WalBytes,
}

/// Everything that is wrong now.
#[derive(Debug, Default)]
pub(crate) struct Condition(BTreeMap<Alert, String>);

impl Condition {
    pub(crate) fn set(&mut self, alert: Alert, reason: Option<String>) {
        match reason {
            Some(reason) if self.0.get(&alert) == Some(&reason) => {}
            Some(reason) => {
                tracing::error!(?alert, %reason, "alert");
                self.0.insert(alert, reason);
            }
            None => {
                if self.0.remove(&alert).is_some() {
                    tracing::info!(?alert, "alert is over");
                }
            }
        }
    }

    pub(crate) fn health(&self) -> Health {
        let stops = |alert: &Alert| matches!(alert, Alert::Store | Alert::Clock);
        match self.0.iter().find(|(alert, _)| stops(alert)) {
            Some((_, reason)) => Health::NotReady(reason.clone()),
            None => Health::Ready,
        }
    }
}
