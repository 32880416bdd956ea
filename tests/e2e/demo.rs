//! The first minute: `--demo` prints lines that work as printed, up to the denial they are meant to show, and leaves
//! nothing behind.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;
use tracktags_tests::node::program;
use tracktags_tests::wait_until;

/// What a printed line answers.
fn run(line: &str) -> String {
    let ran = Command::new("bash").arg("-c").arg(line).output().unwrap();
    assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn the_demos_lines_work_as_printed() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = Command::new(program("node"))
        .arg("--demo")
        .env("TRACKTAGS__SERVER__BIND", "127.0.0.1:0")
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (sender, lines) = channel();
    let stdout = BufReader::new(demo.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut printed = Vec::new();
    while printed.len() < 4 {
        let line = lines.recv_timeout(Duration::from_secs(60)).unwrap();
        if line.starts_with("curl ") || line.starts_with("for ") {
            printed.push(line);
        }
    }
    let [allowed, usage, denied, raise] = &printed[..] else { panic!("{printed:?}") };
    // All calls within one minute, or its limit opens again in between.
    loop {
        let first = run(allowed);
        assert!(first.contains("\"status\":\"allowed\""), "{first}");
        assert!(run(usage).contains("\"metric_name\":\"api_calls\""));
        let rest = run(denied);
        if rest.contains("\"status\":\"denied\"") {
            break;
        }
    }
    run(raise);
    assert!(run(allowed).contains("\"status\":\"allowed\""), "a raised limit holds on the next call");
    Command::new("kill").arg("-TERM").arg(demo.id().to_string()).status().unwrap();
    let mut status = None;
    wait_until("the demo ends", Duration::from_secs(30), || {
        status = demo.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left behind");
}
