//! Look-ups of keys that this node does not know: misses of the same moment are gathered, and after one in vain the
//! next comes no sooner than a fiftieth of a second later. So a well-formed forged key costs a share of one query, and
//! never keeps the readers busy; good keys, after a start, are not held up.

use super::access::Reader;
use super::{claims, terms};
use crate::Meters;
use crate::secrets::Secrets;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracktags_core::accounts::CustomerId;
use tracktags_core::error::StoreError;
use tracktags_core::keys::KeyHash;
use tracktags_core::traits::Claim;

/// Look-ups that may wait.
const WAITING_MAX: usize = 1_024;
/// From a look in vain to the next.
const PACE: Duration = Duration::from_millis(20);

struct Lookup {
    hash: KeyHash,
    claimed: Option<CustomerId>,
    answer: oneshot::Sender<Result<Claim, StoreError>>,
}

/// The way to the thread that looks.
pub(crate) struct Lane {
    sender: SyncSender<Lookup>,
}

/// A lane, and the work of its thread. That ends by itself when the lane is dropped.
pub(crate) fn lane(
    mut reader: Reader,
    secrets: Secrets,
    meters: Meters,
) -> (Lane, impl FnOnce() + Send + 'static) {
    let (sender, lookups) = sync_channel(WAITING_MAX);
    (Lane { sender }, move || serve(&lookups, &mut reader, &secrets, &meters))
}

impl Lane {
    /// Whom an unknown key speaks for.
    pub(super) async fn look(&self, hash: KeyHash, claimed: Option<CustomerId>) -> Result<Claim, StoreError> {
        let (answer, receiver) = oneshot::channel();
        self.sender.try_send(Lookup { hash, claimed, answer }).map_err(|full| match full {
            TrySendError::Full(_) => StoreError::Busy { queue: "unknown key" },
            TrySendError::Disconnected(_) => StoreError::Unavailable("the store is closed".into()),
        })?;
        receiver
            .await
            .unwrap_or_else(|_dropped| Err(StoreError::Unavailable("the look-up was dropped".into())))
    }
}

#[expect(clippy::disallowed_methods, reason = "paces looks; decides nothing")]
fn serve(lookups: &Receiver<Lookup>, reader: &mut Reader, secrets: &Secrets, meters: &Meters) {
    let mut in_vain: Option<Instant> = None;
    while let Ok(first) = lookups.recv() {
        if let Some(rest) = in_vain.and_then(|at| PACE.checked_sub(at.elapsed())) {
            std::thread::sleep(rest);
        }
        let began = Instant::now();
        let mut gathered = vec![first];
        gathered.extend(lookups.try_iter().take(WAITING_MAX));
        meters.note_key_query();
        let hashes: Vec<KeyHash> = gathered.iter().map(|lookup| lookup.hash).collect();
        let known = reader.read(|conn, now| {
            let known = claims::known_hashes(conn, &hashes)?;
            Ok(gathered
                .iter()
                .map(|lookup| {
                    if !known.contains(&lookup.hash) {
                        return Ok(Claim::Unknown);
                    }
                    let found = terms::identify(conn, now, secrets, lookup.hash, lookup.claimed.as_ref())?;
                    Ok(found.map_or(Claim::Refused, |identity| Claim::Proved(Arc::new(identity))))
                })
                .collect::<Vec<_>>())
        });
        match known {
            Ok(found) => {
                let all_good = found.iter().all(|claim| matches!(claim, Ok(Claim::Proved(_))));
                in_vain = (!all_good).then_some(began);
                for (lookup, found) in gathered.into_iter().zip(found) {
                    let _gone = lookup.answer.send(found);
                }
            }
            Err(error) => {
                in_vain = Some(began);
                let reason = error.to_string();
                for lookup in gathered {
                    let _gone = lookup.answer.send(Err(StoreError::Unavailable(reason.clone().into())));
                }
            }
        }
    }
}
