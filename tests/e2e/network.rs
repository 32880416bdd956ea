//! A bad network (`tracktags_tests::chaos`), between client and node and between node and target: what arrives late or in
//! pieces is whole, what is cut is settled once by what was sent, and the books agree.

#![cfg(test)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;
use tracktags_tests::chaos::{Chaos, Faults, Way};
use tracktags_tests::http::{Client, connect, read, request};
use tracktags_tests::node::program;
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp, call, envelope, wait_until};

const BYTE_BY_BYTE: Faults = Faults {
    latency: Duration::from_millis(5),
    bytes_per_second: 0,
    slice_bytes: 1,
    is_silent: false,
    cut_at: None,
};

fn cut_at(bytes: u64) -> Faults {
    Faults { cut_at: Some(bytes), ..Faults::default() }
}

#[test]
fn what_arrives_late_and_byte_by_byte_is_whole() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1_000, "yearly");
    let key = app.customer_key("customer_1");
    let (near, far) = (Chaos::start(app.node.address).unwrap(), Chaos::start(target.address).unwrap());
    for network in [&near, &far] {
        network.set(Way::Up, BYTE_BY_BYTE);
        network.set(Way::Down, BYTE_BY_BYTE);
    }
    let mut client = Client::new(near.address);
    for number in 0..20 {
        let mut body = envelope(&format!("http://{}/echo", far.address), 1);
        body["body"] = format!("call {number}").into();
        let answer = call(&mut client, &key, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["forwarded_response"]["body"], body["body"]);
    }
    assert_eq!((app.usage("customer_1"), target.count()), (20, 20));
    app.node.verify();
}

/// What a network does to the answer of a target, what we tell of it, and whether the unit is kept.
#[test]
fn a_target_behind_a_bad_network_is_settled_by_what_was_sent() {
    let quick = NodeOptions::default();
    let app =
        TestApp::with(quick.set("PROXY__FIRST_BYTE_TIMEOUT_MS", "500").set("PROXY__TOTAL_TIMEOUT_MS", "900"));
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1_000, "yearly");
    let key = app.customer_key("customer_1");
    let silent = Faults { is_silent: true, ..Faults::default() };
    let slow = Faults { bytes_per_second: 10_000, slice_bytes: 1_000, ..Faults::default() };
    let cases = [
        ("the answer is lost", "/echo", silent, 504, "upstream_timeout", true),
        ("cut before the answer", "/echo", cut_at(0), 502, "upstream_unreachable", false),
        ("cut in its head", "/echo", cut_at(20), 502, "", false),
        ("cut in its body", "/bytes/100000", cut_at(50_000), 502, "upstream_incomplete", true),
        ("too slow to be read in time", "/bytes/100000", slow, 504, "upstream_timeout", true),
    ];
    let mut kept = 0;
    let mut client = app.client();
    for (case, path, down, status, code, is_kept) in cases {
        // A network of its own: no connection is left over from the case before.
        let network = Chaos::start(target.address).unwrap();
        network.set(Way::Down, down);
        let answer = call(&mut client, &key, &envelope(&format!("http://{}{path}", network.address), 1));
        kept += i64::from(is_kept);
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        assert!(code.is_empty() || answer.code() == code, "{case}: {}", answer.text());
        assert_eq!((app.usage("customer_1"), app.usage_of("customer_1", "held")), (kept, 0), "{case}");
        wait_until("its connection is not kept", Duration::from_secs(5), || network.open() == 0);
    }
    app.node.verify();
}

