//! Header hygiene, both directions. What describes one connection stays on it (RFC 9110, 7.6.1); what is ours or
//! could be taken for ours is dropped; a TrackTags key never travels (`secrets-never-leave`).

use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tracktags_core::keys::contains_key;

/// The most header fields an envelope may hold, and their size together.
pub const REQUEST_FIELDS_MAX: usize = 64;
/// Names and values of an envelope's headers, in bytes.
pub const REQUEST_HEADER_BYTES_MAX: usize = 32 * 1_024;

/// Fields that belong to one connection; with them goes everything that begins with `proxy-`.
const HOP_BY_HOP: &[&str] =
    &["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"];

/// A header that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// Its name is no token (RFC 9110, 5.6.2).
    #[error("{0:?} is not a header name")]
    Name(String),
    /// Its value holds CR, LF, NUL or another control character.
    #[error("the value of {0:?} holds a character that a header may not")]
    Value(String),
    /// There are too many.
    #[error("at most 64 header fields may be given")]
    TooMany,
    /// They are too large.
    #[error("header fields may take 32768 bytes together")]
    TooLarge,
}

/// Checks a caller's headers: token names, values without control characters, at most 64 fields of 32 KiB.
///
/// # Errors
/// [`HeaderFault`] names the first field that cannot be sent.
pub fn request_headers<'a>(
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<HeaderMap, HeaderFault> {
    // Room for what is added on the way out.
    let mut headers = HeaderMap::with_capacity(ROOM);
    let mut bytes = 0_usize;
    for (name, value) in pairs {
        bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
        if bytes > REQUEST_HEADER_BYTES_MAX {
            return Err(HeaderFault::TooLarge);
        }
        if headers.len() >= REQUEST_FIELDS_MAX {
            return Err(HeaderFault::TooMany);
        }
        let key =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_bad| HeaderFault::Name(name.to_owned()))?;
        let control = value.bytes().any(|byte| byte != b'\t' && byte.is_ascii_control());
        let value = HeaderValue::from_bytes(value.as_bytes()).ok();
        let value = value.filter(|_| !control).ok_or_else(|| HeaderFault::Value(name.to_owned()))?;
        headers.append(key, value);
    }
    Ok(headers)
}

/// The headers that go out: the caller's without what may not, then ours, which win.
pub(crate) fn outgoing(
    mut headers: HeaderMap,
    ours: Vec<(HeaderName, HeaderValue)>,
    host: HeaderValue,
    method: &Method,
    has_body: bool,
) -> HeaderMap {
    drop_fields(&mut headers, |name| {
        rebuilt(name) || is_ours(name) || tells_of_the_way(name) || is_credential(name)
    });
    headers.reserve(ours.len().saturating_add(REBUILT));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if has_body && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    // An empty body is said where a target waits for one (RFC 9110, 8.6).
    if !has_body && matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    headers.insert(HOST, host);
    for (name, value) in ours {
        // Framing follows the body that is sent, whoever sets a header.
        if !rebuilt(name.as_str()) && !is_hop_by_hop(name.as_str()) {
            headers.insert(name, value);
        }
    }
    headers
}

/// The headers that come back, without those of the connection, without what could be taken for ours. The length is
/// that of the body as it is handed over, so the target's goes.
pub(crate) fn incoming(headers: &mut HeaderMap) {
    drop_fields(headers, |name| name == "content-length" || is_ours(name));
}

/// Fields of a usual envelope, ours and those of [`REBUILT`].
const ROOM: usize = 16;
/// Fields that [`outgoing`] says itself at most.
const REBUILT: usize = 4;

/// Follows from URL and body, so nobody else says it.
fn rebuilt(name: &str) -> bool {
    matches!(name, "host" | "content-length")
}

/// Could be taken for something we say.
fn is_ours(name: &str) -> bool {
    begins_with(name, "x-tracktags-") || begins_with(name, "x-webhook-")
}

/// Says whom a request comes from and through whom: believed by targets, so never the caller's word.
fn tells_of_the_way(name: &str) -> bool {
    matches!(name, "via" | "forwarded") || begins_with(name, "x-forwarded-")
}

fn is_credential(name: &str) -> bool {
    name.len() == "x-admin-key".len() && begins_with(name, "x-admin-key")
}

fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name) || name.starts_with("proxy-")
}

/// `_` counts as `-`: CGI, WSGI and their like hand both to the program under one name, so a caller's
/// `X_TrackTags_Customer_Id` would be read as ours.
fn begins_with(name: &str, prefix: &str) -> bool {
    let same = |(ours, theirs): (u8, u8)| ours == theirs || (ours == b'-' && theirs == b'_');
    name.len() >= prefix.len() && prefix.bytes().zip(name.bytes()).all(same)
}

/// Drops what belongs to one connection, what `Connection` names, what `more` says, and every field with a whole
/// TrackTags key in one of its values.
fn drop_fields(headers: &mut HeaderMap, more: impl Fn(&str) -> bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    let mut dropped: Vec<HeaderName> = Vec::new();
    for (name, value) in &*headers {
        let text = name.as_str();
        let has_key = contains_key(value.as_bytes());
        if has_key {
            tracing::warn!(header = %name, "a header with a TrackTags key was dropped");
        }
        if has_key || is_hop_by_hop(text) || more(text) {
            dropped.push(name.clone());
        }
    }
    for name in named.iter().chain(&dropped) {
        headers.remove(name);
    }
}
