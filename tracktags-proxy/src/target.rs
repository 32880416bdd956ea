//! Target policy: one parse of the URL, then scheme, host, port and class. Asks no name server.
//!
//! The `url` crate parses as browsers do (WHATWG URL), so every disguise of an address (decimal, octal, hexadecimal,
//! full-width, percent-encoded) is that address afterwards; a second parser would be the bug. Keeps
//! `only-checked-addresses` together with `connect`.

use crate::addresses::is_allowed;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use tracktags_core::error::UpstreamError;
use tracktags_core::keys::contains_key;
use tracktags_core::upstreams::{Target, TargetClass};
use url::{Host, Url};

/// The longest URL.
pub const URL_BYTES_MAX: usize = 2_048;

/// Names that only mean something inside a network, whatever they resolve to.
const LOCAL_SUFFIXES: &[&str] = &["localhost", "local", "internal", "localdomain"];

/// Where this server itself listens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) public_host: Option<String>,
    pub(crate) exceptions: Vec<SocketAddr>,
}

impl Own {
    /// Whether this is one of our own listeners: its port, at any address of this machine.
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        if self.exceptions.contains(&address) {
            return false;
        }
        let ports = self.listeners.iter().any(|listener| listener.port() == address.port());
        ports && is_of_this_machine(address.ip())
    }
}

/// An address that a socket can be bound to is one of this machine's.
fn is_of_this_machine(address: IpAddr) -> bool {
    let address = match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4),
        four @ IpAddr::V4(_) => four,
    };
    address.is_loopback() || address.is_unspecified() || UdpSocket::bind((address, 0)).is_ok()
}

/// Judges a URL for a class.
///
/// # Errors
/// `InvalidTarget` for what nobody may request, `Blocked` for what this class may not reach.
pub(crate) fn check(text: &str, class: TargetClass, own: &Own) -> Result<Target, UpstreamError> {
    check_text(text)?;
    let mut url = Url::parse(text).map_err(|_bad| invalid("it is no absolute URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("its scheme must be http or https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("it must hold no user name or password"));
    }
    if url.port() == Some(0) {
        return Err(invalid("port 0 cannot be reached"));
    }
    url.set_fragment(None);
    let port = url.port_or_known_default().ok_or_else(|| invalid("it has no port"))?;
    if contains_key(url.as_str().as_bytes()) {
        return Err(invalid("it holds a TrackTags key"));
    }
    check_host(&url, port, class, own)?;
    let host = url.host_str().unwrap_or_default();
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let uri = url.as_str().parse().map_err(|_bad| invalid("it cannot be requested"))?;
    Ok(Target { uri, authority: authority.into(), class })
}

/// What is judged on the text itself, because parsing would drop or mend it.
fn check_text(text: &str) -> Result<(), UpstreamError> {
    if text.len() > URL_BYTES_MAX {
        return Err(invalid("it is longer than 2048 bytes"));
    }
    if text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ' || byte == b'\\') {
        return Err(invalid("it holds white space, a control character or a backslash"));
    }
    if contains_key(text.as_bytes()) {
        return Err(invalid("it holds a TrackTags key"));
    }
    let Some((_, rest)) = text.split_once("://") else { return Err(invalid("it is no absolute URL")) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(invalid("it names no host"));
    }
    if authority.contains('@') {
        return Err(invalid("it must hold no user name or password"));
    }
    if authority.starts_with('[') && authority.contains('%') {
        return Err(invalid("an address with a zone cannot be reached"));
    }
    Ok(())
}

fn check_host(url: &Url, port: u16, class: TargetClass, own: &Own) -> Result<(), UpstreamError> {
    let address = match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            if own.public_host.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name)) {
                return Err(UpstreamError::Blocked);
            }
            return check_name(name, port, class, own);
        }
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        None => return Err(invalid("it names no host")),
    };
    let address = SocketAddr::new(address, port);
    let reachable = is_allowed(address.ip(), class) && !own.is_own(address);
    if reachable && port_allowed(port, class) { Ok(()) } else { Err(UpstreamError::Blocked) }
}

fn check_name(name: &str, port: u16, class: TargetClass, own: &Own) -> Result<(), UpstreamError> {
    if name.is_empty() {
        return Err(invalid("it names no host"));
    }
    let is_local = !name.contains('.')
        || LOCAL_SUFFIXES.iter().any(|suffix| {
            name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
    let allowed = match class {
        TargetClass::Public => !is_local && port_allowed(port, class),
        // `open` serves loopback; names of metadata services are refused everywhere.
        TargetClass::Open => {
            name != "metadata"
                && !name.ends_with(".internal")
                && !(name == "localhost" && own.listeners.iter().any(|listener| listener.port() == port))
        }
        // No upstream is registered.
        TargetClass::Allowlist => false,
    };
    if allowed { Ok(()) } else { Err(UpstreamError::Blocked) }
}

const fn port_allowed(port: u16, class: TargetClass) -> bool {
    match class {
        TargetClass::Public => matches!(port, 80 | 443),
        TargetClass::Open => true,
        TargetClass::Allowlist => false,
    }
}

const fn invalid(why: &'static str) -> UpstreamError {
    UpstreamError::InvalidTarget(why)
}
