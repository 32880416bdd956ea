//! ⑤ The way into the batch: a bounded queue; what waited while one batch committed is the next batch.

use tracktags_core::decide::Decision;
use tracktags_core::demand::Demand;
use tracktags_core::error::StoreError;
use tracktags_core::metrics::Units;

/// Units taken for an open call, to be settled once: kept, released or adjusted. One never settled (panic, kill -9)
/// stays counted, since its request may have reached the target (`unsettled-stays-counted`).
#[must_use = "a reservation is settled, or its units stay open"]
#[derive(Debug)]
pub struct Reservation {}

/// What became of a demand.
#[derive(Debug)]
pub enum Admitted {
    /// It may pass; the reservation is there when units were taken.
    Admitted(Decision, Option<Reservation>),
    /// A limit refuses.
    Denied(Decision),
    /// What it rests on is out of date: read afresh, from the key on.
    Stale,
    /// A sum would leave the range of units.
    OutOfRange,
}

/// The way into the batch. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission {}

impl Admission {
    /// Takes the demand's units from every limit that applies, all or none. Durable on return.
    ///
    /// # Errors
    /// `Busy`, `Unavailable`, `StorageFull`: nothing was counted. `CommitUnknown`: perhaps counted, never forwarded.
    pub async fn reserve(&self, _demand: Demand) -> Result<Admitted, StoreError> {
        unimplemented!()
    }

    /// Ends a reservation whose units stay. Writes nothing.
    pub fn keep(&self, _reservation: Reservation) {
        unimplemented!()
    }

    /// Ends a reservation with `units` of it kept; 0 releases it. Durable on return; goes on without the caller.
    ///
    /// # Errors
    /// `Unavailable` and others: still queued, and written when the store returns.
    pub async fn settle(&self, _reservation: Reservation, _units: Units) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Calls and units open on this node.
    #[must_use]
    pub fn open(&self) -> (u64, u64) {
        unimplemented!()
    }
}
