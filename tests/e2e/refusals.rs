//! Every code that the contract names, provoked: the status that goes with it, the one shape, and a message that helps.
//! `/openapi.json` says which there are, and that the operation may answer so.

#![cfg(test)]

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tracktags_tests::http::{Response, connect, request};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp, call, envelope, text, wait_until};

/// Codes of a failing machine or of a bug, which no request provokes.
const OF_FAULTS: [&str; 4] = ["internal_error", "store_unavailable", "storage_full", "outcome_unknown"];
/// Shown by `settle.rs`, with a target for each.
const OF_TARGETS: [&str; 5] = [
    "upstream_unreachable",
    "upstream_invalid_response",
    "upstream_incomplete",
    "response_too_large",
    "upstream_timeout",
];

/// The document, and which of its codes were met.
struct Contract {
    document: Value,
    met: BTreeSet<String>,
}

impl Contract {
    fn of(app: &TestApp) -> Self {
        let document = app.client().send("GET", "/openapi.json", &[], b"").json();
        Self { document, met: BTreeSet::new() }
    }

    /// Every code that it names.
    fn codes(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut left = vec![&self.document];
        while let Some(value) = left.pop() {
            let words = value["properties"]["code"]["enum"].as_array();
            found.extend(words.into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()));
            left.extend(value.as_array().into_iter().flatten());
            left.extend(value.as_object().into_iter().flat_map(serde_json::Map::values));
        }
        found
    }

    /// Notes a refusal of an operation, which must be one that it describes; its message.
    fn refused(&mut self, operation: &str, answer: &Response, code: &str) -> String {
        assert_eq!(answer.code(), code, "{operation}: {} {}", answer.status, answer.text());
        let shape = answer.json();
        for field in ["error", "message", "code"] {
            assert!(shape[field].as_str().is_some_and(|text| !text.is_empty()), "{operation}: {shape}");
        }
        if let Some((method, path)) = operation.split_once(' ') {
            let responses = &self.document["paths"][path][method.to_lowercase()]["responses"];
            let described = responses[answer.status.to_string()].to_string();
            assert!(described.contains(&format!("\"{code}\"")), "{operation} {}: {described}", answer.status);
        }
        self.met.insert(code.to_owned());
        format!("{} {}", text(&shape, "message"), shape["details"])
    }
}

/// A call of the control plane: operation, path (where it differs), body, code.
type Case<'a> = (&'a str, String, Value, &'a str);

fn ask(app: &TestApp, (operation, path, body, _): &Case<'_>) -> Response {
    let (method, template) = operation.split_once(' ').unwrap();
    let path = if path.starts_with('/') { path.clone() } else { format!("{template}{path}") };
    let body = (*body != Value::Null).then_some(body);
    if template.starts_with("/admin") || template == "/api/v1/businesses" {
        return app.client().admin(method, &path, &app.node.admin_key(), body);
    }
    app.client().json(method, &path, &app.business_key, body)
}

/// What is refused of limits, plans, customers and their keys.
fn cases(limit: &str, free: &str) -> Vec<Case<'static>> {
    let none = || String::new();
    let limits = "POST /api/v1/plan_limits";
    let limit_at = || format!("/api/v1/plan_limits/{limit}");
    vec![
        (limits, none(), json!({"metric_name": "m", "limit_value": 1, "colour": "red"}), "unknown_field"),
        (limits, none(), json!({"metric_name": "m", "limit_value": 0.5}), "not_integral"),
        (limits, none(), json!({"metric_name": "m"}), "validation_failed"),
        (limits, none(), json!({"metric_name": "m", "limit_value": 1, "plan_id": "no"}), "plan_not_found"),
        (
            limits,
            none(),
            json!({"metric_name": "m", "limit_value": 1, "customer_id": "no"}),
            "customer_not_found",
        ),
        (
            limits,
            none(),
            json!({"metric_name": "calls", "limit_value": 1, "limit_period": "daily"}),
            "limit_exists",
        ),
        ("PUT /api/v1/plan_limits/{id}", limit_at(), json!({"plan_id": free}), "immutable_field"),
        ("GET /api/v1/plan_limits/{id}", "/api/v1/plan_limits/no".into(), Value::Null, "limit_not_found"),
        ("GET /api/v1/plan_limits", "?cursor=AAAA".into(), Value::Null, "invalid_cursor"),
        ("POST /api/v1/plans", none(), json!({"plan_name": "Free"}), "plan_exists"),
        (
            "POST /api/v1/plans",
            none(),
            json!({"plan_name": "B", "stripe_price_id": "price_1"}),
            "price_taken",
        ),
        ("POST /api/v1/plans", none(), json!({"plan_name": "B", "is_free": true}), "free_plan_exists"),
        ("DELETE /api/v1/plans/{id}", format!("/api/v1/plans/{free}"), Value::Null, "plan_in_use"),
        ("POST /api/v1/customers", none(), json!({"customer_id": "c1"}), "customer_exists"),
        ("POST /api/v1/keys", none(), json!({}), "key_limit_reached"),
    ]
}

