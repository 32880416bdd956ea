//! The ledger in memory: never over a limit, all or nothing, and a chain in which every state follows.

use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use tracktags_core::limits::Attachment;
use tracktags_core::usage::{Counter, CounterKey};
use tracktags_core::{
    Account, Action, Ask, Demand, Limit, MemoryLedger, Operation, Operator, Outcome, Period, Terms,
    Timestamp, Units,
};

fn account() -> Account {
    Account::customer("biz_1".parse().unwrap(), "customer_1".parse().unwrap())
}

fn limit(metric: &str, value: i64, period: Period) -> Limit {
    Limit::new(metric.parse().unwrap(), Units::new(value).unwrap(), period)
}

fn units(units: i64) -> Units {
    Units::new(units).unwrap()
}

fn start() -> Timestamp {
    "2026-01-15T12:00:00Z".parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_limit_admits_exactly_what_it_may(
        operator in prop::sample::select(Operator::ALL.to_vec()),
        value in 0_i64..40, cost in 1_i64..6, calls in 1_usize..80,
    ) {
        let mut limit = limit("api_calls", value, Period::Monthly);
        limit.operator = operator;
        let terms = Arc::new(Terms::new(account(), [limit]));
        let mut ledger = MemoryLedger::new();
        let demands: Vec<_> = (0..calls)
            .map(|_| Operation::Take(Demand::new(Arc::clone(&terms), 0, units(cost))))
            .collect();
        let mut model = 0;
        for outcome in ledger.commit(start(), &demands) {
            let fits = (0..cost).all(|taken| !operator.holds(model + taken, value));
            let Outcome::Decided(decision) = outcome else { panic!("{outcome:?}") };
            prop_assert_eq!(decision.admitted, fits);
            if fits {
                model += cost;
            }
        }
        prop_assert_eq!(ledger.counter(terms.limits.get(0).unwrap().counter).level.units, model);
    }

    #[test]
    fn every_state_follows_from_the_one_before(
        steps in prop::collection::vec((0_u8..8, 0_i64..9, 0_i64..200_000), 1..120),
    ) {
        let terms = Arc::new(Terms::new(account(), [
            limit("api_calls", 50, Period::Minutely),
            limit("api_calls", 200, Period::Daily),
        ]));
        let mut ledger = MemoryLedger::new();
        let mut taken = Vec::new();
        let mut now = start();
        for (kind, n, seconds) in steps {
            now = now.plus_seconds(if seconds > 190_000 { -90 } else { seconds % 40 });
            let terms = Arc::clone(&terms);
            let operation = match kind {
                0 | 1 => Operation::Take(Demand::new(terms, 0, units(n))),
                2 => match taken.pop() {
                    Some(taken) => Operation::Settle { terms, place: 0, taken, units: units(n % 3) },
                    None => continue,
                },
                3 => Operation::Record { terms, place: 0, units: units(n), when: None },
                4 => Operation::Correct { terms, place: 0, units: units(n) },
                5 => Operation::SetTo { terms, place: 0, units: units(n) },
                6 => Operation::Start { terms, place: 0, units: units(n) },
                _ => Operation::Reset { terms, place: 0, level_too: n % 2 == 0 },
            };
            if let Outcome::Decided(decision) = ledger.apply(now, operation) {
                taken.extend(decision.taken.map(|(_, taken)| taken));
            }
        }
        let mut states: HashMap<CounterKey, Counter> = HashMap::new();
        for entry in ledger.entries() {
            let before = states.get(&entry.counter).copied().unwrap_or_default();
            prop_assert!(before.leads_to(entry), "{:?} does not lead to {:?}", before, entry);
            states.insert(entry.counter.clone(), entry.state);
        }
        for (key, state) in states {
            prop_assert_eq!(ledger.counter(&key), state);
        }
    }
}

#[test]
fn several_limits_take_all_or_none() {
    let terms = Arc::new(Terms::new(
        account(),
        [limit("api_calls", 10, Period::Minutely), limit("api_calls", 4, Period::Daily)],
    ));
    let mut ledger = MemoryLedger::new();
    let take = || Operation::Take(Demand::new(Arc::clone(&terms), 0, units(3)));
    let admitted: Vec<bool> = ledger
        .commit(start(), &[take(), take()])
        .into_iter()
        .map(|outcome| matches!(outcome, Outcome::Decided(decision) if decision.admitted))
        .collect();
    assert_eq!(admitted, [true, false]);
    let counter = ledger.counter(terms.limits.get(0).unwrap().counter);
    assert!(counter.windows.iter().all(|running| running.tally.units == 3), "the denied one took nothing");
    assert_eq!(ledger.entries().len(), 1, "and wrote nothing");
}

#[test]
fn each_interval_starts_where_the_account_does_and_limits_see_the_usage_alone() {
    let mut ledger = MemoryLedger::new();
    let terms = Arc::new(Terms::new(account(), [limit("api_calls", 5, Period::Hourly)]));
    let begins = Operation::Start { terms: Arc::clone(&terms), place: 0, units: units(3) };
    assert_eq!(ledger.apply(start(), begins), Outcome::Done { value: 3, before: 0 });
    let take = |ledger: &mut MemoryLedger, seconds, n| {
        let demand = Demand::new(Arc::clone(&terms), 0, units(n));
        let Outcome::Decided(decision) = ledger.apply(start().plus_seconds(seconds), Operation::Take(demand))
        else {
            panic!()
        };
        (decision.admitted, decision.metrics[0].value, decision.metrics[0].limits[0].usage)
    };
    // It is usage of the interval in which it was said, once.
    assert_eq!(take(&mut ledger, 0, 2), (true, 5, 5));
    assert_eq!(take(&mut ledger, 0, 1), (false, 5, 5));
    assert_eq!(take(&mut ledger, 3_600, 1), (true, 4, 1));
    assert_eq!(take(&mut ledger, 7_200, 5), (true, 8, 5));
    let gone = Operation::Reset { terms: Arc::clone(&terms), place: 0, level_too: true };
    assert_eq!(ledger.apply(start().plus_seconds(7_200), gone), Outcome::Done { value: 0, before: 8 });
    assert_eq!(take(&mut ledger, 10_800, 1), (true, 1, 1), "deleted, it starts from nothing");
}

