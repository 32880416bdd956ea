//! The master key, and the sub-keys derived from it: one fixed context string each (docs/SECURITY.md §3).
//!
//! Keeps `secrets-never-leave`: keys hide in `Debug` and are wiped on drop. Not here: sealing of secrets that must be
//! read back.

use std::fmt;
use tracktags_core::accounts::{BusinessId, CustomerId};
use tracktags_core::keys::{KeyHash, KeyHasher};
use tracktags_core::time::Timestamp;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The key from which every other is derived.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

/// A text that is no master key. Says nothing of what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a master key is 64 hex digits; several are separated by commas")]
pub struct MasterKeyError;

impl MasterKey {
    /// These 32 bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hex digits.
    ///
    /// # Errors
    /// [`MasterKeyError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, MasterKeyError> {
        let digits = text.trim().as_bytes();
        if digits.len() != 64 {
            return Err(MasterKeyError);
        }
        let mut key = Self([0; 32]);
        for (byte, pair) in key.0.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let value = char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
                *byte = (*byte << 4) | value.ok_or(MasterKeyError)?;
            }
        }
        Ok(key)
    }

    /// Reads one or several, separated by commas: the first makes new hashes, all are good.
    ///
    /// # Errors
    /// [`MasterKeyError`] where one of them is none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, MasterKeyError> {
        text.split(',').map(Self::parse).collect()
    }

    fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, &self.0))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

// Stored values rest on these: they never change.
const KEY_PEPPER: &str = "tracktags 2026 key pepper";
const PEPPER_ID: &str = "tracktags 2026 key pepper id";
const ROW_MAC: &str = "tracktags 2026 row mac";
const AUDIT_MAC: &str = "tracktags 2026 audit mac";
const CURSORS: &str = "tracktags 2026 cursors";
const ADMIN_PEPPER: &str = "tracktags 2026 admin key pepper";
const CHECK: &str = "tracktags 2026 master key check";

/// What a key's row says of it: all that its `row_mac` binds together.
pub(crate) struct KeyFacts<'a> {
    pub(crate) id: &'a str,
    pub(crate) hash: &'a [u8],
    pub(crate) business: &'a BusinessId,
    /// `None` for a business key; so the type is bound too.
    pub(crate) customer: Option<&'a CustomerId>,
    pub(crate) expires_at: Option<Timestamp>,
    /// As the row has them.
    pub(crate) scopes: Option<&'a str>,
}

/// What a row of the trail says: all that its proof binds together.
pub(crate) struct AuditFacts<'a> {
    pub(crate) texts: [Option<&'a str>; 9],
    pub(crate) changes: [[u8; 8]; 2],
}

/// The sub-keys of one master key.
#[derive(Clone)]
struct SubKeys {
    hasher: KeyHasher,
    row_mac: Zeroizing<[u8; 32]>,
    audit_mac: Zeroizing<[u8; 32]>,
    hash_alg: String,
    check: String,
}

/// The sub-keys of all master keys, and those that only the first gives.
#[derive(Clone)]
pub(crate) struct Secrets {
    first: SubKeys,
    others: Vec<SubKeys>,
    cursors: Zeroizing<[u8; 32]>,
    admin_pepper: Zeroizing<[u8; 32]>,
}

impl Secrets {
    /// Derives them; `None` without a master key.
    pub(crate) fn derive(keys: &[MasterKey]) -> Option<Self> {
        let (first, others) = keys.split_first()?;
        Some(Self {
            first: SubKeys::derive(first),
            others: others.iter().map(SubKeys::derive).collect(),
            cursors: first.derive(CURSORS),
            admin_pepper: first.derive(ADMIN_PEPPER),
        })
    }

    /// Hashes new keys.
    pub(crate) const fn hasher(&self) -> &KeyHasher {
        &self.first.hasher
    }

    /// Every hasher under which a stored key may stand, the first one first: a look-up tries them in turn.
    pub(crate) fn hashers(&self) -> impl Iterator<Item = &KeyHasher> {
        self.all().map(|keys| &keys.hasher)
    }

    /// Names algorithm and pepper of new hashes.
    pub(crate) fn hash_alg(&self) -> &str {
        &self.first.hash_alg
    }

    /// Binds cursors to tenant and query.
    pub(crate) fn cursor_key(&self) -> [u8; 32] {
        *self.cursors
    }

    /// Keys the hash of the admin key in memory.
    pub(crate) fn admin_pepper(&self) -> [u8; 32] {
        *self.admin_pepper
    }

    /// What proves a key's row to be ours.
    pub(crate) fn row_mac(&self, facts: &KeyFacts<'_>) -> [u8; 32] {
        *self.first.mac(facts).as_bytes()
    }

    /// Whether this proves the row, under any master key. Constant time.
    pub(crate) fn proves(&self, mac: &[u8], facts: &KeyFacts<'_>) -> bool {
        let Ok(mac) = <[u8; 32]>::try_from(mac).map(blake3::Hash::from_bytes) else { return false };
        self.all().any(|keys| keys.mac(facts) == mac)
    }

    /// What proves a row of the trail to be ours.
    pub(crate) fn audit_mac(&self, facts: &AuditFacts<'_>) -> [u8; 32] {
        *self.first.audit(facts).as_bytes()
    }

    /// Whether this proves the row of the trail, under any master key. Constant time.
    pub(crate) fn proves_audit(&self, mac: &[u8], facts: &AuditFacts<'_>) -> bool {
        let Ok(mac) = <[u8; 32]>::try_from(mac).map(blake3::Hash::from_bytes) else { return false };
        self.all().any(|keys| keys.audit(facts) == mac)
    }

    /// What tells a wrong master key, for keeping in the database; gives nothing away.
    pub(crate) fn check(&self) -> String {
        self.first.check.clone()
    }

