//! URLs put together from pieces that mislead parsers: what passes leads to no address that the independent table
//! refuses, and what was written down is read as the same again. Keeps `only-checked-addresses`.

use crate::support::proxy;
use crate::table::Table;
use bolero::{check, produce};
use rand::SeedableRng;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use tracktags_core::error::UpstreamError;
use tracktags_core::keys::{PlainKey, contains_key};
use tracktags_core::traits::Upstream;
use tracktags_core::upstreams::{Target, TargetClass};

/// What stands before the host.
const BEFORE: &[&str] = &[
    "http://",
    "https://",
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
];

/// Pieces of hosts, ports, paths and queries.
const PIECES: &[&str] = &[
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "10.0.0.1",
    "8.8.8.8",
    "1.1",
    "169.254.169.254",
    "0",
    "255",
    "256",
    "[::1]",
    "[::]",
    "[::ffff:10.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::a00:1]",
    "[2002:a00:1::]",
    "[2606:4700::1111]",
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
    "。",
    "．",
    "ⓛⓞⓒⓐⓛ",
    "%6c",
    "%31",
    "%2e",
    "%2f",
    "%40",
    "%00",
    "%5c",
    "%",
    "\u{ad}",
    "\u{200b}",
    "\u{200d}",
    "\u{fdfa}",
    ".",
    "..",
    "/",
    "?",
    "#",
    ":",
    ":80",
    ":443",
    ":0",
    ":65536",
    ":0080",
    ":22",
    "@",
    "\\",
    "a",
    "-",
    "_",
    "[",
    "]",
    "|",
    "\r\n",
    "\u{0}",
];

fn text(before: usize, picks: &[u16], key: &str) -> String {
    let piece = |pick: &u16| match pick.checked_sub(0xc000) {
        None => PIECES[usize::from(*pick) % PIECES.len()].to_owned(),
        // Now and then a letter of any script, or of ASCII, or a whole key.
        Some(0) => key.to_owned(),
        Some(code) if code % 2 == 0 => char::from(u8::try_from(code % 128).unwrap()).to_string(),
        Some(code) => char::from_u32(u32::from(code) * 4).unwrap_or('\u{fffd}').to_string(),
    };
    [BEFORE[before].to_owned()].into_iter().chain(picks.iter().map(piece)).collect()
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
    let urls = (0..BEFORE.len(), produce::<Vec<u16>>().with().len(0_usize..12));
    check!().with_generator(urls).for_each(|(before, picks)| {
        let text = text(*before, picks, key.expose());
        let [public, open, listed] = [TargetClass::Public, TargetClass::Open, TargetClass::Allowlist]
            .map(|class| proxy.check(&text, class));
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
}
