//! How the program ends: 0 done, 1 failed, 2 bad usage, 64 bad configuration.

use crate::support::{Canned, program, run};
use std::io::Write;
use std::process::{Command, Stdio};
use tracktags_core::keys::PlainKey;

#[test]
fn a_refusal_keeps_the_apis_code_message_and_details() {
    let body = r#"{"error":"Validation Failed","message":"Some fields are not acceptable.","code":"validation_failed","details":[{"field":"limit_value","message":"must not be negative"}]}"#;
    let (ran, _) = Canned::new(400, body).asked_by(&["limits", "list"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    insta::assert_snapshot!("refusal", ran.err);
}

#[test]
fn what_is_not_the_api_is_said_to_be_so() {
    for status in [200, 502] {
        let (ran, _) = Canned::new(status, "<html>").asked_by(&["limits", "list"]);
        assert_eq!(ran.code, 1);
        assert!(ran.err.starts_with("error[unexpected_answer]: "), "{}", ran.err);
    }
}

#[test]
fn no_redirect_is_followed() {
    let elsewhere =
        "HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (ran, _) = Canned::raw(elsewhere.to_owned()).asked_by(&["limits", "list"]);
    assert!(ran.err.starts_with("error[unexpected_answer]: "), "{}", ran.err);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    // Whoever binds and closes a port leaves one that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("http://{free}"), format!("https://{free}")] {
        let ran = run(&["--url", &url, "--key", "tk_live_placeholder", "usage"]);
        assert_eq!(ran.code, 1);
        assert!(ran.err.starts_with(&format!("error[unreachable]: no answer from {url}: ")), "{}", ran.err);
    }
}

#[test]
fn a_bad_command_line_ends_with_2_before_anything_is_sent() {
    for words in [
        &["limits", "create", "--metric", "api_calls"][..],
        &["limits", "create", "--metric", "a b", "--value", "1"],
        &["limits", "create", "--metric", "a", "--value", "0.5"],
        &["limits", "create", "--metric", "a", "--value", "1", "--period", "often"],
        &["limits", "create", "--metric", "a", "--value", "1", "--plan", "p", "--customer", "c"],
        &["limits", "list", "--limit", "501"],
        &["customers", "create", "a b"],
        &["customers", "update", "a", "--metadata", "[]"],
        &["customers", "update", "a", "--billing-anchor-day", "32"],
        &["keys", "create", "--expires-at", "tomorrow"],
        &["no-such-command"],
        &[],
    ] {
        let ran = run(words);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{words:?}");
        assert!(!ran.err.is_empty());
    }
}

#[test]
fn a_bad_configuration_ends_with_64_and_says_what_to_set() {
    let admin = ("TRACKTAGS_ADMIN_KEY", "ak_placeholder");
    let business = ("TRACKTAGS_KEY", "tk_live_placeholder");
    for (words, environment, said) in [
        (&["limits", "list"][..], &[][..], "TRACKTAGS_KEY"),
        (&["limits", "list"], &[("TRACKTAGS_KEY", "")], "TRACKTAGS_KEY"),
        (&["limits", "list"], &[admin], "--business"),
        (&["businesses", "list"], &[business], "TRACKTAGS_ADMIN_KEY"),
        (&["limits", "list"], &[business, ("TRACKTAGS_URL", "localhost:8080")], "TRACKTAGS_URL"),
        (&["limits", "list"], &[("TRACKTAGS_KEY", "a\nb")], "TRACKTAGS_KEY"),
        (&["verify", "tracktags.db"], &[], "sqlite:PATH"),
    ] {
        let ended = program(words, environment);
        let err = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(64), "{words:?} {err}");
        assert!(err.contains(said), "{err}");
        assert!(!err.contains("placeholder"), "{err}");
    }
}

#[test]
fn a_key_is_checked_offline_and_never_repeated() {
    let key = PlainKey::for_customer(&"customer_123".parse().unwrap(), &mut rand_of_the_system());
    let ran = run(&["keys", "check", key.expose()]);
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!("key_checked", ran.out);
    for bad in ["ck_live_customer_123_45678901", "", &key.expose().replace("customer_123", "customer_124")] {
        let ran = run(&["keys", "check", bad]);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""));
        assert_eq!(
            ran.err,
            "error[invalid_key]: this is no TrackTags key: its form or its checksum is wrong\n"
        );
    }
    let mut reading = Command::new(env!("CARGO_BIN_EXE_tracktags-cli"))
        .args(["keys", "check", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(reading.stdin.take().unwrap(), "{}", key.expose()).unwrap();
    let ended = reading.wait_with_output().unwrap();
    assert!(ended.status.success());
    assert!(!String::from_utf8(ended.stdout).unwrap().contains(key.expose()));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let key = PlainKey::for_business(&mut rand_of_the_system());
    let words = ["tracktags-cli", "keys", "check", key.expose()].map(Into::into);
    assert_eq!(tracktags_cli::run(words, &mut Closed, &mut Vec::new()), 0);
}

fn rand_of_the_system() -> impl rand::CryptoRng {
    rand::rng()
}

#[test]
fn each_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(&["completions", shell]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{shell}");
        assert!(ran.out.contains("tracktags-cli") && ran.out.contains("businesses"), "{shell}: {}", ran.out);
    }
    assert_eq!(run(&["completions", "cmd"]).code, 2);
}
