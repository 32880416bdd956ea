//! Fuzzed envelopes: what is read is what another JSON reader finds in the same bytes, what is refused has a code of
//! the contract, and no refusal repeats a body or a header's value.

use super::Wish;
use super::envelope::parse;
use crate::error::Code;
use actix_web::ResponseError;
use actix_web::body::MessageBody;
use bolero::{check, produce};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use tracktags_core::accounts::Scope;

/// Stands in bodies and values of headers: nothing that a refusal may say.
const CANARY: &str = "canary-of-the-caller";

/// Fields, and values that they take.
const GOOD: &[(&str, &[&str])] = &[
    ("target_url", &["\"http://a.example/\"", "\"\\u0068ttp://a\"", "\"\"", "\"ü\""]),
    ("metric_name", &["\"api_calls\"", "null", "\"\""]),
    ("scope", &["\"customer\"", "\"business\"", "null"]),
    ("customer_id", &["\"c1\"", "null"]),
    ("units", &["1", "1.0", "9007199254740991", "1e3", "null"]),
    ("method", &["\"get\"", "\"POST\"", "\"pAtCh\"", "null"]),
    (
        "headers",
        &["{}", "null", "{\"a\":\"b\"}", "{\"A\":\"1\",\"a\":\"canary-of-the-caller\"}", "{\"x\":\"é\"}"],
    ),
    ("body", &["\"Y2FuYXJ5\"", "null", "\"\"", "\"\\u0041\\u0041\\u0041\\u0041\""]),
    ("body_base64", &["true", "false", "null"]),
    ("other", &["[]", "{\"a\":[1,{\"b\":null}]}", "\"canary-of-the-caller\"", "-1.5e300", "false"]),
];
/// Values that few fields take.
const ODD: &[&str] = &[
    "0",
    "-0",
    "-1",
    "1.5",
    "1e309",
    "9007199254740992",
    "true",
    "[]",
    "{}",
    "\"canary-of-the-caller\"",
    "\"\\ud800\"",
    "{\"a\":\"canary-of-the-caller\\r\\n\"}",
    "{\"canary-of-the-caller\":1}",
    "{\"a b\":\"canary-of-the-caller\"}",
    "{\"a\":1,\"a\":1}",
    "[[[[[[]]]]]]",
    "nul",
    "\"",
    "'a'",
    "01",
    "\"\u{1}\"",
    "\"\\u0000\"",
    "\u{feff}1",
];
/// What is put into a text somewhere.
const NOISE: &[&str] =
    &["", "{", "}", "[", "]", "\"", ",", ":", "\\", " ", "\n", "\u{0}", "x", "\u{feff}", "é", "/**/"];

struct Envelope {
    text: String,
    /// Every field once, with a value that it takes, and the one that is required.
    is_good: bool,
}

fn envelope(picks: &[(u8, u8)], noise: (u8, u16)) -> Envelope {
    let mut names: Vec<&str> = Vec::new();
    let mut is_good = true;
    // What is required stands first more often than not, and most texts are left as they are.
    let required = (noise.0 < 200).then_some((0, noise.0));
    let fields: Vec<String> = required
        .into_iter()
        .chain(picks.iter().copied())
        .map(|(field, value)| {
            let ((name, values), value) = (GOOD[usize::from(field) % GOOD.len()], usize::from(value));
            // One of eight values is odd.
            let value = if value < 224 {
                values[value % values.len()]
            } else {
                is_good = false;
                ODD[value % ODD.len()]
            };
            is_good &= !names.contains(&name);
            names.push(name);
            format!("\"{name}\":{value}")
        })
        .collect();
    let mut text = format!("{{{}}}", fields.join(","));
    let (what, at) = (
        if noise.0 < 160 { "" } else { NOISE[usize::from(noise.0) % NOISE.len()] },
        usize::from(noise.1) % (text.len() + 1),
    );
    is_good &= what.is_empty() && names.contains(&"target_url");
    if text.is_char_boundary(at) {
        text.insert_str(at, what);
    }
    Envelope { text, is_good }
}

