//! The fields of a management body: each is taken by name and checked; what is wrong is collected and told at once.

use crate::error::{ApiError, Code, Detail};
use crate::json::{self, Numeral};
use crate::schema::{Fields, Kind};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use tracktags_core::accounts::{CustomerId, MetricName};
use tracktags_core::metrics::{UNITS_MAX, Units};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::Change;

/// The advice for a fraction.
const WHOLE_ADVICE: &str = "must be a whole number; choose a smaller unit (storage_mb instead of storage_gb)";
/// The advice for a number outside the range of units.
pub(crate) const RANGE_ADVICE: &str = "must be a whole number from 0 to 9007199254740991";
const SIGNED_ADVICE: &str = "must be a whole number from -9007199254740991 to 9007199254740991";
/// The longest object kept as text.
const OBJECT_BYTES_MAX: usize = 4_096;

/// What is wrong with a body's fields, to be told at once.
#[derive(Default)]
pub(crate) struct Problems {
    list: Vec<Detail>,
    fractions: usize,
}

impl Problems {
    /// Notes what is wrong with a field.
    pub(crate) fn note(&mut self, field: &str, message: impl Into<String>) {
        self.list.push(Detail::new(field, message));
    }

    /// Notes a fraction where a whole number must stand.
    pub(crate) fn fraction(&mut self, field: &str) {
        self.fractions = self.fractions.saturating_add(1);
        self.note(field, WHOLE_ADVICE);
    }

    /// The refusal, if there is anything to refuse.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.list.is_empty() {
            return Ok(());
        }
        if self.fractions == self.list.len() {
            let names: Vec<_> = self.list.iter().map(|problem| problem.field.as_str()).collect();
            let message = format!("{} {WHOLE_ADVICE}.", names.join(", "));
            return Err(ApiError::new(Code::NotIntegral, message).with_details(self.list));
        }
        Err(ApiError::fields(self.list))
    }
}

/// A management body being read.
pub(crate) struct Form {
    fields: Map<String, Value>,
    problems: Problems,
    /// What a reader asks for, where the contract wants to know.
    learned: Option<Rc<RefCell<Fields>>>,
}

