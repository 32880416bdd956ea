//! Targets that break HTTP, as the caller of the envelope sees it: 502, the connection is not used again, and nobody
//! gets another's bytes. What each way of breaking is for the proxy itself is in `tracktags-proxy/tests/it/framing.rs`.

#![cfg(test)]

use serde_json::json;
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{TestApp, call, envelope};

/// An answer, the code that we tell, and whether the unit is kept: a head that is none is no answer.
fn broken() -> Vec<(&'static str, Vec<u8>, &'static str, bool)> {
    let ok = "HTTP/1.1 200 OK\r\n";
    let head = |rest: &str| format!("{ok}{rest}\r\n\r\n").into_bytes();
    let invalid = "upstream_invalid_response";
    vec![
        ("two lengths", head("content-length: 4\r\ncontent-length: 5\r\n\r\nfive!"), invalid, false),
        ("a length that is none", head("content-length: -1"), invalid, false),
        ("a head of a megabyte", head(&format!("x: {}", "a".repeat(1 << 20))), invalid, false),
        ("two hundred fields", head(&"x: y\r\n".repeat(200)), invalid, false),
        ("a field without a name", head(": y"), invalid, false),
        ("a line feed in a value", head("x: a\0b"), invalid, false),
        ("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), invalid, false),
        ("a status that is none", b"HTTP/1.1 99999 Never\r\n\r\n".to_vec(), invalid, false),
        ("interim answers without end", b"HTTP/1.1 102 Processing\r\n\r\n".repeat(100_000), invalid, false),
        (
            "an upgrade that nobody asked for",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nof nobody"
                .to_vec(),
            invalid,
            false,
        ),
        (
            "a chunk whose length is none",
            head("transfer-encoding: chunked\r\n\r\nxyz\r\nof nobody"),
            "upstream_incomplete",
            true,
        ),
        (
            "a chunk longer than a number",
            head("transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nof nobody"),
            "upstream_incomplete",
            true,
        ),
    ]
}

#[test]
fn a_target_that_breaks_http_gets_502_and_no_second_call_on_its_connection() {
    let cases = broken();
    let target = Upstream::answering(
        cases.iter().enumerate().map(|(n, (_, bytes, ..))| (n.to_string(), bytes.clone())),
    );
    let app = TestApp::new();
    let _id = app.limit("api_calls", 1_000, "yearly");
    let key = app.customer_key("customer_1");
    // One connection, so that every call meets the connections that the one before has left.
    let mut client = app.client();
    let mut kept = 0;
    for (number, (case, _, code, is_kept)) in cases.iter().enumerate() {
        let answer = call(&mut client, &key, &envelope(&target.url(&format!("/raw/{number}")), 1));
        assert_eq!((answer.status, answer.code().as_str()), (502, *code), "{case}: {}", answer.text());
        assert!(!answer.text().contains("of nobody"), "{case}: {}", answer.text());
        kept += i64::from(*is_kept);
        assert_eq!(app.usage("customer_1"), kept, "{case}");
        let before = target.connections();
        let mut body = envelope(&target.url("/echo"), 1);
        body["body"] = json!(format!("after {case}"));
        let own = call(&mut client, &key, &body);
        kept += 1;
        assert_eq!(own.json()["forwarded_response"]["body"], body["body"], "{case}: {}", own.text());
        assert_eq!(target.connections(), before + 1, "{case}: its connection was used again");
        // Nor may what is good be left for the next case.
        let closing = call(&mut client, &key, &envelope(&target.url("/close"), 1));
        kept += 1;
        assert_eq!(closing.status, 200, "{}", closing.text());
    }
    println!("{} ways to break HTTP, 0 connections used again", cases.len());
    app.node.verify();
}

/// RFC 9112, 6.3: with both lengths the chunked coding wins.
#[test]
fn an_answer_with_both_lengths_leaves_nothing_for_the_next_call() {
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 40\r\ntransfer-encoding: chunked\r\n\r\n4\r\nmine\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nof nobody";
    let target = Upstream::answering([("both".to_owned(), both.as_bytes().to_vec())]);
    let app = TestApp::new();
    let _id = app.limit("api_calls", 1_000, "yearly");
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    for _ in 0..20 {
        let answer = call(&mut client, &key, &envelope(&target.url("/raw/both"), 1));
        let is_own = answer.status == 502 || answer.json()["forwarded_response"]["body"] == "mine";
        assert!(is_own && !answer.text().contains("of nobody"), "{}", answer.text());
        let own = call(&mut client, &key, &envelope(&target.url("/echo"), 1));
        assert_eq!(own.json()["forwarded_response"]["body"], "{}", "{}", own.text());
    }
}
