//! What a start finds: the tail after a kill, a second server, another master key, a newer schema, damage.

use crate::support::{Folder, business, limit, terms};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tracktags_core::{Demand, Period, Units};
use tracktags_store::{Admitted, Health, LedgerReader, MasterKey, Node, OpenError};

async fn take(node: &Node, terms: &Arc<tracktags_core::Terms>, units: i64) -> bool {
    let demand = Demand::new(Arc::clone(terms), 0, Units::new(units).unwrap());
    match node.admission.reserve(demand).await.unwrap() {
        Admitted::Admitted(_, reservation) => {
            node.admission.keep(reservation.unwrap());
            true
        }
        Admitted::Denied(_) => false,
        other => panic!("{other:?}"),
    }
}

fn sqlite(folder: &Folder, sql: &str) {
    let done = Command::new("sqlite3").arg(folder.path()).arg(sql).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn a_kill_loses_no_acknowledged_unit() {
    let folder = Folder::new();
    let mut node = folder.open();
    let business = business(&node).await;
    let terms = Arc::new(terms(&business, "customer_1", vec![limit("api_calls", 1_000, Period::Monthly)]));
    for round in 1..=5_i64 {
        for _ in 0..20 {
            assert!(take(&node, &terms, 1).await);
        }
        // Dropped, not closed: nothing is folded.
        drop(node);
        folder.verify();
        node = folder.open();
        let usage = node.store.usage(Arc::clone(&terms), None).await.unwrap();
        assert_eq!(usage.metrics[0].state.value, round * 20);
    }
}

#[tokio::test]
async fn a_start_after_the_ledger_was_pruned_empty_goes_on_counting() {
    let mut folder = Folder::new();
    folder.limits.ledger_retention_seconds = 0;
    folder.limits.fold_every_ms = 1;
    let node = folder.open();
    let business = business(&node).await;
    let terms = Arc::new(terms(&business, "customer_1", vec![limit("api_calls", 30, Period::Monthly)]));
    for _ in 0..20 {
        assert!(take(&node, &terms, 1).await);
    }
    node.close();
    // What retention would have left after a week.
    sqlite(&folder, "DELETE FROM usage_ledger");
    let node = folder.open();
    for _ in 0..10 {
        assert!(take(&node, &terms, 1).await);
    }
    assert!(!take(&node, &terms, 1).await, "30 of 30 are used");
    drop(node);
    let node = folder.open();
    assert!(!take(&node, &terms, 1).await, "numbers of batches did not begin again");
    drop(node);
    folder.verify();
}

#[tokio::test]
async fn a_ledger_that_is_too_large_loses_its_oldest_folded_rows() {
    let mut folder = Folder::new();
    folder.limits.fold_every_ms = 1;
    folder.limits.ledger_bytes_max = 100;
    let node = folder.open();
    let business = business(&node).await;
    let terms =
        Arc::new(terms(&business, "customer_1", vec![limit("api_calls", 10_000_000, Period::Monthly)]));
    // It is looked at a second after the start, and folded before.
    let pruned = async {
        let (mut taken, mut kept) = (0, 0);
        while kept == taken {
            for _ in 0..100 {
                assert!(take(&node, &terms, 1).await);
            }
            taken += 100;
            kept = 0;
            let mut reader = LedgerReader::open(&folder.url()).unwrap();
            reader.read(&mut |_entry| kept += 1).unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), pruned).await.expect("every row is kept");
    node.close();
    folder.verify();
}

#[tokio::test]
async fn a_reader_follows_the_ledger_of_a_store_in_use() {
    let folder = Folder::new();
    let node = folder.open();
    let business = business(&node).await;
    let terms = Arc::new(terms(&business, "customer_1", vec![limit("api_calls", 100, Period::Monthly)]));
    let mut reader = LedgerReader::open(&folder.url()).unwrap();
    for expected in [vec![], vec![1, 2, 3], vec![4, 5], vec![]] {
        for _ in &expected {
            assert!(take(&node, &terms, 1).await);
        }
        let mut levels = Vec::new();
        reader.read(&mut |line| levels.push(line.entry.state.level.units)).unwrap();
        assert_eq!(levels, expected, "what came since the last time");
    }
}

#[tokio::test]
async fn a_release_gives_units_back_durably() {
    let folder = Folder::new();
    let node = folder.open();
    let business = business(&node).await;
    let terms = Arc::new(terms(&business, "customer_1", vec![limit("api_calls", 1, Period::Monthly)]));
    let demand = Demand::new(Arc::clone(&terms), 0, Units::ONE);
    let Admitted::Admitted(_, Some(reservation)) = node.admission.reserve(demand.clone()).await.unwrap()
    else {
        panic!()
    };
    let Admitted::Denied(denied) = node.admission.reserve(demand).await.unwrap() else { panic!() };
    assert_eq!(denied.retry_after_seconds, Some(1), "it would fit once the open call settles");
    assert_eq!(node.admission.open(), (1, 1));
    node.admission.settle(reservation, Units::ZERO).await.unwrap();
    assert_eq!(node.admission.open(), (0, 0));
    drop(node);
    let node = folder.open();
    assert!(take(&node, &terms, 1).await);
    drop(node);
    folder.verify();
}

#[tokio::test]
async fn a_second_server_on_the_same_file_is_refused() {
    let folder = Folder::new();
    let node = folder.open();
    assert!(matches!(tracktags_store::open(folder.options()), Err(OpenError::Locked(_))));
    assert_eq!(node.health(), Health::Ready);
    drop(node);
    folder.open();
}

#[test]
fn a_wrong_master_key_is_refused() {
    let folder = Folder::new();
    folder.open().close();
    let mut options = folder.options();
    options.master_keys = MasterKey::parse_list(&"22".repeat(32)).unwrap();
    assert!(matches!(tracktags_store::open(options), Err(OpenError::WrongMasterKey)));
}

#[test]
fn a_newer_schema_is_refused_and_both_are_named() {
    let folder = Folder::new();
    folder.open().close();
    sqlite(&folder, "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')");
    match tracktags_store::open(folder.options()) {
        Err(OpenError::SchemaNewer { found, known }) => assert_ne!(found, known),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_file_that_is_no_database_is_named_as_damaged() {
    let folder = Folder::new();
    std::fs::write(
        folder.path(),
        "this is no database, and much longer than a header would be. ".repeat(200),
    )
    .unwrap();
    assert!(matches!(tracktags_store::open(folder.options()), Err(OpenError::Corrupt(_))));
}

#[test]
fn a_path_without_a_scheme_creates_no_database() {
    let folder = Folder::new();
    let mut options = folder.options();
    options.url = folder.path().display().to_string();
    assert!(matches!(tracktags_store::open(options), Err(OpenError::Url(_))));
    assert!(!folder.path().exists());
}

#[cfg(unix)]
#[test]
fn the_database_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    folder.open().close();
    let mode = std::fs::metadata(folder.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}

#[test]
fn damaged_books_are_found() {
    let folder = Folder::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let node = folder.open();
    let business = runtime.block_on(business(&node));
    let terms = Arc::new(terms(&business, "customer_1", vec![limit("api_calls", 100, Period::Monthly)]));
    for _ in 0..10 {
        assert!(runtime.block_on(take(&node, &terms, 3)));
    }
    node.close();
    folder.verify();
    sqlite(&folder, "UPDATE usage_history SET units = units - 1");
    let report = tracktags_store::verify(&folder.url()).unwrap();
    assert_eq!(report.differences.len(), 1, "{:?}", report.differences);
    sqlite(&folder, "UPDATE usage_history SET units = units + 1; DELETE FROM usage_ledger WHERE batch = 5");
    let report = tracktags_store::verify(&folder.url()).unwrap();
    assert!(report.differences.iter().any(|difference| difference.contains("does not follow")));
}
