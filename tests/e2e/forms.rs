//! URL forms of addresses that nobody may reach with class `public`: every range of the independent table at its
//! first, last and a random address, every disguise that browsers, and so parsers, take for an address, and names that
//! are refused whatever they resolve to.

#![cfg(test)]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tracktags_tests::seed;

/// The table of `tracktags-proxy`, which its own tests compare with the code's.
const TABLE: &str = include_str!("../../tracktags-proxy/tests/it/addresses.txt");

/// Names refused whatever they resolve to.
pub(crate) const NAMES: &[&str] = &[
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "printer.local",
    "db.internal",
    "a.localdomain",
    "metadata",
    "metadata.google.internal",
    "intranet",
    "metadata。google。internal",
    "ｌｏｃａｌｈｏｓｔ",
    "loc%61lhost",
];

/// A host as it is written, and the address that it means, if it means one.
pub(crate) struct Form {
    pub(crate) host: String,
    pub(crate) address: Option<IpAddr>,
}

impl Form {
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/", self.host)
    }
}

/// A label of the test's name server that stands for an address.
pub(crate) fn label(address: IpAddr) -> String {
    match address {
        IpAddr::V4(four) => format!("x{:08x}", u32::from(four)),
        IpAddr::V6(six) => format!("x{:032x}", u128::from(six)),
    }
}

/// All forms; those of random addresses repeat with `TRACKTAGS_SEED`.
pub(crate) fn forms() -> Vec<Form> {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut forms: Vec<Form> =
        NAMES.iter().map(|name| Form { host: (*name).to_owned(), address: None }).collect();
    for (network, range) in rows() {
        match network {
            IpAddr::V4(four) => {
                let host: u32 = u32::MAX.checked_shr(range.parse().unwrap()).unwrap_or(0);
                let first = u32::from(four);
                forms.extend(disguises(first.into()));
                for address in [first | host, first | rng.random::<u32>() & host] {
                    forms.push(plain(Ipv4Addr::from(address).into()));
                }
            }
            IpAddr::V6(six) => {
                let mask = match range.parse::<u32>() {
                    Ok(bits) => u128::MAX.checked_shr(bits).unwrap_or(0),
                    Err(_mask) => !u128::from(range.parse::<Ipv6Addr>().unwrap()),
                };
                let first = u128::from(six);
                for address in [first, first | mask, first | rng.random::<u128>() & mask] {
                    forms.push(plain(Ipv6Addr::from(address).into()));
                }
            }
        }
    }
    forms
}

/// Network and range of every row.
fn rows() -> impl Iterator<Item = (IpAddr, &'static str)> {
    TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (network, range) = line.split_whitespace().nth(1).unwrap().split_once('/').unwrap();
        (network.parse().unwrap(), range)
    })
}

fn plain(address: IpAddr) -> Form {
    let host = match address {
        IpAddr::V4(four) => four.to_string(),
        IpAddr::V6(six) => format!("[{six}]"),
    };
    Form { host, address: Some(address) }
}

/// An IPv4 address as people have written it, and IPv6 addresses that lead to it.
fn disguises(four: Ipv4Addr) -> Vec<Form> {
    let [a, b, c, d] = four.octets();
    let number = u32::from(four);
    let (high, low) = (number >> 16, number & 0xffff);
    let wide = |c: char| match c {
        '.' => '。',
        digit => char::from_u32(0xff10 + u32::from(digit) - 0x30).unwrap(),
    };
    let written = [
        format!("{four}"),
        format!("{number}"),
        format!("{number:#x}"),
        format!("0{number:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.{b}.{}", u32::from(c) << 8 | u32::from(d)),
        format!("{a}.{}", number & 0x00ff_ffff),
        format!("{four}."),
        four.to_string().chars().map(wide).collect(),
        four.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect(),
    ];
    let six = [
        format!("::ffff:{four}"),
        format!("::ffff:{high:x}:{low:x}"),
        format!("::ffff:0:{four}"),
        format!("64:ff9b::{four}"),
        format!("2002:{high:x}:{low:x}::1"),
        format!("2001:0:{high:x}:{low:x}::1"),
        format!("fe80::5efe:{four}"),
        format!("2a00::5efe:{high:x}:{low:x}"),
        format!("2a00::200:5efe:{high:x}:{low:x}"),
    ];
    let four = written.into_iter().map(|host| Form { host, address: Some(four.into()) });
    four.chain(
        six.into_iter().map(|six| Form { host: format!("[{six}]"), address: Some(six.parse().unwrap()) }),
    )
    .collect()
}

#[test]
fn there_are_enough_forms() {
    let hosts: std::collections::BTreeSet<_> = forms().into_iter().map(|form| form.host).collect();
    assert!(hosts.len() >= 400, "{}", hosts.len());
}
