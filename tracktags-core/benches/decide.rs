//! What a decision costs without any I/O: one at a time, in batches, and through the ledger in memory.
//!
//! `cargo bench -p tracktags-core`. The goal is 100 ns for one decision; batches show the time of all their demands
//! and, as throughput, of one.
#![expect(clippy::unwrap_used, reason = "a benchmark may end with its first surprise")]

use criterion::{BatchSize, Criterion, Throughput};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use tracktags_core::accounts::{Account, BusinessId, CustomerId, MetricName};
use tracktags_core::batch::{Batch, Counters, CutCache, Versions};
use tracktags_core::demand::{Demand, Operation};
use tracktags_core::error::StoreError;
use tracktags_core::limits::{Limit, Terms};
use tracktags_core::memory::MemoryLedger;
use tracktags_core::metrics::Units;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey};
use tracktags_core::windows::Period;

/// Noon of 15 January 2026.
const NOW: Timestamp = Timestamp::from_seconds(1_768_478_400);
const ONE_LIMIT: &[Period] = &[Period::Monthly];
const FOUR_LIMITS: &[Period] = &[Period::Minutely, Period::Hourly, Period::Daily, Period::Monthly];

/// Customer number `customer`, with a limit for each of `periods` on `api_calls`.
fn terms(customer: usize, periods: &[Period], limit: Units) -> Arc<Terms> {
    let metric = MetricName::parse("api_calls").unwrap();
    let business = BusinessId::parse("biz_bench").unwrap();
    let account = Account::customer(business, CustomerId::parse(&format!("customer_{customer}")).unwrap());
    let limits = periods.iter().map(|period| Limit::new(metric.clone(), limit, *period));
    Arc::new(Terms::new(account, limits))
}

/// `demands` demands of one unit, in turn over `counters` counters.
fn demands(counters: usize, demands: usize, periods: &[Period]) -> Vec<Operation> {
    let accounts: Vec<_> = (0..counters).map(|customer| terms(customer, periods, Units::MAX)).collect();
    let take = |terms: &Arc<Terms>| Operation::Take(Demand::new(Arc::clone(terms), 0, Units::ONE));
    accounts.iter().cycle().take(demands).map(take).collect()
}

/// Counters kept as an engine keeps them: found by their key.
#[derive(Default)]
struct Kept(HashMap<CounterKey, Counter>);

impl Counters for Kept {
    fn load(&mut self, key: &CounterKey) -> Result<Counter, StoreError> {
        Ok(self.0.get(key).copied().unwrap_or_default())
    }

    fn held(&self, _key: &CounterKey) -> i64 {
        0
    }
}

/// Configuration that never moves.
struct Still;

impl Versions for Still {
    fn current(&self, _account: &Account, version: i64) -> Option<i64> {
        Some(version)
    }
}

/// One demand after the other on one counter: nothing but the decision and the running value.
fn one_decision(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decision");
    for (name, periods, limit) in [
        ("one limit", ONE_LIMIT, Units::MAX),
        ("four limits", FOUR_LIMITS, Units::MAX),
        ("one limit, denied", ONE_LIMIT, Units::ZERO),
    ] {
        let operation = Operation::Take(Demand::new(terms(0, periods, limit), 0, Units::ONE));
        let (mut counters, mut cuts) = (Kept::default(), CutCache::default());
        let mut batch = Batch::new(NOW);
        group.bench_function(name, |bencher| {
            bencher.iter(|| batch.apply(black_box(&operation), &mut counters, &Still, &mut cuts).unwrap());
        });
    }
    group.finish();
}

/// A whole batch from empty to its entries, the counters known: what the engine does between two commits.
fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    for count in [64, 1_024] {
        for (name, counters) in [("one hot counter", 1), ("a counter each", count)] {
            let operations = demands(counters, count, ONE_LIMIT);
            let (mut known, mut cuts) = (Kept::default(), CutCache::default());
            let mut before = Batch::new(NOW);
            for operation in &operations {
                before.apply(operation, &mut known, &Still, &mut cuts).unwrap();
            }
            known.0 = before.into_entries().into_iter().map(|entry| (entry.counter, entry.state)).collect();
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(format!("{count} demands, {name}"), |bencher| {
                bencher.iter(|| {
                    let mut batch = Batch::with_room(NOW, operations.len());
                    for operation in black_box(&operations) {
                        black_box(batch.apply(operation, &mut known, &Still, &mut cuts).unwrap());
                    }
                    batch
                });
            });
        }
    }
    group.finish();
}

/// The ledger for embedding, which keeps every entry: a new one for each measurement, so that it stays small.
fn memory_ledger(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory ledger");
    for count in [1, 64, 1_024] {
        let operations = demands(count, count, ONE_LIMIT);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("commit of {count}"), |bencher| {
            let ready = || {
                let mut ledger = MemoryLedger::new();
                ledger.commit(NOW, &operations);
                ledger
            };
            let commit = |ledger: &mut MemoryLedger| ledger.commit(NOW, black_box(&operations));
            bencher.iter_batched_ref(ready, commit, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn main() {
    let bounded = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50);
    let mut criterion = bounded.configure_from_args();
    one_decision(&mut criterion);
    batches(&mut criterion);
    memory_ledger(&mut criterion);
    criterion.final_summary();
}
