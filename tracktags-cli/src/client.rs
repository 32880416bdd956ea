//! The client of our own API: awc, on a runtime of its own. Keeps the API's error code and its answer as it came.
//!
//! awc serves peers we trust only; towards our own server its framing is good enough. It follows no redirect, so a
//! key is sent to the configured address and nowhere else.

use crate::Failure;
use crate::args::{Connection, Secret};
use crate::commands::{Call, Who};
use awc::http::{Uri, header};
use awc::{Connector, error::PayloadError};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use tracktags_core::BusinessId;

/// To connect, name look-up and TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until the head of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Until the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer: 500 customers with 4 KiB of metadata each, and room.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What the API said.
#[derive(Debug)]
pub(crate) struct Answer {
    /// As it came.
    pub(crate) text: String,
    /// As JSON.
    pub(crate) value: Value,
}

/// A refusal of the API: its own code and message.
#[derive(Debug, Deserialize)]
#[serde(from = "Told")]
pub(crate) struct Refusal {
    /// A code of the API.
    pub(crate) code: String,
    /// What happened and what to do.
    pub(crate) message: String,
    /// What is wrong with single fields.
    pub(crate) details: Vec<Detail>,
}

/// A refusal as it comes. A denial has no message, but may say when to come again.
#[derive(Deserialize)]
struct Told {
    code: String,
    error: String,
    message: Option<String>,
    retry_after: Option<u64>,
    #[serde(default)]
    details: Vec<Detail>,
}

impl From<Told> for Refusal {
    fn from(told: Told) -> Self {
        let Told { code, error, message, retry_after, details } = told;
        let message = message.unwrap_or_else(|| match retry_after {
            Some(seconds) => format!("{error}; try again in {seconds} s"),
            None => error,
        });
        Self { code, message, details }
    }
}

/// What is wrong with one field.
#[derive(Debug, Deserialize)]
pub(crate) struct Detail {
    pub(crate) field: String,
    pub(crate) message: String,
}

/// Makes a call and waits for its answer.
pub(crate) fn send(connection: &Connection, call: &Call) -> Result<Answer, Failure> {
    let prepared = Prepared::new(connection, call)?;
    // awc takes the process's provider of TLS. Where one is installed already, as in a test's process, it stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // awc's tasks are not `Send`: they run on this thread, in actix's runtime.
    actix_web::rt::System::new().block_on(prepared.send())
}

/// A call with everything that it needs of the configuration.
struct Prepared<'a> {
    server: &'a str,
    url: String,
    key: Header,
    call: &'a Call,
}

impl<'a> Prepared<'a> {
    fn new(connection: &'a Connection, call: &'a Call) -> Result<Self, Failure> {
        let server = server(&connection.url)?;
        let (key, business) = credentials(connection, call.who)?;
        Ok(Self { server, url: format!("{server}{}", call.target(business)), key, call })
    }

    async fn send(self) -> Result<Answer, Failure> {
        let unreachable = |reason: String| Failure::Unreachable { url: self.server.to_owned(), reason };
        let connector = Connector::new().timeout(CONNECT_TIMEOUT).handshake_timeout(CONNECT_TIMEOUT);
        let client = awc::Client::builder()
            .connector(connector)
            .timeout(ANSWER_TIMEOUT)
            .disable_redirects()
            .add_default_header((header::USER_AGENT, concat!("tracktags-cli/", env!("CARGO_PKG_VERSION"))))
            .finish();
        let request = client.request(self.call.method.clone(), &self.url).insert_header(self.key);
        let sent = match &self.call.body {
            Some(body) => request.send_json(body).await,
            None => request.send().await,
        };
        let mut response = sent.map_err(|error| unreachable(error.to_string()))?.timeout(BODY_TIMEOUT);
        let status = response.status();
        let body = response.body().limit(ANSWER_BYTES_MAX).await;
        let body = body.map_err(|error: PayloadError| unreachable(error.to_string()))?;
        let unexpected = || Failure::Unexpected { url: self.server.to_owned(), status: status.as_u16() };
        let text = String::from_utf8(body.to_vec()).map_err(|_binary| unexpected())?;
        if status.is_success() {
            let value = serde_json::from_str(&text).map_err(|_no_json| unexpected())?;
            return Ok(Answer { text, value });
        }
        let refusal = serde_json::from_str(&text).map_err(|_no_json| unexpected())?;
        Err(Failure::Refused(refusal))
    }
}

/// The server's address without a slash at its end.
fn server(url: &str) -> Result<&str, Failure> {
    let good = url.parse::<Uri>().is_ok_and(|uri| {
        let userinfo = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let host = uri.host().is_some_and(|host| !host.is_empty());
        matches!(uri.scheme_str(), Some("http" | "https")) && host && !userinfo && uri.query().is_none()
    });
    if good && !url.contains('#') {
        Ok(url.trim_end_matches('/'))
    } else {
        Err(Failure::Configuration(
            "TRACKTAGS_URL (--url) must be an http or https URL, such as https://tracktags.example.com"
                .to_owned(),
        ))
    }
}

type Header = (header::HeaderName, header::HeaderValue);

/// The key to send, and the business to name with it.
fn credentials(connection: &Connection, who: Who) -> Result<(Header, Option<&str>), Failure> {
    let given = |key: &Option<Secret>| key.clone().filter(|key| !key.expose().is_empty());
    let (business_key, admin_key) = (given(&connection.key), given(&connection.admin_key));
    let business = connection.business.as_ref().map(BusinessId::as_str);
    let missing = |text: &str| Err(Failure::Configuration(text.to_owned()));
    match (who, business_key, admin_key) {
        (Who::Admin | Who::Either, _, Some(key)) => Ok((admin_header(&key)?, None)),
        (Who::Business, _, Some(key)) if business.is_some() => Ok((admin_header(&key)?, business)),
        (Who::Either, Some(key), None) => Ok((business_header(&key)?, None)),
        (Who::Business, Some(key), _) => Ok((business_header(&key)?, business)),
        (Who::Admin, _, None) => missing("this needs the platform admin's key: set TRACKTAGS_ADMIN_KEY"),
        (Who::Business, None, Some(_)) => {
            missing("name the business to act for with --business, or set TRACKTAGS_KEY to a key of its own")
        }
        (Who::Business | Who::Either, None, None) => missing(
            "no key: set TRACKTAGS_KEY to a business's key, or TRACKTAGS_ADMIN_KEY and give --business",
        ),
    }
}

fn admin_header(key: &Secret) -> Result<Header, Failure> {
    let name = header::HeaderName::from_static("x-admin-key");
    Ok((name, header_value(key.expose(), "TRACKTAGS_ADMIN_KEY (--admin-key)")?))
}

fn business_header(key: &Secret) -> Result<Header, Failure> {
    let value = header_value(&format!("Bearer {}", key.expose()), "TRACKTAGS_KEY (--key)")?;
    Ok((header::AUTHORIZATION, value))
}

fn header_value(text: &str, name: &str) -> Result<header::HeaderValue, Failure> {
    // The key itself is not told.
    let value = header::HeaderValue::from_str(text);
    let mut value =
        value.map_err(|_unsendable| Failure::Configuration(format!("{name} holds what no key does")))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_http_urls_name_a_server() {
        assert_eq!(server("http://127.0.0.1:8080/").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(server("https://example.com/tracktags").unwrap(), "https://example.com/tracktags");
        for bad in
            ["", "localhost:8080", "ftp://x", "http://", "http://a@b", "http://x?y", "http://x/#z", "/x"]
        {
            assert!(matches!(server(bad), Err(Failure::Configuration(_))), "{bad}");
        }
    }
}
