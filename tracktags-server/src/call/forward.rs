//! ⑦ The way out and back: the headers that are ours, the answer or what went wrong instead.

use super::writer::Json;
use super::{Call, Wish};
use crate::app::App;
use crate::gather::{Gather, TooLarge};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tracktags_core::decide::Decision;
use tracktags_core::error::UpstreamError;
use tracktags_core::limits::Terms;
use tracktags_core::settle::CallOutcome;
use tracktags_core::traits::Upstream;
use tracktags_core::upstreams::{ByteStream, ForwardRequest, RequestBody};

const X_BUSINESS: HeaderName = HeaderName::from_static("x-tracktags-business-id");
const X_CUSTOMER: HeaderName = HeaderName::from_static("x-tracktags-customer-id");
const X_PLAN: HeaderName = HeaderName::from_static("x-tracktags-plan-id");
const X_SCOPE: HeaderName = HeaderName::from_static("x-tracktags-scope");
const X_LIMITS: HeaderName = HeaderName::from_static("x-tracktags-limits");
const X_PROXIED: HeaderName = HeaderName::from_static("x-tracktags-proxied");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const OURS: usize = 8;
/// Room for two limits in a header.
const LIMITS_BYTES: usize = 256;

/// What came back.
pub(crate) enum Forwarded {
    /// A complete answer.
    Answer {
        /// The target's status.
        status: StatusCode,
        /// Its headers without hop-by-hop ones.
        headers: HeaderMap,
        /// All of its body.
        body: Bytes,
    },
    /// None, or none that can be handed over.
    Failure {
        /// The status of a head that came before it went wrong.
        status: Option<StatusCode>,
        /// What went wrong.
        error: UpstreamError,
    },
}

impl Forwarded {
    /// What it means for the units.
    pub(super) fn outcome(&self) -> CallOutcome {
        match self {
            Self::Answer { status, .. } => CallOutcome::Answered(status.as_u16()),
            Self::Failure { status, error } => {
                CallOutcome::of_error(error, status.map(|status| status.as_u16()))
            }
        }
    }
}

/// Sends the request and reads the whole answer.
pub(super) async fn forward(app: &App, call: &Call, decision: &Decision, wish: Box<Wish>) -> Forwarded {
    let ours = our_headers(app, &call.terms, decision, &wish);
    let wish = *wish;
    let is_head = wish.method == Method::HEAD;
    let body = match wish.body {
        Some(_) if is_head || wish.method == Method::GET => RequestBody::Empty,
        Some(body) => RequestBody::Full(body),
        None => RequestBody::Empty,
    };
    let request = ForwardRequest {
        target: call.target.clone(),
        method: wish.method,
        headers: wish.headers,
        ours,
        body,
    };
    let response = match app.upstream.forward(request).await {
        Ok(response) => response,
        Err(error) => return Forwarded::Failure { status: None, error },
    };
    let (status, headers) = (response.status, response.headers);
    match collect(response.body, app.config.proxy.answer_bytes_max).await {
        Ok(body) => Forwarded::Answer { status, headers, body },
        Err(error) => Forwarded::Failure { status: Some(status), error },
    }
}

/// Reads a body to its end, up to `bytes_max`. The way out keeps the time.
async fn collect(mut body: ByteStream, bytes_max: u64) -> Result<Bytes, UpstreamError> {
    let cap = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut gather = Gather::default();
    while let Some(piece) = body.next().await {
        gather.push(piece?, cap).map_err(|TooLarge| UpstreamError::TooLarge { bytes_max })?;
    }
    Ok(gather.finish())
}

/// The headers we add; they win over the caller's.
fn our_headers(app: &App, terms: &Terms, decision: &Decision, wish: &Wish) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::with_capacity(OURS);
    // Ids keep a grammar of visible ASCII; one that a SQL writer broke is left out.
    let mut set = |name, value: &str| headers.extend(HeaderValue::from_str(value).map(|value| (name, value)));
    set(X_BUSINESS, terms.account.business.as_str());
    match &terms.account.customer {
        Some(customer) => {
            set(X_CUSTOMER, customer.as_str());
            set(X_PLAN, terms.plan_in_force.as_deref().unwrap_or("free"));
        }
        None => set(X_SCOPE, "business"),
    }
    let limits = HeaderValue::from_maybe_shared(Bytes::from(shown_limits(terms, decision)));
    headers.extend(limits.map(|limits| (X_LIMITS, limits)));
    headers.push((header::VIA, app.via.clone()));
    headers.push((X_PROXIED, HeaderValue::from_static("true")));
    headers.push((X_REQUEST_ID, wish.request_id.clone()));
    headers
}

/// `X-TrackTags-Limits`: a JSON array, one object a limit.
fn shown_limits(terms: &Terms, decision: &Decision) -> Vec<u8> {
    let mut json = Json::array(LIMITS_BYTES);
    for metric in &decision.metrics {
        let Some(entry) = terms.limits.get(metric.place) else { continue };
        for (limit, state) in entry.limits.iter().zip(&metric.limits) {
            json.item(|json| {
                json.field("metric_name", limit.metric_name.as_str());
                json.field_word("limit_period", limit.period.as_str());
                json.field_number("current_usage", state.usage);
                json.field_number("limit_value", limit.value.get());
                json.field_maybe("remaining", state.remaining);
            });
        }
    }
    json.finish()
}