/// What is refused of keys, metrics and what the admin does.
fn further_cases() -> Vec<Case<'static>> {
    let none = String::new;
    vec![
        ("GET /api/v1/keys/{type}/{name}", "/api/v1/keys/business/no".into(), Value::Null, "key_not_found"),
        (
            "GET /api/v1/customers/{cid}/keys/{key}",
            "/api/v1/customers/c1/keys/twin".into(),
            Value::Null,
            "ambiguous_key",
        ),
        (
            "POST /api/v1/customers/{cid}/keys",
            "/api/v1/customers/c1/keys".into(),
            json!({"key_name": "twin"}),
            "key_name_taken",
        ),
        ("GET /api/v1/metrics/{name}", "/api/v1/metrics/no".into(), Value::Null, "metric_not_found"),
        (
            "PUT /api/v1/metrics/{name}",
            "/api/v1/metrics/calls".into(),
            json!({"value": -1}),
            "usage_below_zero",
        ),
        (
            "POST /api/v1/metrics",
            none(),
            json!({"metric_name": "calls", "operation": "MAX"}),
            "metric_conflict",
        ),
        ("DELETE /api/v1/metrics/{name}", "/api/v1/metrics/calls".into(), Value::Null, "metric_in_use"),
        (
            "GET /api/v1/metrics/{name}/history",
            "/api/v1/metrics/calls/history?from=2020-01-01T00:00:00Z&step=day".into(),
            Value::Null,
            "range_too_large",
        ),
        ("GET /api/v1/plans", "?business_id=biz_0".into(), Value::Null, "business_not_found"),
        (
            "POST /admin/v1/business/{bid}/override",
            "/admin/v1/business/no/override".into(),
            json!({"status": "active"}),
            "business_not_found",
        ),
    ]
}

/// What a message must say besides its code.
const SAYS: [(&str, &str); 7] = [
    ("not_integral", "storage_mb instead of storage_gb"),
    ("metric_conflict", "operation"),
    ("range_too_large", "1000"),
    ("unknown_field", "colour"),
    ("validation_failed", "limit_value"),
    ("customer_exists", "PUT"),
    ("plan_in_use", "force=true"),
];

