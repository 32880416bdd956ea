//! POST /api/v1/proxy: a call in a JSON envelope. Read in one pass, borrowed from the body; unknown fields are
//! ignored, but keep the rules of JSON like all others.

use super::answer::Answered;
use super::subject::{RawSubject, text};
use super::{Wish, call};
use crate::app::App;
use crate::error::ApiError;
use crate::form::Problems;
use crate::frame::X_REQUEST_ID;
use crate::identity::Caller;
use crate::json::{DEPTH_MAX, Key, Keys, Scalar, ScalarSeed, deeper, refused, whole};
use crate::request::Input;
use actix_web::http::header::VIA;
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;
use tracktags_proxy::{HeaderFault, REQUEST_FIELDS_MAX, request_headers};

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// `POST /api/v1/proxy`
pub(crate) async fn proxy(caller: Caller, mut input: Input) -> Result<HttpResponse, ApiError> {
    let app = input.app.clone();
    let wish = match wish(&mut input).await {
        Ok(wish) => wish,
        Err(refusal) => return Err(caller.refused(&app, refusal).await),
    };
    call(app, caller, wish).await.map(Answered::into_response)
}

async fn wish(input: &mut Input) -> Result<Box<Wish>, ApiError> {
    let body = input.json_body().await?;
    let wish = read(&body, &input.request, &input.app)?;
    input.refuse_idempotency_key()?;
    Ok(wish)
}

fn read(body: &Bytes, request: &HttpRequest, app: &App) -> Result<Box<Wish>, ApiError> {
    let mut wish = Box::new(parse(body)?);
    let headers = request.headers();
    wish.is_looping = headers.get_all(VIA).any(|via| names_us(via.as_bytes(), &app.via_name));
    wish.is_forwarded = headers.keys().any(|name| {
        let name = name.as_str();
        matches!(name, "via" | "forwarded") || name.starts_with("x-forwarded-")
    });
    if let Some(Ok(id)) = headers.get(&X_REQUEST_ID).map(|id| HeaderValue::from_bytes(id.as_bytes())) {
        wish.request_id = id;
    }
    Ok(wish)
}

/// Whether a `Via` field names this deployment: as a whole word, so that no other one's name is taken for ours.
fn names_us(via: &[u8], name: &str) -> bool {
    via.split(|byte| matches!(byte, b' ' | b'\t' | b',' | b'(' | b')')).any(|word| word == name.as_bytes())
}

/// The envelope as it stands in the body.
#[derive(Default)]
struct Raw<'de> {
    target_url: Option<Scalar<'de>>,
    subject: RawSubject<'de>,
    method: Option<Scalar<'de>>,
    headers: Fields<'de>,
    body: Option<Scalar<'de>>,
    body_base64: Option<Scalar<'de>>,
}

/// The `headers` field.
#[derive(Default)]
enum Fields<'de> {
    #[default]
    None,
    Some(Vec<(Cow<'de, str>, Scalar<'de>)>),
    /// More than there may be.
    TooMany,
    /// No object.
    Other,
}

struct Top;

impl<'de> Visitor<'de> for Top {
    type Value = Raw<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let room = deeper(DEPTH_MAX)?;
        let mut raw = Raw::default();
        let mut keys = Keys::default();
        let mut ignored = None;
        while let Some(key) = fields.next_key_seed(Key)? {
            let slot = match &*key {
                "target_url" => &mut raw.target_url,
                "method" => &mut raw.method,
                "body" => &mut raw.body,
                "body_base64" => &mut raw.body_base64,
                "headers" => {
                    keys.note(key)?;
                    raw.headers = fields.next_value_seed(FieldsSeed(room))?;
                    continue;
                }
                name => raw.subject.slot(name).unwrap_or(&mut ignored),
            };
            keys.note(key)?;
            *slot = Some(fields.next_value_seed(ScalarSeed(room))?);
        }
        Ok(raw)
    }
}

struct FieldsSeed(u8);

