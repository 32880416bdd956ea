//! Starting and stopping: what is in flight finishes, and what cannot be served says why and does not start.

#![cfg(test)]

use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracktags_tests::http::{Client, request};
use tracktags_tests::load::Load;
use tracktags_tests::overload::{self, Class, Pace, Plan};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{Node, NodeOptions, TestApp, call, envelope, wait_until};

#[test]
fn a_drain_fails_nothing_in_flight() {
    for signal in ["TERM", "INT"] {
        let mut app = TestApp::new();
        let target = Upstream::start();
        let _id = app.limit("api_calls", 1_000_000, "yearly");
        let key = app.customer_key("customer_1");
        let body = envelope(&target.url("/delay/20/echo"), 1);
        // A connection that was closed before it was used, or an address that no longer listens, is no failure of a
        // call in flight: those would show as calls that arrived and got no answer.
        let load = Load::start(app.node.address, 64, usize::MAX, move |_, client| call(client, &key, &body));
        wait_until("the load runs", Duration::from_secs(10), || target.count() > 200);
        let status = app.node.stop(signal);
        let tally = load.stop();
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{signal}");
        assert_eq!(
            tally.allowed,
            target.count(),
            "{signal}: every call that arrived was answered. {tally:?}"
        );
        assert_eq!((tally.refused, tally.failed, tally.denied), (0, 0, 0), "{tally:?}");
        app.node.verify();
        app.node = app.node.restart();
        assert_eq!(app.usage("customer_1"), i64::try_from(tally.allowed).unwrap(), "{signal}");
    }
}

/// Looks at `/ready` on new connections until none is taken: when it last said yes, first said no, and was gone.
#[expect(clippy::disallowed_methods, reason = "measures how long a balancer has to look away")]
fn watched(address: SocketAddr) -> [Option<Instant>; 3] {
    let [mut ready, mut not_ready, mut gone] = [None; 3];
    wait_until("the listener closes", Duration::from_secs(30), || {
        let answer = Client::new(address).send("GET", "/ready", &[], b"");
        let now = Some(Instant::now());
        match answer.status {
            200 => ready = now,
            503 => not_ready = not_ready.or(now),
            _ => gone = now.filter(|_| answer.is_unsent()),
        }
        gone.is_some()
    });
    [ready, not_ready, gone]
}

#[test]
fn a_drain_at_500_calls_a_second_fails_nothing_and_is_told_before() {
    for signal in ["TERM", "INT"] {
        let mut app = TestApp::new();
        let target = Upstream::start();
        let _id = app.limit("api_calls", 1_000_000, "yearly");
        let authorization = format!("Bearer {}", app.customer_key("customer_1"));
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let (address, body) = (app.node.address, envelope(&target.url("/delay/20/echo"), 1).to_string());
        let requests = vec![request(address, "POST", "/api/v1/proxy", &headers, body.as_bytes())];
        let class = Class { pace: Pace::PerSecond(500), requests, connections: 32, connections_max: 1_000 };
        let (lasts, answers_within) = (Duration::from_secs(4), Duration::from_secs(5));
        let plan = Plan { address, classes: vec![class], lasts, answers_within };
        let load = std::thread::spawn(move || overload::run(&plan).unwrap().remove(0));
        wait_until("the load runs", Duration::from_secs(10), || target.count() > 800);
        let watch = std::thread::spawn(move || watched(address));
        let status = app.node.stop(signal);
        let (tally, [ready, not_ready, gone]) = (load.join().unwrap(), watch.join().unwrap());
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{signal}");
        // After the end there is nobody to connect to, and what was never sent is no failure of a call in flight.
        assert_eq!(tally.count(200), target.count(), "{signal}: {tally}");
        assert_eq!(tally.count(200) + tally.count(0), tally.answers.len(), "{signal}: {tally}");
        let told = gone.unwrap().duration_since(not_ready.unwrap());
        let since_ready = ready.map(|ready| gone.unwrap().duration_since(ready));
        println!(
            "{signal}: {} calls, 0 failed in flight, not ready for {told:?} ({since_ready:?} since ready)",
            target.count()
        );
        // Between two looks it may have been told a little earlier.
        assert!(told >= Duration::from_millis(80), "{signal}: {told:?}");
        app.node.verify();
    }
}

