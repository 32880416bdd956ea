//! The control plane: accounts (businesses, customers, settings), keys, limits and plans, usage, history, the trail of
//! changes, the admin's resets, and health.
//!
//! A handler is extract, one call, answer. Shapes and lengths of fields: `docs/API.md`.

pub(crate) mod accounts;
pub(crate) mod admin;
pub(crate) mod audit;
pub(crate) mod define;
pub(crate) mod history;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod metrics;
pub(crate) mod usage;

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::Value;

/// What handlers give back.
pub(crate) type Answer = Result<actix_web::HttpResponse, crate::error::ApiError>;

/// An object to be printed, its fields in the order of the contract.
#[derive(Default)]
pub(crate) struct Shape(pub(crate) Vec<(&'static str, Value)>);

impl Shape {
    /// The same with the fields of `other` after its own.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl Serialize for Shape {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Makes a [`Shape`]: `shape! { "name": value, … }`.
macro_rules! shape {
    ($($name:literal: $value:expr),* $(,)?) => {
        $crate::api::Shape(vec![$(($name, serde_json::json!($value))),*])
    };
}
pub(crate) use shape;

/// A word list of one of core's enums for [`Form::word`](crate::form::Form::word).
macro_rules! words_of {
    ($type:ty) => {
        &<$type>::ALL.iter().map(|word| (word.as_str(), *word)).collect::<Vec<_>>()
    };
}
pub(crate) use words_of;