impl Form {
    /// Reads a body strictly; an empty one counts as `{}`.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields = if body.is_empty() { Map::new() } else { json::object(body)? };
        Ok(Self { fields, problems: Problems::default(), learned: None })
    }

    /// A form without fields that learns which ones its reader takes.
    pub(crate) fn learning() -> (Self, Rc<RefCell<Fields>>) {
        let learned = Rc::new(RefCell::new(Fields::default()));
        let form =
            Self { fields: Map::new(), problems: Problems::default(), learned: Some(Rc::clone(&learned)) };
        (form, learned)
    }

    /// Notes what a field may hold. What is noted first holds.
    fn learn(&self, name: &str, kind: impl FnOnce() -> Kind) {
        if let Some(learned) = &self.learned {
            learned.borrow_mut().note(name, kind);
        }
    }

    /// Notes what is wrong with a field.
    pub(crate) fn problem(&mut self, field: &str, message: impl Into<String>) {
        self.problems.note(field, message);
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name)
    }

    /// Whether the field is there and not `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// A text of so many characters, or nothing; `null` is refused.
    pub(crate) fn text(&mut self, name: &str, chars: RangeInclusive<usize>) -> Option<String> {
        self.learn(name, || Kind::printable(&chars));
        match self.take(name)? {
            Value::String(text) => self.fitting(name, text, &chars),
            _ => {
                self.problem(name, "must be a string");
                None
            }
        }
    }

    /// A text that must be there.
    pub(crate) fn required_text(&mut self, name: &str, chars: RangeInclusive<usize>) -> String {
        self.require(name);
        self.text(name, chars).unwrap_or_default()
    }

    /// A text of a format that `format` names and the caller checks.
    pub(crate) fn custom_text(
        &mut self,
        name: &str,
        format: &str,
        chars: RangeInclusive<usize>,
    ) -> Option<String> {
        self.learn(name, || Kind::custom(format));
        self.text(name, chars)
    }

    /// The same, which may be cleared with `null`.
    pub(crate) fn custom_text_change(
        &mut self,
        name: &str,
        format: &str,
        chars: RangeInclusive<usize>,
    ) -> Change<String> {
        self.learn(name, || Kind::custom(format).or_null());
        self.text_change(name, chars)
    }

    /// The name of a metric that is there or not, or `null`.
    pub(crate) fn name_change(&mut self, name: &str) -> Change<String> {
        self.learn(name, || Kind::name().or_null());
        self.text_change(name, 0..=usize::MAX)
    }

    /// A text that may be cleared with `null`.
    pub(crate) fn text_change(&mut self, name: &str, chars: RangeInclusive<usize>) -> Change<String> {
        self.learn(name, || Kind::printable(&chars).or_null());
        if let Some(Value::Null) = self.fields.get(name) {
            self.fields.remove(name);
            return Change::Clear;
        }
        self.text(name, chars).map_or(Change::Keep, Change::Set)
    }

    /// A text for something new: `null` is the same as nothing.
    pub(crate) fn optional_text(&mut self, name: &str, chars: RangeInclusive<usize>) -> Option<String> {
        set(self.text_change(name, chars))
    }

    fn fitting(&mut self, name: &str, text: String, chars: &RangeInclusive<usize>) -> Option<String> {
        if text.chars().any(char::is_control) {
            self.problem(name, "must hold no control characters");
            None
        } else if chars.contains(&text.chars().count()) {
            Some(text)
        } else {
            self.problem(name, format!("must hold {} to {} characters", chars.start(), chars.end()));
            None
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        self.learn(name, Kind::flag);
        match self.take(name)? {
            Value::Bool(flag) => Some(flag),
            _ => {
                self.problem(name, "must be true or false");
                None
            }
        }
    }

    /// Units of a metric.
    pub(crate) fn units(&mut self, name: &str) -> Option<Units> {
        self.learn(name, Kind::units);
        let value = self.take(name)?;
        self.numeral(name, &value, RANGE_ADVICE).and_then(|units| Units::new(units).ok())
    }

    /// Units with a sign.
    pub(crate) fn signed_units(&mut self, name: &str) -> Option<i64> {
        self.learn(name, || Kind::within(-UNITS_MAX..=UNITS_MAX));
        let value = self.take(name)?;
        let number = value.as_f64().filter(|number| *number < 0.0);
        let magnitude = match (number, value.as_i64()) {
            (None, _) => value,
            (Some(_), Some(whole)) => whole.unsigned_abs().into(),
            (Some(number), None) => (-number).into(),
        };
        let units = self.numeral(name, &magnitude, SIGNED_ADVICE)?;
        Some(if number.is_some() { units.saturating_neg() } else { units })
    }

    fn numeral(&mut self, name: &str, value: &Value, advice: &str) -> Option<i64> {
        let numeral =
            if let Value::Number(number) = value { Numeral::of(number) } else { Numeral::OutOfRange };
        match numeral {
            Numeral::Units(units) => return Some(units),
            Numeral::Fraction => self.problems.fraction(name),
            Numeral::OutOfRange => self.problem(name, advice),
        }
        None
    }

    /// A whole number of a range.
    pub(crate) fn number(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        self.learn(name, || Kind::within(range.clone()));
        let value = self.take(name)?;
        let advice = format!("must be a whole number from {} to {}", range.start(), range.end());
        let number = self.numeral(name, &value, &advice)?;
        if !range.contains(&number) {
            self.problem(name, advice);
        }
        Some(number)
    }

    /// A small whole number that may be cleared with `null`.
    pub(crate) fn number_change(&mut self, name: &str, range: RangeInclusive<u8>) -> Change<u8> {
        self.learn(name, || Kind::within(i64::from(*range.start())..=i64::from(*range.end())).or_null());
        let value = match self.take(name) {
            None => return Change::Keep,
            Some(Value::Null) => return Change::Clear,
            Some(value) => value,
        };
        let advice = format!("must be a whole number from {} to {}", range.start(), range.end());
        let Some(number) = self.numeral(name, &value, &advice) else { return Change::Keep };
        match u8::try_from(number).ok().filter(|number| range.contains(number)) {
            Some(number) => Change::Set(number),
            None => {
                self.problem(name, advice);
                Change::Keep
            }
        }
    }

    /// Distinct whole numbers from `range`, at most `count_max`.
    pub(crate) fn numbers(
        &mut self,
        name: &str,
        range: &RangeInclusive<u16>,
        count_max: usize,
    ) -> Option<Vec<u16>> {
        self.learn(name, || {
            let numbers = i64::from(*range.start())..=i64::from(*range.end());
            Kind::distinct(Kind::within(numbers), 0..=count_max)
        });
        let value = self.take(name)?;
        let advice = format!(
            "must be a list of at most {count_max} distinct whole numbers from {} to {}",
            range.start(),
            range.end()
        );
        let mut numbers = Vec::new();
        for item in value.as_array().into_iter().flatten() {
            let number = self.numeral(name, item, &advice)?;
            numbers.extend(u16::try_from(number).ok().filter(|number| range.contains(number)));
        }
        let mut distinct = numbers.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let given = value.as_array().map(Vec::len);
        if given == Some(distinct.len()) && distinct.len() <= count_max {
            return Some(numbers);
        }
        self.problem(name, advice);
        None
    }

    /// A list of distinct words, at least one.
    pub(crate) fn word_list<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<Vec<T>> {
        self.learn(name, || {
            Kind::distinct(Kind::words(words.iter().map(|(word, _)| *word)), 1..=words.len())
        });
        let value = self.take(name)?;
        let mut found: Vec<(&str, T)> = Vec::new();
        for item in value.as_array().into_iter().flatten() {
            let word = words.iter().find(|(word, _)| item.as_str() == Some(word));
            match word {
                Some(word) if found.iter().all(|(known, _)| *known != word.0) => found.push(*word),
                Some(_) | None => {
                    found.clear();
                    break;
                }
            }
        }
        if found.is_empty() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.problem(name, format!("must be a list of distinct words from {}", words.join(", ")));
            return None;
        }
        Some(found.into_iter().map(|(_, value)| value).collect())
    }

    /// One of several words.
    pub(crate) fn word<T>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T>
    where
        T: Copy,
    {
        self.learn(name, || Kind::words(words.iter().map(|(word, _)| *word)));
        let value = self.take(name)?;
        let found = words.iter().find(|(word, _)| value.as_str() == Some(*word)).map(|(_, found)| *found);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.problem(name, format!("must be one of {}", words.join(", ")));
        }
        found
    }

    /// A time that may be cleared with `null`.
    pub(crate) fn time_change(&mut self, name: &str) -> Change<Timestamp> {
        self.learn(name, || Kind::time().or_null());
        match self.take(name) {
            None => Change::Keep,
            Some(Value::Null) => Change::Clear,
            Some(value) => match value.as_str().map(str::parse) {
                Some(Ok(time)) => Change::Set(time),
                _ => {
                    self.problem(name, "must be a time as RFC 3339 writes it, such as 2026-01-31T23:00:00Z");
                    Change::Keep
                }
            },
        }
    }

    /// An object kept as text.
    pub(crate) fn object_change(&mut self, name: &str) -> Change<String> {
        self.learn(name, || Kind::object().or_null());
        match self.take(name) {
            None => Change::Keep,
            Some(Value::Null) => Change::Clear,
            Some(value) => {
                let text = value.to_string();
                if value.is_object() && text.len() <= OBJECT_BYTES_MAX {
                    return Change::Set(text);
                }
                self.problem(name, format!("must be an object of at most {OBJECT_BYTES_MAX} bytes"));
                Change::Keep
            }
        }
    }

    /// `{string: string}`, kept as text.
    pub(crate) fn strings_change(&mut self, name: &str) -> Change<String> {
        self.learn(name, || Kind::map(Kind::text()).or_null());
        let strings = |value: &Value| value.as_object().is_some_and(|map| map.values().all(Value::is_string));
        if self.fields.get(name).is_some_and(|value| !value.is_null() && !strings(value)) {
            drop(self.take(name));
            self.problem(name, "must be an object whose values are strings");
            return Change::Keep;
        }
        self.object_change(name)
    }

    /// `{string: string}`, of which only `wanted` is kept.
    pub(crate) fn string_in_object(
        &mut self,
        name: &str,
        wanted: &str,
        chars: RangeInclusive<usize>,
    ) -> Option<String> {
        self.learn(name, || Fields::default().maybe(wanted, Kind::printable(&chars)).strings().or_null());
        match self.take(name)? {
            Value::Null => None,
            Value::Object(mut map) if map.values().all(Value::is_string) => match map.remove(wanted) {
                Some(Value::String(text)) => self.fitting(name, text, &chars),
                _ => None,
            },
            _ => {
                self.problem(name, "must be an object whose values are strings");
                None
            }
        }
    }

    /// A metric's name. A text against the grammar is a problem: this call would create it.
    pub(crate) fn metric(&mut self, name: &str) -> Option<MetricName> {
        self.learn(name, Kind::name);
        let text = self.text(name, 0..=usize::MAX)?;
        self.named(name, MetricName::parse(&text))
    }

    /// The id of a customer that this call would create.
    pub(crate) fn customer(&mut self, name: &str) -> Option<CustomerId> {
        self.learn(name, Kind::name);
        let text = self.text(name, 0..=usize::MAX)?;
        self.named(name, CustomerId::parse(&text))
    }

    fn named<T, E: std::fmt::Display>(&mut self, name: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.problem(name, error.to_string())).ok()
    }

    /// Notes that a field which must be there is not.
    pub(crate) fn require(&mut self, name: &str) {
        if let Some(learned) = &self.learned {
            learned.borrow_mut().require(name);
        }
        if !self.fields.contains_key(name) {
            self.problem(name, "is required");
        }
    }

    /// Ends the reading: fields nobody took are unknown; then whatever was noted.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if !self.fields.is_empty() {
            let names: Vec<_> = self.fields.keys().map(String::as_str).collect();
            return Err(ApiError::unknown_fields(&names));
        }
        self.problems.finish()
    }

    /// Ends the reading with what was made of it; `None` only after a problem.
    pub(crate) fn made<T>(self, made: Option<T>) -> Result<T, ApiError> {
        self.finish()?;
        made.ok_or_else(|| ApiError::internal("a form without problems made nothing"))
    }
}

