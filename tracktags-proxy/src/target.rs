//! Target policy: one parse of the URL, then scheme, host, port and class. Asks no name server.
//!
//! The `url` crate parses as browsers do (WHATWG URL), so every disguise of an address (decimal, octal, hexadecimal,
//! full-width, percent-encoded) is that address afterwards; a second parser would be the bug. What is requested is what
//! that parse wrote down. Keeps `only-checked-addresses` together with `connect`.

use crate::addresses::{is_allowed, unmapped};
use crate::options::ProxyOptions;
use http::{HeaderValue, Uri};
use quick_cache::unsync::Cache;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use tracktags_core::error::UpstreamError;
use tracktags_core::keys::contains_key;
use tracktags_core::upstreams::{Target, TargetClass};
use url::{Host, Url, form_urlencoded};

/// The longest URL, in bytes of the text as given.
pub const URL_BYTES_MAX: usize = 2_048;
/// The longest name and the longest label of one (RFC 1035, 2.3.4), in bytes.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Names that only mean something inside a network, whatever they resolve to.
const LOCAL_SUFFIXES: &[&str] = &["localhost", "local", "internal", "localdomain"];

/// Where this server itself listens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    listeners: Vec<SocketAddr>,
    public_name: Option<String>,
    public_address: Option<IpAddr>,
    exceptions: Vec<SocketAddr>,
}

impl Own {
    pub(crate) fn new(options: &ProxyOptions) -> Self {
        let plain = |address: &SocketAddr| SocketAddr::new(unmapped(address.ip()), address.port());
        let host = options.public_host.as_deref().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches([']', '.']).to_ascii_lowercase();
        let literal = host.parse().ok().map(unmapped);
        Self {
            listeners: options.own_listeners.clone(),
            // Loopback is shared with whatever else runs here; there the ports tell what is ours.
            public_address: literal.filter(|address| !address.is_loopback()),
            public_name: Some(host)
                .filter(|host| literal.is_none() && !host.is_empty() && !is_localhost(host)),
            exceptions: options.own_exceptions.iter().map(plain).collect(),
        }
    }

    /// Whether this is one of our own listeners: its port, at any address of this machine; or the public address.
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        let address = SocketAddr::new(unmapped(address.ip()), address.port());
        if self.exceptions.contains(&address) {
            return false;
        }
        let same_port = self.listeners.iter().any(|listener| listener.port() == address.port());
        self.public_address == Some(address.ip()) || (same_port && is_of_this_machine(address.ip()))
    }

    /// Whether a name, lower case and without a dot at its end, is ours.
    fn is_own_name(&self, name: &str, port: u16) -> bool {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        self.public_name.as_deref() == Some(name)
            || (is_localhost(name) && loopback.iter().any(|ip| self.is_own(SocketAddr::new(*ip, port))))
    }
}

/// Whether an address is one of this machine's: a socket can be bound to those only. Whatever else keeps the socket
/// from being bound says nothing, so the address is taken for ours.
fn is_of_this_machine(address: IpAddr) -> bool {
    let elsewhere = |error: std::io::Error| error.kind() == ErrorKind::AddrNotAvailable;
    address.is_loopback() || address.is_unspecified() || !UdpSocket::bind((address, 0)).is_err_and(elsewhere)
}

/// URLs of one class that passed, remembered by a thread at most. Customers call the same few over and over, and a URL is parsed,
/// judged and written down anew in microseconds.
const PASSED_MAX: usize = 1_024;
/// The longest one remembered: what is longer seldom comes twice.
const PASSED_BYTES_MAX: usize = 512;

/// URLs of one class that passed, as one thread remembers them. That a listener of ours opened since is seen by the
/// connector, which judges the address of every connection.
pub(crate) struct Passed(Cache<Box<str>, Target>);

impl Passed {
    pub(crate) fn new() -> Self {
        Self(Cache::new(PASSED_MAX))
    }

