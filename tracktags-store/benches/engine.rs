//! The SQLite engine under load: admissions a second and how long one takes, beside a raw SQLite loop.
//!
//! `cargo bench -p tracktags-store --bench engine [-- --quick] [-- --seconds N]` prints two tables. The first: 1, 64
//! and 256 callers in a closed loop on 1, 1,000 and 100,000 counters, each on a database of its own, two runtimes as
//! the server has workers. The second, alternating with a loop that only appends 64 rows of the same size a
//! transaction, is the ratio of DESIGN.md §5: the engine with 64 callers on 100,000 counters over that loop.
#![expect(clippy::unwrap_used, reason = "a benchmark may end with its first surprise")]
#![expect(clippy::print_stdout, reason = "its result is a table")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

mod load;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary};
use load::{Until, all_terms, callers};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tracktags_store::{Durability, MasterKey, Node, OpenOptions, StoreLimits, SystemClock, open};

/// Callers that meet every counter once before anything is measured.
const WARMING_CALLERS: usize = 512;
/// Rows in a transaction of the raw loop.
const RAW_ROWS: i64 = 64;
/// The pace of the engine's own side thread.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(200);
/// Pairs of runs behind the ratio.
const PAIRS: usize = 3;

/// What a run came to.
struct Run {
    per_second: f64,
    p50: Duration,
    p99: Duration,
    /// Bytes in the ledger for one demand.
    row_bytes: usize,
}

fn open_node(folder: &Path, durability: Durability) -> Node {
    let options = OpenOptions {
        url: format!("sqlite:{}", folder.join("bench.db").display()),
        durability,
        master_keys: MasterKey::parse_list(&"07".repeat(32)).unwrap(),
        clock: Arc::new(SystemClock),
        limits: StoreLimits::default(),
    };
    open(options).unwrap()
}

fn run(durability: Durability, caller_count: usize, counters: usize, time: Duration) -> Run {
    let folder = TempDir::new().unwrap();
    let node = open_node(folder.path(), durability);
    let terms = Arc::new(all_terms(&node, counters));
    // Every counter once, so that each is known: a cold one is read from its row, once.
    let each = Until::Count(counters.div_ceil(WARMING_CALLERS));
    let warming = callers(&node, &terms, WARMING_CALLERS, WARMING_CALLERS, each).len();
    let began = Instant::now();
    // A prime step far from any size here: each caller goes through all counters, none follows another.
    let mut took = callers(&node, &terms, caller_count, 7_919, Until::Time(began + time));
    let elapsed = began.elapsed();
    node.close();
    let report =
        tracktags_store::verify(&format!("sqlite:{}", folder.path().join("bench.db").display())).unwrap();
    assert!(report.differences.is_empty(), "{:?}", report.differences);
    took.sort_unstable();
    let at = |part: usize| {
        Duration::from_micros(took.get(took.len() * part / 100).copied().unwrap_or_default().into())
    };
    Run {
        per_second: took.len() as f64 / elapsed.as_secs_f64(),
        p50: at(50),
        p99: at(99),
        row_bytes: ledger_bytes(folder.path()) / (took.len() + warming).max(1),
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

fn ledger_bytes(folder: &Path) -> usize {
    let mut conn = SqliteConnection::establish(&folder.join("bench.db").to_string_lossy()).unwrap();
    let query = "SELECT coalesce(sum(length(entries)), 0) AS value FROM usage_ledger";
    let bytes = diesel::sql_query(query).get_result::<Number>(&mut conn).unwrap().value;
    usize::try_from(bytes).unwrap_or_default()
}

/// Rows a second of a loop that only appends: one row a demand, 64 rows a transaction, the same settings, and the
/// same checkpoints from the side. SQLite makes the rows of a transaction from one statement, which costs less than
/// binding each.
fn raw(row_bytes: usize, time: Duration) -> f64 {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("raw.db");
    let connect = || SqliteConnection::establish(&file.to_string_lossy()).unwrap();
    let mut conn = connect();
    let setup = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; \
                 PRAGMA temp_store = MEMORY; PRAGMA cache_size = -65536; \
                 CREATE TABLE rows (id INTEGER PRIMARY KEY NOT NULL, entry BLOB NOT NULL) STRICT;";
    conn.batch_execute(setup).unwrap();
    let mut side = connect();
    let (stop, stopped) = channel::<()>();
    let checkpoints = std::thread::spawn(move || {
        side.batch_execute("PRAGMA busy_timeout = 0; PRAGMA wal_autocheckpoint = 0").unwrap();
        while stopped.recv_timeout(CHECKPOINT_EVERY) == Err(RecvTimeoutError::Timeout) {
            side.batch_execute("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        }
    });
    let entry = vec![0xa5_u8; row_bytes];
    let append = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) \
                  INSERT INTO rows (id, entry) SELECT ? + i, ? FROM n";
    let began = Instant::now();
    let mut rows = 0;
    while began.elapsed() < time {
        conn.batch_execute("BEGIN IMMEDIATE").unwrap();
        diesel::sql_query(append)
            .bind::<BigInt, _>(RAW_ROWS)
            .bind::<BigInt, _>(rows)
            .bind::<Binary, _>(&entry)
            .execute(&mut conn)
            .unwrap();
        conn.batch_execute("COMMIT").unwrap();
        rows += RAW_ROWS;
    }
    let per_second = rows as f64 / began.elapsed().as_secs_f64();
    drop(stop);
    checkpoints.join().unwrap();
    per_second
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn table(time: Duration) {
    println!("| durability | callers | counters | admissions/s | p50 ms | p99 ms |");
    println!("|---|---:|---:|---:|---:|---:|");
    for durability in [Durability::PowerLoss, Durability::Process] {
        for counters in [1, 1_000, 100_000] {
            for callers in [1, 64, 256] {
                let run = run(durability, callers, counters, time);
                println!(
                    "| {durability:?} | {callers} | {counters} | {:.0} | {:.3} | {:.3} |",
                    run.per_second,
                    millis(run.p50),
                    millis(run.p99)
                );
            }
        }
    }
    println!();
}

fn ratio(time: Duration) {
    let (mut engine, mut raw_loop, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut row_bytes = 0;
    for _ in 0..PAIRS {
        let run = run(Durability::PowerLoss, 64, 100_000, time);
        row_bytes = run.row_bytes;
        raw_loop.push(raw(row_bytes, time));
        engine.push(run.per_second);
        p50.push(millis(run.p50));
        p99.push(millis(run.p99));
    }
    let (engine, raw_loop) = (median(engine), median(raw_loop));
    println!("| PowerLoss, median of {PAIRS} | per second | p50 ms | p99 ms | ratio (floor 0.5, goal 0.8) |");
    println!("|---|---:|---:|---:|---:|");
    println!(
        "| engine, 64 callers, 100000 counters | {engine:.0} | {:.3} | {:.3} | {:.2} |",
        median(p50),
        median(p99),
        engine / raw_loop
    );
    println!("| raw SQLite loop, 64 rows of {row_bytes} B a transaction | {raw_loop:.0} | | | 1 |");
}

fn main() {
    // `cargo bench` adds `--bench`; a name to filter by means nothing here.
    let arguments: Vec<_> = std::env::args().collect();
    let seconds = arguments.iter().skip_while(|one| *one != "--seconds").nth(1);
    let time = Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(3).clamp(1, 600));
    if !arguments.iter().any(|one| one == "--quick") {
        table(time);
    }
    ratio(time);
}
