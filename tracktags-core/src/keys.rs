//! ① The form of keys: make, parse, checksum, hash.
//!
//! `tk_live_<S>` speaks for a business, `ck_live_<customer_id>_<S>` for a customer; `S` is 30 random base62
//! characters (178.6 bits) and 6 of checksum, the CRC-32 of everything before them in base62. So a secret scanner
//! finds a key by `(tk_live_|ck_live_[A-Za-z0-9][A-Za-z0-9_.-]{0,63}_)[A-Za-z0-9]{36}` and the checksum. A checksum
//! stops typing errors, not attackers: authority is the row that the keyed hash finds.
//!
//! Keeps `secrets-never-leave`: a plain key hides in `Debug` and is wiped on drop.

use crate::accounts::{CustomerId, is_name};
use crate::metrics::words;
use rand::{CryptoRng, RngExt};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The longest key in bytes.
pub const KEY_BYTES_MAX: usize = 109;

const BUSINESS_PREFIX: &str = "tk_live_";
const CUSTOMER_PREFIX: &str = "ck_live_";
const ADMIN_PREFIX: &str = "ak_";
const RANDOM_CHARS: usize = 30;
const ADMIN_RANDOM_CHARS: usize = 37;
const CHECKSUM_CHARS: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const HINT_HEAD_CHARS: usize = 12;
const HINT_TAIL_CHARS: usize = 4;

/// A key in the clear. Shown once, when it is made.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PlainKey(String);

impl PlainKey {
    /// Makes the key of a business.
    pub fn for_business(rng: &mut impl CryptoRng) -> Self {
        Self::make(BUSINESS_PREFIX.to_owned(), RANDOM_CHARS, rng)
    }

    /// Makes a key of a customer.
    pub fn for_customer(customer: &CustomerId, rng: &mut impl CryptoRng) -> Self {
        Self::make(format!("{CUSTOMER_PREFIX}{customer}_"), RANDOM_CHARS, rng)
    }

    /// Makes a platform admin's key: `ak_` and 43 base62 characters, the last 6 a checksum.
    pub fn for_admin(rng: &mut impl CryptoRng) -> Self {
        Self::make(ADMIN_PREFIX.to_owned(), ADMIN_RANDOM_CHARS, rng)
    }

    fn make(mut text: String, random_chars: usize, rng: &mut impl CryptoRng) -> Self {
        // `random_range` rejects what would favour some characters.
        text.extend((0..random_chars).map(|_| base62(rng.random_range(0..62_u32))));
        let checksum = checksum_of(text.as_bytes());
        text.extend(checksum.iter().copied().map(char::from));
        Self(text)
    }

    /// The key itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What may be shown of it later: the first 12 and the last 4 characters.
    #[must_use]
    pub fn hint(&self) -> String {
        hint(&self.0)
    }
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey(…)")
    }
}

/// What may be shown of a key: its first 12 and last 4 characters. Keys are ASCII.
#[must_use]
pub fn hint(key: &str) -> String {
    let chars = key.chars().count();
    let head: String = key.chars().take(HINT_HEAD_CHARS).collect();
    let tail: String = key.chars().skip(chars.saturating_sub(HINT_TAIL_CHARS)).collect();
    format!("{head}…{tail}")
}

/// A text that is no key: wrong prefix, alphabet, length or checksum. Says no more on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a TrackTags key")]
pub struct KeyError;

/// A key whose form and checksum are right. Nothing is proved by that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ParsedKey<'a> {
    text: &'a str,
    customer: Option<&'a str>,
}

impl<'a> ParsedKey<'a> {
    /// Reads a `tk_live_` or `ck_live_` key, checksum included. Does no hashing and asks nobody.
    ///
    /// # Errors
    /// [`KeyError`] for anything else.
    pub fn parse(text: &'a str) -> Result<Self, KeyError> {
        if text.len() > KEY_BYTES_MAX || !text.is_ascii() {
            return Err(KeyError);
        }
        let customer = if let Some(rest) = text.strip_prefix(CUSTOMER_PREFIX) {
            // S holds no `_`: the last one splits the key, whatever the customer's id contains.
            let (customer, _) = rest.rsplit_once('_').ok_or(KeyError)?;
            Some(customer).filter(|customer| is_name(customer)).ok_or(KeyError)?.into()
        } else if text.starts_with(BUSINESS_PREFIX) {
            None
        } else {
            return Err(KeyError);
        };
        let prefix_chars = match customer {
            Some(customer) => CUSTOMER_PREFIX.len().saturating_add(customer.len()).saturating_add(1),
            None => BUSINESS_PREFIX.len(),
        };
        let secret = text.as_bytes().get(prefix_chars..).unwrap_or_default();
        if secret.len() == RANDOM_CHARS.saturating_add(CHECKSUM_CHARS) && is_checked(text.as_bytes()) {
            Ok(Self { text, customer })
        } else {
            Err(KeyError)
        }
    }

    /// The whole key, for hashing.
    #[must_use]
    pub const fn expose(&self) -> &'a str {
        self.text
    }

    /// The customer id that stands in the key, for people. The row decides.
    #[must_use]
    pub const fn customer(&self) -> Option<&'a str> {
        self.customer
    }
}

