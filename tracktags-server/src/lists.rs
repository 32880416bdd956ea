//! Lists in pages: `?limit=` and opaque cursors, bound to tenant and query by a keyed hash.

use crate::app::App;
use crate::error::{ApiError, Code};
use crate::request::{Input, query_pairs};
use actix_web::HttpResponse;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::ser::SerializeMap;
use std::sync::Arc;
use tracktags_core::traits::{Page, PageRequest};

const ITEMS_DEFAULT: u32 = 100;
const ITEMS_MAX: u32 = 500;
const POSITION_BYTES: usize = 8;
const CURSOR_BYTES: usize = POSITION_BYTES + blake3::OUT_LEN;

/// A list being asked for.
pub(crate) struct List {
    app: Arc<App>,
    name: &'static str,
    binding: Vec<u8>,
    /// Which stretch is wanted.
    pub(crate) page: PageRequest,
}

impl List {
    /// Reads which stretch of the list `name` of `tenant` is asked for. Its owners in the path and the filters in
    /// the query belong to the list: a cursor of one is none of another.
    pub(crate) fn asked(input: &Input, name: &'static str, tenant: &str) -> Result<Self, ApiError> {
        let binding = binding(input, name, tenant);
        let count_max = match input.query("limit") {
            None => ITEMS_DEFAULT,
            Some(text) => {
                text.parse().ok().filter(|count| (1..=ITEMS_MAX).contains(count)).ok_or_else(|| {
                    ApiError::field("limit", format!("must be a whole number from 1 to {ITEMS_MAX}"))
                })?
            }
        };
        let after = match input.query("cursor") {
            None => None,
            Some(cursor) => Some(open(&input.app.cursor_key, &binding, &cursor).ok_or_else(|| {
                let message = "This cursor does not belong to this list and query; start again without it.";
                ApiError::new(Code::InvalidCursor, message)
            })?),
        };
        Ok(Self { app: Arc::clone(&input.app), name, binding, page: PageRequest { after, count_max } })
    }

    /// The answer with a page of it.
    pub(crate) fn answer<T, S: Serialize>(&self, page: Page<T>, show: impl Fn(T) -> S) -> HttpResponse {
        let next_cursor = page.next.map(|position| seal(&self.app.cursor_key, &self.binding, position));
        let items: Vec<S> = page.items.into_iter().map(show).collect();
        HttpResponse::Ok().json(Listed { name: self.name, items, next_cursor })
    }

    /// The answer where nothing can be in it.
    pub(crate) fn empty(&self) -> HttpResponse {
        HttpResponse::Ok().json(Listed::<()> { name: self.name, items: Vec::new(), next_cursor: None })
    }
}

struct Listed<S> {
    name: &'static str,
    items: Vec<S>,
    next_cursor: Option<String>,
}

impl<T: Serialize> Serialize for Listed<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry(self.name, &self.items)?;
        map.serialize_entry("count", &self.items.len())?;
        map.serialize_entry("next_cursor", &self.next_cursor)?;
        map.end()
    }
}

fn binding(input: &Input, name: &str, tenant: &str) -> Vec<u8> {
    let mut parts = vec![name.to_owned(), tenant.to_owned(), input.segment("cid")];
    let mut filters: Vec<_> = query_pairs(&input.request)
        .filter(|(name, _)| !matches!(name.as_str(), "limit" | "cursor" | "business_id"))
        .collect();
    filters.sort_unstable();
    parts.extend(filters.into_iter().flat_map(|(name, value)| [name, value]));
    let mut bytes = Vec::new();
    for part in parts {
        // Lengths keep the parts apart, whatever stands in them.
        bytes.extend_from_slice(&part.len().to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

fn mac(key: &[u8; 32], binding: &[u8], position: i64) -> blake3::Hash {
    blake3::Hasher::new_keyed(key).update(&position.to_le_bytes()).update(binding).finalize()
}

fn seal(key: &[u8; 32], binding: &[u8], position: i64) -> String {
    let mut bytes = Vec::with_capacity(CURSOR_BYTES);
    bytes.extend_from_slice(&position.to_le_bytes());
    bytes.extend_from_slice(mac(key, binding, position).as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn open(key: &[u8; 32], binding: &[u8], cursor: &str) -> Option<i64> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (position, sealed) = bytes.split_first_chunk::<POSITION_BYTES>()?;
    let position = i64::from_le_bytes(*position);
    let sealed: [u8; blake3::OUT_LEN] = sealed.try_into().ok()?;
    // blake3 compares hashes in constant time.
    (mac(key, binding, position) == blake3::Hash::from_bytes(sealed)).then_some(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_only_with_its_key_and_query() {
        let cursor = seal(&[1; 32], b"list of A", 42);
        assert_eq!(open(&[1; 32], b"list of A", &cursor), Some(42));
        assert_eq!(open(&[1; 32], b"list of B", &cursor), None);
        assert_eq!(open(&[2; 32], b"list of A", &cursor), None);
        assert_eq!(open(&[1; 32], b"list of A", ""), None);
        assert_eq!(open(&[1; 32], b"list of A", "AAAA"), None);
        for at in 0..cursor.len() {
            let mut forged = cursor.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(open(&[1; 32], b"list of A", &forged), None);
        }
    }
}