impl<'de> DeserializeSeed<'de> for FieldsSeed {
    type Value = Fields<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed {
    type Value = Fields<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of headers")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Fields::None)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Fields::Other)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Fields::Other)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Fields::Other)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Fields::Other)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Fields::Other)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        ScalarSeed(self.0).visit_seq(items).map(|_| Fields::Other)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let room = deeper(self.0)?;
        let mut keys = Keys::default();
        let mut found = Vec::new();
        let mut too_many = false;
        while let Some(key) = fields.next_key_seed(Key)? {
            keys.note(key.clone())?;
            let value = fields.next_value_seed(ScalarSeed(room))?;
            too_many |= found.len() == REQUEST_FIELDS_MAX;
            if !too_many {
                found.push((key, value));
            }
        }
        Ok(if too_many { Fields::TooMany } else { Fields::Some(found) })
    }
}

/// Reads an envelope.
pub(crate) fn parse(body: &Bytes) -> Result<Wish, ApiError> {
    if body.is_empty() {
        return Err(ApiError::field("target_url", "is required"));
    }
    // `units` is the only number that means anything here.
    let raw = whole(body, |reader| reader.deserialize_map(Top)).map_err(|error| refused(&error, "units"))?;
    let mut problems = Problems::default();
    if matches!(raw.target_url, None | Some(Scalar::Null)) {
        problems.note("target_url", "is required");
    }
    let target_url = text(&mut problems, "target_url", raw.target_url).map(Cow::into_owned);
    let subject = raw.subject.read(&mut problems, 1);
    let method = method(&mut problems, raw.method);
    let headers = headers(&mut problems, raw.headers);
    let body = sent_body(&mut problems, body, raw.body, raw.body_base64);
    problems.finish()?;
    Ok(Wish {
        target_url: target_url.unwrap_or_default(),
        subject,
        method,
        headers,
        body,
        is_looping: false,
        is_forwarded: false,
        request_id: HeaderValue::from_static("0"),
    })
}

