//! Header hygiene, both directions. What describes one connection stays on it (RFC 9110, 7.6.1); what is ours or
//! could be taken for ours is dropped; a TrackTags key never travels (`secrets-never-leave`).

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use tracktags_core::keys::contains_key;

/// The most header fields an envelope may hold, and their size together.
pub const REQUEST_FIELDS_MAX: usize = 64;
/// Names and values of an envelope's headers, in bytes.
pub const REQUEST_HEADER_BYTES_MAX: usize = 32 * 1_024;

/// Fields that belong to one connection.
const HOP_BY_HOP: &[HeaderName] =
    &[CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, EXPECT];

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
    let mut headers = HeaderMap::new();
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
        let value =
            HeaderValue::from_str(value).ok().or_else(|| HeaderValue::from_bytes(value.as_bytes()).ok());
        let value = value.filter(|_| !control).ok_or_else(|| HeaderFault::Value(name.to_owned()))?;
        headers.append(key, value);
    }
    Ok(headers)
}

/// The headers that go out: the caller's without what may not, then ours, which win.
pub(crate) fn outgoing(
    mut headers: HeaderMap,
    ours: HeaderMap,
    authority: &str,
    has_body: bool,
) -> HeaderMap {
    drop_connection_fields(&mut headers);
    let dropped: Vec<HeaderName> = headers.keys().filter(|name| !may_go_out(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    drop_values_with_keys(&mut headers);
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if has_body && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Ok(host) = HeaderValue::from_str(authority) {
        headers.insert(HOST, host);
    }
    for (name, value) in ours {
        if let Some(name) = name {
            headers.insert(name, value);
        }
    }
    headers
}

fn may_go_out(name: &HeaderName) -> bool {
    let text = name.as_str();
    let ours = text.starts_with("x-tracktags-") || text.starts_with("x-webhook-") || text == "x-admin-key";
    let forwarded = *name == VIA || *name == FORWARDED || text.starts_with("x-forwarded-");
    let rebuilt = *name == HOST || *name == CONTENT_LENGTH;
    !(ours || forwarded || rebuilt)
}

/// The headers that come back, without those of the connection, without what could be taken for ours. The length is
/// that of the body as it is handed over, so the target's goes.
pub(crate) fn incoming(headers: &mut HeaderMap) {
    drop_connection_fields(headers);
    headers.remove(CONTENT_LENGTH);
    let ours = |name: &HeaderName| {
        name.as_str().starts_with("x-tracktags-") || name.as_str().starts_with("x-webhook-")
    };
    let dropped: Vec<HeaderName> = headers.keys().filter(|name| ours(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    drop_values_with_keys(headers);
}

fn drop_connection_fields(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named.iter().chain(HOP_BY_HOP) {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

/// A field with a whole key of ours in any of its values is dropped.
fn drop_values_with_keys(headers: &mut HeaderMap) {
    let with_keys: Vec<HeaderName> = headers
        .iter()
        .filter(|(_, value)| contains_key(value.as_bytes()))
        .map(|(name, _)| name.clone())
        .collect();
    for name in with_keys {
        tracing::warn!(header = %name, "a header with a TrackTags key was dropped");
        headers.remove(name);
    }
}