#[test]
fn a_raised_limit_keeps_the_usage() {
    let mut ledger = MemoryLedger::new();
    let terms = |value| Arc::new(Terms::new(account(), [limit("api_calls", value, Period::Monthly)]));
    let take = |value| Operation::Take(Demand::new(terms(value), 0, units(1)));
    for _ in 0..5 {
        ledger.apply(start(), take(5));
    }
    let Outcome::Decided(denied) = ledger.apply(start(), take(5)) else { panic!() };
    assert!(!denied.admitted);
    let Outcome::Decided(raised) = ledger.apply(start(), take(10)) else { panic!() };
    assert!(raised.admitted);
    assert_eq!(raised.metrics[0].limits[0].usage, 6);
}

#[test]
fn overage_counts_only_what_lies_beyond() {
    let mut over = limit("api_calls", 10, Period::Monthly);
    over.action = Action::AllowOverage;
    let terms = Arc::new(Terms::new(account(), [over]));
    let mut ledger = MemoryLedger::new();
    ledger.apply(start(), Operation::Take(Demand::new(Arc::clone(&terms), 0, units(8))));
    let Outcome::Decided(crossing) =
        ledger.apply(start(), Operation::Take(Demand::new(Arc::clone(&terms), 0, units(5))))
    else {
        panic!()
    };
    assert!(crossing.admitted);
    let state = crossing.metrics[0].limits[0];
    assert!(state.is_breached);
    assert_eq!((state.usage, state.overage), (13, 3));
}

#[test]
fn a_release_after_its_windows_end_leaves_the_new_window_alone() {
    let terms = Arc::new(Terms::new(account(), [limit("api_calls", 10, Period::Minutely)]));
    let mut ledger = MemoryLedger::new();
    let Outcome::Decided(decision) =
        ledger.apply(start(), Operation::Take(Demand::new(Arc::clone(&terms), 0, units(4))))
    else {
        panic!()
    };
    let (place, taken) = decision.taken.unwrap();
    let later = start().plus_seconds(60);
    ledger.apply(later, Operation::Take(Demand::new(Arc::clone(&terms), 0, units(3))));
    ledger.apply(later, Operation::Settle { terms: Arc::clone(&terms), place, taken, units: Units::ZERO });
    let counter = ledger.counter(terms.limits.get(0).unwrap().counter);
    assert_eq!(counter.windows[0].tally.units, 3, "the new minute keeps its own");
    assert_eq!(counter.windows[2].tally.units, 3, "the day gives them back");
}

#[test]
fn an_empty_metric_asks_every_limit() {
    let terms = Arc::new(Terms::new(
        account(),
        [limit("api_calls", 5, Period::Monthly), limit("storage_mb", 0, Period::Realtime)],
    ));
    let mut demand = Demand::new(Arc::clone(&terms), 0, units(1));
    demand.ask = Ask::All { count: Some((0, units(1))) };
    let Outcome::Decided(decision) = MemoryLedger::new().apply(start(), Operation::Take(demand)) else {
        panic!()
    };
    assert!(!decision.admitted, "storage is at its limit");
    assert_eq!(decision.retry_after_seconds, None, "and no time cures that");
}

#[test]
fn the_most_specific_limit_wins_for_each_period() {
    let business = limit("api_calls", 10, Period::Monthly);
    let mut plan = limit("api_calls", 20, Period::Monthly);
    plan.attachment = Attachment::Plan("plan_1".into());
    let mut customer = limit("api_calls", 30, Period::Monthly);
    customer.attachment = Attachment::Customer("customer_1".parse().unwrap());
    let daily = limit("api_calls", 5, Period::Daily);
    let resolve = |plan_in_force: Option<&str>, limits: Vec<Limit>| {
        let calendar = tracktags_core::Calendar::utc();
        let rules = tracktags_core::limits::resolve(&account(), &calendar, plan_in_force, [], limits);
        rules[0].limits.iter().map(|limit| limit.value.get()).collect::<Vec<_>>()
    };
    let all = || vec![customer.clone(), business.clone(), plan.clone(), daily.clone()];
    assert_eq!(resolve(Some("plan_1"), all()), [5, 30]);
    assert_eq!(resolve(Some("plan_1"), vec![business.clone(), plan.clone()]), [20]);
    assert_eq!(resolve(None, vec![plan.clone(), business.clone()]), [10]);
}

#[test]
fn a_stale_demand_takes_nothing() {
    let terms = Arc::new(Terms::new(account(), [limit("api_calls", 5, Period::Monthly)]));
    let mut ledger = MemoryLedger::new();
    ledger.configuration_changed(account(), 7);
    let outcome = ledger.apply(start(), Operation::Take(Demand::new(terms, 0, units(1))));
    assert_eq!(outcome, Outcome::Stale);
    assert!(ledger.entries().is_empty());
}
