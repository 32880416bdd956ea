//! One operation: what it takes, what it answers, and how it can be refused.

use crate::error::Code;
use crate::schema::{Fields, Kind};
use std::collections::BTreeMap;
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, Required, Response, ResponseBuilder, SecurityRequirement,
};

pub(super) const BEARER: &str = "key";
pub(super) const API_KEY: &str = "key_in_header";
pub(super) const ADMIN_KEY: &str = "admin_key";
const JSON: &str = "application/json";

/// What every call of a proven caller can meet.
const OF_CALLERS: [Code; 7] = [
    Code::ValidationFailed,
    Code::Unauthorized,
    Code::InvalidKey,
    Code::Forbidden,
    Code::TooManyFailures,
    Code::InternalError,
    Code::StoreUnavailable,
];
/// What every call with a body can meet besides.
const OF_BODIES: [Code; 6] = [
    Code::InvalidJson,
    Code::UnknownField,
    Code::NotIntegral,
    Code::RequestTimeout,
    Code::RequestTooLarge,
    Code::UnsupportedMediaType,
];
/// What everything that is written can meet besides.
const OF_CHANGES: [Code; 3] = [Code::Overloaded, Code::StorageFull, Code::OutcomeUnknown];

/// An answer that is no refusal of the common shape.
struct Told {
    status: u16,
    content_type: &'static str,
    kind: Option<Kind>,
}

/// An operation as the contract has it.
pub(crate) struct Described {
    tag: &'static str,
    summary: &'static str,
    query: Vec<(&'static str, Kind, &'static str)>,
    body: Option<Kind>,
    is_body_required: bool,
    told: Vec<Told>,
    codes: Vec<Code>,
}

impl Described {
    pub(super) fn of(tag: &'static str, summary: &'static str) -> Self {
        Self {
            tag,
            summary,
            query: Vec::new(),
            body: None,
            is_body_required: false,
            told: Vec::new(),
            codes: Vec::new(),
        }
    }

    /// A value of the query, which may be left out.
    pub(super) fn query(mut self, name: &'static str, kind: Kind, about: &'static str) -> Self {
        self.query.push((name, kind, about));
        self
    }

    /// A body with these fields and no others.
    pub(super) fn body(mut self, fields: Fields) -> Self {
        self.is_body_required = fields.has_required();
        self.body = Some(fields.closed());
        self
    }

    /// A body with these fields, of which others are ignored.
    pub(super) fn open_body(mut self, fields: Fields) -> Self {
        self.is_body_required = fields.has_required();
        self.body = Some(fields.object());
        self
    }

    /// An answer of this status.
    pub(super) fn answers(mut self, status: u16, kind: Kind) -> Self {
        self.told.push(Told { status, content_type: JSON, kind: Some(kind) });
        self
    }

    /// An answer that is text.
    pub(super) fn says(mut self, status: u16, content_type: &'static str) -> Self {
        self.told.push(Told { status, content_type, kind: Some(Kind::text()) });
        self
    }

    /// A list in pages.
    pub(super) fn lists(self, name: &'static str, item: Kind) -> Self {
        let page = Fields::default()
            .with(name, Kind::list(item))
            .with("count", Kind::whole())
            .with("next_cursor", Kind::text().or_null());
        self.query("limit", Kind::within(1..=500), "How many at most; 100 where nothing is said.")
            .query("cursor", Kind::text(), "The `next_cursor` of the page before.")
            .answers(200, page.object())
            .fails(&[Code::InvalidCursor])
    }

    /// Codes besides those that all such operations share.
    pub(super) fn fails(mut self, codes: &[Code]) -> Self {
        self.codes.extend_from_slice(codes);
        self
    }

    /// The operation at `path`, for the callers that `who` lets in.
    pub(crate) fn operation(self, id: &str, method: &str, path: &str, who: &str) -> Operation {
        let is_tenants = matches!(who, "Business" | "KeyKeeper" | "Reader");
        let mut builder = OperationBuilder::new()
            .operation_id(Some(if path.contains("/businesses/{bid}/") {
                format!("{id}_of_business")
            } else {
                id.to_owned()
            }))
            .tag(self.tag)
            .summary(Some(self.summary));
        for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
            builder = builder.parameter(in_path(path, part.trim_end_matches('}')));
        }
        if is_tenants && !path.contains("{bid}") {
            let about = "The admin names the business it acts for; a business at most itself.";
            builder = builder.parameter(in_query("business_id", Kind::text(), about));
        }
        for (name, kind, about) in self.query {
            builder = builder.parameter(in_query(name, kind, about));
        }
        for requirement in requirements(who) {
            builder = builder.security(requirement);
        }
        if let Some(kind) = self.body {
            let required = if self.is_body_required { Required::True } else { Required::False };
            let content = ContentBuilder::new().schema(Some(kind)).build();
            let body = RequestBodyBuilder::new().content(JSON, content).required(Some(required));
            builder = builder.request_body(Some(body.build()));
        }
        let codes = common(method, who).chain(self.codes);
        for (status, response) in responses(self.told, codes) {
            builder = builder.response(status.to_string(), response);
        }
        builder.build()
    }
}

