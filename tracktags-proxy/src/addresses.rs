//! Which addresses may be reached: one table, judged before connect and again after it.
//!
//! Sources: IANA's special-purpose address registries (RFC 6890 and later), the clouds' metadata services, and
//! 168.63.129.16, the host service of Azure, which is a public address. IPv6 is the other way round: only `2000::/3` is
//! allowed, minus what is listed.

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tracktags_core::upstreams::TargetClass;

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(a: u16, b: u16, c: u16, bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), bits)
}

/// Never reached, whatever the class: "this" network, link-local with all cloud metadata, multicast, reserved with
/// broadcast, Azure's host service.
const NEVER_V4: &[Ipv4Net] = &[
    v4(0, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
    v4(168, 63, 129, 16, 32),
    v4(100, 100, 100, 200, 32), // metadata of Alibaba Cloud
    v4(192, 0, 0, 192, 32),     // metadata of Oracle Cloud
];

/// Reached by class `open` only: loopback, private and other special ranges.
const SPECIAL_V4: &[Ipv4Net] = &[
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 31, 196, 0, 24),
    v4(192, 52, 193, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(192, 175, 48, 0, 24),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
];

const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// Within `2000::/3`, but special: Teredo, ORCHID and benchmarking, documentation, 6to4, AS112.
const SPECIAL_V6: &[Ipv6Net] = &[
    v6(0x2001, 0, 0, 23),
    v6(0x2001, 0xdb8, 0, 32),
    v6(0x2002, 0, 0, 16),
    v6(0x2620, 0x4f, 0x8000, 48),
    v6(0x3fff, 0, 0, 20),
];

/// What class `open` may reach beside public addresses: loopback and private (unique local) ones.
const OPEN_V6: &[Ipv6Net] = &[Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), v6(0xfc00, 0, 0, 7)];

/// Metadata services with a private IPv6 address (AWS, Google, Oracle).
const METADATA_V6: &[Ipv6Net] = &[
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), 128),
];

/// Whether a target of this class may be at this address.
#[must_use]
pub fn is_allowed(address: IpAddr, class: TargetClass) -> bool {
    match unmapped(address) {
        IpAddr::V4(address) => v4_allowed(address, class),
        IpAddr::V6(address) => v6_allowed(address, class),
    }
}

/// An IPv4 address in other clothes is judged as what it is (RFC 4291, 2.5.5.2).
pub(crate) fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn v4_allowed(address: Ipv4Addr, class: TargetClass) -> bool {
    let is_in = |table: &[Ipv4Net]| table.iter().any(|net| net.contains(&address));
    match class {
        TargetClass::Open => !is_in(NEVER_V4),
        TargetClass::Public | TargetClass::Allowlist => !is_in(NEVER_V4) && !is_in(SPECIAL_V4),
    }
}

fn v6_allowed(address: Ipv6Addr, class: TargetClass) -> bool {
    let is_in = |table: &[Ipv6Net]| table.iter().any(|net| net.contains(&address));
    let public = GLOBAL_V6.contains(&address) && !is_in(SPECIAL_V6) && !is_isatap(address);
    public || (class == TargetClass::Open && is_in(OPEN_V6) && !is_in(METADATA_V6))
}

/// Interface ids that carry an IPv4 address (RFC 5214, 6.1): `0:5efe:…` and `200:5efe:…`.
fn is_isatap(address: Ipv6Addr) -> bool {
    let [_, _, _, _, high, low, _, _] = address.segments();
    low == 0x5efe && matches!(high, 0 | 0x200)
}