#[test]
fn every_code_of_the_contract_is_met_with_its_status_and_a_message_that_helps() {
    let options = NodeOptions::default()
        .set("PROXY__CUSTOMER_CALLS_MAX", "2")
        .set("PROXY__TARGET_CALLS_MAX", "3")
        .set("STORE__QUEUE_ENTRIES_MAX", "1")
        .set("SERVER__BODY_IDLE_TIMEOUT_MS", "300")
        .set("LOCKOUT__FAILURES_MAX", "3");
    let app = TestApp::with(options);
    let mut contract = Contract::of(&app);
    let free = app.plan("Free", true);
    let _paid = app.business(
        "POST",
        "/api/v1/plans",
        Some(&json!({"plan_name": "A", "stripe_price_id": "price_1"})),
        201,
    );
    let on_free = json!({"customer_id": "c1", "plan_id": free});
    let _customer = app.business("POST", "/api/v1/customers", Some(&on_free), 201);
    let _settings = app.business("PATCH", "/api/v1/settings", Some(&json!({"max_customer_keys": 4})), 200);
    let customer = app.customer_key("c1");
    // While a key is in its grace, its successor bears the same name.
    let keys = "/api/v1/customers/c1/keys";
    let _twin = app.business("POST", keys, Some(&json!({"key_name": "twin"})), 201);
    let _twins = app.business("POST", &format!("{keys}/twin/rotate"), Some(&json!({})), 201);
    let _third = app.business("POST", keys, Some(&json!({})), 201);
    let _key = app.business("POST", "/api/v1/keys", Some(&json!({"key_name": "main"})), 201);
    let limit = app.limit("calls", 5, "daily");
    for case in cases(&limit, &free).into_iter().chain(further_cases()) {
        let message = contract.refused(case.0, &ask(&app, &case), case.3);
        let must = SAYS.iter().filter(|(code, _)| *code == case.3);
        must.for_each(|(code, said)| assert!(message.contains(said), "{code}: {message}"));
    }
    of_callers(&app, &mut contract, &customer);
    of_bodies(&app, &mut contract);
    of_calls(&app, &mut contract, &customer);
    of_quotas(&app, &mut contract);
    // Last: from now on this address is locked out, but for keys that the node knows.
    let guess = || app.client().json("GET", "/api/v1/plans", "tk_live_guess", None);
    (0..4).for_each(|_| drop(guess()));
    let guess = guess();
    contract.refused("GET /api/v1/plans", &guess, "too_many_failures");
    assert!(guess.json()["retry_after_seconds"].is_u64());

    let known = contract.codes();
    let besides = OF_FAULTS.iter().chain(&OF_TARGETS).map(|code| (*code).to_owned());
    let not_met: Vec<_> =
        known.difference(&contract.met.clone().into_iter().chain(besides).collect()).cloned().collect();
    assert!(not_met.is_empty(), "never met: {not_met:?}");
    println!("{} codes met", contract.met.len());
    app.node.verify();
}

/// Who may not, and where nothing is.
fn of_callers(app: &TestApp, contract: &mut Contract, customer: &str) {
    let mut client = app.client();
    let nobody = client.send("GET", "/api/v1/plans", &[], b"");
    contract.refused("GET /api/v1/plans", &nobody, "unauthorized");
    let stranger = client.json("GET", "/api/v1/plans", "tk_live_stranger", None);
    contract.refused("GET /api/v1/plans", &stranger, "invalid_key");
    let forbidden = client.json("GET", "/api/v1/plans", customer, None);
    contract.refused("GET /api/v1/plans", &forbidden, "forbidden");
    let other = client.json("GET", "/api/v1/usage?customer_id=c2", customer, None);
    contract.refused("GET /api/v1/usage", &other, "customer_mismatch");
    let unnamed = client.admin("GET", "/api/v1/plans", &app.node.admin_key(), None);
    contract.refused("GET /api/v1/plans", &unnamed, "business_required");
    let nowhere = client.send("GET", "/api/v1/nowhere", &[], b"");
    contract.refused("", &nowhere, "not_found");
    let method = client.send("PATCH", "/api/v1/plans", &[], b"");
    contract.refused("", &method, "method_not_allowed");
    assert_eq!(method.header("allow"), Some("POST, GET"));
}

/// Bodies that cannot be read.
fn of_bodies(app: &TestApp, contract: &mut Contract) {
    let operation = "POST /api/v1/plans";
    let key = format!("Bearer {}", app.business_key);
    let send = |headers: &[(&str, &str)], body: &[u8]| {
        let headers = [&[("authorization", key.as_str())], headers].concat();
        app.client().send("POST", "/api/v1/plans", &headers, body)
    };
    let json = ("content-type", "application/json");
    contract.refused(operation, &send(&[json], b"{\"plan_name\":1,\"plan_name\":2}"), "invalid_json");
    contract.refused(operation, &send(&[("content-type", "text/plain")], b"{}"), "unsupported_media_type");
    let large = send(&[json], &vec![b' '; 1_000_001]);
    contract.refused(operation, &large, "request_too_large");
    assert_eq!(large.json()["max_bytes"], 1_000_000);
    // A body that never ends.
    let mut bytes =
        request(app.node.address, "POST", "/api/v1/plans", &[("authorization", &key), json], b"{}");
    bytes.truncate(bytes.len() - 1);
    let slow = app.client().raw(&bytes, false);
    assert_eq!(slow.status, 408);
    contract.refused(operation, &slow, "request_timeout");
}

