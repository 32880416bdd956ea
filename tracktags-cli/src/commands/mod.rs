//! What each command asks for: one file a noun. A command of the API is a value, [`Call`]; nothing here sends or
//! prints. `database.rs` alone looks into a database.

pub(crate) mod accounts;
pub(crate) mod admin;
pub(crate) mod database;
pub(crate) mod doctor;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod usage;

use crate::args::Page;
use crate::output::View;
use awc::http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// As whom the API is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The platform's admin.
    Admin,
    /// A business, or the admin for one.
    Business,
    /// The admin if there is a key of his, else the business.
    Either,
}

/// One call of the API.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) who: Who,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) body: Option<Map<String, Value>>,
    pub(crate) view: View,
}

impl Call {
    /// A call of `/api/v1/…`: the path's segments are encoded here.
    fn new(who: Who, method: Method, segments: &[&str], view: View) -> Self {
        Self::under("/api/v1", who, method, segments, view)
    }

    /// A call of `/admin/…`.
    fn of_admin(method: Method, segments: &[&str], view: View) -> Self {
        Self::under("/admin", Who::Admin, method, segments, view)
    }

    fn under(root: &str, who: Who, method: Method, segments: &[&str], view: View) -> Self {
        let mut path = root.to_owned();
        for segment in segments {
            path.push('/');
            path.push_str(&encoded(segment));
        }
        Self { who, method, path, query: Vec::new(), body: None, view }
    }

    /// Adds what was given to the query.
    fn asking(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Adds which stretch of the list is wanted.
    fn page(self, page: Page) -> Self {
        self.asking("limit", page.count).asking("cursor", page.cursor)
    }

    /// Adds a body with the fields that were given.
    fn with<const N: usize>(mut self, fields: [(&str, Option<Value>); N]) -> Self {
        let body = self.body.get_or_insert_default();
        body.extend(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        self
    }

    /// Path and query, with `business` named where the admin acts for it.
    pub(crate) fn target(&self, business: Option<&str>) -> String {
        let business = business.map(|id| ("business_id", id));
        let pairs = self.query.iter().map(|(name, value)| (*name, value.as_str())).chain(business);
        let query: Vec<_> = pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        if query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, query.join("&")) }
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}
