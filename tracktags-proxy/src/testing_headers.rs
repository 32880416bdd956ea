//! Fuzzed headers, both directions, against the rows of docs/SECURITY.md ("What travels") written once more: no field
//! of the connection, none that could be taken for ours, no key and no line break ever travels. Keeps
//! `secrets-never-leave`.

use crate::headers::{REQUEST_FIELDS_MAX, REQUEST_HEADER_BYTES_MAX, incoming, outgoing, request_headers};
use bolero::{check, produce};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rand::SeedableRng;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracktags_core::keys::{PlainKey, contains_key};

/// Names and pieces of them.
const NAMES: &[&str] = &[
    "connection",
    "Keep-Alive",
    "TE",
    "trailer",
    "transfer-encoding",
    "Transfer_Encoding",
    "upgrade",
    "expect",
    "proxy-",
    "Proxy-Authorization",
    "host",
    "content-length",
    "Content-Type",
    "accept-encoding",
    "via",
    "Forwarded",
    "x-forwarded-",
    "X_Forwarded_For",
    "x-tracktags-",
    "X_TrackTags-Customer_Id",
    "x-webhook-",
    "x-admin-key",
    "X_Admin_Key",
    "x-custom",
    "X-Named",
    "authorization",
    "cookie",
    "a",
    "-",
    "_",
];
/// What no name holds.
const ODD_NAMES: &[&str] = &["é", " ", ":", "\r\n", "\u{0}", "(", "\u{7f}"];
/// Pieces of values.
const VALUES: &[&str] = &[
    "close",
    "keep-alive",
    ",",
    " , ",
    "X-Named",
    "x-custom",
    "host",
    "accept-encoding",
    "authorization",
    "chunked",
    "gzip",
    "0",
    "1",
    "; q=1",
    "\t",
    " ",
    "é",
    "\u{80}",
    "plain text",
];
/// What no value holds.
const ODD_VALUES: &[&str] = &["\r\n", "\n", "\r", "\u{0}", "\u{7f}", "\u{1f}"];
/// Of the connection, in either direction, whatever begins with `proxy-` besides.
const CONNECTION: &[&str] =
    &["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"];
/// Said anew for every request.
const REBUILT: &[&str] = &["host", "content-length", "content-type", "accept-encoding"];

type Picks = [(Vec<u8>, Vec<u8>)];

fn pairs(picks: &Picks, key: &str) -> Vec<(String, String)> {
    let one = |pieces: &[&'static str], pick: u8| pieces[usize::from(pick) % pieces.len()];
    let name = |picks: &Vec<u8>| {
        picks.iter().map(|pick| if *pick < 252 { one(NAMES, *pick) } else { one(ODD_NAMES, *pick) }).collect()
    };
    let piece = |pick: &u8| match pick {
        0..248 => one(VALUES, *pick),
        248..253 => key,
        253.. => one(ODD_VALUES, *pick),
    };
    picks.iter().map(|(names, values)| (name(names), values.iter().map(piece).collect())).collect()
}

/// Whether every field is a token with a value of visible characters, spaces and tabs, and not too much of it.
fn can_be_sent(pairs: &[(String, String)]) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_value = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    pairs.len() <= REQUEST_FIELDS_MAX
        && bytes <= REQUEST_HEADER_BYTES_MAX
        && pairs.iter().all(|(name, value)| {
            !name.is_empty() && name.bytes().all(is_token) && value.bytes().all(is_value)
        })
}

/// Whether a name is one that never travels, in either direction.
fn never_travels(name: &str) -> bool {
    let dashed = name.replace('_', "-");
    CONNECTION.contains(&name)
        || name.starts_with("proxy-")
        || ["x-tracktags-", "x-webhook-"].iter().any(|prefix| dashed.starts_with(prefix))
}

/// The names that `Connection` said.
fn named(pairs: &[(String, String)]) -> Vec<String> {
    let said = pairs.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    said.flat_map(|(_, value)| value.split(',').map(|name| name.trim().to_ascii_lowercase())).collect()
}

