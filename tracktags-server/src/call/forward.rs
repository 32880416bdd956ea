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
/// Room for the values of ours, with two limits.
const OURS_BYTES: usize = 512;

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
    /// What went wrong, if anything did.
    pub(super) const fn error(&self) -> Option<&UpstreamError> {
        match self {
            Self::Answer { .. } => None,
            Self::Failure { error, .. } => Some(error),
        }
    }

    /// Whether the target turned out to be one that nobody may reach.
    pub(super) const fn is_blocked(&self) -> bool {
        matches!(self.error(), Some(UpstreamError::Blocked))
    }

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
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match collect(response.body, length.unwrap_or(0), app.config.proxy.answer_bytes_max).await {
        Ok(body) => Forwarded::Answer { status, headers, body },
        Err(error) => Forwarded::Failure { status: Some(status), error },
    }
}

/// Reads a body to its end, up to `bytes_max`. The way out keeps the time.
async fn collect(mut body: ByteStream, length: usize, bytes_max: u64) -> Result<Bytes, UpstreamError> {
    let cap = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut gather = Gather::expecting(length);
    while let Some(piece) = body.next().await {
        gather.push(piece?, cap).map_err(|TooLarge| UpstreamError::TooLarge { bytes_max })?;
    }
    Ok(gather.finish())
}

/// The headers we add; they win over the caller's.
fn our_headers(app: &App, terms: &Terms, decision: &Decision, wish: &Wish) -> Vec<(HeaderName, HeaderValue)> {
    // All values that differ from call to call stand in one buffer.
    let account = &terms.account;
    let (whose, name) = match &account.customer {
        Some(customer) => (customer.as_str(), X_CUSTOMER),
        None => ("business", X_SCOPE),
    };
    let plan = account.customer.as_ref().map(|_| terms.plan_in_force.as_deref().unwrap_or("free"));
    let mut text = Vec::with_capacity(OURS_BYTES);
    let mut ends = [0; 3];
    for (part, end) in [account.business.as_str(), whose, plan.unwrap_or_default()].iter().zip(&mut ends) {
        text.extend_from_slice(part.as_bytes());
        *end = text.len();
    }
    let text = Bytes::from(shown_limits(terms, decision, text));
    let mut headers = Vec::with_capacity(OURS);
    let mut start = 0;
    let mut set = |name, end| {
        // Ids keep a grammar of visible ASCII; one that a SQL writer broke is left out.
        let value = HeaderValue::from_maybe_shared(text.slice(start..end));
        headers.extend(value.map(|value| (name, value)));
        start = end;
    };
    let [business, whose, of_plan] = ends;
    set(X_BUSINESS, business);
    set(name, whose);
    if plan.is_some() {
        set(X_PLAN, of_plan);
    }
    set(X_LIMITS, text.len());
    headers.push((header::VIA, app.via.clone()));
    headers.push((X_PROXIED, HeaderValue::from_static("true")));
    headers.push((X_REQUEST_ID, wish.request_id.clone()));
    headers
}

/// `X-TrackTags-Limits`: a JSON array, one object a limit; written after what stands in the buffer.
fn shown_limits(terms: &Terms, decision: &Decision, after: Vec<u8>) -> Vec<u8> {
    let mut json = Json::array_after(after);
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
