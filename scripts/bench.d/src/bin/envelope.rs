//! The bare peer: the same JSON envelope in, the same JSON answer out, and nothing between: no key, no limit, no
//! count, no policy.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the client's connections on the thread that asks for them.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async {
            future.await;
        });
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    target_url: Cow<'a, str>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    headers: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(borrow, default)]
    body: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Answer<'a> {
    status: &'static str,
    breach_status: Breach,
    forwarded_response: Forwarded<'a>,
}

/// What our server says of the account, with fixed figures, so that as many bytes go out.
#[derive(Serialize)]
struct Breach {
    is_breached: bool,
    current_usage: i64,
    limit_value: i64,
    remaining: i64,
    breach_action: &'static str,
    metric_name: &'static str,
    limit_period: &'static str,
}

#[derive(Serialize)]
struct Forwarded<'a> {
    status_code: u16,
    #[serde(serialize_with = "fields")]
    headers: &'a hyper::HeaderMap,
    body: &'a str,
    body_base64: bool,
}

fn fields<S: Serializer>(headers: &&hyper::HeaderMap, serializer: S) -> Result<S::Ok, S::Error> {
    serializer
        .collect_map(headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())))
}

fn refuse(status: StatusCode, error: impl Display) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(error.to_string())));
    *answer.status_mut() = status;
    answer
}

async fn forward(
    client: Client<HttpConnector, Full<Bytes>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
    let bad = |error: &dyn Display| refuse(StatusCode::BAD_REQUEST, error);
    let failed = |error: &dyn Display| refuse(StatusCode::BAD_GATEWAY, error);
    let body = request.into_body().collect().await.map_err(|error| bad(&error))?.to_bytes();
    let envelope: Envelope = serde_json::from_slice(&body).map_err(|error| bad(&error))?;
    let method = Method::from_bytes(envelope.method.as_deref().unwrap_or("GET").as_bytes());
    let mut out = Request::builder().method(method.map_err(|error| bad(&error))?).uri(&*envelope.target_url);
    for (name, value) in &envelope.headers {
        out = out.header(&**name, &**value);
    }
    let out = out.body(Full::new(Bytes::from(envelope.body.unwrap_or_default().into_owned())));
    let answer = client.request(out.map_err(|error| bad(&error))?).await.map_err(|error| failed(&error))?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| failed(&error))?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    let answer = Answer {
        status: "allowed",
        breach_status: Breach {
            is_breached: false,
            current_usage: 1_234,
            limit_value: 1_000_000_000,
            remaining: 999_998_766,
            breach_action: "deny",
            metric_name: "api_calls",
            limit_period: "monthly",
        },
        forwarded_response: Forwarded {
            status_code: head.status.as_u16(),
            headers: &head.headers,
            body: &text,
            body_base64: false,
        },
    };
    let json = serde_json::to_vec(&answer).map_err(|error| failed(&error))?;
    let mut answer = Response::new(Full::new(Bytes::from(json)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("x-tracktags-status"), HeaderValue::from_static("allowed"));
    Ok(answer)
}

fn main() -> std::io::Result<()> {
    tracktags_bench::serve(|| {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(Local).build(connector);
        move |request| {
            let client = client.clone();
            async move { forward(client, request).await.unwrap_or_else(|refusal| refusal) }
        }
    })
}
