//! Damage: the database and its write-ahead log cut at every edge, and bits flipped anywhere. What is read afterwards is
//! a state that was once committed, or it is refused; nothing is guessed, and nothing panics.

use crate::support::{Folder, business, limit, terms};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tracktags_core::error::StoreError;
use tracktags_core::{Demand, Period, Terms, Units};
use tracktags_store::{Admitted, Node, OpenError};

const CUSTOMERS: usize = 5;
/// Takes that lie in the database, and as many in the log.
const TAKES: usize = 150;
const FLIPS: usize = 2_000;
/// Bytes of the head of a write-ahead log, and of each frame besides its page (SQLite's file format §4).
const WAL_HEAD: usize = 32;
const FRAME_HEAD: usize = 24;
const DATABASE: &str = "tracktags.db";
const LOG: &str = "tracktags.db-wal";

/// What every customer has used.
type State = Vec<i64>;

/// A database as a kill left it, and every state that it ever committed.
struct Recorded {
    database: Vec<u8>,
    log: Vec<u8>,
    page: usize,
    terms: Vec<Arc<Terms>>,
    states: HashSet<State>,
}

impl Recorded {
    async fn new() -> Self {
        let mut folder = Folder::new();
        folder.limits.fold_every_ms = 20;
        let mut node = folder.open();
        let business = business(&node).await;
        let terms: Vec<_> = (0..CUSTOMERS)
            .map(|customer| {
                let limits = vec![limit("api_calls", 1_000_000, Period::Monthly)];
                Arc::new(terms(&business, &format!("customer_{customer}"), limits))
            })
            .collect();
        let mut state = vec![0; CUSTOMERS];
        let mut states = HashSet::from([state.clone()]);
        let mut rng = StdRng::seed_from_u64(7);
        for take in 0..2 * TAKES {
            if take == TAKES {
                // Closed in order, all of it lies in the database; what follows lies in the log.
                node.close();
                node = folder.open();
            }
            let customer = rng.random_range(0..CUSTOMERS);
            let demand = Demand::new(Arc::clone(&terms[customer]), 0, Units::ONE);
            let Admitted::Admitted(_, Some(reservation)) = node.admission.reserve(demand).await.unwrap()
            else {
                panic!()
            };
            node.admission.keep(reservation);
            state[customer] += 1;
            states.insert(state.clone());
        }
        // As a kill leaves them: closing would empty the log. Nothing is written while both are read.
        let read = |name: &str| std::fs::read(folder.path().with_file_name(name)).unwrap();
        let (database, log) = loop {
            let files = (read(DATABASE), read(LOG));
            if (read(DATABASE), read(LOG)) == files {
                break files;
            }
        };
        drop(node);
        let page = usize::from(u16::from_be_bytes([database[16], database[17]]));
        Self { database, log, page, terms, states }
    }

    /// What is read of these files.
    async fn read(&self, database: &[u8], log: &[u8]) -> Result<State, String> {
        let folder = Folder::new();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().with_file_name(name), bytes).unwrap();
        };
        write(DATABASE, database);
        write(LOG, log);
        let node = match tracktags_store::open(folder.options()) {
            Ok(node) => node,
            Err(refused) => return Err(word(&refused)),
        };
        let state = state(&node, &self.terms).await;
        drop(node);
        state.map_err(|error| match error {
            StoreError::Corrupt(_) => "corrupt when read".to_owned(),
            other => format!("{other}"),
        })
    }

    /// The same, which must be a state that was committed, or a refusal that says why.
    async fn check(&self, what: &str, database: &[u8], log: &[u8], found: &mut BTreeMap<String, usize>) {
        let known = ["store_corrupt", "corrupt when read", "wrong_master_key", "newer schema"];
        let word = match self.read(database, log).await {
            Ok(state) if self.states.contains(&state) => "a committed state".to_owned(),
            Ok(state) => panic!("{what}: {state:?} was never committed"),
            Err(refused) => {
                assert!(known.contains(&refused.as_str()), "{what}: {refused}");
                refused
            }
        };
        *found.entry(word).or_default() += 1;
    }
}

async fn state(node: &Node, terms: &[Arc<Terms>]) -> Result<State, StoreError> {
    let mut state = Vec::new();
    for terms in terms {
        state.push(node.store.usage(Arc::clone(terms), None).await?.metrics[0].state.value);
    }
    Ok(state)
}

/// What a start says that refuses.
fn word(refused: &OpenError) -> String {
    match refused {
        OpenError::Corrupt(_) => "store_corrupt".to_owned(),
        // Bits of what says so flipped.
        OpenError::WrongMasterKey => "wrong_master_key".to_owned(),
        OpenError::SchemaNewer { .. } => "newer schema".to_owned(),
        other => tracktags_core::error::chain(other),
    }
}