fn is_clean(name: &HeaderName, value: &HeaderValue) {
    let has_control = value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    assert!(!has_control && !contains_key(value.as_bytes()), "{name}: {value:?}");
}

fn goes_out(pairs: &[(String, String)], headers: HeaderMap, method: &Method, has_body: bool) {
    let host = HeaderValue::from_static("target.example");
    let ours: Vec<_> =
        [("x-tracktags-business-id", "biz"), ("via", "1.1 tracktags"), ("te", "ours"), ("host", "ours")]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .into();
    let sent = outgoing(headers, ours, host, method, has_body);
    let named = named(pairs);
    for (name, value) in &sent {
        is_clean(name, value);
        let (text, value) = (name.as_str(), value.as_bytes());
        let dashed = text.replace('_', "-");
        match text {
            "x-tracktags-business-id" => assert_eq!(value, b"biz"),
            "via" => assert_eq!(value, b"1.1 tracktags"),
            "host" => assert_eq!(value, b"target.example"),
            "accept-encoding" => assert_eq!(value, b"identity"),
            "content-length" => assert!(value == b"0" && !has_body),
            _ => {
                let of_the_way = dashed.starts_with("x-forwarded-") || matches!(text, "forwarded" | "via");
                assert!(!never_travels(text) && !of_the_way && dashed != "x-admin-key", "{name}");
                assert!(
                    REBUILT.contains(&text) || !named.iter().any(|named| named == text),
                    "{name} was named"
                );
                // Nothing is made up.
                let is_callers = |(name, given): &(String, String)| {
                    name.eq_ignore_ascii_case(text) && given.trim().as_bytes() == value.trim_ascii()
                };
                assert!(text == "content-type" || pairs.iter().any(is_callers), "{name}");
            }
        }
    }
    assert_eq!(sent.get_all("host").iter().count(), 1);
    assert_eq!(sent.get_all("accept-encoding").iter().count(), 1);
}

fn comes_back(pairs: &[(String, String)], mut headers: HeaderMap) {
    incoming(&mut headers);
    let named = named(pairs);
    for (name, value) in &headers {
        is_clean(name, value);
        let text = name.as_str();
        assert!(!never_travels(text) && text != "content-length", "{name}");
        assert!(!named.iter().any(|named| named == text), "{name} was named");
    }
}

#[test]
fn fuzzed_headers_keep_what_must_not_travel() {
    let key = PlainKey::for_business(&mut rand::rngs::StdRng::seed_from_u64(13));
    let key = key.expose().to_owned();
    let field = (produce::<Vec<u8>>().with().len(1_usize..3), produce::<Vec<u8>>().with().len(0_usize..6));
    let fields = produce::<Vec<(Vec<u8>, Vec<u8>)>>().with().values(field).len(0_usize..16);
    let counts = [const { AtomicUsize::new(0) }; 2];
    check!().with_generator((fields, produce::<bool>(), produce::<bool>())).for_each(
        |(picks, is_post, has_body)| {
            let pairs = pairs(picks, &key);
            let read = request_headers(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            assert_eq!(read.is_ok(), can_be_sent(&pairs), "{pairs:?}");
            counts[usize::from(read.is_ok())].fetch_add(1, Ordering::Relaxed);
            match read {
                Ok(headers) => {
                    assert_eq!(headers.len(), pairs.len());
                    let method = if *is_post { Method::POST } else { Method::GET };
                    goes_out(&pairs, headers.clone(), &method, *has_body);
                    comes_back(&pairs, headers);
                }
                Err(fault) => assert!(!fault.to_string().contains(&key[8..]), "{fault}"),
            }
        },
    );
    // Neither side goes untried.
    let [refused, passed] = counts.map(AtomicUsize::into_inner);
    let tried = passed + refused;
    assert!(tried < 1_000 || passed.min(refused) > tried / 200, "{passed} passed, {refused} refused");
}
