//! What a call's answer says: `breach_status`, `limits`, the rate-limit headers, and the target's answer.

use super::forward::Forwarded;
use super::standing::{Standing, Values};
use super::writer::Json;
use super::{invalid_target, upstream_blocked};
use crate::error::ApiError;
use crate::frame::X_STATUS;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use tracktags_core::accounts::CustomerId;
use tracktags_core::decide::Decision;
use tracktags_core::error::UpstreamError;
use tracktags_core::limits::Terms;
use tracktags_core::metrics::Units;

/// Room for an answer besides its body.
const FRAME_BYTES: usize = 1_024;

/// A call that was decided: allowed, denied, or failed at its target.
pub(crate) struct Answered {
    status: StatusCode,
    word: &'static str,
    values: Values,
    retry_after_seconds: Option<i64>,
    body: Vec<u8>,
}

impl Answered {
    /// A limit refused.
    pub(crate) fn denied(terms: &Terms, decision: &Decision) -> Self {
        let standing = Standing::of(terms, decision);
        let mut json = Json::new(FRAME_BYTES);
        json.field_word("status", "denied");
        standing.write(&mut json);
        json.field_word("error", "Plan limit exceeded");
        json.field_word("code", "limit_exceeded");
        if let Some(seconds) = decision.retry_after_seconds {
            json.field_number("retry_after", seconds);
        }
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            word: "denied",
            values: standing.headers(),
            retry_after_seconds: decision.retry_after_seconds,
            body: json.finish(),
        }
    }

    /// Nothing was taken, only asked.
    pub(crate) fn checked(terms: &Terms, decision: &Decision, units: Units) -> Self {
        let standing = Standing::of(terms, decision);
        let mut json = Json::new(FRAME_BYTES);
        let word = if decision.admitted { "allowed" } else { "denied" };
        json.field_flag("allowed", decision.admitted);
        json.field_word("status", word);
        json.field_number("units", units.get());
        standing.write(&mut json);
        if let Some(seconds) = decision.retry_after_seconds {
            json.field_number("retry_after", seconds);
        }
        Self {
            status: StatusCode::OK,
            word,
            values: standing.headers(),
            retry_after_seconds: None,
            body: json.finish(),
        }
    }

    /// Units were counted for good.
    pub(crate) fn tracked(terms: &Terms, decision: &Decision, metric_name: &str, units: Units) -> Self {
        let standing = Standing::of(terms, decision);
        let mut json = Json::new(FRAME_BYTES);
        json.field_word("status", "allowed");
        json.field("metric_name", metric_name);
        json.field("customer_id", &terms.account.customer.as_ref().map(CustomerId::as_str));
        json.field_number("units", units.get());
        standing.write(&mut json);
        Self {
            status: StatusCode::OK,
            word: "allowed",
            values: standing.headers(),
            retry_after_seconds: None,
            body: json.finish(),
        }
    }

    /// The call was sent, or was to be; `decision` is less what was released.
    ///
    /// # Errors
    /// The target turned out to be one that may not be reached; its units were released.
    pub(crate) fn forwarded(
        terms: &Terms,
        decision: &Decision,
        forwarded: Forwarded,
        release_pending: bool,
    ) -> Result<Self, ApiError> {
        let standing = Standing::of(terms, decision);
        let (status, word, body) = match forwarded {
            Forwarded::Answer { status, headers, body } => {
                let body = allowed(&standing, status, &headers, &body, release_pending);
                (StatusCode::OK, "allowed", body)
            }
            Forwarded::Failure { error: UpstreamError::Blocked, .. } => return Err(upstream_blocked()),
            Forwarded::Failure { error: UpstreamError::InvalidTarget(reason), .. } => {
                return Err(invalid_target(reason));
            }
            Forwarded::Failure { error, .. } => {
                let (status, code) = failure(&error);
                (status, "failed", failed(&standing, &error, code, release_pending))
            }
        };
        Ok(Self { status, word, values: standing.headers(), retry_after_seconds: None, body })
    }

    /// The HTTP answer.
    pub(crate) fn into_response(self) -> HttpResponse {
        let mut response =
            HttpResponse::new(self.status).set_body(Bytes::from(self.body)).map_into_boxed_body();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_STATUS.clone(), HeaderValue::from_static(self.word));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        self.values.insert_into(headers);
        response
    }
}

