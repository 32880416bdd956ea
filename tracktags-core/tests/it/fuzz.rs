//! Texts put together from pieces of keys: what is read as a key is one by the rules of docs/SECURITY.md, written here
//! once more, and reads back as the same; a key is found wherever it stands. Keeps `secrets-never-leave`.

use bolero::{check, produce};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracktags_core::keys::{ParsedKey, PlainKey, contains_key, hint};

const PIECES: &[&str] = &[
    "tk_live_",
    "ck_live_",
    "ak_",
    "pt_",
    "tk_test_",
    "ck_test_",
    "TK_LIVE_",
    "_",
    "__",
    "-",
    ".",
    "customer_123",
    "a",
    "a_b",
    "000000000000000000000000000000",
    "AZaz09",
    "k1ahvn",
    "\u{430}",
    "\u{0}",
    " ",
    "\n",
    "%5f",
    "ｔｋ",
];

fn keys() -> Vec<PlainKey> {
    let mut rng = StdRng::seed_from_u64(11);
    let customers = ["a", "customer_123", "a_b-c.d", &"x".repeat(64)].map(|id| id.parse().unwrap());
    let mut keys = vec![PlainKey::for_business(&mut rng), PlainKey::for_admin(&mut rng)];
    keys.extend(customers.iter().map(|id| PlainKey::for_customer(id, &mut rng)));
    keys
}

fn text(keys: &[PlainKey], picks: &[u16]) -> String {
    let mut text = String::new();
    for pick in picks.iter().map(|pick| usize::from(*pick)) {
        match pick >> 13 {
            0..3 => text.push_str(PIECES[pick % PIECES.len()]),
            3 | 4 => text.push_str(keys[pick % keys.len()].expose()),
            // The last checksum, made right: of whatever stands there so far.
            5 => text.push_str(&checksum(text.as_bytes())),
            6 => text.extend(char::from_u32(u32::try_from(pick & 0x7f).unwrap())),
            // A letter that is another one now, for a typing error.
            _ => {
                let at = pick % (text.len() + 1);
                let cut: String =
                    text.chars().enumerate().filter(|(n, _)| *n != at).map(|(_, c)| c).collect();
                text = cut;
            }
        }
    }
    text
}

/// CRC-32 (ISO-HDLC) bit by bit, in six base62 digits.
fn checksum(bytes: &[u8]) -> String {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    let (mut rest, mut digits) = (!crc, Vec::new());
    for _ in 0..6 {
        let digit = u8::try_from(rest % 62).unwrap();
        digits.push(char::from(match digit {
            0..10 => b'0' + digit,
            10..36 => b'A' + digit - 10,
            _ => b'a' + digit - 36,
        }));
        rest /= 62;
    }
    digits.iter().rev().collect()
}

/// The customer id in a whole key: `Some(None)` in a business's or admin's, `None` where it is no key.
fn read(text: &str) -> Option<Option<&str>> {
    let (customer, secret, length) = if let Some(rest) = text.strip_prefix("ck_live_") {
        let (customer, secret) = rest.rsplit_once('_')?;
        (Some(customer), secret, 36)
    } else if let Some(secret) = text.strip_prefix("tk_live_") {
        (None, secret, 36)
    } else {
        (None, text.strip_prefix("ak_")?, 43)
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric();
    let is_id = |id: &str| {
        id.len() <= 64
            && id.starts_with(is_plain)
            && id.chars().all(|c| is_plain(c) || matches!(c, '_' | '.' | '-'))
    };
    let is_whole = secret.len() == length && secret.chars().all(is_plain) && customer.is_none_or(is_id);
    let (body, sum) = text.split_at_checked(text.len().checked_sub(6)?)?;
    (is_whole && checksum(body.as_bytes()) == sum).then_some(customer)
}

#[test]
fn fuzzed_keys_are_read_by_their_rules_and_found_in_texts() {
    let keys = std::panic::AssertUnwindSafe(keys());
    let picks = produce::<Vec<u16>>().with().len(0_usize..10);
    let counts = [const { AtomicUsize::new(0) }; 2];
    check!().with_generator(picks).for_each(|picks| {
        let text = text(&keys, picks);
        let expected = read(&text).filter(|_| !text.starts_with("ak_"));
        let parsed = ParsedKey::parse(&text);
        counts[usize::from(parsed.is_ok())].fetch_add(1, Ordering::Relaxed);
        assert_eq!(parsed.as_ref().ok().map(|key| key.customer()), expected, "{text:?}");
        match parsed {
            Ok(key) => {
                assert_eq!(key.expose(), text);
                // 16 characters are shown of it at most.
                let (secret, shown) = (&text[text.len() - 36..], format!("{key:?} {}", hint(&text)));
                assert!(!shown.contains(&secret[..32]) && !shown.contains(&secret[4..]), "{shown}");
            }
            Err(error) => assert_eq!(error.to_string(), "not a TrackTags key"),
        }
        // Every key that stands anywhere is found; what is found ends with a checksum that is right.
        let starts = text.char_indices().map(|(at, _)| &text[at..]);
        let stands = starts
            .clone()
            .any(|rest| (46..=109).any(|end| rest.get(..end).is_some_and(|part| read(part).is_some())));
        assert!(!stands || contains_key(text.as_bytes()), "{text:?}");
        if contains_key(text.as_bytes()) {
            let is_sum = |rest: &str, end: usize| {
                let part = rest.as_bytes().get(..end).and_then(|part| part.split_at_checked(end - 6));
                part.is_some_and(|(body, sum)| checksum(body).as_bytes() == sum)
            };
            let begins =
                |rest: &&str| ["tk_live_", "ck_live_", "ak_"].iter().any(|prefix| rest.starts_with(prefix));
            assert!(starts.filter(begins).any(|rest| (44..=150).any(|end| is_sum(rest, end))), "{text:?}");
        }
    });
    // Neither side goes untried.
    let [refused, passed] = counts.map(AtomicUsize::into_inner);
    let tried = passed + refused;
    assert!(tried < 1_000 || passed.min(refused) > tried / 200, "{passed} passed, {refused} refused");
}
