//! The form of keys: parse and make are inverse, every typing error is caught, and keys are found in text.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tracktags_core::CustomerId;
use tracktags_core::keys::{KEY_BYTES_MAX, KeyHasher, ParsedKey, PlainKey, contains_key};

const NAME: &str = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn parse_and_make_are_inverse(customer in NAME, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let id = CustomerId::parse(&customer).unwrap();
        let key = PlainKey::for_customer(&id, &mut rng);
        prop_assert!(key.expose().len() <= KEY_BYTES_MAX);
        let parsed = ParsedKey::parse(key.expose()).unwrap();
        prop_assert_eq!(parsed.customer(), Some(customer.as_str()));
        let business = PlainKey::for_business(&mut rng);
        prop_assert_eq!(ParsedKey::parse(business.expose()).unwrap().customer(), None);
    }

    #[test]
    fn every_single_changed_character_is_refused(customer in NAME, seed: u64, with in "[A-Za-z0-9_.-]") {
        let key = PlainKey::for_customer(&customer.parse().unwrap(), &mut StdRng::seed_from_u64(seed));
        let text = key.expose();
        for at in 0..text.len() {
            let mut changed = text.to_owned();
            changed.replace_range(at..=at, &with);
            if changed != text {
                prop_assert!(ParsedKey::parse(&changed).is_err(), "changed at {}", at);
            }
        }
    }

    #[test]
    fn a_whole_key_is_found_wherever_it_stands(customer in NAME, seed: u64, before in "\\PC{0,20}", after in "\\PC{0,20}") {
        let mut rng = StdRng::seed_from_u64(seed);
        let keys = [
            PlainKey::for_customer(&customer.parse().unwrap(), &mut rng),
            PlainKey::for_business(&mut rng),
            PlainKey::for_admin(&mut rng),
        ];
        for key in keys {
            let text = format!("{before}{}{after}", key.expose());
            prop_assert!(contains_key(text.as_bytes()));
            let cut = &key.expose()[..key.expose().len() - 1];
            prop_assert!(!contains_key(cut.as_bytes()));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,120}") {
        let _ = ParsedKey::parse(&text);
        let _ = contains_key(text.as_bytes());
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let refused = [
        "",
        "tk_live_",
        "tk_live_your_business_key",
        "ck_live_customer_123_45678901",
        "tk_test_000000000000000000000000000000000000",
        "ck_live__000000000000000000000000000000000000",
    ];
    for text in refused {
        assert!(ParsedKey::parse(text).is_err(), "{text}");
    }
}

#[test]
fn keys_hide_in_debug() {
    let key = PlainKey::for_business(&mut StdRng::seed_from_u64(1));
    assert!(!format!("{key:?}").contains(&key.expose()[8..]));
    let parsed = format!("{:?}", ParsedKey::parse(key.expose()).unwrap());
    assert!(!parsed.contains(&key.expose()[8..]));
}

#[test]
fn a_million_keys_are_unique_and_uniform() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut seen = std::collections::HashSet::new();
    let mut counts = [0_u64; 128];
    let keys = 1_000_000;
    for _ in 0..keys {
        let key = PlainKey::for_business(&mut rng);
        let random = &key.expose()[8..38];
        for byte in random.bytes() {
            counts[usize::from(byte)] += 1;
        }
        assert!(seen.insert(blake3::hash(random.as_bytes())));
    }
    let expected = f64::from(keys) * 30.0 / 62.0;
    let chi: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| (*count as f64 - expected).powi(2) / expected)
        .sum();
    // 61 degrees of freedom: above 120 once in a hundred thousand tries.
    assert!(chi < 120.0, "chi² is {chi}");
}

#[test]
fn a_hash_depends_on_the_pepper() {
    let (one, other) = (KeyHasher::new([1; 32]), KeyHasher::new([2; 32]));
    assert_eq!(one.hash("tk_live_x"), one.hash("tk_live_x"));
    assert_ne!(one.hash("tk_live_x"), other.hash("tk_live_x"));
}