fn allowed(
    standing: &Standing<'_>,
    status: http::StatusCode,
    headers: &HeaderMap,
    body: &Bytes,
    release_pending: bool,
) -> Vec<u8> {
    let mut json = Json::new(FRAME_BYTES.saturating_add(body.len()));
    json.field_word("status", "allowed");
    standing.write(&mut json);
    if release_pending {
        json.field_flag("release_pending", true);
    }
    let text = std::str::from_utf8(body);
    json.object("forwarded_response", |json| {
        json.field_number("status_code", status.as_u16().into());
        json.object("headers", |json| {
            for name in headers.keys() {
                json.key(name.as_str());
                write_values(json, headers.get_all(name).iter().map(http::HeaderValue::as_bytes));
            }
        });
        match text {
            Ok(text) => json.field("body", text),
            Err(_) => json.field("body", &STANDARD.encode(body)),
        }
        json.field_flag("body_base64", text.is_err());
    });
    json.finish()
}

/// The values of one header: a string, or an array where the name repeats.
fn write_values<'a>(json: &mut Json, mut values: impl Iterator<Item = &'a [u8]>) {
    let (first, second) = (values.next().unwrap_or_default(), values.next());
    let Some(second) = second else { return json.value(&*header_text(first)) };
    let all: Vec<_> = [first, second].into_iter().chain(values).map(header_text).collect();
    json.value(&all);
}

/// A header's value as text. What is not UTF-8 is read as Latin-1, as HTTP had it.
fn header_text(value: &[u8]) -> std::borrow::Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => value.iter().copied().map(char::from).collect::<String>().into(),
    }
}

fn failed(
    standing: &Standing<'_>,
    error: &UpstreamError,
    code: &'static str,
    release_pending: bool,
) -> Vec<u8> {
    let mut json = Json::new(FRAME_BYTES);
    json.field_word("status", "failed");
    json.field_word("error", "Upstream Failed");
    // The error's own words name no address; what it came from stays with us.
    json.field(
        "message",
        &format!("The call failed: {error}. Try again, or see whether the target is well."),
    );
    json.field_word("code", code);
    standing.write(&mut json);
    if release_pending {
        json.field_flag("release_pending", true);
    }
    json.finish()
}