#[tokio::test]
async fn cut_at_every_edge_it_is_a_committed_state_or_refused() {
    let recorded = Recorded::new().await;
    let mut found = BTreeMap::new();
    for end in (0..recorded.database.len()).step_by(recorded.page) {
        let what = format!("database cut at {end}");
        recorded.check(&what, &recorded.database[..end], &recorded.log, &mut found).await;
    }
    let frames = (recorded.log.len() - WAL_HEAD) / (FRAME_HEAD + recorded.page);
    for frame in 0..=frames {
        let end = WAL_HEAD + frame * (FRAME_HEAD + recorded.page);
        for end in [end, end.saturating_sub(1), end + FRAME_HEAD] {
            let end = end.min(recorded.log.len());
            let what = format!("log cut at {end}, frame {frame}");
            recorded.check(&what, &recorded.database, &recorded.log[..end], &mut found).await;
        }
    }
    println!("{} pages, {frames} frames: {found:?}", recorded.database.len() / recorded.page);
}

#[tokio::test]
async fn with_a_bit_flipped_it_is_a_committed_state_or_refused() {
    let recorded = Recorded::new().await;
    let mut found = BTreeMap::new();
    let mut rng = StdRng::seed_from_u64(11);
    for flip in 0..FLIPS {
        let (mut database, mut log) = (recorded.database.clone(), recorded.log.clone());
        let bytes = if flip % 2 == 0 { &mut database } else { &mut log };
        let (at, bit) = (rng.random_range(0..bytes.len()), rng.random_range(0..8_u32));
        bytes[at] ^= 1 << bit;
        let which = if flip % 2 == 0 { "database" } else { "log" };
        recorded
            .check(&format!("flip {flip}: {which} byte {at} bit {bit}"), &database, &log, &mut found)
            .await;
    }
    println!("{found:?}");
}

/// Bytes before and after a key in the database that its row takes, at least.
const AROUND: std::ops::Range<usize> = 40..90;

#[tokio::test]
async fn with_a_bit_of_any_byte_of_a_counter_flipped_it_is_a_committed_state_or_refused() {
    let recorded = Recorded::new().await;
    let (mut found, mut rows) = (BTreeMap::new(), 0);
    let mut rng = StdRng::seed_from_u64(13);
    for customer in 0..CUSTOMERS {
        let key = format!("customer_{customer}api_calls").into_bytes();
        let database = &recorded.database;
        for at in (0..database.len() - key.len()).filter(|at| database[*at..].starts_with(&key)) {
            rows += 1;
            for byte in at - AROUND.start..(at + AROUND.end).min(database.len()) {
                let mut database = database.clone();
                database[byte] ^= 1 << rng.random_range(0..8_u32);
                let what = format!("a row of {customer}: byte {byte}");
                // Without a log, the last state of the database is all there is.
                recorded.check(&what, &database, &[], &mut found).await;
            }
        }
    }
    println!("{rows} rows: {found:?}");
    assert!(rows >= 2 * CUSTOMERS, "counters and history");
    assert!(found["store_corrupt"] > 100, "{found:?}");
}

#[tokio::test]
async fn folds_of_another_time_than_the_ledger_are_refused() {
    for step in [-3, -1, 1, 3, 1_000] {
        let mut folder = Folder::new();
        folder.limits.fold_every_ms = 3_600_000;
        let node = folder.open();
        let business = business(&node).await;
        let limits = vec![limit("api_calls", 1_000_000, Period::Monthly)];
        let terms = Arc::new(terms(&business, "customer_1", limits));
        let mut node = Some(node);
        for part in 0..2 {
            for _ in 0..10 {
                let demand = Demand::new(Arc::clone(&terms), 0, Units::ONE);
                let Admitted::Admitted(_, Some(reservation)) =
                    node.as_ref().unwrap().admission.reserve(demand).await.unwrap()
                else {
                    panic!()
                };
                node.as_ref().unwrap().admission.keep(reservation);
            }
            if part == 0 {
                node.take().unwrap().close();
                node = Some(folder.open());
            }
        }
        drop(node);
        let moved = format!("UPDATE ledger_position SET folded_to = folded_to + {step}");
        let done = std::process::Command::new("sqlite3").arg(folder.path()).arg(moved).status().unwrap();
        assert!(done.success());
        match tracktags_store::open(folder.options()) {
            Err(OpenError::Corrupt(_)) => {}
            other => panic!("{step}: {:?}", other.err()),
        }
    }
}
