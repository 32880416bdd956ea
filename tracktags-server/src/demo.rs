//! `--demo`: a server to try in a minute. A database that goes when it ends, a business with a customer, keys and a
//! small limit, and an upstream of its own that sends back what it got.

use crate::app::DemoKey;
use crate::config::{Config, ConfigError, Secret};
use crate::{Extras, ServeError, announce, open, serve_opened};
use actix_web::dev::{Server, ServerHandle};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::json;
use std::future::Future;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use tracktags_core::accounts::{BusinessId, CustomerId, MetricName};
use tracktags_core::audit::Author;
use tracktags_core::error::{Cause, StoreError};
use tracktags_core::keys::Scopes;
use tracktags_core::limits::{Action, Attachment, Operator};
use tracktags_core::metrics::Units;
use tracktags_core::traits::{KeyOwner, NewBusiness, NewKey, NewLimit, Store};
use tracktags_core::upstreams::TargetClass;
use tracktags_core::windows::Period;

/// The keys printed in the guide: placeholders that only a demo knows, for its own business.
const GUIDE_BUSINESS_KEY: &str = "tk_live_your_business_key";
const GUIDE_CUSTOMER_KEY: &str = "ck_live_customer_123_45678901";
const CUSTOMER: &str = "customer_123";
const METRIC: &str = "api_calls";
const CALLS_A_MINUTE: i64 = 3;
/// Largest body the demo's upstream sends back.
const ECHO_BYTES_MAX: usize = 1_000_000;

/// What was made for the demo.
struct Made {
    business_key: Secret,
    customer_key: Secret,
    limit_id: String,
}

/// Serves the demo until `ended`.
pub(crate) async fn run(mut config: Config, ended: impl Future<Output = ()>) -> Result<(), ServeError> {
    if !config.server.bind.ip().is_loopback() {
        return Err(ConfigError::one("server.bind: --demo listens on a loopback address only").into());
    }
    // Goes, with everything in it, when this function ends.
    let folder = tempfile::Builder::new().prefix("tracktags-demo-").tempdir()?;
    let database = folder.path().join("tracktags.db");
    config.store.url = Secret::new(format!("sqlite:{}", database.display()));
    config.proxy.target_policy = TargetClass::Open;
    let (echo, echo_address) = echo()?;
    let echo_handle: ServerHandle = echo.handle();
    let echoing = actix_web::rt::spawn(echo);
    let opened = open(&config)?;
    let made = match make(&*opened.node.store).await {
        Ok(made) => made,
        Err(error) => return Err(ServeError::Demo(error)),
    };
    let listener = bound(config.server.bind)?;
    let extras = Extras { demo_keys: keys_of_the_guide(&made), own_targets: vec![echo_address] };
    let ready = |address| {
        announce(address);
        print(address, echo_address, &made);
    };
    let served = serve_opened(opened, config, listener, extras, ended, ready).await;
    echo_handle.stop(false).await;
    drop(echoing);
    served
}

/// The address that was asked for, or a free port when it is taken.
fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => TcpListener::bind((address.ip(), 0)),
        bound => bound,
    }
}

fn keys_of_the_guide(made: &Made) -> Vec<DemoKey> {
    vec![
        DemoKey { printed: GUIDE_BUSINESS_KEY, real: made.business_key.clone() },
        DemoKey { printed: GUIDE_CUSTOMER_KEY, real: made.customer_key.clone() },
    ]
}

/// The demo's upstream: answers with what it was sent.
fn echo() -> io::Result<(Server, SocketAddr)> {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0))?;
    let address = listener.local_addr()?;
    let server = HttpServer::new(|| {
        let limit = web::PayloadConfig::new(ECHO_BYTES_MAX);
        App::new().app_data(limit).default_service(web::to(echoed))
    });
    Ok((server.workers(1).tcp_nodelay(true).disable_signals().listen(listener)?.run(), address))
}

async fn echoed(request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let headers: serde_json::Map<_, _> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let answer = HttpResponse::Ok().json(json!({
        "echo": "the demo's upstream got this",
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }));
    std::future::ready(answer).await
}

fn broken(error: impl Into<Cause>) -> StoreError {
    StoreError::Backend(error.into())
}

/// Makes the demo's business, customer, keys and limit.
async fn make(store: &dyn Store) -> Result<Made, StoreError> {
    let business =
        NewBusiness { business_name: "Demo".to_owned(), email: "demo@example.com".to_owned(), user_id: None };
    let business: BusinessId = store.create_business(Author::server(), business).await?.business_id;
    let customer = CustomerId::parse(CUSTOMER).map_err(broken)?;
    let key =
        |owner| NewKey { owner, key_name: None, description: None, expires_at: None, scopes: Scopes::ALL };
    let business_key = store.create_key(Author::server(), key(KeyOwner::Business(business.clone()))).await?;
    let customer_key =
        store.create_key(Author::server(), key(KeyOwner::Customer(business.clone(), customer))).await?;
    let limit = NewLimit {
        business,
        metric_name: MetricName::parse(METRIC).map_err(broken)?,
        value: Units::new(CALLS_A_MINUTE).map_err(broken)?,
        period: Period::Minutely,
        operator: Operator::Gte,
        action: Action::Deny,
        attachment: Attachment::Business,
        metric_type: None,
        alert_thresholds: Vec::new(),
        webhook_urls: None,
        overage_meter: None,
    };
    let limit = store.create_limit(Author::server(), limit).await?;
    Ok(Made {
        business_key: Secret::new(business_key.plain.expose()),
        customer_key: Secret::new(customer_key.plain.expose()),
        limit_id: limit.id.to_string(),
    })
}

/// Prints what to try.
fn print(address: SocketAddr, echo: SocketAddr, made: &Made) {
    let (business, customer) = (made.business_key.expose(), made.customer_key.expose());
    let limit = &made.limit_id;
    let mut out = io::stdout().lock();
    // If nobody listens there is nobody to tell.
    let _ = writeln!(
        out,
        r#"
A demo business, its customer {CUSTOMER}, and a limit of {CALLS_A_MINUTE} {METRIC} a minute. Paste these lines into
another terminal. The database goes when this ends (Ctrl-C).

1. A call that is allowed: it is counted, forwarded, and comes back with where the customer stands.
curl -sS -X POST http://{address}/api/v1/proxy -H 'Authorization: Bearer {customer}' -H 'Content-Type: application/json' -d '{{"metric_name":"{METRIC}","target_url":"http://{echo}/hello"}}'

2. Its usage.
curl -sS http://{address}/api/v1/usage -H 'Authorization: Bearer {customer}'

3. The same call four times more: the limit is reached, and the last is denied (429).
for i in 1 2 3 4; do curl -sS -X POST http://{address}/api/v1/proxy -H 'Authorization: Bearer {customer}' -H 'Content-Type: application/json' -d '{{"metric_name":"{METRIC}","target_url":"http://{echo}/hello"}}'; echo; done

4. Raise the limit: it holds on the very next call, and the usage stays.
curl -sS -X PUT http://{address}/api/v1/plan_limits/{limit} -H 'Authorization: Bearer {business}' -H 'Content-Type: application/json' -d '{{"limit_value":100}}'
"#
    )
    .and_then(|()| out.flush());
}