fn method(problems: &mut Problems, value: Option<Scalar<'_>>) -> Method {
    let found = match value {
        None | Some(Scalar::Null) => Some(&Method::GET),
        Some(Scalar::Text(word)) => METHODS.iter().find(|method| method.as_str().eq_ignore_ascii_case(&word)),
        Some(_) => None,
    };
    found.cloned().unwrap_or_else(|| {
        problems.note("method", "must be one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        Method::GET
    })
}

fn headers(problems: &mut Problems, fields: Fields<'_>) -> HeaderMap {
    let fields = match fields {
        Fields::None => return HeaderMap::new(),
        Fields::Some(fields) => fields,
        Fields::TooMany => {
            problems.note("headers", HeaderFault::TooMany.to_string());
            return HeaderMap::new();
        }
        Fields::Other => {
            problems.note("headers", "must be an object whose values are strings");
            return HeaderMap::new();
        }
    };
    let pairs = fields.iter().map(|(name, value)| match value {
        Scalar::Text(value) => Some((&**name, &**value)),
        _ => None,
    });
    let Some(pairs) = pairs.collect::<Option<SmallVec<[_; 8]>>>() else {
        problems.note("headers", "must be an object whose values are strings");
        return HeaderMap::new();
    };
    request_headers(pairs.into_iter()).unwrap_or_else(|fault| {
        problems.note("headers", fault.to_string());
        HeaderMap::new()
    })
}

fn sent_body(
    problems: &mut Problems,
    whole: &Bytes,
    body: Option<Scalar<'_>>,
    is_base64: Option<Scalar<'_>>,
) -> Option<Bytes> {
    let is_base64 = match is_base64 {
        None | Some(Scalar::Null | Scalar::Bool(false)) => false,
        Some(Scalar::Bool(true)) => true,
        Some(_) => {
            problems.note("body_base64", "must be true or false");
            false
        }
    };
    let text = match body {
        None | Some(Scalar::Null) => return None,
        Some(Scalar::Text(text)) => text,
        Some(_) => {
            problems.note("body", "must be a string or null; send JSON as a string that holds it");
            return None;
        }
    };
    if is_base64 {
        return STANDARD
            .decode(text.as_bytes())
            .map(Bytes::from)
            .map_err(|_unreadable| problems.note("body", "is not base64 (RFC 4648, with padding)"))
            .ok();
    }
    Some(match text {
        // Without escapes it stands in the request's body as it is: no copy.
        Cow::Borrowed(text) => whole.slice_ref(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use tracktags_core::accounts::Scope;

    fn parsed(body: &str) -> Result<Wish, ApiError> {
        parse(&Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn the_guides_envelope_is_read_stray_field_and_all() {
        let wish = parsed(
            r#"{"scope":"customer","customer_id":"customer_123","warning":"Save this key securely.",
            "metric_name":"api_calls","target_url":"https://your-api.com/endpoint","method":"POST",
            "headers":{"Content-Type":"application/json"},"body":"{\"data\": \"customer request\"}"}"#,
        )
        .unwrap();
        assert_eq!(wish.subject.scope, Some(Scope::Customer));
        assert_eq!(wish.subject.customer_id.as_deref(), Some("customer_123"));
        assert_eq!((wish.method, wish.subject.units.get()), (Method::POST, 1));
        assert_eq!(wish.body.as_deref(), Some(&br#"{"data": "customer request"}"#[..]));
        assert_eq!(wish.headers.len(), 1);
    }

    #[test]
    fn null_means_absent_and_methods_come_in_any_case() {
        let wish = parsed(
            r#"{"target_url":"http://a","metric_name":null,"scope":null,"customer_id":null,"method":"pAtCh",
            "headers":null,"body":null,"body_base64":null,"units":null}"#,
        )
        .unwrap();
        assert_eq!((wish.method, wish.subject.units.get()), (Method::PATCH, 1));
        assert!(
            wish.subject.metric_name.is_empty() && wish.body.is_none() && wish.subject.customer_id.is_none()
        );
        let binary =
            parsed(r#"{"target_url":"http://a","body":"AP8=","body_base64":true,"units":3.0}"#).unwrap();
        assert_eq!(binary.body.as_deref(), Some(&[0, 255][..]));
        assert_eq!(binary.subject.units.get(), 3);
    }

    #[test]
    fn bad_envelopes_are_refused_with_their_code() {
        let long = format!(r#"{{"target_url":"http://a","headers":{{"x":"{}"}}}}"#, "v".repeat(32 * 1024));
        let many: Vec<_> = (0..65).map(|n| format!("\"x{n}\":\"\"")).collect();
        let many = format!(r#"{{"target_url":"http://a","headers":{{{}}}}}"#, many.join(","));
        let deep = format!(r#"{{"target_url":"http://a","x":{}{}}}"#, "[".repeat(128), "]".repeat(128));
        for (body, code) in [
            ("", Code::ValidationFailed),
            ("{}", Code::ValidationFailed),
            ("[]", Code::InvalidJson),
            (r#"{"target_url":7}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","method":"TRACE"}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","scope":"Customer"}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","units":0}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","units":-1}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","units":"1"}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","units":1e309}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","units":1.5}"#, Code::NotIntegral),
            (r#"{"target_url":"http://a","headers":[]}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","headers":{"a b":"x"}}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","headers":{"a":"x\r\ny"}}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","headers":{"a":1}}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","body":{}}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","body":"?","body_base64":true}"#, Code::ValidationFailed),
            (r#"{"target_url":"http://a","target_url":"http://b"}"#, Code::InvalidJson),
            (r#"{"target_url":"http://a","x":{"y":1,"y":1}}"#, Code::InvalidJson),
            (r#"{"target_url":"http://a","x":"\ud800"}"#, Code::InvalidJson),
            (r#"{"target_url":"http://a","headers":{"a":"1","a":"2"}}"#, Code::InvalidJson),
            (&long, Code::ValidationFailed),
            (&many, Code::ValidationFailed),
            (&deep, Code::InvalidJson),
        ] {
            let refusal = parsed(body).err().map(|error| error.code());
            assert_eq!(refusal, Some(code), "{}", body.get(..80.min(body.len())).unwrap_or_default());
        }
    }

    #[test]
    fn only_our_own_name_in_via_is_a_loop() {
        assert!(names_us(b"1.1 tracktags-ab12", "tracktags-ab12"));
        assert!(names_us(b"1.0 fred, 1.1 tracktags-ab12 (x)", "tracktags-ab12"));
        assert!(!names_us(b"1.1 tracktags-ab123", "tracktags-ab12"));
        assert!(!names_us(b"1.1 tracktags-cd34", "tracktags-ab12"));
    }
}
