//! Target policy: every disguise of a forbidden address is refused before a socket is opened, and public ones pass.

use crate::support::{RawUpstream, proxy};
use rand::SeedableRng;
use std::net::Ipv4Addr;
use tracktags_core::error::UpstreamError;
use tracktags_core::keys::PlainKey;
use tracktags_core::traits::Upstream;
use tracktags_core::upstreams::TargetClass;
use tracktags_proxy::{Proxy, ProxyOptions};

/// Forbidden IPv4 addresses, one from each range and its edges.
const FORBIDDEN: &[&str] = &[
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.169.254",
    "169.254.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
];

/// Ways to write an IPv4 address that browsers, and so the parser, take for it.
fn disguises(address: &str) -> Vec<String> {
    let four: Ipv4Addr = address.parse().unwrap();
    let [a, b, c, d] = four.octets();
    let number = u32::from(four);
    let wide: String = address
        .chars()
        .map(|c| if c == '.' { '。' } else { char::from_u32(0xff10 + c as u32 - 0x30).unwrap() })
        .collect();
    let percent: String = address.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let (high, low) = (number >> 16, number & 0xffff);
    vec![
        address.to_owned(),
        format!("{number}"),
        format!("{number:#x}"),
        format!("0{number:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.{b}.{}", u32::from(c) << 8 | u32::from(d)),
        format!("{a}.{}", number & 0x00ff_ffff),
        format!("{address}."),
        wide,
        percent,
        format!("[::ffff:{address}]"),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("[::{high:x}:{low:x}]"),
        format!("[64:ff9b::{address}]"),
        format!("[2002:{high:x}:{low:x}::1]"),
        format!("[2001:0:{high:x}:{low:x}::1]"),
        format!("[fe80::5efe:{address}]"),
        format!("[2a00::5efe:{high:x}:{low:x}]"),
        format!("[2a00::200:5efe:{high:x}:{low:x}]"),
    ]
}

/// Everything else that is refused, whatever it would resolve to.
const REFUSED: &[&str] = &[
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://a.localhost/",
    "http://printer.local/",
    "http://db.internal/",
    "http://metadata.google.internal/",
    "http://metadata/",
    "http://intranet/",
    "http://x.localdomain/",
    "http://[::]/",
    "http://[::1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[fd20:ce::254]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[100::1]/",
    "http://[5f00::1]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    "http://[2620:4f:8000::1]/",
    "http://[64:ff9b:1::1]/",
    "http://example.com:22/",
    "http://example.com:8080/",
    "https://example.com:8443/",
    "http://example.com:0/",
    "http://user@example.com/",
    "http://user:pass@example.com/",
    "http://@example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "javascript:alert(1)",
    "data:text/plain,x",
    "//example.com/",
    "/path",
    "example.com",
    "",
    "http://",
    "http:///path",
    "http://example.com\\@127.0.0.1/",
    "http://exa mple.com/",
    "http://example.com/\n",
    "http://example.com/\u{0}",
    "\thttp://example.com/",
    "http:example.com",
    "http://1.1.1.1.1.1/",
    "http://256.1.1.1/",
    "http://[::1/",
    "http://[zz]/",
    "http://example.com:99999/",
    "http://example.com:port/",
    "ws://example.com/",
    "http://127.0.0.1:80@example.com/",
    "http://localhost../",
    "http://127.0.0.1../",
    "http://example..com/",
    "http://.example.com/",
    "http://a,b.example.com/",
    "http://a*b.example.com/",
    "http://a'b.example.com/",
    "http://a$b.example.com/",
    "http://ｌｏｃａｌｈｏｓｔ/",
    "http://loc%61lhost/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "http://%2f%2f/",
    "http://example.com%00.internal/",
    "http://example.com%2f@127.0.0.1/",
    "http://example.com%40127.0.0.1/",
    "http://[::ffff:7f00:1%25lo]/",
    "http://[::1]:80:80/",
    "http://exam\u{200b}ple.internal/",
    "http://metadata。google。internal/",
    "http:/example.com/",
    "http:////example.com/",
    "https:\\\\example.com/",
    "http://example.com/\u{85}",
    "http://example.com/\r\nx: y",
    "http://example.com:443a/",
    "http://example.com:-1/",
    "http://example.com:65536/",
    "http://example.com:0080808/",
];