/// The codes that all operations of a kind share.
fn common(method: &str, who: &str) -> impl Iterator<Item = Code> {
    let is_open = matches!(who, "Anonymous" | "Observer");
    let has_body = matches!(method, "POST" | "PUT" | "PATCH");
    let of_observers = (who == "Observer").then_some([Code::InvalidKey, Code::TooManyFailures]);
    let of_tenants = matches!(who, "Business" | "KeyKeeper" | "Reader")
        .then_some([Code::BusinessRequired, Code::BusinessNotFound]);
    let of_admins = matches!(who, "Admin" | "Scraper").then_some(Code::NotFound);
    let unless_open = move |codes: bool| codes && !is_open;
    let lists = [
        unless_open(true).then_some(&OF_CALLERS[..]),
        unless_open(has_body).then_some(&OF_BODIES[..]),
        unless_open(method != "GET").then_some(&OF_CHANGES[..]),
    ];
    let shared = lists.into_iter().flatten().flatten().copied();
    shared.chain(of_observers.into_iter().flatten()).chain(of_tenants.into_iter().flatten()).chain(of_admins)
}

/// How a caller proves itself, one way or another.
fn requirements(who: &str) -> Vec<SecurityRequirement> {
    let by = |scheme: &str| SecurityRequirement::new(scheme, Vec::<String>::new());
    match who {
        "Anonymous" | "Observer" => Vec::new(),
        "Admin" | "Scraper" => vec![by(ADMIN_KEY)],
        "Caller" | "Holder" | "BusinessCaller" => vec![by(BEARER), by(API_KEY)],
        _ => vec![by(BEARER), by(API_KEY), by(ADMIN_KEY)],
    }
}

fn in_path(path: &str, name: &str) -> Parameter {
    let (kind, about) = match name {
        "bid" => (Kind::text(), "A business's id (`biz_…`)."),
        "cid" => (Kind::name(), "A customer's id."),
        "key" => (Kind::text(), "A key's id or name."),
        "type" => (Kind::words(["business"]), "Which kind of key."),
        "name" if path.contains("/metrics/") => (Kind::name(), "A metric's name."),
        "name" => (Kind::text(), "A key's id or name."),
        _ => (Kind::text(), "Its id."),
    };
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
    parameter.required(Required::True).schema(Some(kind)).description(Some(about)).build()
}

fn in_query(name: &str, kind: Kind, about: &str) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query);
    parameter.required(Required::False).schema(Some(kind)).description(Some(about)).build()
}

/// Every answer by its status: the operation's own, and its refusals with the codes they can have.
fn responses(told: Vec<Told>, codes: impl Iterator<Item = Code>) -> BTreeMap<u16, Response> {
    let mut refusals: BTreeMap<u16, (&str, Vec<&str>)> = BTreeMap::new();
    for code in codes {
        let (status, title, word) = code.row();
        let (_, words) = refusals.entry(status).or_insert((title, Vec::new()));
        if !words.contains(&word) {
            words.push(word);
        }
    }
    let mut kinds: BTreeMap<u16, (&str, &str, Vec<Kind>)> = BTreeMap::new();
    for Told { status, content_type, kind } in told {
        let meaning = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let entry = kinds.entry(status).or_insert((meaning.unwrap_or("An answer"), content_type, Vec::new()));
        entry.2.extend(kind);
    }
    for (status, (title, words)) in refusals {
        let code = Fields::default().with("code", Kind::words(words)).object();
        let refusal = Kind::all_of([Kind::shared("Error"), code]);
        kinds.entry(status).or_insert((title, JSON, Vec::new())).2.push(refusal);
    }
    let response = |(status, (meaning, content_type, mut kinds)): (u16, (&str, &str, Vec<Kind>))| {
        let kind = if kinds.len() == 1 { kinds.pop() } else { Some(Kind::any_of(kinds)) };
        let content = ContentBuilder::new().schema(kind).build();
        let mut response = ResponseBuilder::new().description(meaning).content(content_type, content);
        response = response.header("X-Request-Id", header(Kind::text(), "The request's id."));
        if matches!(status, 429 | 503) {
            response = response.header("Retry-After", header(Kind::whole(), "Seconds to wait."));
        }
        (status, response.build())
    };
    kinds.into_iter().map(response).collect()
}

fn header(kind: Kind, about: &str) -> utoipa::openapi::header::Header {
    HeaderBuilder::new().schema(Some(kind)).description(Some(about)).build()
}