    /// Whether the check value kept is of one of these master keys.
    pub(crate) fn is_check(&self, kept: &str) -> bool {
        self.all().any(|keys| keys.check == kept)
    }

    fn all(&self) -> impl Iterator<Item = &SubKeys> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl SubKeys {
    fn derive(key: &MasterKey) -> Self {
        let id = hex(&key.derive(PEPPER_ID)[..8]);
        Self {
            hasher: KeyHasher::new(*key.derive(KEY_PEPPER)),
            row_mac: key.derive(ROW_MAC),
            audit_mac: key.derive(AUDIT_MAC),
            hash_alg: format!("blake3-keyed:{id}"),
            check: hex(&key.derive(CHECK)[..16]),
        }
    }

    /// Fields with their lengths before them: no two sets of facts give the same bytes.
    fn mac(&self, facts: &KeyFacts<'_>) -> blake3::Hash {
        let expires_at = facts.expires_at.map(|at| at.as_micros().to_le_bytes());
        let kind = if facts.customer.is_some() { "customer" } else { "business" };
        let mut fields: Vec<&[u8]> = vec![
            facts.id.as_bytes(),
            facts.hash,
            facts.business.as_str().as_bytes(),
            facts.customer.map_or("", |customer| customer.as_str()).as_bytes(),
            kind.as_bytes(),
            expires_at.as_ref().map_or(&[], |at| at.as_slice()),
        ];
        // A key that may do everything is proved as before there were scopes.
        fields.extend(facts.scopes.map(str::as_bytes));
        bound(&self.row_mac, &fields)
    }

    fn audit(&self, facts: &AuditFacts<'_>) -> blake3::Hash {
        // What is absent and what is empty are not the same.
        let there = facts.texts.map(|text| u8::from(text.is_some()));
        let texts = facts.texts.map(|text| text.unwrap_or_default().as_bytes());
        let mut fields: Vec<&[u8]> = vec![&there];
        fields.extend(texts);
        fields.extend(facts.changes.iter().map(|change| change.as_slice()));
        bound(&self.audit_mac, &fields)
    }
}

fn bound(key: &[u8; 32], fields: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    hasher.finalize()
}

/// The hash in a row, for comparing in constant time.
pub(crate) fn is_hash(stored: &[u8], hash: &KeyHash) -> bool {
    <[u8; 32]>::try_from(stored).is_ok_and(|bytes| blake3::Hash::from_bytes(bytes) == *hash.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(byte: u8) -> MasterKey {
        MasterKey::new([byte; 32])
    }

    fn secrets(bytes: &[u8]) -> Secrets {
        let keys: Vec<_> = bytes.iter().map(|byte| master(*byte)).collect();
        Secrets::derive(&keys).unwrap()
    }

    #[test]
    fn master_keys_are_64_hex_digits() {
        let text = "07".repeat(32);
        assert_eq!(MasterKey::parse(&text), Ok(master(7)));
        assert_eq!(
            MasterKey::parse_list(&format!("{text}, {}", "0A".repeat(32))),
            Ok(vec![master(7), master(10)])
        );
        for bad in ["", "07", &"0g".repeat(32), &format!("{text},"), &"ü".repeat(32)] {
            assert_eq!(MasterKey::parse_list(bad), Err(MasterKeyError), "{bad}");
        }
        assert_eq!(format!("{:?}", master(7)), "MasterKey(…)");
    }

    #[test]
    fn sub_keys_differ() {
        let one = secrets(&[1]);
        let keys = [one.cursor_key(), one.admin_pepper(), *one.first.row_mac, [1; 32]];
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key));
        }
        assert!(Secrets::derive(&[]).is_none());
        assert_ne!(one.hash_alg(), secrets(&[2]).hash_alg());
    }

    #[test]
    fn a_row_mac_binds_every_field_and_any_master_key_proves_it() {
        let (business, customer) = (BusinessId::parse("b1").unwrap(), CustomerId::parse("c1").unwrap());
        let (other_business, other_customer) =
            (BusinessId::parse("b2").unwrap(), CustomerId::parse("c2").unwrap());
        let facts = |id, hash, business, customer, expires_at| KeyFacts {
            id,
            hash,
            business,
            customer,
            expires_at,
            scopes: None,
        };
        let at = Some(Timestamp::from_seconds(1));
        let mac = secrets(&[1]).row_mac(&facts("k", &[1; 32], &business, Some(&customer), at));
        for keys in [&[1][..], &[2, 1]] {
            assert!(secrets(keys).proves(&mac, &facts("k", &[1; 32], &business, Some(&customer), at)));
        }
        assert!(!secrets(&[2]).proves(&mac, &facts("k", &[1; 32], &business, Some(&customer), at)));
        let forged = [
            facts("l", &[1; 32], &business, Some(&customer), at),
            facts("k", &[2; 32], &business, Some(&customer), at),
            facts("k", &[1; 32], &other_business, Some(&customer), at),
            facts("k", &[1; 32], &business, Some(&other_customer), at),
            facts("k", &[1; 32], &business, None, at),
            facts("k", &[1; 32], &business, Some(&customer), None),
        ];
        for facts in forged {
            assert!(!secrets(&[1]).proves(&mac, &facts));
        }
        assert!(!secrets(&[1]).proves(&mac[..31], &facts("k", &[1; 32], &business, Some(&customer), at)));
    }

    #[test]
    fn a_wrong_master_key_is_told() {
        let kept = secrets(&[1]).check();
        assert!(secrets(&[1]).is_check(&kept));
        assert!(secrets(&[2, 1]).is_check(&kept));
        assert!(!secrets(&[2]).is_check(&kept));
    }
}