/// What a change sets, if it does.
pub(crate) fn set<T>(change: Change<T>) -> Option<T> {
    if let Change::Set(value) = change { Some(value) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told_at_once() {
        let mut form = Form::parse(br#"{"name":7,"on":"yes","day":40}"#).unwrap();
        assert_eq!(form.text("name", 1..=9), None);
        assert_eq!(form.flag("on"), None);
        assert_eq!(form.number_change("day", 1..=31), Change::Keep);
        form.require("email");
        assert_eq!(form.problems.list.len(), 4);
        assert_eq!(form.finish().unwrap_err().code(), Code::ValidationFailed);
    }

    #[test]
    fn unknown_fields_come_before_anything_else() {
        let mut form = Form::parse(br#"{"limit_value":0.5,"x":1,"y":2}"#).unwrap();
        assert_eq!(form.units("limit_value"), None);
        assert_eq!(form.finish().unwrap_err().code(), Code::UnknownField);
    }

    #[test]
    fn a_fraction_has_a_code_of_its_own() {
        let mut form = Form::parse(br#"{"limit_value":0.5}"#).unwrap();
        assert_eq!(form.units("limit_value"), None);
        assert_eq!(form.finish().unwrap_err().code(), Code::NotIntegral);
    }

    #[test]
    fn lists_of_numbers_are_distinct_and_in_range() {
        for (body, good) in [
            (r#"{"a":[80,100]}"#, true),
            (r#"{"a":[]}"#, true),
            (r#"{"a":[80,80]}"#, false),
            (r#"{"a":[0]}"#, false),
            (r#"{"a":[1001]}"#, false),
            (r#"{"a":[1,2,3,4]}"#, false),
            (r#"{"a":"80"}"#, false),
            (r#"{"a":null}"#, false),
        ] {
            let mut form = Form::parse(body.as_bytes()).unwrap();
            assert_eq!(form.numbers("a", &(1..=1000), 3).is_some(), good, "{body}");
        }
    }
}