const PUBLIC: &[&str] = &[
    "http://example.com/",
    "https://example.com/",
    "https://example.com:443/",
    "http://example.com:80/a?b=c",
    "https://api.example.co.uk/v1",
    "https://EXAMPLE.com/",
    "https://example.com./",
    "https://müller.example.com/",
    "https://xn--mller-kva.example.com/",
    "http://8.8.8.8/",
    "http://1.1.1.1/",
    "https://9.9.9.9/",
    "http://11.0.0.1/",
    "http://100.63.255.255/",
    "http://100.128.0.0/",
    "http://126.255.255.255/",
    "http://128.0.0.1/",
    "http://169.253.255.255/",
    "http://169.255.0.1/",
    "http://172.15.255.255/",
    "http://172.32.0.1/",
    "http://192.167.255.255/",
    "http://192.169.0.1/",
    "http://198.17.255.255/",
    "http://198.20.0.1/",
    "http://223.255.255.255/",
    "http://168.63.129.15/",
    "http://168.63.129.17/",
    "http://[2606:4700::1111]/",
    "http://[2a00:1450:4001:800::200e]/",
    "https://localhost.example.com/",
    "https://local.example/",
    "https://example.com/a|b^c`d{e}f[g]h",
    "https://example.com/?filter[name]=a|b&q=%20\"x\"<y>{z}",
    "https://example.com/grüße?ö=ü#fragment",
    "https://_dmarc.example.com/",
    "https://mylocalhost.com/",
    "https://internal.example.com/",
    "http://example.com:0080/",
    "https://a-b.c--d.example.com/../x/./y",
];

#[test]
fn every_disguise_of_a_forbidden_address_is_refused() {
    let proxy = proxy();
    let mut forms = 0;
    for address in FORBIDDEN {
        for host in disguises(address) {
            for url in [format!("http://{host}/"), format!("https://{host}/path?x=1")] {
                forms += 1;
                let found = proxy.check(&url, TargetClass::Public);
                let refused = matches!(found, Err(UpstreamError::Blocked | UpstreamError::InvalidTarget(_)));
                assert!(refused, "{url}: {found:?}");
            }
        }
    }
    for url in REFUSED {
        forms += 1;
        assert!(proxy.check(url, TargetClass::Public).is_err(), "{url}");
    }
    assert!(forms >= 1_200, "{forms}");
}

#[test]
fn a_target_is_what_the_one_parse_wrote_down() {
    for (text, uri, authority) in [
        ("HTTPS://EXAMPLE.com:443", "https://example.com/", "example.com"),
        ("https://example.com./a", "https://example.com/a", "example.com"),
        ("https://MÜLLER.example.com/#x", "https://xn--mller-kva.example.com/", "xn--mller-kva.example.com"),
        ("http://8.8.2056/", "http://8.8.8.8/", "8.8.8.8"),
        ("http://[2606:4700:0::1111]:80/", "http://[2606:4700::1111]/", "[2606:4700::1111]"),
    ] {
        let target = proxy().check(text, TargetClass::Public).unwrap();
        assert_eq!((target.uri.to_string().as_str(), &*target.authority), (uri, authority));
    }
    let target = proxy().check("http://EXAMPLE.com.:8080/", TargetClass::Open).unwrap();
    assert_eq!(&*target.authority, "example.com:8080");
}

#[test]
fn syntax_and_policy_are_told_apart() {
    for (text, invalid) in [
        ("ftp://example.com/", true),
        ("http://user@127.0.0.1/", true),
        ("http://a..b/", true),
        ("http://127.0.0.1/", false),
        ("http://localhost/", false),
        ("http://example.com:8080/", false),
    ] {
        let found = proxy().check(text, TargetClass::Public).unwrap_err();
        assert_eq!(matches!(found, UpstreamError::InvalidTarget(_)), invalid, "{text}: {found:?}");
        assert_eq!(matches!(found, UpstreamError::Blocked), !invalid, "{text}: {found:?}");
    }
}

#[test]
fn refused_forms_of_a_listening_address_open_no_socket() {
    let upstream = RawUpstream::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let proxy = proxy();
    for host in disguises("127.0.0.1") {
        assert!(
            proxy.check(&format!("http://{host}:{}/", upstream.address.port()), TargetClass::Public).is_err()
        );
    }
    assert_eq!(upstream.connected(), 0);
}

#[test]
fn public_targets_pass() {
    assert!(PUBLIC.len() >= 30);
    for url in PUBLIC {
        assert!(proxy().check(url, TargetClass::Public).is_ok(), "{url}");
    }
}

#[test]
fn without_a_registered_upstream_the_allow_list_refuses_everything() {
    for url in PUBLIC {
        assert!(matches!(proxy().check(url, TargetClass::Allowlist), Err(UpstreamError::Blocked)), "{url}");
    }
}

#[test]
fn open_still_refuses_metadata_and_the_like() {
    let proxy = proxy();
    for url in
        ["http://127.0.0.1:9000/", "http://10.0.0.1/", "http://[::1]:9000/", "http://example.com:8080/"]
    {
        assert!(proxy.check(url, TargetClass::Open).is_ok(), "{url}");
    }
    for address in ["169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255", "168.63.129.16"] {
        for host in disguises(address) {
            assert!(proxy.check(&format!("http://{host}/"), TargetClass::Open).is_err(), "{host}");
        }
    }
    for url in [
        "http://[fd00:ec2::254]/",
        "http://[fe80::1]/",
        "http://metadata/",
        "http://metadata.google.internal/",
        "http://[fd00:c1::a9fe:a9fe]/",
        "http://100.100.100.200/",
        "http://192.0.0.192/",
    ] {
        assert!(proxy.check(url, TargetClass::Open).is_err(), "{url}");
    }
}