/// Status and code of a failure at the target.
fn failure(error: &UpstreamError) -> (StatusCode, &'static str) {
    match error {
        UpstreamError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout"),
        UpstreamError::Protocol(_) => (StatusCode::BAD_GATEWAY, "upstream_invalid_response"),
        UpstreamError::Truncated(_) => (StatusCode::BAD_GATEWAY, "upstream_incomplete"),
        UpstreamError::TooLarge { .. } => (StatusCode::BAD_GATEWAY, "response_too_large"),
        _ => (StatusCode::BAD_GATEWAY, "upstream_unreachable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::SmallVec;
    use std::sync::Arc;
    use tracktags_core::accounts::{Account, BusinessId, MetricName};
    use tracktags_core::batch::Outcome;
    use tracktags_core::demand::{Demand, Operation};
    use tracktags_core::limits::Limit;
    use tracktags_core::memory::MemoryLedger;
    use tracktags_core::metrics::Units;
    use tracktags_core::time::Timestamp;
    use tracktags_core::windows::Period;

    fn terms(limits: &[(i64, Period)]) -> Arc<Terms> {
        let account = Account::business(BusinessId::parse("biz_1").unwrap());
        let name = MetricName::parse("api_calls").unwrap();
        let limits = limits
            .iter()
            .map(|(value, period)| Limit::new(name.clone(), Units::new(*value).unwrap(), *period));
        Arc::new(Terms::new(account, limits))
    }

    fn decided(terms: &Arc<Terms>, units: i64) -> Decision {
        let demand = Demand::new(Arc::clone(terms), 0, Units::new(units).unwrap());
        match MemoryLedger::new().apply(Timestamp::from_seconds(1_767_222_000), Operation::Take(demand)) {
            Outcome::Decided(decision) => decision,
            other => panic!("{other:?}"),
        }
    }

    fn header<'a>(response: &'a HttpResponse, name: &str) -> Option<&'a str> {
        response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    fn json(answered: &Answered) -> serde_json::Value {
        serde_json::from_slice(&answered.body).unwrap()
    }

    #[test]
    fn an_allowed_call_shows_the_tightest_limit_and_the_targets_answer() {
        let terms = terms(&[(1_000, Period::Monthly), (5, Period::Realtime)]);
        let decision = decided(&terms, 1);
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", "a=1".parse().unwrap());
        headers.append("set-cookie", "b=2".parse().unwrap());
        headers.append("x-one", "1".parse().unwrap());
        let body = Bytes::from_static(b"\xff\"");
        let forwarded = Forwarded::Answer { status: http::StatusCode::OK, headers, body };
        let answered = Answered::forwarded(&terms, &decision, forwarded, false).unwrap();
        let shown = json(&answered);
        assert_eq!(shown["breach_status"]["limit_period"], "realtime");
        assert_eq!(shown["limits"][0]["remaining"], 999);
        assert_eq!(shown["forwarded_response"]["headers"]["set-cookie"], serde_json::json!(["a=1", "b=2"]));
        assert_eq!(shown["forwarded_response"]["headers"]["x-one"], "1");
        assert_eq!(shown["forwarded_response"]["body"], "/yI=");
        assert_eq!(shown["forwarded_response"]["body_base64"], true);
        let response = answered.into_response();
        assert_eq!(header(&response, "x-tracktags-status"), Some("allowed"));
        assert_eq!(header(&response, "x-ratelimit-remaining"), Some("4"));
        assert_eq!(header(&response, "x-ratelimit-reset"), None);
        let policy = "\"api_calls-monthly\";q=1000;w=2678400, \"api_calls-realtime\";q=5";
        assert_eq!(header(&response, "ratelimit-policy"), Some(policy));
        let state = "\"api_calls-monthly\";r=999;t=3600, \"api_calls-realtime\";r=4";
        assert_eq!(header(&response, "ratelimit"), Some(state));
    }

    #[test]
    fn a_denied_call_says_when_it_could_pass() {
        let terms = terms(&[(3, Period::Monthly)]);
        let answered = Answered::denied(&terms, &decided(&terms, 0));
        assert!(json(&answered).get("retry_after").is_none());
        let full = terms_of_zero();
        let answered = Answered::denied(&full, &decided(&full, 1));
        let shown = json(&answered);
        assert_eq!(shown["status"], "denied");
        assert_eq!(shown["error"], "Plan limit exceeded");
        assert_eq!(shown["breach_status"]["is_breached"], true);
        let response = answered.into_response();
        assert_eq!(response.status(), 429);
    }

    fn terms_of_zero() -> Arc<Terms> {
        terms(&[(0, Period::Monthly)])
    }

    #[test]
    fn without_limits_the_value_is_shown_alone() {
        let account = Account::business(BusinessId::parse("biz_1").unwrap());
        let terms = Arc::new(Terms::new(account, []));
        let decision = Decision {
            admitted: true,
            version: 7,
            at: Timestamp::from_seconds(0),
            metrics: SmallVec::new(),
            denied_by: None,
            retry_after_seconds: None,
            taken: None,
        };
        let failed = Forwarded::Failure { status: None, error: UpstreamError::Closed("gone".into()) };
        let answered = Answered::forwarded(&terms, &decision, failed, true).unwrap();
        let shown = json(&answered);
        assert_eq!(shown["code"], "upstream_unreachable");
        assert_eq!(shown["release_pending"], true);
        assert_eq!(shown["limits"], serde_json::json!([]));
        let status = serde_json::json!(
            {"is_breached": false, "current_usage": 0, "limit_value": null, "remaining": null}
        );
        assert_eq!(shown["breach_status"], status);
        let response = answered.into_response();
        assert_eq!(response.status(), 502);
        assert_eq!(header(&response, "x-tracktags-config-version"), Some("7"));
        assert_eq!(header(&response, "ratelimit"), None);
    }
}
