//! What a handler reads of a request: path, query, and the body within its limits of size and time.
//!
//! The body is not touched before a handler asks for it, so nobody unproven makes the server read one.

use crate::app::App;
use crate::error::{ApiError, Code};
use crate::form::Form;
use crate::gather::{Gather, TooLarge};
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::{Method, header};
use actix_web::{FromRequest, HttpRequest, web};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The largest body of the API and the envelope, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 1_000_000;

static IDEMPOTENCY_KEY: header::HeaderName = header::HeaderName::from_static("idempotency-key");

/// The app behind a request.
pub(crate) fn app_of(request: &HttpRequest) -> Result<Arc<App>, ApiError> {
    let app = request.app_data::<web::Data<App>>();
    app.map(|app| Arc::clone(app)).ok_or_else(|| ApiError::internal("a route without its app"))
}

/// A path segment by its name, percent-decoded.
pub(crate) fn segment_of(request: &HttpRequest, name: &str) -> Option<String> {
    // actix has decoded all but `%` and `/`; what is left is decoded here, once. What is not UTF-8 fits no grammar.
    let raw = request.match_info().get(name)?;
    Some(without_nul(percent_decode_str(raw).decode_utf8_lossy()))
}

/// A NUL is in no name, and a database may take none: it stands as what cannot be read.
fn without_nul(text: Cow<'_, str>) -> String {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text.into_owned() }
}

/// The pairs of the query, decoded.
pub(crate) fn query_pairs(request: &HttpRequest) -> impl Iterator<Item = (String, String)> + '_ {
    url::form_urlencoded::parse(request.query_string().as_bytes())
        .map(|(name, value)| (name.into_owned(), without_nul(value)))
}

/// A value of the query by its name.
pub(crate) fn query_of(request: &HttpRequest, name: &str) -> Option<String> {
    query_pairs(request).find(|(found, _)| found == name).map(|(_, value)| value)
}

/// Refuses a body that says itself that it is too large: unread, and before anyone proves anything.
pub(crate) fn refuse_oversize(request: &HttpRequest) -> Result<(), ApiError> {
    if request.method() == Method::DELETE {
        return Ok(());
    }
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    match length.map(str::parse::<u64>) {
        Some(Ok(length)) if length <= 1_000_000 => Ok(()),
        None => Ok(()),
        Some(_) => Err(ApiError::too_large(BODY_BYTES_MAX)),
    }
}

/// A request in a handler's hands.
pub(crate) struct Input {
    pub(crate) request: HttpRequest,
    pub(crate) app: Arc<App>,
    payload: Payload,
}

impl FromRequest for Input {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;
    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        ready(app_of(request).map(|app| Self { request: request.clone(), app, payload: payload.take() }))
    }
}

impl Input {
    /// A path segment; empty where the route has none of this name.
    pub(crate) fn segment(&self, name: &str) -> String {
        segment_of(&self.request, name).unwrap_or_default()
    }

    /// A switch in the query: `true`, or `false` as if it were left out.
    pub(crate) fn query_flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.query(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::field(name, "must be true or false")),
        }
    }

    /// A value of the query.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        query_of(&self.request, name)
    }

    /// The body as a form.
    pub(crate) async fn form(&mut self) -> Result<Form, ApiError> {
        Form::parse(&self.json_body().await?)
    }

    /// The body, which must be JSON if there is one.
    pub(crate) async fn json_body(&mut self) -> Result<Bytes, ApiError> {
        let body = self.read().await?;
        if !body.is_empty() {
            self.refuse_other_media()?;
        }
        Ok(body)
    }

    /// A promise not kept is worse than none.
    pub(crate) fn refuse_idempotency_key(&self) -> Result<(), ApiError> {
        if self.request.headers().contains_key(&IDEMPOTENCY_KEY) {
            let message = "is not supported here yet; send the call without it";
            return Err(ApiError::field("Idempotency-Key", message));
        }
        Ok(())
    }

    fn refuse_other_media(&self) -> Result<(), ApiError> {
        let headers = self.request.headers();
        let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("?"));
        let is_json = text(header::CONTENT_TYPE).is_some_and(is_json);
        let is_plain =
            text(header::CONTENT_ENCODING).is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
        if is_json && is_plain {
            return Ok(());
        }
        let message =
            "Send the body as Content-Type: application/json, in UTF-8 and without Content-Encoding.";
        Err(ApiError::new(Code::UnsupportedMediaType, message))
    }

    /// Reads the body, within its limits of size and time.
    async fn read(&mut self) -> Result<Bytes, ApiError> {
        let limits = &self.app.config.server;
        let mut clock = BodyClock { idle: limits.body_idle_timeout, total: limits.body_timeout, end: None };
        let mut gather = Gather::default();
        while let Some(piece) = clock.next(&mut self.payload).await? {
            let piece = piece.map_err(|error| unreadable(&error))?;
            gather.push(piece, BODY_BYTES_MAX).map_err(|TooLarge| ApiError::too_large(BODY_BYTES_MAX))?;
        }
        Ok(gather.finish())
    }
}

fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    essence
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
                value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

fn unreadable(error: &PayloadError) -> ApiError {
    match error {
        PayloadError::Overflow => ApiError::too_large(BODY_BYTES_MAX),
        _ => ApiError::new(Code::InvalidJson, "The body ended before it was complete."),
    }
}

/// How long a body may take. Nothing is timed while its pieces are there already.
struct BodyClock {
    idle: Duration,
    total: Duration,
    end: Option<Instant>,
}

impl BodyClock {
    async fn next(&mut self, payload: &mut Payload) -> Result<Option<Result<Bytes, PayloadError>>, ApiError> {
        if let Some(ready) = payload.next().now_or_never() {
            return Ok(ready);
        }
        let now = Instant::now();
        let end = *self.end.get_or_insert(now + self.total);
        let left = end.saturating_duration_since(now).min(self.idle);
        timeout(left, payload.next()).await.map_err(|_elapsed| {
            ApiError::new(Code::RequestTimeout, "The request's body came too slowly; send it again.")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf_8_is_json() {
        for (content_type, good) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/json; charset=latin1", false),
            ("text/plain", false),
            ("application/jsonp", false),
            ("", false),
        ] {
            assert_eq!(is_json(content_type), good, "{content_type}");
        }
    }
}
