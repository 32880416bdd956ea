//! The address table in another hand: rows of text, judged by comparing bits. Shares nothing with `addresses.rs`, and
//! both agree on the edges of every range and on a million random addresses.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tracktags_core::upstreams::TargetClass;
use tracktags_proxy::is_allowed;

const TEXT: &str = include_str!("addresses.txt");

/// A row: who may go there, and the bits that tell it. IPv4 addresses stand as `::ffff:a.b.c.d`.
struct Row {
    is_open: bool,
    network: u128,
    mask: u128,
}

pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn read() -> Self {
        let lines = TEXT.lines().filter(|line| !line.starts_with('#'));
        Self(lines.map(|line| Self::row(line).unwrap_or_else(|| panic!("{line}"))).collect())
    }

    fn row(line: &str) -> Option<Row> {
        let mut words = line.split_whitespace();
        let is_open = match words.next()? {
            "open" => true,
            "never" => false,
            _ => return None,
        };
        let (address, range) = words.next()?.split_once('/')?;
        let (network, width) = match address.parse().ok()? {
            IpAddr::V4(four) => (number(IpAddr::V4(four)), 32),
            IpAddr::V6(six) => (u128::from(six), 128),
        };
        let mask = match range.parse::<u32>() {
            Ok(bits) => u128::MAX.checked_shl(width - bits).unwrap_or(0),
            Err(_mask) => u128::from(range.parse::<Ipv6Addr>().ok()?),
        };
        Some(Row { is_open, network, mask })
    }

    /// Whether a target of this class may be there.
    pub(crate) fn allows(&self, address: IpAddr, class: TargetClass) -> bool {
        let number = number(address);
        // What holds an IPv4 address is judged by rows of IPv4 alone.
        let is_four = number >> 32 == 0xffff;
        let fits = |row: &&Row| number & row.mask == row.network && (row.network >> 32 == 0xffff || !is_four);
        match self.0.iter().filter(fits).max_by_key(|row| row.mask.count_ones()) {
            Some(row) => row.is_open && class == TargetClass::Open,
            None => true,
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => 0xffff << 32 | u128::from(u32::from(four)),
        IpAddr::V6(six) => six.into(),
    }
}

/// An address in the family that its bits say, and in the other clothes of IPv4.
fn clothes(number: u128) -> Vec<IpAddr> {
    let six = IpAddr::V6(Ipv6Addr::from(number));
    let four =
        (number >> 32 == 0xffff).then(|| Ipv4Addr::from(u32::try_from(number & 0xffff_ffff).unwrap()).into());
    four.into_iter().chain([six]).collect()
}

fn agrees(table: &Table, number: u128) {
    for address in clothes(number) {
        for class in [TargetClass::Public, TargetClass::Open, TargetClass::Allowlist] {
            assert_eq!(is_allowed(address, class), table.allows(address, class), "{address} {class:?}");
        }
    }
}

#[test]
fn the_edges_of_every_range_agree_with_an_independent_table() {
    let table = Table::read();
    let mut edges = 0;
    for row in &table.0 {
        // First and last address of the range and of every block around it, and their neighbours.
        for bits in 0..=128 {
            let around = row.mask & u128::MAX.checked_shl(bits).unwrap_or(0);
            for edge in [row.network & around, row.network | !around, row.network | !row.mask, row.network] {
                for near in [edge.wrapping_sub(1), edge, edge.wrapping_add(1)] {
                    agrees(&table, near);
                    edges += 1;
                }
            }
        }
    }
    assert!(edges > 75_000, "{edges}");
}

/// What is drawn: `TRACKTAGS_SEED` repeats it.
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the seed repeats a run")]
fn seed() -> u64 {
    let given = std::env::var("TRACKTAGS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("TRACKTAGS_SEED={seed}");
    seed
}

#[test]
fn random_addresses_agree_with_an_independent_table() {
    const ADDRESSES: usize = 1_000_000;
    let (table, mut rng) = (Table::read(), StdRng::seed_from_u64(seed()));
    for n in 0..ADDRESSES {
        let random: u128 = rng.random();
        // A third anywhere in IPv4, a third in global IPv6, a third near a row of the table.
        agrees(
            &table,
            match n % 3 {
                0 => 0xffff << 32 | random & 0xffff_ffff,
                1 => 1 << 125 | random >> 3,
                _ => {
                    let row = &table.0[n / 3 % table.0.len()];
                    let flipped = 1_u128 << (random & 0x7f);
                    (row.network | random & !row.mask) ^ if random & 0x80 == 0 { flipped } else { 0 }
                }
            },
        );
    }
}
