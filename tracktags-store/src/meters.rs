//! What the store measures of itself, for whoever asks how it does.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// Batches, as they were committed: how many operations, and how long each took. Queries for keys that the node did not
/// know, each for all that were asked for at the moment.
#[derive(Clone, Debug)]
pub struct Meters {
    batch_operations: Histogram,
    batch_seconds: Histogram,
    key_queries: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            // 1 … 1,024, the most a batch has.
            batch_operations: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            // 50 µs … 1.6 s.
            batch_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            key_queries: Counter::default(),
        }
    }
}

impl Meters {
    /// Names them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        let operations = "Operations in each batch";
        registry.register("store_batch_operations", operations, self.batch_operations.clone());
        let queries = "Queries for keys that the node did not know";
        registry.register("store_key_queries", queries, self.key_queries.clone());
        let seconds = "How long each batch took, from its closing to its answers";
        registry.register_with_unit("store_batch", seconds, Unit::Seconds, self.batch_seconds.clone());
    }

    pub(crate) fn note_key_query(&self) {
        self.key_queries.inc();
    }

    pub(crate) fn note_batch(&self, operations: usize, took: Duration) {
        self.batch_operations.observe(f64::from(u32::try_from(operations).unwrap_or(u32::MAX)));
        self.batch_seconds.observe(took.as_secs_f64());
    }
}
