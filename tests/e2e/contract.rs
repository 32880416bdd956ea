//! The contract as a machine reads it: `/openapi.json` names every route, and a fuzzer that draws calls from it finds no
//! answer that it does not describe.

#![cfg(test)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tracktags_server::{Operation, operations};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp, given_seed};

/// Calls drawn for each operation and each way of drawing.
const EXAMPLES: &str = "30";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_document_names_every_operation_and_needs_no_key() {
    let app = TestApp::new();
    let answer = app.client().send("GET", "/openapi.json", &[], b"");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let document = answer.json();
    for operation in operations() {
        let described = &document["paths"][operation.path][operation.method.to_lowercase()];
        assert!(described["responses"].is_object(), "{operation:?}");
    }
}

/// One role's key, its id, and whose it is.
struct Caller {
    key: String,
    key_id: String,
    customer: String,
}

impl Caller {
    fn of(app: &TestApp, role: &str) -> Self {
        let own_key = |path: &str| {
            let keys = app.business("GET", path, None, 200);
            keys["keys"][0]["id"].as_str().unwrap().to_owned()
        };
        let customer = "caller".to_owned();
        let customer_key = app.customer_key(&customer);
        let (key, key_id) = match role {
            "admin" => (app.node.admin_key(), own_key("/api/v1/keys")),
            "business" => (app.business_key.clone(), own_key("/api/v1/keys")),
            _ => (customer_key, own_key("/api/v1/customers/caller/keys")),
        };
        Self { key, key_id, customer }
    }
}

/// Where scripts/setup puts the fuzzer.
fn fuzzer() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let program = target.join("tools/schemathesis/bin/schemathesis");
    assert!(program.exists(), "{} is not there; scripts/setup installs it", program.display());
    program
}

/// Whether any call of an operation was answered with success.
fn is_served(tally: &Value, operation: &Operation) -> bool {
    let counts = tally.get(format!("{} {}", operation.method, operation.path)).and_then(Value::as_object);
    counts.is_some_and(|counts| counts.keys().any(|status| status.starts_with('2')))
}

/// Fuzzes as `role`, of whose calls so many operations must answer some with success.
fn fuzz(role: &str, served_min: usize) {
    // The fuzzer tries bad keys on every operation.
    let options = NodeOptions::default()
        .set("LOCKOUT__FAILURES_MAX", "1000000")
        .set("LOCKOUT__ADMIN_FAILURES_MAX", "1000000");
    let app = TestApp::with(options);
    let target = Upstream::start();
    let caller = Caller::of(&app, role);
    let folder = tempfile::tempdir().unwrap();
    let tally = folder.path().join("tally.json");
    let url = format!("http://{}", app.node.address);
    // The same every time, unless somebody wants to look further.
    let seed = given_seed().unwrap_or(1).to_string();
    let output = Command::new(fuzzer())
        .arg("--config-file")
        .arg(root().join("tests/contract/schemathesis.toml"))
        .args(["run", &format!("{url}/openapi.json"), "--checks", "all"])
        .args(["--phases", "coverage,fuzzing,stateful"])
        .args(["--max-examples", EXAMPLES, "--seed", &seed, "--no-color"])
        .current_dir(folder.path())
        .env("PYTHONPATH", root().join("tests/contract"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TRACKTAGS_TALLY", &tally)
        .env("TRACKTAGS_URL", &url)
        .env("TRACKTAGS_ROLE", role)
        .env("TRACKTAGS_ADMIN_KEY", app.node.admin_key())
        .env("TRACKTAGS_BUSINESS", &app.business_id)
        .env("TRACKTAGS_CALLER_KEY", &caller.key)
        .env("TRACKTAGS_CALLER_KEY_ID", &caller.key_id)
        .env("TRACKTAGS_CUSTOMER", &caller.customer)
        .env("TRACKTAGS_TARGET", target.url("/echo"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "as {role}");
    let tally: Value = serde_json::from_slice(&std::fs::read(&tally).unwrap()).unwrap();
    let served = operations().filter(|operation| is_served(&tally, operation)).count();
    println!("as {role} {served} of {} operations answered with success", operations().count());
    // A fuzzer that never gets past the door finds nothing either.
    assert!(served >= served_min, "{served} as {role}: {tally}");
    app.node.verify();
}

#[test]
fn a_fuzzer_finds_nothing_as_admin() {
    fuzz("admin", 68);
}

#[test]
fn a_fuzzer_finds_nothing_as_business() {
    fuzz("business", 60);
}

#[test]
fn a_fuzzer_finds_nothing_as_customer() {
    fuzz("customer", 9);
}
