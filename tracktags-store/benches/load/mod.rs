//! Callers in a closed loop, spread over runtimes as a server has workers.

use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::{Builder, Runtime};
use tracktags_core::accounts::{Account, BusinessId, CustomerId, MetricName};
use tracktags_core::audit::Author;
use tracktags_core::demand::Demand;
use tracktags_core::limits::{Limit, Terms};
use tracktags_core::metrics::Units;
use tracktags_core::traits::NewBusiness;
use tracktags_core::windows::Period;
use tracktags_store::{Admission, Admitted, Node};

/// Runtimes of one thread, as many as a small server has workers.
const RUNTIMES: usize = 2;

/// When a caller ends.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// At this instant.
    Time(Instant),
    /// After so many demands.
    Count(usize),
}

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// The terms of `counters` customers of a new business, each with a monthly limit that is never reached.
pub(crate) fn all_terms(node: &Node, counters: usize) -> Vec<Arc<Terms>> {
    let fields = NewBusiness {
        business_name: "Bench".to_owned(),
        email: "bench@example.com".to_owned(),
        user_id: None,
    };
    let (business, version) = runtime().block_on(async {
        let business = node.store.create_business(Author::server(), fields).await.unwrap().business_id;
        let terms = node.store.read_terms(Account::business(business.clone())).await.unwrap().unwrap();
        (business, terms.version)
    });
    let metric = MetricName::parse("api_calls").unwrap();
    (0..counters).map(|customer| customer_terms(&business, version, &metric, customer)).collect()
}

fn customer_terms(business: &BusinessId, version: i64, metric: &MetricName, customer: usize) -> Arc<Terms> {
    let customer = CustomerId::parse(&format!("customer_{customer}")).unwrap();
    let limit = Limit::new(metric.clone(), Units::MAX, Period::Monthly);
    let mut terms = Terms::new(Account::customer(business.clone(), customer), [limit]);
    terms.version = version;
    Arc::new(terms)
}

/// One caller: a demand, its answer, the next one. Microseconds each took.
async fn caller(
    admission: Admission,
    terms: Arc<Vec<Arc<Terms>>>,
    first: usize,
    step: usize,
    until: Until,
) -> Vec<u32> {
    let mut took = Vec::new();
    let mut place = first;
    loop {
        let began = Instant::now();
        let over = match until {
            Until::Time(end) => began >= end,
            Until::Count(count) => took.len() >= count,
        };
        if over {
            return took;
        }
        let demand = Demand::new(Arc::clone(terms.get(place % terms.len()).unwrap()), 0, Units::ONE);
        place = place.wrapping_add(step);
        match admission.reserve(demand).await {
            Ok(Admitted::Admitted(_, Some(reservation))) => admission.keep(reservation),
            other => panic!("a demand was not admitted: {other:?}"),
        }
        took.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}

/// Callers spread over the runtimes, all at once; every time taken, unsorted.
pub(crate) fn callers(
    node: &Node,
    terms: &Arc<Vec<Arc<Terms>>>,
    callers: usize,
    step: usize,
    until: Until,
) -> Vec<u32> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..RUNTIMES.min(callers))
            .map(|runtime_number| {
                scope.spawn(move || {
                    let runtime = runtime();
                    let mine = (runtime_number..callers).step_by(RUNTIMES).map(|number| {
                        let terms = Arc::clone(terms);
                        runtime.spawn(caller(node.admission.clone(), terms, number, step, until))
                    });
                    let mine: Vec<_> = mine.collect();
                    runtime.block_on(async {
                        let mut took = Vec::new();
                        for one in mine {
                            took.extend(one.await.unwrap());
                        }
                        took
                    })
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}
