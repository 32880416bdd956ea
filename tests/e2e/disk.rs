//! A full disk: what cannot be counted is refused and said so, nothing that was counted is lost, and the server goes on by
//! itself when there is room again. A reader that keeps the write-ahead log from beginning anew is an alert (R16 of
//! docs/RELIABILITY.md).

#![cfg(test)]

use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tracktags_tests::load::Load;
use tracktags_tests::{NodeOptions, TestApp, wait_until};

const DISK_MIB: u32 = 8;
const ROUNDS: usize = 3;
/// From room to the first call that is counted.
const BACK: Duration = Duration::from_secs(5);

/// Takes what is left of a disk.
fn fill(folder: &Path) {
    let mut filler = std::fs::File::create(folder.join("filler")).unwrap();
    for piece in [vec![0; 64 << 10], vec![0; 1 << 10]] {
        while filler.write_all(&piece).is_ok() {}
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures how long the server takes to go on")]
fn a_full_disk_refuses_and_loses_nothing_and_the_server_goes_on_when_there_is_room() {
    let app = TestApp::with(NodeOptions::default().on_disk(DISK_MIB));
    let _id = app.limit("calls", 1_000_000_000, "yearly");
    let _key = app.customer_key("c1");
    let files = app.node.files();
    let (counted, full) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let load = {
        let (counted, full, key) = (Arc::clone(&counted), Arc::clone(&full), app.business_key.clone());
        let body = json!({"customer_id": "c1", "metric_name": "calls"});
        Load::start(app.node.address, 16, usize::MAX, move |_, client| {
            let answer = client.json("POST", "/api/v1/track", &key, Some(&body));
            match (answer.status, answer.code().as_str()) {
                (200, _) => drop(counted.fetch_add(1, Ordering::SeqCst)),
                (503, "storage_full") => {
                    assert_eq!(answer.header("retry-after"), Some("30"));
                    full.fetch_add(1, Ordering::SeqCst);
                }
                other => panic!("{other:?}: {}", answer.text()),
            }
            answer
        })
    };
    let at = |count: &Arc<AtomicUsize>| count.load(Ordering::SeqCst);
    let ready = || app.client().send("GET", "/ready", &[], b"").status;
    for round in 0..ROUNDS {
        let before = at(&counted);
        wait_until("calls are counted", Duration::from_secs(10), || at(&counted) > before + 1_000);
        fill(&files);
        let refused = at(&full);
        wait_until("calls are refused", Duration::from_secs(10), || at(&full) > refused + 100);
        wait_until("it is not ready", Duration::from_secs(5), || ready() == 503);
        assert_eq!(app.client().send("GET", "/health", &[], b"").status, 200);
        let (stuck, refused) = (at(&counted), at(&full));
        wait_until("more are refused", Duration::from_secs(10), || at(&full) > refused + 1_000);
        assert_eq!(at(&counted), stuck, "nothing is counted on a full disk");
        std::fs::remove_file(files.join("filler")).unwrap();
        let began = Instant::now();
        wait_until("calls are counted again", BACK, || at(&counted) > stuck);
        let took = began.elapsed();
        wait_until("it is ready again", BACK, || ready() == 200);
        println!("round {round}: {} refused, counting again after {took:?}", at(&full));
    }
    let tally = load.stop();
    assert_eq!((tally.unknown, tally.denied), (0, 0), "{tally:?}");
    assert_eq!(
        app.usage("c1"),
        i64::try_from(tally.allowed).unwrap(),
        "each answer was counted, and no other"
    );
    println!("{} counted, {} refused", tally.allowed, tally.refused);
    app.node.verify();
}

#[test]
fn a_reader_that_pins_the_log_raises_an_alert_and_serving_goes_on() {
    const LOG_MIB_MAX: u64 = 2;
    let app = TestApp::with(
        NodeOptions::default()
            .set("LOG__LEVEL", "info")
            .set("STORE__WAL_CHECKPOINT_MIB", "1")
            .set("STORE__WAL_MIB_MAX", &LOG_MIB_MAX.to_string()),
    );
    let _id = app.limit("calls", 1_000_000_000, "yearly");
    let _key = app.customer_key("c1");
    let (key, body) = (app.business_key.clone(), json!({"customer_id": "c1", "metric_name": "calls"}));
    let load = Load::start(app.node.address, 16, usize::MAX, move |_, client| {
        client.json("POST", "/api/v1/track", &key, Some(&body))
    });
    let mut reader = Command::new("sqlite3")
        .arg(app.node.database())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut asks = reader.stdin.take().unwrap();
    asks.write_all(b"BEGIN; SELECT count(*) FROM usage_ledger;\n").unwrap();
    let said = |words: &str| app.node.log().contains(words);
    wait_until("there is an alert", Duration::from_secs(60), || said("a reader pins it"));
    assert!(app.node.wal_bytes() > LOG_MIB_MAX << 20);
    assert_eq!(app.client().send("GET", "/ready", &[], b"").status, 200);
    let begun = load.begun();
    wait_until("it goes on serving", Duration::from_secs(10), || load.begun() > begun + 1_000);
    assert!(!said("alert is over"), "while the reader reads");
    drop(asks);
    assert!(reader.wait().unwrap().success());
    wait_until("the alert is over", Duration::from_secs(10), || said("alert is over"));
    assert!(app.node.wal_bytes() <= LOG_MIB_MAX << 20, "the log began anew");
    let tally = load.stop();
    assert_eq!(tally.allowed, tally.attempts(), "{tally:?}");
    assert_eq!(app.usage("c1"), i64::try_from(tally.allowed).unwrap());
    println!("{} counted meanwhile", tally.allowed);
    app.node.verify();
}