/// What another reader finds, told apart by the field.
fn agrees(wish: &Wish, found: &Value) {
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(json!(wish.target_url), found["target_url"]);
    assert_eq!(wish.subject.metric_name, text("metric_name"));
    assert_eq!(wish.subject.customer_id.clone().unwrap_or_default(), text("customer_id"));
    let scope = match wish.subject.scope {
        Some(Scope::Customer) => "customer",
        Some(Scope::Business) => "business",
        None => "",
    };
    assert_eq!(scope, text("scope"));
    let method = found["method"].as_str().unwrap_or("GET").to_ascii_uppercase();
    assert_eq!(wish.method.as_str(), method);
    let units = wish.subject.units.get();
    assert!((1..=9_007_199_254_740_991).contains(&units));
    assert_eq!(found["units"].as_f64().unwrap_or(1.0), units as f64);
    let headers = found["headers"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(wish.headers.len(), headers);
    for value in wish.headers.values() {
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
    let is_base64 = found["body_base64"] == json!(true);
    assert_eq!(wish.body.is_some(), found["body"].is_string());
    if let Some(body) = wish.body.as_ref().filter(|_| !is_base64) {
        assert_eq!(body, text("body").as_bytes());
    }
}

/// The envelope that says the same.
fn rendered(wish: &Wish, found: &Value) -> Bytes {
    let fields = json!({
        "target_url": wish.target_url, "metric_name": wish.subject.metric_name, "scope": found["scope"],
        "customer_id": wish.subject.customer_id, "units": wish.subject.units.get(), "method": wish.method.as_str(),
        "headers": found["headers"], "body": found["body"], "body_base64": found["body_base64"],
    });
    fields.to_string().into()
}

fn is_refused_well(error: &crate::error::ApiError, text: &str) {
    let code = error.code();
    assert!(
        matches!(code, Code::InvalidJson | Code::ValidationFailed | Code::NotIntegral),
        "{code:?} {text}"
    );
    let response = error.error_response();
    assert_eq!(response.status(), 400);
    let body = response.into_body().try_into_bytes().unwrap();
    let said = String::from_utf8(body.to_vec()).unwrap();
    // The name of a header is said, so that its sender finds it.
    assert!(!said.contains(CANARY) || text.contains("{\"canary-of-the-caller"), "{said}");
    assert!(error.cause().is_none(), "{text}");
}

#[test]
fn fuzzed_envelopes_are_read_as_another_reader_does_or_refused_with_a_code() {
    let fields = produce::<Vec<(u8, u8)>>().with().len(0_usize..8);
    let counts = [const { AtomicUsize::new(0) }; 2];
    check!().with_generator((fields, produce::<(u8, u16)>())).for_each(|(picks, noise)| {
        let Envelope { text, is_good } = envelope(picks, *noise);
        let body = Bytes::from(text.clone());
        let found = serde_json::from_slice::<Value>(&body);
        let read = parse(&body);
        counts[usize::from(read.is_ok())].fetch_add(1, Ordering::Relaxed);
        match read {
            Ok(wish) => {
                let found = found.unwrap_or_else(|error| panic!("{error}: {text}"));
                agrees(&wish, &found);
                let again = parse(&rendered(&wish, &found)).unwrap_or_else(|error| panic!("{error}: {text}"));
                agrees(&again, &found);
                assert_eq!((again.body, again.headers), (wish.body, wish.headers), "{text}");
            }
            Err(error) => {
                assert!(!is_good, "{error}: {text}");
                is_refused_well(&error, &text);
            }
        }
    });
    // Neither side goes untried.
    let [refused, passed] = counts.map(AtomicUsize::into_inner);
    let tried = passed + refused;
    assert!(tried < 1_000 || passed.min(refused) > tried / 200, "{passed} passed, {refused} refused");
}