#[test]
fn a_connection_that_the_network_resets_is_settled_once_on_either_side() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1_000, "yearly");
    let key = app.customer_key("customer_1");
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let (near, far) = (Chaos::start(app.node.address).unwrap(), Chaos::start(target.address).unwrap());
    let sent = |path: &str| {
        let body = envelope(&format!("http://{}{path}", far.address), 1).to_string();
        let bytes = request(near.address, "POST", "/api/v1/proxy", &headers, body.as_bytes());
        let mut stream = connect(near.address).unwrap();
        let before = target.count();
        stream.get_mut().write_all(&bytes).unwrap();
        wait_until("the call arrives", Duration::from_secs(5), || target.count() > before);
        stream
    };
    let settles = |kept: i64| {
        let settled = || app.usage_of("customer_1", "held") == 0 && app.usage("customer_1") == kept;
        wait_until("it is settled", Duration::from_secs(5), settled);
    };
    // The client's: the call goes on without it.
    let mut stream = sent("/delay/200/echo");
    near.reset();
    assert!(read(&mut stream, false).is_err());
    settles(1);
    // The target's: there was no answer.
    let mut stream = sent("/hang");
    far.reset();
    let answer = read(&mut stream, false).unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_unreachable"), "{}", answer.text());
    settles(1);
    // The target's, within the body: it was an answer.
    let mut stream = sent("/slow");
    wait_until("its head is there", Duration::from_secs(5), || {
        far.reset();
        far.open() == 0
    });
    let answer = read(&mut stream, false).unwrap();
    assert_eq!(answer.status, 502, "{}", answer.text());
    let kept = if answer.code() == "upstream_incomplete" { 2 } else { 1 };
    settles(kept);
    app.node.verify();
}

#[test]
fn an_answer_cut_at_any_byte_was_counted_once() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 1_000, "yearly");
    let key = app.customer_key("customer_1");
    let body = envelope(&target.url("/echo"), 1);
    let network = Chaos::start(app.node.address).unwrap();
    let whole = call(&mut Client::new(network.address), &key, &body);
    assert_eq!(whole.status, 200, "{}", whole.text());
    let mut calls = 1;
    for cut in (0..1_500).step_by(75) {
        network.set(Way::Down, cut_at(cut));
        let answer = call(&mut Client::new(network.address), &key, &body);
        calls += 1;
        assert!(matches!(answer.status, 0 | 200), "cut at {cut}: {}", answer.text());
        wait_until("it is settled", Duration::from_secs(5), || app.usage("customer_1") == calls);
    }
    assert_eq!(i64::try_from(target.count()).unwrap(), calls);
    // The request's way: what did not arrive whole is no call.
    network.clear();
    for cut in (0..200).step_by(50) {
        network.set(Way::Up, cut_at(cut));
        assert_eq!(call(&mut Client::new(network.address), &key, &body).status, 0, "cut at {cut}");
    }
    assert_eq!((app.usage("customer_1"), i64::try_from(target.count()).unwrap()), (calls, calls));
    // A client that sends no more still reads its answer.
    network.clear();
    network.set(Way::Up, Faults { latency: Duration::from_millis(1), ..Faults::default() });
    assert_eq!(call(&mut Client::new(network.address), &key, &body).status, 200);
    app.node.verify();
}

#[test]
fn the_program_does_what_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let target = Upstream::start();
    let control = folder.path().join("chaos.sock");
    let mut running = Command::new(program("chaos"))
        .args(["run", "127.0.0.1:0", &target.address.to_string(), "--control"])
        .arg(&control)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(running.stdout.take().unwrap()), &mut line)
        .unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
    wait_until("its socket is there", Duration::from_secs(5), || control.exists());
    let tell = |lines: &[&str]| {
        Command::new(program("chaos")).arg("tell").arg(&control).args(lines).status().unwrap()
    };
    let status = || Client::new(address).send("GET", "/status/200", &[], b"").status;
    assert_eq!(status(), 200);
    assert!(tell(&["down cut 5", "up latency 1"]).success());
    assert_eq!(status(), 0);
    assert!(tell(&["clear"]).success());
    assert_eq!(status(), 200);
    assert!(!tell(&["sideways"]).success());
    running.kill().unwrap();
    running.wait().unwrap();
    let rate = ["--rate", "50", "--seconds", "1", "--connections", "2", "--path", "/status/200"];
    let ran = Command::new(program("overload")).arg(target.address.to_string()).args(rate).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.starts_with("50 sent, 0 without an answer; 200: 50"), "{said}");
}
