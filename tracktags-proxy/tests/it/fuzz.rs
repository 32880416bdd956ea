//! URLs put together from pieces that mislead parsers: what passes leads to no address that the independent table
//! refuses, and what was written down is read as the same again. Keeps `only-checked-addresses`.

use crate::support::proxy;
use crate::table::Table;
use bolero::{check, produce};
use rand::SeedableRng;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracktags_core::error::UpstreamError;
use tracktags_core::keys::{PlainKey, contains_key};
use tracktags_core::traits::Upstream;
use tracktags_core::upstreams::{Target, TargetClass};

/// What stands before the host, where it is odd.
const BEFORE: &[&str] = &[
    "HTTP://",
    "http:",
    "http:/",
    "http:///",
    "https:\\\\",
    "//",
    "ftp://",
    "http://user@",
    "http://user:p@",
    "http://@",
    "http://example.com@",
    " http://",
    "http://\t",
    "http://[",
    "javascript://",
    "",
];
/// Hosts, and pieces of them.
const HOSTS: &[&str] = &[
    "example.com",
    "api.example.com",
    "8.8.8.8",
    "1.1.1.1",
    "[2606:4700::1111]",
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "10.0.0.1",
    "134744072",
    "0x8.0x8.010.010",
    "1.1",
    "169.254.169.254",
    "0",
    "255",
    "256",
    "[::1]",
    "[::]",
    "[::ffff:10.0.0.1]",
    "[::ffff:8.8.8.8]",
    "[64:ff9b::a00:1]",
    "[2002:a00:1::]",
    "[2600::5efe:a00:1]",
    "[fe80::1%25lo]",
    "localhost",
    "LocalHost",
    "metadata",
    "internal",
    "local",
    "localdomain",
    "example",
    "com",
    "xn--",
    "xn--mller-kva",
    "müller",
    "①②⑦",
    "⑧.⑧.⑧.⑧",
    "。",
    "．",
    "ⓛⓞⓒⓐⓛ",
    "%6c",
    "%31",
    "%2e",
    "\u{ad}",
    "\u{200b}",
    "\u{200d}",
    "\u{fdfa}",
    ".",
    ".",
    ".",
    "..",
    "a",
    "-",
    "_",
    "[",
    "]",
];
/// What follows a host.
const REST: &[&str] = &[
    "/", "/", "/path", "?", "#", ":80", ":443", ":0", ":65536", ":0080", ":22", ":", "@", "\\", "/../",
    "%2f", "%40", "%00", "%5c", "%", "|", "é", "\r\n", "\u{0}", " ",
];

/// An URL of a scheme, one to three pieces of a host and what follows it. Now and then there is a letter of any script
/// among them, or of ASCII, or a whole key.
fn text(before: u8, hosts: &[u16], rest: &[u16], key: &str) -> String {
    let piece = |pieces: &[&str], pick: u16| match pick.checked_sub(0xf000) {
        None => pieces[usize::from(pick) % pieces.len()].to_owned(),
        Some(code) if code < 0x10 => key.to_owned(),
        Some(code) if code % 2 == 0 => char::from(u8::try_from(code % 128).unwrap()).to_string(),
        Some(code) => char::from_u32(u32::from(code) * 16).unwrap_or('\u{fffd}').to_string(),
    };
    let before = match before {
        0..100 => "http://",
        100..200 => "https://",
        odd => BEFORE[usize::from(odd) % BEFORE.len()],
    };
    let hosts = hosts.iter().map(|pick| piece(HOSTS, *pick));
    [before.to_owned()].into_iter().chain(hosts).chain(rest.iter().map(|pick| piece(REST, *pick))).collect()
}

/// The bytes that percent-encoding stands for.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().iter();
    let mut found = Vec::new();
    while let Some(&byte) = bytes.next() {
        let digits =
            bytes.as_slice().get(..2).filter(|_| byte == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(hidden) => {
                bytes.nth(1);
                found.push(hidden);
            }
            None => found.push(byte),
        }
    }
    found
}

/// What holds for every target that passed.
fn is_sound(table: &Table, class: TargetClass, target: &Target) {
    let text = target.uri.to_string();
    let scheme = target.uri.scheme_str().unwrap();
    assert!(matches!(scheme, "http" | "https"), "{text}");
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['#', '\\']), "{text}");
    assert_eq!(target.uri.authority().unwrap().as_str(), &*target.authority, "{text}");
    assert_eq!(target.host.as_bytes(), target.authority.as_bytes(), "{text}");
    assert!(!target.authority.contains(['@', '%']), "{text}");
    assert!(!contains_key(text.as_bytes()) && !contains_key(&decoded(&text)), "{text}");
    let host = target.uri.host().unwrap();
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if let Ok(address) = literal {
        assert!(table.allows(address, class), "{text}");
    } else {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        assert!(host.chars().all(is_plain) && !host.starts_with('.') && !host.ends_with('.'), "{text}");
        // A name that C libraries would read as a number is none.
        let last = host.rsplit('.').next().unwrap();
        let (digits, hex) = (last.bytes().all(|byte| byte.is_ascii_digit()), last.strip_prefix("0x"));
        assert!(
            !digits && !hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit())),
            "{text}"
        );
        let local = ["internal", "local", "localhost", "localdomain"].contains(&last) || !host.contains('.');
        assert!(!local || class == TargetClass::Open, "{text}");
        assert!(last != "internal" && host != "metadata", "{text}");
    }
    let port = target.uri.port_u16().unwrap_or(if target.is_tls() { 443 } else { 80 });
    assert!(port != 0 && (class == TargetClass::Open || matches!(port, 80 | 443)), "{text}");
}

#[test]
fn fuzzed_urls_lead_to_no_forbidden_address() {
    let (proxy, table) = (AssertUnwindSafe(proxy()), Table::read());
    let key = PlainKey::for_business(&mut rand::rngs::StdRng::seed_from_u64(7));
    let picks = |len: std::ops::Range<usize>| produce::<Vec<u16>>().with().len(len);
    let urls = (produce::<u8>(), picks(1..4), picks(0..4));
    let counts = [const { AtomicUsize::new(0) }; 2];
    check!().with_generator(urls).for_each(|(before, hosts, rest)| {
        let text = text(*before, hosts, rest, key.expose());
        let [public, open, listed] = [TargetClass::Public, TargetClass::Open, TargetClass::Allowlist]
            .map(|class| proxy.check(&text, class));
        counts[usize::from(public.is_ok())].fetch_add(1, Ordering::Relaxed);
        assert!(listed.is_err(), "{text}");
        for (class, checked) in [(TargetClass::Public, &public), (TargetClass::Open, &open)] {
            match checked {
                Ok(target) => {
                    is_sound(&table, class, target);
                    // What was written down is read as the same, and the memory of what passed says the same.
                    for again in [target.uri.to_string(), text.clone()] {
                        let again = proxy.check(&again, class).unwrap();
                        assert_eq!(
                            (&again.uri, &again.authority),
                            (&target.uri, &target.authority),
                            "{text}"
                        );
                    }
                }
                Err(UpstreamError::Blocked | UpstreamError::InvalidTarget(_)) => {}
                Err(other) => panic!("{text}: {other:?}"),
            }
        }
        assert!(public.is_err() || open.is_ok(), "public is within open: {text}");
    });
    // Neither side goes untried.
    let [refused, passed] = counts.map(AtomicUsize::into_inner);
    let tried = passed + refused;
    assert!(tried < 1_000 || passed.min(refused) > tried / 200, "{passed} passed, {refused} refused");
}
