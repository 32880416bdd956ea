//! What every answer carries, whatever it says: request id, caching, key expiry, and the word for the data plane.
//!
//! Here too: the check of a head's size, and the one line that logs the cause of a fault of ours.

use crate::app::App;
use crate::error::ApiError;
use crate::identity::KeyExpires;
use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{Error, HttpMessage, HttpResponse, web};
use std::future::Future;
pub(crate) use tracktags_core::error::chain;

pub(crate) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) static X_STATUS: HeaderName = HeaderName::from_static("x-tracktags-status");
static X_KEY_EXPIRES: HeaderName = HeaderName::from_static("x-tracktags-key-expires");

const REQUEST_ID_BYTES_MAX: usize = 128;
/// What the data plane says of a call it did not refuse otherwise.
const DECISIONS: [&str; 3] = ["allowed", "denied", "failed"];
const DATA_PLANE: &[&str] = &["/api/v1/proxy", "/api/v1/check", "/api/v1/track"];

/// The id of a request: the caller's own where it is acceptable, else one that is put in its place.
fn identify(request: &mut ServiceRequest) -> HeaderValue {
    let headers = request.headers_mut();
    if let Some(sent) = headers.get(&X_REQUEST_ID).filter(|id| is_request_id(id.as_bytes())) {
        return sent.clone();
    }
    let made = made_id();
    headers.insert(X_REQUEST_ID.clone(), made.clone());
    made
}

fn is_request_id(id: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(fits)
}

fn made_id() -> HeaderValue {
    let digit = |half: u8| if half < 10 { b'0' + half } else { b'a' + half - 10 };
    let id = rand::random::<[u8; 16]>().map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    // Hex digits are always a header value.
    HeaderValue::from_bytes(id.as_flattened()).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// Frames every answer of an application.
pub(crate) fn frame<S, B>(
    mut request: ServiceRequest,
    service: &S,
) -> impl Future<Output = Result<ServiceResponse<EitherBody<B, BoxBody>>, Error>> + use<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    let app = request.app_data::<web::Data<App>>().cloned();
    let head_bytes_max = app.as_ref().map_or(usize::MAX, |app| app.config.server.head_bytes_max);
    let is_too_large = head_bytes(&request) > head_bytes_max;
    let id = identify(&mut request);
    let inner = if is_too_large {
        Err(request.into_response(HttpResponse::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)))
    } else {
        Ok(service.call(request))
    };
    async move {
        let mut response = match inner {
            Ok(answered) => answered.await?.map_into_left_body(),
            Err(too_large) => {
                let mut response = too_large.map_into_right_body();
                response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
                response
            }
        };
        let (plane, decision) = finish(&mut response, &id);
        if let Some(app) = &app {
            app.meters.note_answer(&response, plane, decision);
        }
        if app.is_some_and(|app| app.is_draining()) {
            response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
        Ok(response)
    }
}

/// The size of a request's head after parsing.
fn head_bytes(request: &ServiceRequest) -> usize {
    let uri = request.uri();
    let line = uri.path().len().saturating_add(uri.query().map_or(0, str::len));
    let fields =
        request.headers().iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()));
    fields.fold(line, |sum, field| sum.saturating_add(field).saturating_add(4))
}

/// Completes the head. Hands back the route where it is one of the data plane, and the word for what it decided.
fn finish<B>(response: &mut ServiceResponse<B>, id: &HeaderValue) -> (Option<&'static str>, &'static str) {
    log_fault(response, id);
    let path = response.request().path();
    let is_api = path.starts_with("/api") || path.starts_with("/admin");
    let plane = DATA_PLANE.iter().copied().find(|route| *route == path);
    let expires = response.request().extensions().get::<KeyExpires>().copied();
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID.clone(), id.clone());
    if is_api {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let mut decision = "";
    if plane.is_some() {
        let said = headers.get(&X_STATUS).map(HeaderValue::as_bytes);
        let word = DECISIONS.into_iter().find(|word| said == Some(word.as_bytes()));
        decision = word.unwrap_or("error");
        if said.is_none() {
            headers.insert(X_STATUS.clone(), HeaderValue::from_static("error"));
        }
    }
    if let Some(Ok(expires)) = expires.map(|KeyExpires(at)| HeaderValue::from_str(&at.to_string())) {
        headers.insert(X_KEY_EXPIRES.clone(), expires);
    }
    (plane, decision)
}

/// Logs, once, what a 5xx came from. It is never sent.
fn log_fault<B>(response: &ServiceResponse<B>, id: &HeaderValue) {
    let Some(error) = response.response().error() else { return };
    let request_id = id.to_str().unwrap_or_default();
    match error.as_error::<ApiError>() {
        Some(error) => {
            if let Some(cause) = error.cause() {
                tracing::error!(request_id, code = %error, cause = %chain(cause.as_ref()), "a request failed");
            }
        }
        None => tracing::error!(request_id, %error, "a request failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_taken_only_when_it_is_harmless() {
        assert!(is_request_id(b"a-B_9."));
        assert!(is_request_id(&[b'a'; 128]));
        for bad in [&b""[..], b"a b", b"a\"b", &[b'a'; 129], "é".as_bytes()] {
            assert!(!is_request_id(bad));
        }
        assert!(is_request_id(made_id().as_bytes()));
    }
}
