//! What the server measures of itself, as Prometheus reads it. No label holds a tenant or a customer.

use crate::app::Shared;
use actix_web::dev::ServiceResponse;
use actix_web::http::Method;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use tracktags_core::error::UpstreamError;
use tracktags_store::Node;

/// A kind of request: bounded by the routes, the methods and the statuses there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    /// The route as the table has it; `none` for every path without one.
    route: Cow<'static, str>,
    method: &'static str,
    status: u16,
    /// What the data plane answered: allowed, denied, failed or error.
    decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Target {
    outcome: &'static str,
}

/// Counters and gauges, and the registry that prints them.
pub(crate) struct Meters {
    registry: Registry,
    requests: Family<Request, Counter>,
    targets: Family<Target, Counter>,
    ready: Gauge,
    queue_waiting: Gauge,
    unsettled_calls: Gauge,
    unsettled_units: Gauge,
    wal_bytes: Gauge,
}

impl Meters {
    pub(crate) fn new(node: &Node) -> Self {
        let mut registry = Registry::with_prefix("tracktags");
        let (requests, targets) = (Family::default(), Family::default());
        registry.register("http_requests", "Requests answered", Family::clone(&requests));
        registry.register("upstream_calls", "Calls to targets, by how they ended", Family::clone(&targets));
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, Gauge::clone(&gauge));
            gauge
        };
        let ready = gauge("ready", "1 where calls can be served");
        let queue_waiting = gauge("admission_queue_waiting", "Operations that wait for a batch");
        let unsettled_calls = gauge("unsettled_calls", "Calls admitted and not settled yet");
        let unsettled_units = gauge("unsettled_units", "Units they hold");
        let wal_bytes = gauge("store_wal_bytes", "The write-ahead log in use, in bytes");
        node.meters.register(&mut registry);
        Self {
            registry,
            requests,
            targets,
            ready,
            queue_waiting,
            unsettled_calls,
            unsettled_units,
            wal_bytes,
        }
    }

    /// Counts a request by its answer. `plane` is the route where it is one of the data plane.
    pub(crate) fn note_answer<B>(
        &self,
        response: &ServiceResponse<B>,
        plane: Option<&'static str>,
        decision: &'static str,
    ) {
        let request = response.request();
        let route = match plane {
            Some(route) => Cow::Borrowed(route),
            None => request.match_pattern().map_or(Cow::Borrowed("none"), Cow::Owned),
        };
        let kind = Request {
            route,
            method: method_word(request.method()),
            status: response.status().as_u16(),
            decision,
        };
        self.requests.get_or_create(&kind).inc();
    }

    /// Counts a call to a target by how it ended.
    pub(crate) fn note_target(&self, error: Option<&UpstreamError>) {
        let outcome = match error {
            None => "answered",
            Some(UpstreamError::TimedOut { .. }) => "timed_out",
            Some(UpstreamError::Blocked) => "blocked",
            Some(UpstreamError::Protocol(_)) => "invalid",
            Some(UpstreamError::Truncated(_)) => "incomplete",
            Some(UpstreamError::TooLarge { .. }) => "too_large",
            Some(_) => "unreachable",
        };
        self.targets.get_or_create(&Target { outcome }).inc();
    }

    /// Everything, as `OpenMetrics` has it.
    pub(crate) fn shown(&self, app: &Shared) -> Result<String, std::fmt::Error> {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (calls, units) = app.open();
        self.ready.set(i64::from(app.not_ready().is_none()));
        self.queue_waiting.set(number(app.waiting()));
        self.unsettled_calls.set(number(calls));
        self.unsettled_units.set(number(units));
        self.wal_bytes.set(number(app.wal_bytes()));
        let mut printed = String::new();
        text::encode(&mut printed, &self.registry)?;
        Ok(printed)
    }
}

fn method_word(method: &Method) -> &'static str {
    let known = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}
