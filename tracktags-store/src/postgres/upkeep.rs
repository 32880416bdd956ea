//! The thread for what no caller waits for: folds, refusals and key uses written down, the trail swept, old rows removed,
//! and that this node goes on.

use super::boots;
use super::denied::Denied;
use super::dialect::Conn;
use super::fold;
use super::sessions::Session;
use super::tables::{changes, keys, purge};
use super::trail;
use super::usage;
use crate::StoreLimits;
use crate::cache::KeyUses;
use crate::secrets::Secrets;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tracktags_core::error::StoreError;
use tracktags_core::history::Gain;
use tracktags_core::time::Timestamp;

/// Uses of keys written down at once.
const USES_CHUNK: usize = 1_000;
/// Steps of the sweep, and of pruning, in one round; what is left waits for the next one.
const STEPS_MAX: usize = 20;

pub(super) struct Upkeep {
    pub(super) session: Session,
    pub(super) boot: Arc<str>,
    pub(super) secrets: Secrets,
    pub(super) limits: StoreLimits,
    pub(super) denied: Arc<Denied>,
    pub(super) uses: Arc<KeyUses>,
}

/// How a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// In order: everything is folded.
    Clean,
    /// As a kill does.
    Abrupt,
}

impl Upkeep {
    /// Rounds until the node ends.
    pub(super) fn serve(mut self, end: &Receiver<End>) {
        let every = Duration::from_millis(self.limits.fold_every_ms);
        loop {
            match end.recv_timeout(every) {
                Err(RecvTimeoutError::Timeout) => self.round(),
                Ok(End::Clean) => return self.finish(),
                Ok(End::Abrupt) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// A step that fails holds up no other, unless the database is away.
    fn round(&mut self) {
        type Step = fn(&mut Upkeep) -> Result<(), StoreError>;
        let steps: [(&str, Step); 6] = [
            ("the sign of life", |upkeep| upkeep.note_boot(false)),
            ("a fold", |upkeep| fold::pass(&mut upkeep.session).map(drop)),
            ("the history of refusals", Self::note_denied),
            ("the uses of keys", Self::note_uses),
            ("the trail of changes by SQL", Self::sweep),
            ("the removal of old rows", Self::prune),
        ];
        for (what, step) in steps {
            if let Err(error) = step(self) {
                tracing::warn!(%error, "{what} waits");
                if matches!(error, StoreError::Unavailable(_)) {
                    return;
                }
            }
        }
    }

    fn prune(&mut self) -> Result<(), StoreError> {
        for _step in 0..STEPS_MAX {
            if fold::prune(&mut self.session, &self.secrets, &self.limits)? {
                return self.purge();
            }
        }
        Ok(())
    }

    fn note_boot(&mut self, clean_stop: bool) -> Result<(), StoreError> {
        let boot = &self.boot;
        self.session.write(|conn, now| boots::note(conn, now, boot, clean_stop))
    }

    /// Refused demands go to the history of their hours, best effort: what cannot be written is forgotten.
    fn note_denied(&mut self) -> Result<(), StoreError> {
        let mut hours = usage::Hours::new();
        for (counter, buckets) in self.denied.take() {
            for (bucket, (operation, denied)) in buckets {
                let gain = Gain { denied, ..Gain::default() };
                hours.insert((counter.clone(), bucket), (operation, gain));
            }
        }
        if hours.is_empty() {
            return Ok(());
        }
        self.session.write(|conn, _| usage::fold(conn, &hours))
    }

    fn note_uses(&mut self) -> Result<(), StoreError> {
        let mut uses = self.uses.take(USES_CHUNK);
        // In one order, as everybody writes them.
        uses.sort_by(|(left, ..), (right, ..)| left.cmp(right));
        if uses.is_empty() {
            return Ok(());
        }
        self.session.write(|conn, _| keys::note_uses(conn, &uses))
    }

    /// What SQL changed is written down before it is forgotten.
    fn sweep(&mut self) -> Result<(), StoreError> {
        let secrets = &self.secrets;
        for _step in 0..STEPS_MAX {
            if !self.session.change(|conn, _| trail::sweep(conn, secrets))? {
                self.session.write(forget)?;
                break;
            }
        }
        Ok(())
    }

    /// What deleted businesses leave goes, each piece in a transaction of its own, since the trail tells it by that.
    fn purge(&mut self) -> Result<(), StoreError> {
        let (secrets, seconds) = (&self.secrets, self.limits.ledger_retention_seconds);
        self.session.change(|conn, now| purge::purge_a_little(conn, secrets, now, seconds))
    }

    /// The last of it.
    fn finish(&mut self) {
        let folded = fold::pass(&mut self.session).and_then(|_| self.note_denied());
        let noted = folded.and_then(|()| self.note_uses()).and_then(|()| self.note_boot(true));
        if let Err(error) = noted {
            tracing::error!(%error, "the store did not close in order; another node folds what is left");
        }
    }
}

/// Changes older than a day go, unless the trail does not know them yet.
fn forget(conn: &mut Conn, now: Timestamp) -> Result<(), StoreError> {
    if !trail::is_behind(conn, now.plus_seconds(-changes::KEPT_SECONDS))? {
        changes::prune_changes(conn, now)?;
    }
    Ok(())
}
