//! Places for calls in flight, so many per origin: one slow target cannot take everybody's. Nor can one business take
//! all of a target's for long: it may have half of them as soon as another found none, and as long as that one calls.

use smallvec::SmallVec;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Parts of the count, each with a lock of its own, so that workers seldom wait for each other. A power of two.
const SHARDS: usize = 16;

/// How long a business that found no place, or took one since, is taken to want more: it is told to come again after a
/// second.
const WANTED: Duration = Duration::from_secs(3);

/// The calls in flight of some origins.
type Taken = HashMap<Arc<str>, Held>;

/// The calls in flight of one origin.
#[derive(Default)]
struct Held {
    calls: usize,
    /// By business, which is known by its hash.
    shares: SmallVec<[(u64, usize); 2]>,
    /// Who found no place last, though it has less than its half, and when.
    wanted: Option<(u64, Instant)>,
}

impl Held {
    /// Takes a place, if there is one for this business.
    fn take(&mut self, business: u64, max: usize) -> bool {
        let half = max.div_ceil(2);
        let own = self.shares.iter().position(|(known, _)| *known == business);
        let has = own.and_then(|place| self.shares.get(place)).map_or(0, |(_, calls)| *calls);
        if self.calls >= max {
            if has < half {
                self.wanted = Some((business, Instant::now()));
            }
            return false;
        }
        if has >= half && self.is_wanted_by_another(business) {
            return false;
        }
        match own.and_then(|place| self.shares.get_mut(place)) {
            Some((_, calls)) => *calls += 1,
            None => self.shares.push((business, 1)),
        }
        self.calls += 1;
        if has < half
            && let Some((wanting, at)) = &mut self.wanted
            && *wanting == business
        {
            // As long as it goes on calling.
            *at = Instant::now();
        }
        true
    }

    fn is_wanted_by_another(&self, business: u64) -> bool {
        self.wanted.is_some_and(|(other, at)| other != business && at.elapsed() < WANTED)
    }

    /// Gives a place back; whether none is taken any more.
    fn give_back(&mut self, business: u64) -> bool {
        self.calls = self.calls.saturating_sub(1);
        if let Some((_, calls)) = self.shares.iter_mut().find(|(known, _)| *known == business) {
            *calls = calls.saturating_sub(1);
        }
        self.shares.retain(|(_, calls)| *calls > 0);
        self.calls == 0
    }
}

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
    business: u64,
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
    pub(crate) fn take(self: &Arc<Self>, origin: &Arc<str>, business: &str) -> Option<Place> {
        let Self(places) = &**self;
        let business = places.hasher.hash_one(business);
        let mut taken = places.shard(origin);
        let is_taken = match taken.get_mut(origin) {
            Some(held) => held.take(business, places.max),
            // `max` is at least 1.
            None => taken.entry(Arc::clone(origin)).or_default().take(business, places.max),
        };
        drop(taken);
        is_taken.then(|| Place { handle: Arc::clone(self), origin: Arc::clone(origin), business })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.handle.0.shard(&self.origin);
        if taken.get_mut(&self.origin).is_some_and(|held| held.give_back(self.business)) {
            taken.remove(&self.origin);
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
            let place = places.take(&origin, "biz_1");
            assert!(place.is_some() && places.take(&origin, "biz_1").is_none());
            drop(place);
        }
        assert!(places.0.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn a_business_has_half_as_soon_as_another_wants_some() {
        let places = Places::new(4).handle();
        let origin: Arc<str> = "a.example.com".into();
        let take = |business| places.take(&origin, business);
        let mut flood: Vec<_> = (0..4).map(|_| take("flood").unwrap()).collect();
        assert!(take("flood").is_none() && take("quiet").is_none(), "all are taken");
        flood.pop();
        assert!(take("flood").is_none(), "the next one is the other's");
        let quiet = take("quiet").unwrap();
        flood.pop();
        assert!(take("flood").is_none(), "it has half");
        let second = take("quiet").unwrap();
        assert!(take("quiet").is_none());
        flood.pop();
        flood.push(take("flood").unwrap());
        assert!(take("flood").is_none());
        drop((quiet, second));
        assert_eq!(flood.len(), 2);
        drop(flood);
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
                        match places.take(&origins[which], "biz_1") {
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