#[test]
fn our_own_listeners_are_no_target() {
    let own = "127.0.0.1:18080".parse().unwrap();
    let echo = "127.0.0.1:18081".parse().unwrap();
    let options = ProxyOptions {
        own_listeners: vec![own, echo],
        own_exceptions: vec![echo],
        public_host: Some("tracktags.example.com".to_owned()),
        ..ProxyOptions::default()
    };
    let proxy = Proxy::new(options).unwrap();
    for url in [
        "http://127.0.0.1:18080/",
        "http://127.0.0.2:18080/",
        "http://[::1]:18080/",
        "http://localhost:18080/",
        "http://tracktags.example.com/",
    ] {
        assert!(matches!(proxy.check(url, TargetClass::Open), Err(UpstreamError::Blocked)), "{url}");
    }
    assert!(proxy.check("http://127.0.0.1:18081/", TargetClass::Open).is_ok(), "the exception");
    assert!(proxy.check("http://localhost:18081/", TargetClass::Open).is_err(), "::1 is no exception");
    assert!(proxy.check("http://127.0.0.1:18082/", TargetClass::Open).is_ok(), "another port");
    assert!(proxy.check("http://localhost:18082/", TargetClass::Open).is_ok(), "another port");
}

#[test]
fn our_port_elsewhere_is_not_us() {
    let options =
        ProxyOptions { own_listeners: vec!["0.0.0.0:443".parse().unwrap()], ..ProxyOptions::default() };
    let proxy = Proxy::new(options).unwrap();
    for url in ["https://8.8.8.8/", "https://[2606:4700::1111]/", "https://example.com/"] {
        assert!(proxy.check(url, TargetClass::Public).is_ok(), "{url}");
    }
    for url in ["https://127.0.0.1/", "https://[::1]/", "https://[::ffff:127.0.0.1]/"] {
        assert!(matches!(proxy.check(url, TargetClass::Open), Err(UpstreamError::Blocked)), "{url}");
    }
    // The address this machine speaks from, if it has one besides loopback; nothing is sent to find it.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if socket.connect("8.8.8.8:53").is_ok() {
        let here = socket.local_addr().unwrap().ip();
        let found = proxy.check(&format!("https://{here}/"), TargetClass::Open);
        assert!(matches!(found, Err(UpstreamError::Blocked)), "{here}: {found:?}");
    }
}

#[test]
fn the_host_of_the_public_url_is_no_target() {
    let check = |host: &str, url: &str| {
        let options = ProxyOptions { public_host: Some(host.to_owned()), ..ProxyOptions::default() };
        Proxy::new(options).unwrap().check(url, TargetClass::Public).is_ok()
    };
    for (host, url) in [
        ("tracktags.example.com", "https://TrackTags.example.com./"),
        ("TrackTags.example.com.", "https://tracktags.example.com/x"),
        ("8.8.8.8", "https://8.8.8.8/"),
        ("8.8.8.8", "https://[::ffff:8.8.8.8]/"),
        ("[2606:4700::1111]", "https://[2606:4700:0::1111]/"),
    ] {
        assert!(!check(host, url), "{host} {url}");
        assert!(check(host, "https://other.example.com/"));
    }
    // A loopback public URL tells nothing that the listeners do not: other ports there stay reachable.
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        let options = ProxyOptions { public_host: Some(host.to_owned()), ..ProxyOptions::default() };
        let proxy = Proxy::new(options).unwrap();
        assert!(proxy.check("http://127.0.0.1:18082/", TargetClass::Open).is_ok());
        assert!(proxy.check("http://localhost:18082/", TargetClass::Open).is_ok());
    }
}

#[test]
fn a_key_in_the_url_is_refused() {
    let key = PlainKey::for_business(&mut rand::rngs::StdRng::seed_from_u64(5));
    for url in [
        format!("https://example.com/?key={}", key.expose()),
        format!("https://example.com/{}/x", key.expose()),
        format!("https://example.com/#{}", key.expose()),
        format!("https://example.com/a%2f{}%3fx", key.expose()),
        format!("https://example.com/?a=b&k={}", key.expose().replace('_', "%5F")),
        format!(
            "https://example.com/{}",
            key.expose().bytes().map(|byte| format!("%{byte:02x}")).collect::<String>()
        ),
        format!("https://{}.example.com/", key.expose()),
    ] {
        assert!(matches!(proxy().check(&url, TargetClass::Public), Err(UpstreamError::InvalidTarget(_))));
    }
}

#[test]
fn a_long_url_is_refused() {
    let url = |length: usize| format!("https://example.com/{}", "a".repeat(length - 20));
    assert!(proxy().check(&url(2_048), TargetClass::Public).is_ok());
    assert!(proxy().check(&url(2_049), TargetClass::Public).is_err());
}
