//! Who failed to prove itself too often: failures per address and minute, in a table of bounded size.
//!
//! IPv6 counts by /64, since a single host has all of it. Behind trusted proxies the address is the rightmost hop
//! of `X-Forwarded-For` that is none of theirs; from anybody else that header is not believed.

use actix_web::HttpRequest;
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracktags_core::time::Timestamp;

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// A key of a business or customer.
    Key,
    /// The admin key.
    AdminKey,
}

/// How many failures, and how many addresses at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockoutLimits {
    /// Failures of one address in a minute after which it is locked out.
    pub(crate) failures_max: u32,
    /// The same for the admin key.
    pub(crate) admin_failures_max: u32,
    /// Addresses kept at most.
    pub(crate) addresses_max: usize,
}

const WINDOW_SECONDS: i64 = 60;

#[derive(Clone, Copy)]
struct Failures {
    window_end: Timestamp,
    keys: u32,
    admin_keys: u32,
}

/// Two generations of addresses: when the young one is full, the old one goes. So the table is bounded and an
/// address that goes on failing stays in it.
#[derive(Default)]
struct Table {
    young: HashMap<IpAddr, Failures>,
    old: HashMap<IpAddr, Failures>,
}

/// The table of failures.
pub(crate) struct Lockout {
    limits: LockoutLimits,
    table: Mutex<Table>,
}

impl Lockout {
    pub(crate) fn new(limits: LockoutLimits) -> Self {
        Self { limits, table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // What a panic left behind is still a table of counts.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds until the address may try again, if it is locked out.
    pub(crate) fn locked_seconds(&self, address: IpAddr, tried: Tried, now: Timestamp) -> Option<u64> {
        let address = grouped(address);
        let table = self.table();
        let failures = table.young.get(&address).or_else(|| table.old.get(&address))?;
        let (count, max) = match tried {
            Tried::Key => (failures.keys, self.limits.failures_max),
            Tried::AdminKey => (failures.admin_keys, self.limits.admin_failures_max),
        };
        let seconds = u64::try_from(failures.window_end.seconds_after(now)).unwrap_or_default();
        (count >= max && seconds > 0).then_some(seconds)
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, address: IpAddr, tried: Tried, now: Timestamp) {
        let address = grouped(address);
        let mut table = self.table();
        let known = table.young.get(&address).or_else(|| table.old.get(&address)).copied();
        let mut failures = known.filter(|failures| now < failures.window_end).unwrap_or(Failures {
            window_end: now.plus_seconds(WINDOW_SECONDS),
            keys: 0,
            admin_keys: 0,
        });
        match tried {
            Tried::Key => failures.keys = failures.keys.saturating_add(1),
            Tried::AdminKey => failures.admin_keys = failures.admin_keys.saturating_add(1),
        }
        if table.young.len() >= self.limits.addresses_max / 2 && !table.young.contains_key(&address) {
            table.old = std::mem::take(&mut table.young);
        }
        table.young.insert(address, failures);
    }
}

/// The address that counts: IPv4 in full, also when mapped into IPv6; of IPv6 the first 64 bits.
fn grouped(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

/// The address of the caller.
pub(crate) fn caller_address(request: &HttpRequest, trusted: &[IpNet]) -> IpAddr {
    let peer = request.peer_addr().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.ip());
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let hops: Vec<&str> = request
        .headers()
        .get_all("x-forwarded-for")
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    rightmost_untrusted(peer, &hops, trusted)
}

fn rightmost_untrusted(peer: IpAddr, hops: &[&str], trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer;
    for hop in hops.iter().rev() {
        // What is no address was not written by a proxy of ours: the hop before it is as far as we can see.
        let Some(address) = parsed(hop.trim()) else { return nearest };
        nearest = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    nearest
}

/// An address, with or without a port.
fn parsed(hop: &str) -> Option<IpAddr> {
    let bracketed = hop.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(inner, _)| inner);
    bracketed
        .unwrap_or(hop)
        .parse()
        .ok()
        .or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|range| range.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LockoutLimits = LockoutLimits { failures_max: 3, admin_failures_max: 2, addresses_max: 8 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_locked_out_for_the_rest_of_its_minute() {
        let lockout = Lockout::new(LIMITS);
        let start = Timestamp::from_seconds(1_000);
        for _ in 0..3 {
            assert_eq!(lockout.locked_seconds(ip("192.0.2.1"), Tried::Key, start), None);
            lockout.failed(ip("192.0.2.1"), Tried::Key, start);
        }
        assert_eq!(lockout.locked_seconds(ip("192.0.2.1"), Tried::Key, start), Some(60));
        assert_eq!(lockout.locked_seconds(ip("192.0.2.1"), Tried::AdminKey, start), None);
        assert_eq!(lockout.locked_seconds(ip("192.0.2.2"), Tried::Key, start), None);
        assert_eq!(lockout.locked_seconds(ip("192.0.2.1"), Tried::Key, start.plus_seconds(60)), None);
    }

    #[test]
    fn ipv6_counts_by_its_first_64_bits_and_mapped_ipv4_as_ipv4() {
        assert_eq!(grouped(ip("2001:db8:1:2:3::4")), grouped(ip("2001:db8:1:2:ffff::")));
        assert_ne!(grouped(ip("2001:db8:1:2::1")), grouped(ip("2001:db8:1:3::1")));
        assert_eq!(grouped(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_goes_on() {
        let lockout = Lockout::new(LIMITS);
        let now = Timestamp::from_seconds(0);
        for round in 0..100_u8 {
            lockout.failed(ip(&format!("192.0.2.{round}")), Tried::Key, now);
            lockout.failed(ip("198.51.100.1"), Tried::Key, now);
        }
        let table = lockout.table();
        assert!(table.young.len() + table.old.len() <= LIMITS.addresses_max);
        drop(table);
        assert!(lockout.locked_seconds(ip("198.51.100.1"), Tried::Key, now).is_some());
    }

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let cases: &[(&str, &[&str], &str)] = &[
            ("10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            ("10.0.0.1", &["1.1.1.1", "192.0.2.7"], "192.0.2.7"),
            ("10.0.0.1", &["192.0.2.7", " 10.0.0.2"], "192.0.2.7"),
            ("10.0.0.1", &["192.0.2.7:1234"], "192.0.2.7"),
            ("10.0.0.1", &["[2001:db8::1]:80"], "2001:db8::1"),
            ("10.0.0.1", &["forged", "10.0.0.3"], "10.0.0.3"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("fd00::1", &["10.0.0.9"], "10.0.0.9"),
        ];
        for (peer, hops, expected) in cases {
            assert_eq!(rightmost_untrusted(ip(peer), hops, &trusted), ip(expected), "{peer} {hops:?}");
        }
        assert!(!is_trusted(ip("192.0.2.1"), &trusted));
        assert!(is_trusted(ip("::ffff:10.1.1.1"), &trusted));
    }
}