impl fmt::Debug for ParsedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParsedKey").field("customer", &self.customer).finish_non_exhaustive()
    }
}

/// Whether the last 36 or more characters are base62 and end with the checksum of all before.
fn is_checked(key: &[u8]) -> bool {
    let tail = RANDOM_CHARS.saturating_add(CHECKSUM_CHARS);
    let Some(at) = key.len().checked_sub(CHECKSUM_CHARS) else { return false };
    let Some(secret_at) = key.len().checked_sub(tail) else { return false };
    let secret = key.get(secret_at..).unwrap_or_default();
    let (body, checksum) = key.split_at_checked(at).unwrap_or_default();
    secret.iter().all(u8::is_ascii_alphanumeric) && checksum == checksum_of(body)
}

fn base62(digit: u32) -> char {
    let index = usize::try_from(digit).unwrap_or_default();
    char::from(ALPHABET.get(index).copied().unwrap_or(b'0'))
}

/// CRC-32 (ISO-HDLC) in six base62 digits, most significant first.
fn checksum_of(body: &[u8]) -> [u8; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(body);
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        let index = usize::try_from(rest % 62).unwrap_or_default();
        *digit = ALPHABET.get(index).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits
}

/// Whether a whole key of ours (`tk_live_`, `ck_live_` or `ak_`, checksum right) stands anywhere in `text`.
/// What holds one is never forwarded.
#[must_use]
pub fn contains_key(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b't' | b'c' | b'a')) {
        rest = rest.get(at..).unwrap_or_default();
        if begins_with_key(rest) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

fn begins_with_key(text: &[u8]) -> bool {
    let tail = RANDOM_CHARS.saturating_add(CHECKSUM_CHARS);
    let fits = |len: usize| text.get(..len).is_some_and(is_checked);
    if text.starts_with(BUSINESS_PREFIX.as_bytes()) {
        return fits(BUSINESS_PREFIX.len().saturating_add(tail));
    }
    if text.starts_with(ADMIN_PREFIX.as_bytes()) {
        let len = ADMIN_PREFIX.len().saturating_add(ADMIN_RANDOM_CHARS).saturating_add(CHECKSUM_CHARS);
        return fits(len);
    }
    if !text.starts_with(CUSTOMER_PREFIX.as_bytes()) {
        return false;
    }
    text.iter()
        .enumerate()
        .take(KEY_BYTES_MAX)
        .skip(CUSTOMER_PREFIX.len().saturating_add(1))
        .filter(|(_, byte)| **byte == b'_')
        .any(|(at, _)| fits(at.saturating_add(1).saturating_add(tail)))
}

/// The keyed hash under which a key is kept. Compared in constant time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(blake3::Hash);

impl KeyHash {
    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// Hashes keys under a pepper (keyed BLAKE3): a database alone authenticates nothing.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct KeyHasher([u8; 32]);

impl KeyHasher {
    /// A hasher with this pepper.
    #[must_use]
    pub const fn new(pepper: [u8; 32]) -> Self {
        Self(pepper)
    }

    /// The hash of a whole key.
    #[must_use]
    pub fn hash(&self, key: &str) -> KeyHash {
        KeyHash(blake3::keyed_hash(&self.0, key.as_bytes()))
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHasher(…)")
    }
}
words! {
    /// What a business key may be made for.
    KeyScope {
        /// Read everything but secrets.
        Read = "read",
        /// Change everything but keys.
        Write = "write",
        /// Use the data plane.
        Proxy = "proxy",
        /// Make, replace and revoke keys.
        Keys = "keys",
    }
}

/// What a key may do: all that its kind may, or some of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// All that its kind may.
    pub const ALL: Self = Self(u8::MAX);

    /// Only these; `None` for none at all.
    pub fn only(scopes: impl IntoIterator<Item = KeyScope>) -> Option<Self> {
        let bits = scopes.into_iter().fold(0, |bits, scope| bits | Self::bit(scope));
        (bits != 0).then_some(Self(bits))
    }

    const fn bit(scope: KeyScope) -> u8 {
        match scope {
            KeyScope::Read => 1,
            KeyScope::Write => 2,
            KeyScope::Proxy => 4,
            KeyScope::Keys => 8,
        }
    }

    /// Whether this is among them.
    #[must_use]
    pub const fn allows(self, scope: KeyScope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    /// Those that are among them, in order.
    pub fn iter(self) -> impl Iterator<Item = KeyScope> {
        KeyScope::ALL.iter().copied().filter(move |scope| self.allows(*scope))
    }

    /// As rows keep them: `None` is all, else words with commas between them.
    #[must_use]
    pub fn to_text(self) -> Option<String> {
        (self != Self::ALL).then(|| self.iter().map(KeyScope::as_str).collect::<Vec<_>>().join(","))
    }

    /// What a row says; `None` where it makes no sense.
    #[must_use]
    pub fn from_text(text: Option<&str>) -> Option<Self> {
        let Some(text) = text else { return Some(Self::ALL) };
        let scopes: Option<Vec<_>> = text.split(',').map(KeyScope::from_word).collect();
        Self::only(scopes?)
    }
}
