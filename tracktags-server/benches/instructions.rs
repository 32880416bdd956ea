//! What `scripts/instructions` counts: one step of the hot path, so many times over.
//!
//! `instructions STEP COUNT`. Runs of one and of two rounds differ by exactly one round, so nothing of the start counts.
#![expect(clippy::unwrap_used, reason = "a benchmark may end with its first surprise")]

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use tracktags_core::accounts::{Account, BusinessId, CustomerId, MetricName};
use tracktags_core::batch::{Batch, Counters, CutCache, Versions};
use tracktags_core::demand::{Demand, Operation};
use tracktags_core::error::StoreError;
use tracktags_core::keys::{ParsedKey, PlainKey};
use tracktags_core::limits::{Limit, Terms};
use tracktags_core::metrics::Units;
use tracktags_core::time::Timestamp;
use tracktags_core::usage::{Counter, CounterKey};
use tracktags_core::windows::Period;
use tracktags_server::reads_envelope;

/// Noon of 15 January 2026.
const NOW: Timestamp = Timestamp::from_seconds(1_768_478_400);
/// Demands of a batch.
const BATCH: usize = 64;
const ENVELOPE: &[u8] = br#"{"metric_name":"api_calls","target_url":"https://api.example.com/v1/items?page=2","method":"POST","headers":{"accept":"application/json","x-request-id":"7f3a"},"body":"{\"name\":\"first\"}"}"#;

/// Counters that start at nothing and are never written back.
struct New(HashMap<CounterKey, Counter>);

impl Counters for New {
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

fn demand(customer: usize, limit: Units) -> Operation {
    let metric = MetricName::parse("api_calls").unwrap();
    let customer = CustomerId::parse(&format!("customer_{customer}")).unwrap();
    let account = Account::customer(BusinessId::parse("biz_bench").unwrap(), customer);
    let terms = Terms::new(account, [Limit::new(metric, limit, Period::Monthly)]);
    Operation::Take(Demand::new(Arc::new(terms), 0, Units::ONE))
}

/// A key's form and checksum.
fn key(count: usize) {
    let customer = CustomerId::parse("customer_12345").unwrap();
    // The same key each time: how many digits its checksum takes depends on it.
    let key = PlainKey::for_customer(&customer, &mut StdRng::seed_from_u64(1));
    for _ in 0..count {
        assert!(ParsedKey::parse(black_box(key.expose())).is_ok());
    }
}

/// An envelope with every usual field.
fn envelope(count: usize) {
    let body = Bytes::from_static(ENVELOPE);
    for _ in 0..count {
        assert!(reads_envelope(black_box(&body)));
    }
}

/// One decision against one limit, which refuses: nothing is written.
fn decide(count: usize) {
    let operation = demand(0, Units::ZERO);
    let (mut counters, mut cuts) = (New(HashMap::new()), CutCache::default());
    let mut batch = Batch::new(NOW);
    for _ in 0..count {
        black_box(batch.apply(black_box(&operation), &mut counters, &Still, &mut cuts).unwrap());
    }
}

/// A batch of demands on a counter each, from empty to its entries.
fn batch(count: usize) {
    let operations: Vec<_> = (0..BATCH).map(|customer| demand(customer, Units::MAX)).collect();
    let (mut counters, mut cuts) = (New(HashMap::new()), CutCache::default());
    for _ in 0..count {
        let mut batch = Batch::with_room(NOW, operations.len());
        for operation in black_box(&operations) {
            black_box(batch.apply(operation, &mut counters, &Still, &mut cuts).unwrap());
        }
        black_box(batch.entries().len());
    }
}

fn main() {
    // `cargo bench` adds `--bench`, which means nothing here; nor does a call without a step.
    let arguments: Vec<_> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    let count = arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    match arguments.first().map_or("", String::as_str) {
        "key" => key(count),
        "envelope" => envelope(count),
        "decide" => decide(count),
        "batch" => batch(count),
        _ => {}
    }
}