#[test]
fn not_ready_comes_before_closing() {
    let mut app = TestApp::with(NodeOptions::default().set("SERVER__DRAIN_NOTICE_MS", "1500"));
    let mut client = app.client();
    let health = client.send("GET", "/health", &[], b"");
    assert_eq!((health.status, health.text().as_str()), (200, "OK"));
    let ready = client.send("GET", "/ready", &[], b"");
    assert_eq!((ready.status, ready.json()), (200, json!({"status": "ready"})));
    let pid = app.node.id().unwrap();
    std::process::Command::new("kill").arg("-TERM").arg(pid.to_string()).status().unwrap();
    wait_until("not ready is told while the listener is open", Duration::from_secs(1), || {
        let answer = client.send("GET", "/ready", &[], b"");
        answer.status == 503 && answer.json() == json!({"status": "not_ready"})
    });
    assert_eq!(app.node.stop("TERM").and_then(|status| status.code()), Some(0));
}

/// What a start on this folder says before it gives up, and its exit code.
fn refused(folder: &Arc<tempfile::TempDir>, options: NodeOptions) -> (Option<i32>, String) {
    match Node::try_start(folder, options) {
        Ok(_) => panic!("it started"),
        Err((status, log)) => (status.and_then(|status| status.code()), log),
    }
}

#[test]
fn what_cannot_be_served_does_not_start_and_says_why() {
    let app = TestApp::new();
    let folder = Arc::clone(app.node.folder());
    let (code, log) = refused(&folder, NodeOptions::default());
    assert_eq!(code, Some(1));
    assert!(log.contains("another server uses the database"), "{log}");
    drop(app);
    let other = NodeOptions::default().set("SECRETS__MASTER_KEY", &"ab".repeat(32));
    let (code, log) = refused(&folder, other);
    assert_eq!(code, Some(1));
    assert!(log.contains("wrong_master_key"), "{log}");
    let database = folder.path().join("tracktags.db");
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')";
    assert!(std::process::Command::new("sqlite3").arg(&database).arg(newer).status().unwrap().success());
    let (code, log) = refused(&folder, NodeOptions::default());
    assert_eq!(code, Some(1));
    assert!(log.contains("99990101000000") && log.contains("newer"), "{log}");
    for wal in ["-wal", "-shm"] {
        let _none = std::fs::remove_file(format!("{}{wal}", database.display()));
    }
    std::fs::write(&database, "no database at all, but long enough to look at. ".repeat(500)).unwrap();
    let (code, log) = refused(&folder, NodeOptions::default());
    assert_eq!(code, Some(1));
    assert!(log.contains("store_corrupt"), "{log}");
}

#[test]
fn a_bad_configuration_exits_64_and_names_every_problem() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let bad = NodeOptions::default()
        .set("STORE__URL", "tracktags.db")
        .set("SERVER__ADMIN_KEY", "short")
        .set("PROXY__TARGET_POLICY", "everything");
    let (code, log) = refused(&folder, bad);
    assert_eq!(code, Some(64), "{log}");
    for name in ["store.url", "admin_key", "target_policy"] {
        assert!(log.contains(name), "{name} is not named: {log}");
    }
    let (code, log) = refused(&folder, NodeOptions::default().set("SERVER__BINDD", "x"));
    assert_eq!(code, Some(64), "{log}");
    assert!(log.to_lowercase().contains("bindd"), "{log}");
    assert!(!folder.path().join("tracktags.db").exists(), "nothing was touched");
}
