//! How the engine waits for work, and hears of it.
//!
//! To sleep and be woken costs a call 30 to 100 µs where processors rest deeply, twice what deciding and writing it
//! does. So where few callers' work comes close together the engine stays awake for a moment, and lends its processor to
//! whoever wants it meanwhile. Where calls are rare it sleeps at once, and where callers are many too: until it is awake
//! more of them have come, and one commit is for all of these.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// The longest that the engine stays awake without work, and how close together work must come for that.
const LISTEN_MICROS_MAX: u64 = 250;
/// A longer wait counts as this one, so that a pause is soon forgotten.
const GAP_MICROS_MAX: u64 = 1_000;

/// What the engine is at. Whoever rings finds out what that takes.
mod state {
    /// At work; it looks round before it waits.
    pub(super) const BUSY: u8 = 0;
    /// Waits awake.
    pub(super) const LISTENING: u8 = 1;
    /// Waits asleep, and must be woken.
    pub(super) const ASLEEP: u8 = 2;
    /// Somebody rang since it last waited.
    pub(super) const RUNG: u8 = 3;
}

/// Rung by who has work, waited for by the one thread that does it. No ring is lost: one during work ends the next
/// wait at once.
pub(crate) struct Bell {
    state: AtomicU8,
    /// Whose thread is to be woken: the one that waited first.
    engine: OnceLock<Thread>,
    /// How long the engine waited for work lately, smoothed. Written by its thread only.
    gap_micros: AtomicU64,
}

impl Bell {
    pub(crate) const fn new() -> Self {
        let gap_micros = AtomicU64::new(GAP_MICROS_MAX);
        Self { state: AtomicU8::new(state::BUSY), engine: OnceLock::new(), gap_micros }
    }

    /// There is work. What was done before this call is seen by the engine after its wait.
    pub(crate) fn ring(&self) {
        if self.state.swap(state::RUNG, Ordering::SeqCst) == state::ASLEEP
            && let Some(engine) = self.engine.get()
        {
            engine.unpark();
        }
    }

    /// Waits for a ring, or until `timeout` passed. `few`: whether few callers had the last work. Only the engine's thread
    /// calls it, and looks for work afterwards.
    #[expect(clippy::disallowed_methods, reason = "paces the engine; decides nothing")]
    pub(crate) fn wait(&self, timeout: Duration, few: bool) {
        let began = Instant::now();
        let _engine = self.engine.get_or_init(std::thread::current);
        if self.advance(state::BUSY, state::LISTENING) {
            let listen = if few { self.listen().min(timeout) } else { Duration::ZERO };
            while self.state.load(Ordering::SeqCst) == state::LISTENING && began.elapsed() < listen {
                std::thread::yield_now();
            }
            if self.advance(state::LISTENING, state::ASLEEP) {
                std::thread::park_timeout(timeout.saturating_sub(listen));
            }
            self.note_gap(began.elapsed());
        }
        self.state.store(state::BUSY, Ordering::SeqCst);
    }

    /// How long to stay awake.
    fn listen(&self) -> Duration {
        let is_close = self.gap_micros.load(Ordering::Relaxed) < LISTEN_MICROS_MAX;
        Duration::from_micros(if is_close && may_listen() { LISTEN_MICROS_MAX } else { 0 })
    }

    /// Whether the state was `from`, and is `to` now.
    fn advance(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn note_gap(&self, gap: Duration) {
        let gap = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX).min(GAP_MICROS_MAX);
        let smoothed = (self.gap_micros.load(Ordering::Relaxed) * 3 + gap) / 4;
        self.gap_micros.store(smoothed, Ordering::Relaxed);
    }
}

/// Whether there is a processor besides: on one alone (a quota of a container counts) listening takes it from those
/// who are listened for.
fn may_listen() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "measures waits")]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Far longer than any of these tests: who sleeps so long was not woken.
    const LONG: Duration = Duration::from_secs(60);

    /// Rings so many times, each once the ring before was answered, and after `pause`.
    fn every_ring_is_answered(rings: usize, pause: Duration) {
        let bell = Bell::new();
        let (rung, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while answered.load(Ordering::SeqCst) < rings {
                    bell.wait(LONG, true);
                    answered.store(rung.load(Ordering::SeqCst), Ordering::SeqCst);
                }
            });
            for ring in 0..rings {
                std::thread::sleep(pause);
                rung.fetch_add(1, Ordering::SeqCst);
                bell.ring();
                while answered.load(Ordering::SeqCst) <= ring {
                    std::thread::yield_now();
                }
            }
        });
    }

    #[test]
    fn every_ring_is_heard_whatever_the_engine_is_at() {
        let began = Instant::now();
        every_ring_is_answered(20_000, Duration::ZERO);
        every_ring_is_answered(200, Duration::from_micros(100));
        every_ring_is_answered(50, Duration::from_millis(2));
        assert!(began.elapsed() < LONG, "a ring was not heard");
    }

    #[test]
    fn a_ring_during_work_ends_one_wait() {
        let bell = Bell::new();
        bell.ring();
        bell.wait(LONG, true);
        let began = Instant::now();
        bell.wait(Duration::from_millis(20), true);
        assert!(began.elapsed() >= Duration::from_millis(19));
        assert!(began.elapsed() < LONG);
    }

    #[test]
    fn the_engine_listens_only_where_work_comes_close_together() {
        let bell = Bell::new();
        let note = |times: usize, gap| (0..times).for_each(|_| bell.note_gap(gap));
        assert_eq!(bell.listen(), Duration::ZERO);
        note(20, Duration::from_micros(150));
        assert_eq!(bell.listen().is_zero(), !may_listen());
        note(2, LONG);
        assert_eq!(bell.listen(), Duration::ZERO);
    }
}
