//! JSON read strictly: one object, no key twice at any depth, no lone surrogates, at most 128 levels, UTF-8.
//!
//! The same rules hold in fields that are ignored. Two readers share them: [`Scalar`] borrows from the body and
//! builds nothing (the data plane), [`object`] builds a small tree (management bodies).

use crate::error::{ApiError, Code, Detail};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use tracktags_core::metrics::UNITS_MAX;

/// Objects and arrays within one another at most.
pub(crate) const DEPTH_MAX: u8 = 128;
/// Up to so many keys of an object are compared one by one.
const FEW_KEYS: usize = 12;

/// The keys of one object, so that none comes twice.
#[derive(Default)]
pub(crate) struct Keys<'de> {
    few: SmallVec<[Cow<'de, str>; FEW_KEYS]>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Keys<'de> {
    /// Notes a key.
    pub(crate) fn note<E: de::Error>(&mut self, key: Cow<'de, str>) -> Result<(), E> {
        let twice = if self.few.len() < FEW_KEYS {
            let twice = self.few.contains(&key);
            self.few.push(key);
            twice
        } else {
            self.few.contains(&key) || !self.many.insert(key)
        };
        if twice { Err(E::custom("a key stands twice in one object")) } else { Ok(()) }
    }
}

/// A key, borrowed where it holds no escapes.
pub(crate) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// One level less, or an error where there is none left.
pub(crate) fn deeper<E: de::Error>(room: u8) -> Result<u8, E> {
    room.checked_sub(1).ok_or_else(|| E::custom("more than 128 objects and arrays within one another"))
}

/// A value that is no object and no array, borrowed from the body; [`Other`](Self::Other) stands for those.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar<'de> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Numeral),
    /// A string.
    Text(Cow<'de, str>),
    /// An object or array, read strictly and dropped.
    Other,
}

/// A number as far as units need it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Numeral {
    /// A whole number from 0 to 2^53 − 1; `1000.0` is one.
    Units(i64),
    /// A number with a fraction.
    Fraction,
    /// Negative, −0 too, or above 2^53 − 1.
    OutOfRange,
}

impl Numeral {
    fn of_u64(number: u64) -> Self {
        i64::try_from(number).ok().filter(|units| *units <= UNITS_MAX).map_or(Self::OutOfRange, Self::Units)
    }

    fn of_f64(number: f64) -> Self {
        if number.fract() != 0.0 {
            return Self::Fraction;
        }
        // Every whole number in this range is exact in an f64, and so in its shortest text.
        if number.is_sign_positive() && number <= 9_007_199_254_740_991.0 {
            format!("{number:.0}").parse().map_or(Self::OutOfRange, Self::Units)
        } else {
            Self::OutOfRange
        }
    }

    /// The same of a number in a tree.
    pub(crate) fn of(number: &Number) -> Self {
        number.as_u64().map_or_else(|| number.as_f64().map_or(Self::OutOfRange, Self::of_f64), Self::of_u64)
    }
}

/// Reads a [`Scalar`] with so many levels left.
pub(crate) struct ScalarSeed(pub(crate) u8);

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Scalar<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Scalar<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Null)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(flag))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(Numeral::of_u64(number)))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(u64::try_from(number).map_or(Numeral::OutOfRange, Numeral::of_u64)))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(Numeral::of_f64(number)))
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let room = deeper(self.0)?;
        while items.next_element_seed(ScalarSeed(room))?.is_some() {}
        Ok(Scalar::Other)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let room = deeper(self.0)?;
        let mut keys = Keys::default();
        while let Some(key) = fields.next_key_seed(Key)? {
            keys.note(key)?;
            fields.next_value_seed(ScalarSeed(room))?;
        }
        Ok(Scalar::Other)
    }
}

/// Reads a tree with so many levels left.
struct Tree(u8);

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let room = deeper(self.0)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Tree(room))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Value, A::Error> {
        tree_of(self.0, fields, &mut |_| ()).map(Value::Object)
    }
}

fn tree_of<'de, A: MapAccess<'de>>(
    room: u8,
    mut fields: A,
    reading: &mut dyn FnMut(&str),
) -> Result<Map<String, Value>, A::Error> {
    let room = deeper(room)?;
    let mut map = Map::new();
    while let Some(key) = fields.next_key_seed(Key)? {
        reading(&key);
        if map.contains_key(&*key) {
            return Err(de::Error::custom("a key stands twice in one object"));
        }
        map.insert(key.into_owned(), fields.next_value_seed(Tree(room))?);
    }
    Ok(map)
}

/// The top level of a management body.
struct Top<'a>(&'a mut String);

