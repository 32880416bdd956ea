//! Window edges under load (RELIABILITY R12, R13): a clock that moves on with every look, so that edges fall between a
//! batch's decision and its lock as often as between two batches, and a clock that steps back.

use crate::support::{Folder, business, limit, seed, terms};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tracktags_core::accounts::Business;
use tracktags_core::traits::{Accounts, Clock, HistoryQuery};
use tracktags_core::windows::Span;
use tracktags_core::{Decision, Demand, Period, Terms, Timestamp, Units};
use tracktags_store::{Admitted, Node, OpenOptions};

const CALLERS: u64 = 64;
const EDGES: usize = 50;
/// For so long: some minutes are passed over.
const MINUTES: i64 = 100;
/// What a minute admits.
const CAP: u64 = 100;
const STEP_BACK_SECONDS: i64 = 10;

/// Moves on with every look, twice a batch: mostly by up to 14 s, now and then by up to a minute, so that some windows
/// have few demands; and it steps back now and then, if it is such a one.
struct MovingClock {
    inner: Mutex<(Timestamp, StdRng)>,
    steps_back: bool,
}

impl Clock for MovingClock {
    fn now(&self) -> Timestamp {
        let mut inner = self.inner.lock().unwrap();
        let (now, rng) = &mut *inner;
        *now = match rng.random_range(0..8) {
            0 if self.steps_back => now.plus_seconds(-STEP_BACK_SECONDS),
            1 | 2 => now.plus_micros(rng.random_range(0..60_000_000)),
            _ => now.plus_micros(rng.random_range(0..14_000_000)),
        };
        *now
    }
}

/// What callers heard of a window: demands that were decided in it, units admitted, and of these given back.
#[derive(Clone, Copy, Default)]
struct Heard {
    decided: u64,
    admitted: u64,
    released: u64,
}

type Windows = BTreeMap<i64, Heard>;

/// The one window that a decision names.
fn window(decision: &Decision) -> Span {
    let span = decision.metrics[0].limits[0].window.unwrap();
    assert_eq!(span.end.as_micros() - span.start.as_micros(), 60_000_000);
    span
}

/// One caller, until the last edge has passed. Gives back every third unit if it `releases`.
async fn caller(node: Arc<Node>, terms: Arc<Terms>, last: Timestamp, releases: bool) -> Windows {
    let mut windows = Windows::new();
    for number in 0.. {
        let demand = Demand::new(Arc::clone(&terms), 0, Units::ONE);
        match node.admission.reserve(demand).await.unwrap() {
            Admitted::Admitted(decision, Some(reservation)) => {
                let span = window(&decision);
                assert!(span.contains(reservation.taken().at), "its units lie in the window it names");
                let heard = windows.entry(span.start.as_seconds()).or_default();
                heard.decided += 1;
                heard.admitted += 1;
                if releases && number % 3 == 0 {
                    heard.released += 1;
                    node.admission.settle(reservation, Units::ZERO).await.unwrap();
                } else {
                    node.admission.keep(reservation);
                }
                if decision.at >= last {
                    break;
                }
            }
            Admitted::Denied(decision) => {
                windows.entry(window(&decision).start.as_seconds()).or_default().decided += 1;
                if decision.at >= last {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    windows
}

/// What all callers heard, and what the books say afterwards: units in history.
async fn load(steps_back: bool, releases: bool) -> (Windows, u64) {
    let folder = Folder::new();
    let begin: Timestamp = "2026-01-15T11:30:30Z".parse().unwrap();
    let seed = seed();
    let open = || {
        let inner = Mutex::new((begin, StdRng::seed_from_u64(seed)));
        let clock = Arc::new(MovingClock { inner, steps_back });
        tracktags_store::open(OpenOptions { clock, ..folder.options() }).unwrap()
    };
    let node = open();
    let business = business(&node).await;
    let limit = limit("api_calls", i64::try_from(CAP).unwrap(), Period::Minutely);
    let terms = Arc::new(terms(&business, "customer_1", vec![limit]));
    let node = Arc::new(node);
    let last = begin.plus_seconds(60 * MINUTES);
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| tokio::spawn(caller(Arc::clone(&node), Arc::clone(&terms), last, releases)))
        .collect();
    let mut windows = Windows::new();
    for one in callers {
        for (start, heard) in one.await.unwrap() {
            let all = windows.entry(start).or_default();
            all.decided += heard.decided;
            all.admitted += heard.admitted;
            all.released += heard.released;
        }
    }
    Arc::into_inner(node).unwrap().close();
    folder.verify();
    let units = history(&open(), &business).await;
    (windows, units)
}

async fn history(node: &Node, business: &Business) -> u64 {
    let query = HistoryQuery {
        business: business.business_id.clone(),
        accounts: Accounts::Customer("customer_1".parse().unwrap()),
        metric: "api_calls".parse().unwrap(),
        span: Span { start: Timestamp::MIN, end: Timestamp::MAX },
    };
    let hours = node.store.history(query).await.unwrap();
    hours.iter().map(|hour| u64::try_from(hour.gain.units).unwrap()).sum()
}

/// The load covered what it is to show: edges were crossed, and windows ended full and not full.
fn covers(windows: &Windows) {
    let full = windows.values().filter(|heard| heard.decided > CAP).count();
    println!("{} windows, {full} of them asked for more than they admit", windows.len());
    assert!(windows.len() > EDGES);
    assert!(full > 0 && full < windows.len());
}

#[tokio::test]
async fn fifty_edges_under_load_admit_exactly_what_each_window_may() {
    let (windows, history) = load(false, false).await;
    covers(&windows);
    for (start, heard) in &windows {
        assert_eq!(heard.admitted, heard.decided.min(CAP), "the minute of {start}");
    }
    assert_eq!(windows.values().map(|heard| heard.admitted).sum::<u64>(), history);
}

#[tokio::test]
async fn a_clock_that_steps_back_sells_no_unit_twice() {
    let (windows, history) = load(true, false).await;
    covers(&windows);
    for (start, heard) in &windows {
        assert_eq!(heard.admitted, heard.decided.min(CAP), "the minute of {start}");
    }
    assert_eq!(windows.values().map(|heard| heard.admitted).sum::<u64>(), history);
}

#[tokio::test]
async fn releases_across_edges_and_steps_back_go_to_their_own_window() {
    let (windows, history) = load(true, true).await;
    covers(&windows);
    for (start, heard) in &windows {
        assert!(heard.admitted - heard.released <= CAP, "the minute of {start}");
    }
    assert_eq!(windows.values().map(|heard| heard.admitted - heard.released).sum::<u64>(), history);
}