    pub(crate) fn get(&self, text: &str) -> Option<Target> {
        self.0.get(text).cloned()
    }

    pub(crate) fn note(&mut self, text: &str, target: &Target) {
        if text.len() <= PASSED_BYTES_MAX {
            self.0.insert(text.into(), target.clone());
        }
    }
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
    // `host.` is `host`: one pool, one count of calls, one verdict for both.
    if let Some(name) = url.domain().and_then(|name| name.strip_suffix('.')).map(str::to_owned) {
        url.set_host(Some(&name)).map_err(|_bad| invalid("it names no host"))?;
    }
    let port = url.port_or_known_default().ok_or_else(|| invalid("it has no port"))?;
    check_key(url.as_str())?;
    check_host(&url, port, class, own)?;
    let host = url.host_str().unwrap_or_default();
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let uri: Uri = url.as_str().parse().map_err(|_bad| invalid("it cannot be requested"))?;
    // The client reads host and port from this; nothing may stand there that was not judged.
    if uri.authority().map(|found| found.as_str()) != Some(authority.as_str()) {
        return Err(invalid("it cannot be requested"));
    }
    let host = HeaderValue::from_str(&authority).map_err(|_bad| invalid("it cannot be requested"))?;
    Ok(Target { uri, authority: authority.into(), host, class })
}

/// What is judged on the text itself, because parsing would drop or mend it.
fn check_text(text: &str) -> Result<(), UpstreamError> {
    if text.len() > URL_BYTES_MAX {
        return Err(invalid("it is longer than 2048 bytes"));
    }
    if text.chars().any(|c| c.is_control() || c == ' ' || c == '\\') {
        return Err(invalid("it holds white space, a control character or a backslash"));
    }
    check_key(text)?;
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

/// A TrackTags key in a URL ends in somebody's log (`secrets-never-leave`); percent-encoded it is no less a key.
fn check_key(text: &str) -> Result<(), UpstreamError> {
    // Whatever stands between two separators is decoded; no key holds a separator.
    let hidden = || {
        form_urlencoded::parse(text.as_bytes())
            .any(|(name, value)| contains_key(name.as_bytes()) || contains_key(value.as_bytes()))
    };
    let holds = contains_key(text.as_bytes()) || (text.contains('%') && hidden());
    if holds { Err(invalid("it holds a TrackTags key")) } else { Ok(()) }
}

fn check_host(url: &Url, port: u16, class: TargetClass, own: &Own) -> Result<(), UpstreamError> {
    let reachable = match url.host() {
        Some(Host::Domain(name)) => {
            check_name(name)?;
            name_allowed(name, class) && !own.is_own_name(name, port)
        }
        Some(Host::Ipv4(four)) => {
            is_allowed(four.into(), class) && !own.is_own(SocketAddr::new(four.into(), port))
        }
        Some(Host::Ipv6(six)) => {
            is_allowed(six.into(), class) && !own.is_own(SocketAddr::new(six.into(), port))
        }
        None => return Err(invalid("it names no host")),
    };
    if reachable && port_allowed(port, class) { Ok(()) } else { Err(UpstreamError::Blocked) }
}

/// The grammar of names that can be looked up: labels of letters, digits, `-` and `_`, none of them empty.
fn check_name(name: &str) -> Result<(), UpstreamError> {
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let fits = name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label);
    if fits { Ok(()) } else { Err(invalid("its host is no name that could be looked up")) }
}

fn name_allowed(name: &str, class: TargetClass) -> bool {
    let below =
        |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    match class {
        TargetClass::Public => name.contains('.') && !LOCAL_SUFFIXES.iter().any(|suffix| below(suffix)),
        // `open` serves loopback and private networks; names of metadata services are refused everywhere.
        TargetClass::Open => name != "metadata" && !below("internal"),
        // No upstream is registered.
        TargetClass::Allowlist => false,
    }
}

/// `localhost` and everything below it is loopback by definition (RFC 6761, 6.3).
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
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