impl<'de> Visitor<'de> for Top<'_> {
    type Value = Map<String, Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
        tree_of(DEPTH_MAX, fields, &mut |key| {
            self.0.clear();
            self.0.push_str(key);
        })
    }
}

/// Reads a body that must be one object.
pub(crate) fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let mut field = String::new();
    let visitor = Top(&mut field);
    whole(body, |reader| reader.deserialize_map(visitor)).map_err(|error| refused(&error, &field))
}

/// Runs `read` over the body, of which nothing but white space may be left.
pub(crate) fn whole<'de, T>(
    body: &'de [u8],
    read: impl FnOnce(&mut serde_json::Deserializer<serde_json::de::SliceRead<'de>>) -> serde_json::Result<T>,
) -> serde_json::Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    // The visitors here count the levels themselves: 128 may be used, not 127.
    reader.disable_recursion_limit();
    let value = read(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// The refusal of a body that could not be read; `field` was being read.
pub(crate) fn refused(error: &serde_json::Error, field: &str) -> ApiError {
    let reason = error.to_string();
    if reason.starts_with("number out of range") {
        return ApiError::fields(vec![Detail::new(field, "is a number out of range")]);
    }
    ApiError::new(Code::InvalidJson, format!("The body must be one JSON object in UTF-8: {reason}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        let inner = levels - 1;
        format!("{{\"a\":{}{}}}", "[".repeat(inner), "]".repeat(inner))
    }

    #[test]
    fn what_is_not_strict_is_refused() {
        let cases: &[&[u8]] = &[
            b"",
            b"[]",
            b"1",
            b"{\"a\":1,}",
            b"{\"a\":1} x",
            b"{\"a\":1,\"a\":1}",
            b"{\"a\":1,\"\\u0061\":1}",
            b"{\"x\":{\"a\":1,\"a\":2}}",
            b"{\"x\":[[{\"a\":1,\"a\":2}]]}",
            b"{\"a\":\"\\ud800\"}",
            b"{\"a\":\"\\udc00\"}",
            b"{\"x\":[\"\\ud800x\"]}",
            b"{\"\\ud800\":1}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":NaN}",
        ];
        for case in cases {
            let error = object(case).unwrap_err();
            assert_eq!(error.code(), Code::InvalidJson, "{}", String::from_utf8_lossy(case));
            let scalar = whole(case, |reader| ScalarSeed(DEPTH_MAX).deserialize(reader));
            assert!(
                scalar.is_err() || [&b"[]"[..], b"1"].contains(case),
                "{}",
                String::from_utf8_lossy(case)
            );
        }
    }

    #[test]
    fn a_hundred_and_twenty_eight_levels_fit_and_no_more() {
        assert!(object(nested(128).as_bytes()).is_ok());
        assert_eq!(object(nested(129).as_bytes()).unwrap_err().code(), Code::InvalidJson);
        assert_eq!(object(nested(100_000).as_bytes()).unwrap_err().code(), Code::InvalidJson);
    }

    #[test]
    fn many_keys_are_still_told_apart() {
        let fields: Vec<_> = (0..1_000).map(|n| format!("\"k{n}\":0")).collect();
        let good = format!("{{{}}}", fields.join(","));
        let twice = format!("{{{},\"k997\":1}}", fields.join(","));
        assert!(whole(good.as_bytes(), |reader| ScalarSeed(2).deserialize(reader)).is_ok());
        assert!(whole(twice.as_bytes(), |reader| ScalarSeed(2).deserialize(reader)).is_err());
    }

    #[test]
    fn numbers_become_units_or_say_why_not() {
        let cases = [
            ("1000", Numeral::Units(1000)),
            ("1000.0", Numeral::Units(1000)),
            ("1e3", Numeral::Units(1000)),
            ("0", Numeral::Units(0)),
            ("9007199254740991", Numeral::Units(UNITS_MAX)),
            ("9007199254740991.0", Numeral::Units(UNITS_MAX)),
            ("0.5", Numeral::Fraction),
            ("-0.5", Numeral::Fraction),
            ("-1", Numeral::OutOfRange),
            ("-0", Numeral::OutOfRange),
            ("9007199254740992", Numeral::OutOfRange),
            ("1e300", Numeral::OutOfRange),
        ];
        for (text, expected) in cases {
            let read = whole(text.as_bytes(), |reader| ScalarSeed(0).deserialize(reader)).unwrap();
            assert_eq!(read, Scalar::Number(expected), "{text}");
        }
        let error = object(b"{\"limit_value\":1e309}").unwrap_err();
        assert_eq!(error.code(), Code::ValidationFailed);
    }
}
