//! ③ ④ Whose usage a request of the data plane is about, of what, and how much.

use crate::error::{ApiError, Code};
use crate::form::{Problems, RANGE_ADVICE};
use crate::json::{Numeral, Scalar};
use std::borrow::Cow;
use tracktags_core::accounts::{Account, CustomerId, Identity, Scope};
use tracktags_core::demand::Ask;
use tracktags_core::error::Entity;
use tracktags_core::limits::Terms;
use tracktags_core::metrics::Units;

/// Whose usage of what, and how much of it.
pub(super) struct Subject {
    /// Empty: all metrics, and the default one is counted.
    pub(super) metric_name: String,
    pub(super) scope: Option<Scope>,
    pub(super) customer_id: Option<String>,
    pub(super) units: Units,
}

/// The fields of a subject as they stand in a body.
#[derive(Default)]
pub(super) struct RawSubject<'de> {
    pub(super) metric_name: Option<Scalar<'de>>,
    pub(super) scope: Option<Scalar<'de>>,
    pub(super) customer_id: Option<Scalar<'de>>,
    pub(super) units: Option<Scalar<'de>>,
}

impl<'de> RawSubject<'de> {
    /// Where the field of this name belongs.
    pub(super) fn slot(&mut self, name: &str) -> Option<&mut Option<Scalar<'de>>> {
        match name {
            "metric_name" => Some(&mut self.metric_name),
            "scope" => Some(&mut self.scope),
            "customer_id" => Some(&mut self.customer_id),
            "units" => Some(&mut self.units),
            _ => None,
        }
    }

    /// Reads them; units are at least `units_min`, and 1 where none are given.
    pub(super) fn read(self, problems: &mut Problems, units_min: i64) -> Subject {
        let metric_name = text(problems, "metric_name", self.metric_name).map(Cow::into_owned);
        Subject {
            metric_name: metric_name.unwrap_or_default(),
            scope: scope(problems, self.scope),
            customer_id: text(problems, "customer_id", self.customer_id).map(Cow::into_owned),
            units: units(problems, self.units, units_min),
        }
    }
}

/// A string; `null` is the same as nothing.
pub(super) fn text<'de>(
    problems: &mut Problems,
    name: &str,
    value: Option<Scalar<'de>>,
) -> Option<Cow<'de, str>> {
    match value {
        None | Some(Scalar::Null) => None,
        Some(Scalar::Text(text)) => Some(text),
        Some(_) => {
            problems.note(name, "must be a string");
            None
        }
    }
}

fn scope(problems: &mut Problems, value: Option<Scalar<'_>>) -> Option<Scope> {
    match value {
        None | Some(Scalar::Null) => None,
        Some(Scalar::Text(word)) if word == "customer" => Some(Scope::Customer),
        Some(Scalar::Text(word)) if word == "business" => Some(Scope::Business),
        Some(_) => {
            problems.note("scope", "must be customer or business");
            None
        }
    }
}

fn units(problems: &mut Problems, value: Option<Scalar<'_>>, min: i64) -> Units {
    match value {
        None | Some(Scalar::Null) => return Units::ONE,
        Some(Scalar::Number(Numeral::Units(units))) if units < min => {
            problems.note("units", format!("must be at least {min}"));
        }
        Some(Scalar::Number(Numeral::Units(units))) => return Units::new(units).unwrap_or(Units::ONE),
        Some(Scalar::Number(Numeral::Fraction)) => problems.fraction("units"),
        Some(_) => problems.note("units", RANGE_ADVICE),
    }
    Units::ONE
}

/// Whose usage it is, where that is not the key's own account: a customer's key speaks for no other.
pub(super) fn account_of(identity: &Identity, subject: &Subject) -> Result<Option<Account>, ApiError> {
    let named = subject.customer_id.as_deref();
    if let Some(own) = &identity.account.customer {
        let is_own =
            subject.scope != Some(Scope::Business) && named.is_none_or(|named| named == own.as_str());
        let mismatch = || ApiError::new(Code::CustomerMismatch, "This key acts for its own customer only.");
        return if is_own { Ok(None) } else { Err(mismatch()) };
    }
    match (subject.scope, named) {
        (Some(Scope::Customer), None) => {
            Err(ApiError::field("customer_id", "is required with scope customer and a business key"))
        }
        (Some(Scope::Business), Some(_)) => {
            Err(ApiError::field("customer_id", "leave it out with scope business, or choose scope customer"))
        }
        (_, None) => Ok(None),
        (_, Some(named)) => {
            let customer = CustomerId::parse(named);
            let customer = customer.map_err(|_against_grammar| ApiError::not_found(Entity::Customer))?;
            Ok(Some(Account::customer(identity.account.business.clone(), customer)))
        }
    }
}

/// Which metrics are asked: the named one, or all of them with the default one counted.
pub(super) fn ask(terms: &Terms, subject: &Subject) -> Result<Ask, ApiError> {
    if subject.metric_name.is_empty() {
        let default = terms.default_metric.as_ref().and_then(|name| terms.limits.find(name.as_str()));
        return Ok(Ask::All { count: default.map(|place| (place, subject.units)) });
    }
    match terms.limits.find(&subject.metric_name) {
        Some(place) => Ok(Ask::One { place, units: subject.units }),
        None => Err(ApiError::not_found(Entity::Metric)),
    }
}