/// The data plane.
fn of_calls(app: &TestApp, contract: &mut Contract, customer: &str) {
    let operation = "POST /api/v1/proxy";
    let target = Upstream::start();
    let to = |url: &str| json!({"metric_name": "calls", "target_url": url});
    let mut client = app.client();
    let ours = call(&mut client, customer, &to(&format!("http://{}/", app.node.address)));
    contract.refused(operation, &ours, "upstream_blocked");
    contract.refused(operation, &call(&mut client, customer, &to("ftp://a")), "invalid_target");
    let passed = call(&mut client, customer, &to(&target.url("/echo")));
    assert_eq!(passed.status, 200, "{}", passed.text());
    let via = target.arrivals()[0].header("via").to_owned();
    let body = to(&target.url("/echo")).to_string();
    let key = format!("Bearer {customer}");
    let again = [("authorization", key.as_str()), ("content-type", "application/json"), ("via", &via)];
    let looping = client.send("POST", "/api/v1/proxy", &again, body.as_bytes());
    contract.refused(operation, &looping, "loop_detected");
    let mut full = envelope(&target.url("/echo"), 6);
    full["metric_name"] = json!("calls");
    let denied = call(&mut client, customer, &full);
    assert_eq!((denied.status, denied.code().as_str()), (429, "limit_exceeded"), "{}", denied.text());
    contract.met.insert("limit_exceeded".to_owned());
    // A customer may have two calls in flight, a target three.
    let hangs = |key: &str| {
        let body = to(&target.url("/hang")).to_string();
        let key = format!("Bearer {key}");
        let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
        let bytes = request(app.node.address, "POST", "/api/v1/proxy", &headers, body.as_bytes());
        let mut stream = connect(app.node.address).unwrap();
        std::io::Write::write_all(stream.get_mut(), &bytes).unwrap();
        stream
    };
    let first = hangs(customer);
    wait_until("the first is forwarded", Duration::from_secs(10), || target.count() == 2);
    let second = hangs(customer);
    wait_until("the second is forwarded", Duration::from_secs(10), || target.count() == 3);
    contract.refused(operation, &call(&mut client, customer, &to(&target.url("/echo"))), "concurrency");
    let others = [app.customer_key("c2"), app.customer_key("c3")];
    let third = hangs(&others[0]);
    wait_until("the third is forwarded", Duration::from_secs(10), || target.count() == 4);
    contract.refused(operation, &call(&mut client, &others[1], &to(&target.url("/echo"))), "upstream_busy");
    drop((first, second, third));
    overloaded(app, contract);
}

/// More at once than may wait for a batch: some are turned away, and told so.
fn overloaded(app: &TestApp, contract: &mut Contract) {
    let _limit = app.limit("many", 1_000_000, "daily");
    let body = json!({"metric_name": "many"});
    let refused = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = app.client();
                    let track = |_| client.json("POST", "/api/v1/track", &app.business_key, Some(&body));
                    (0..200).map(track).find(|answer| answer.status != 200)
                })
            })
            .collect();
        callers.into_iter().filter_map(|caller| caller.join().unwrap()).next()
    });
    let refused = refused.expect("64 callers and room for one");
    contract.refused("POST /api/v1/track", &refused, "overloaded");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
}

/// As many plans as a business may have.
fn of_quotas(app: &TestApp, contract: &mut Contract) {
    let many = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
         INSERT INTO plans (business_id, plan_name) SELECT '{}', 'Plan ' || i FROM n",
        app.business_id
    );
    app.node.sql(&many);
    let case = ("POST /api/v1/plans", String::new(), json!({"plan_name": "One more"}), "quota");
    contract.refused(case.0, &ask(app, &case), "quota");
}
