//! Places for calls in flight, so many per origin: one slow target cannot take everybody's.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts of the count, each with a lock of its own, so that workers seldom wait for each other. A power of two.
const SHARDS: usize = 16;

/// The calls in flight of some origins.
type Taken = HashMap<Arc<str>, usize>;

/// Calls in flight by origin. An origin without any is not in its map, so the maps are no larger than what is in
/// flight.
pub(crate) struct Places {
    shards: [Mutex<Taken>; SHARDS],
    /// Seeded at random: nobody can choose names that all fall to one lock.
    hasher: RandomState,
    max: usize,
}

/// One thread's handle of the places. Places count their references on it, so that no other thread touches that count.
pub(crate) struct Handle(Arc<Places>);

/// A place among the calls in flight at one origin; given back when dropped.
#[must_use = "the place is given back when this is dropped"]
pub struct Place {
    handle: Arc<Handle>,
    origin: Arc<str>,
}

impl Places {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { shards: Default::default(), hasher: RandomState::new(), max })
    }

    fn shard(&self, origin: &str) -> MutexGuard<'_, Taken> {
        let [first, ..] = &self.shards;
        let hash = usize::try_from(self.hasher.hash_one(origin) & (SHARDS as u64 - 1)).unwrap_or_default();
        self.shards.get(hash).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle for a thread of its own.
    pub(crate) fn handle(self: &Arc<Self>) -> Arc<Handle> {
        Arc::new(Handle(Arc::clone(self)))
    }
}

impl Handle {
    pub(crate) fn take(self: &Arc<Self>, origin: &Arc<str>) -> Option<Place> {
        let Self(places) = &**self;
        let mut taken = places.shard(origin);
        match taken.get_mut(origin) {
            Some(calls) if *calls >= places.max => return None,
            Some(calls) => *calls += 1,
            // `max` is at least 1.
            None => drop(taken.insert(Arc::clone(origin), 1)),
        }
        drop(taken);
        Some(Place { handle: Arc::clone(self), origin: Arc::clone(origin) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.handle.0.shard(&self.origin);
        if let Some(calls) = taken.get_mut(&self.origin) {
            *calls = calls.saturating_sub(1);
            if *calls == 0 {
                taken.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn an_origin_without_calls_is_forgotten() {
        let places = Places::new(1).handle();
        for number in 0..1_000 {
            let origin: Arc<str> = format!("{number}.example.com").into();
            let place = places.take(&origin);
            assert!(place.is_some() && places.take(&origin).is_none());
            drop(place);
        }
        assert!(places.0.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn threads_never_hold_more_places_than_there_are() {
        const MAX: usize = 3;
        let places = Places::new(MAX).handle();
        let origins = ["a.example.com", "b.example.com"].map(Arc::<str>::from);
        let held = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let (taken, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8_usize {
                let (places, origins, held, taken, refused) = (&places, &origins, &held, &taken, &refused);
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for call in 0..5_000_usize {
                        let which = (thread + call) % 2;
                        match places.take(&origins[which]) {
                            Some(place) => {
                                assert!(held[which].fetch_add(1, Ordering::SeqCst) < MAX);
                                taken.fetch_add(1, Ordering::SeqCst);
                                kept.push((which, place));
                            }
                            None => drop(refused.fetch_add(1, Ordering::SeqCst)),
                        }
                        // Two at once now and then, so that all are taken at times.
                        if kept.len() > call % 3 {
                            let (which, place) = kept.remove(0);
                            held[which].fetch_sub(1, Ordering::SeqCst);
                            drop(place);
                        }
                    }
                    for (which, place) in kept {
                        held[which].fetch_sub(1, Ordering::SeqCst);
                        drop(place);
                    }
                });
            }
        });
        assert_eq!(taken.load(Ordering::SeqCst) + refused.load(Ordering::SeqCst), 40_000);
        assert!(places.0.shards.iter().all(|shard| shard.lock().unwrap().is_empty()), "all were given back");
    }
}
