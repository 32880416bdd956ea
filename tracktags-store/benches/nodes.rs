//! The PostgreSQL engine under load: admissions a second and how long one takes, by nodes, lanes, callers and counters.
//!
//! `scripts/postgres cargo bench -p tracktags-store --bench nodes [-- --seconds N]` prints a table. Nodes share one process,
//! as they share one machine here; every run has a database of its own, whose books are checked at its end.
#![expect(clippy::unwrap_used, reason = "a benchmark may end with its first surprise")]
#![expect(clippy::print_stdout, reason = "its result is a table")]
#![expect(clippy::disallowed_methods, reason = "it measures time, and is told where the server is")]

mod load;

use load::{Until, all_terms, callers, runtime};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;
use tracktags_store::{Durability, MasterKey, Node, OpenOptions, StoreLimits, SystemClock, open};

/// Callers that meet every counter once before anything is measured.
const WARMING_CALLERS: usize = 256;
/// A prime step far from any size here: each caller goes through all counters, none follows another.
const STEP: usize = 7_919;

/// What is measured.
#[derive(Clone, Copy)]
struct Shape {
    nodes: usize,
    lanes: u8,
    callers: usize,
    counters: usize,
}

fn on_server(url: &str, sql: &str) {
    runtime().block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
    });
}

fn open_node(url: &str, lanes: u8) -> Node {
    let limits = StoreLimits { lanes, ..StoreLimits::default() };
    let master_keys = MasterKey::parse_list(&"07".repeat(32)).unwrap();
    let (url, clock) = (url.to_owned(), Arc::new(SystemClock));
    open(OpenOptions { url, durability: Durability::PowerLoss, master_keys, clock, limits }).unwrap()
}

fn run(server: &str, shape: Shape, time: Duration) {
    let name = format!("bench_{:016x}", rand::random::<u64>());
    on_server(server, &format!("CREATE DATABASE {name}"));
    let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    let nodes: Vec<Node> = (0..shape.nodes).map(|_| open_node(&url, shape.lanes)).collect();
    let terms = Arc::new(all_terms(nodes.first().unwrap(), shape.counters));
    let each = Until::Count(shape.counters.div_ceil(WARMING_CALLERS));
    drop(callers(nodes.first().unwrap(), &terms, WARMING_CALLERS, WARMING_CALLERS, each));
    let began = Instant::now();
    let until = Until::Time(began + time);
    let mut took: Vec<u32> = std::thread::scope(|scope| {
        let loads = nodes.iter().map(|node| {
            let terms = &terms;
            scope.spawn(move || callers(node, terms, shape.callers.div_ceil(shape.nodes), STEP, until))
        });
        let loads: Vec<_> = loads.collect();
        loads.into_iter().flat_map(|load| load.join().unwrap()).collect()
    });
    let per_second = took.len() as f64 / began.elapsed().as_secs_f64();
    nodes.into_iter().for_each(Node::close);
    let report = tracktags_store::verify(&url).unwrap();
    assert!(report.differences.is_empty(), "{:?}", report.differences);
    on_server(server, &format!("DROP DATABASE {name} WITH (FORCE)"));
    took.sort_unstable();
    let at =
        |part: usize| f64::from(took.get(took.len() * part / 100).copied().unwrap_or_default()) / 1_000.0;
    let Shape { nodes, lanes, callers, counters } = shape;
    println!(
        "| {nodes} | {lanes} | {callers} | {counters} | {per_second:.0} | {:.2} | {:.2} |",
        at(50),
        at(99)
    );
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let seconds = arguments.iter().skip_while(|one| *one != "--seconds").nth(1);
    let time = Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(3).clamp(1, 600));
    let server = std::env::var("TRACKTAGS_POSTGRES");
    let server = server.unwrap_or_else(|_missing| panic!("no server: run it by scripts/postgres"));
    println!("| nodes | lanes | callers | counters | admissions/s | p50 ms | p99 ms |");
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    for (nodes, lanes) in [(1, 1), (1, 2), (1, 4), (3, 1), (3, 2)] {
        for counters in [1, 1_000, 20_000] {
            for callers in [1, 64, 256] {
                run(&server, Shape { nodes, lanes, callers, counters }, time);
            }
        }
    }
}
