//! The load client and the target as programs, each with a log of its own: the counters agree with both, also after a
//! kill, and at every arrival the target reads in the database that the unit is counted (INV1 to INV4 of
//! docs/RELIABILITY.md).

#![cfg(test)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tracktags_tests::http::Client;
use tracktags_tests::node::program;
use tracktags_tests::{Node, NodeOptions, TestApp, wait_until};

const CUSTOMERS: usize = 8;
const LIMIT: usize = 200;
const CALLS: usize = 4_000;

/// A target that runs.
struct Target {
    process: Child,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Target {
    fn start(node: &Node, log: &Path) -> Self {
        let mut process = Command::new(program("upstream"))
            .args(["--peek", &node.store_url(), "--log"])
            .arg(log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://").unwrap().parse().unwrap();
        Self { process, output, address }
    }

    /// Ends it; its exit status and what it says.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.process.stdin.take());
        let mut said = String::new();
        self.output.read_to_string(&mut said).unwrap();
        (self.process.wait().unwrap().code(), said)
    }
}

/// The load client, ready to run.
fn load(app: &TestApp, log: &Path, calls: usize) -> Command {
    let mut command = Command::new(program("load"));
    command
        .env("TRACKTAGS_LOAD_KEY", &app.business_key)
        .args(["--node", &app.node.address.to_string(), "--calls", &calls.to_string()])
        .args(["--customers", &CUSTOMERS.to_string(), "--limit", &LIMIT.to_string(), "--log"])
        .arg(log)
        .stdout(Stdio::piped());
    command
}

/// Runs it to its end; its exit status and what it says.
fn said(command: &mut Command) -> (Option<i32>, String) {
    let ran = command.output().unwrap();
    (ran.status.code(), String::from_utf8(ran.stdout).unwrap())
}

fn app(options: NodeOptions) -> TestApp {
    let app = TestApp::with(options);
    let _id = app.limit("api_calls", i64::try_from(LIMIT).unwrap(), "yearly");
    for number in 0..CUSTOMERS {
        let customer = json!({"customer_id": format!("c{number}")});
        let _made = app.business("POST", "/api/v1/customers", Some(&customer), 201);
    }
    app
}

#[test]
fn every_unit_is_in_the_database_before_it_arrives_and_both_logs_agree() {
    let folder = tempfile::tempdir().unwrap();
    let (asked, arrived) = (folder.path().join("asked"), folder.path().join("arrived"));
    // Folds come all the while.
    let app = app(NodeOptions::default().set("STORE__FOLD_EVERY_MS", "20"));
    let target = Target::start(&app.node, &arrived);
    let mut command = load(&app, &asked, CALLS);
    for path in ["/echo", "/status/500", "/echo", "/delay/1/status/503"] {
        command.arg("--target").arg(format!("http://{}{path}", target.address));
    }
    let (status, figures) = said(&mut command);
    println!("{figures}");
    assert_eq!(status, Some(0), "{figures}");
    let count = |name: &str| -> usize {
        let rest = figures.split_once(&format!("{name} ")).unwrap().1;
        rest.split([',', '\n']).next().unwrap().parse().unwrap()
    };
    assert_eq!((count("N"), count("X"), count("refused")), (CALLS, 0, 0), "{figures}");
    let (status, sight) = target.end();
    println!("{sight}");
    assert_eq!(
        (status, sight.as_str()),
        (Some(0), &*format!("arrived {}, late 0\n", count("A") + count("released")))
    );
    let log = std::fs::read_to_string(&arrived).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kept = lines.iter().filter(|line| line["kept"] == true).count();
    assert_eq!(kept, count("A"), "the target's log");
    assert!(count("released") > 500 && kept > 1_000 && count("D") > 100, "{figures}");
    // Both programs can fail. An answer in the log that nobody had:
    let mut forged = std::fs::read_to_string(&asked).unwrap();
    forged.push_str(&format!("ask {CALLS} c3 1\nkept {CALLS}\n"));
    std::fs::write(&asked, forged).unwrap();
    let (status, figures) = said(&mut load(&app, &asked, 0));
    assert_eq!((status, figures.contains("c3: INV1")), (Some(1), true), "{figures}");
    // A call that nobody counted:
    let target = Target::start(&app.node, &arrived);
    let headers = [("x-tracktags-customer-id", "nobody")];
    assert_eq!(Client::new(target.address).send("POST", "/echo", &headers, b"").status, 200);
    let (status, sight) = target.end();
    assert_eq!((status, sight.starts_with("arrived 1, late 1\n")), (Some(1), true), "{sight}");
    app.node.verify();
}

#[test]
fn the_books_go_on_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("asked");
    let mut app = app(NodeOptions::default());
    let mut running = load(&app, &asked, CALLS).spawn().unwrap();
    let lines = || std::fs::read_to_string(&asked).unwrap_or_default().lines().count();
    wait_until("the load runs", Duration::from_secs(30), || lines() > CALLS / 2);
    app.node.kill();
    let status = running.wait().unwrap();
    assert_eq!(status.code(), Some(2), "there was no server to compare with");
    app.node = app.node.restart();
    let (status, figures) = said(&mut load(&app, &asked, 100));
    println!("{figures}");
    assert_eq!(status, Some(0), "{figures}");
    assert!(figures.starts_with(&format!("N {}, ", CALLS + 100)), "{figures}");
    app.node.verify();
}
