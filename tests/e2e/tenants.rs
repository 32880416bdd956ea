//! Two tenants: every place of `/openapi.json` where a call of a business may name something, with an id of another
//! business and with one of nobody. Both are answered with the same bytes, and nothing changes.

#![cfg(test)]

use serde_json::{Map, Value, json};
use tracktags_tests::http::Response;
use tracktags_tests::{TestApp, new_business, text};

/// Names that a call makes where they are unknown, so that they refer to nobody else's: method, path, name.
const MAKES: [(&str, &str, &str); 5] = [
    ("POST", "/customers", "customer_id"),
    ("POST", "/customers/{cid}/keys", "cid"),
    ("POST", "/plan_limits", "metric_name"),
    ("PUT", "/plan_limits/{id}", "metric_name"),
    ("POST", "/metrics", "metric_name"),
];

/// Filters that find nothing where the name is unknown: metrics have no ids, and their names no owner.
const FILTERS: [(&str, &str, &str); 1] = [("GET", "/plan_limits", "metric_name")];

/// What names something in a path, and in a query or a body.
const IN_PATHS: [&str; 5] = ["bid", "cid", "key", "id", "name"];
const IN_REST: [&str; 5] = ["business_id", "customer_id", "plan_id", "metric_name", "default_metric"];

/// Where in a call something is named.
#[derive(Clone, Debug)]
struct Place {
    method: String,
    path: String,
    at: At,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Path,
    Query,
    Body,
}

impl Place {
    fn is_in(&self, list: &[(&str, &str, &str)]) -> bool {
        let short = self.path.replace("/businesses/{bid}", "");
        list.iter().any(|(method, path, name)| {
            *name == self.name && *method == self.method && short == format!("/api/v1{path}")
        })
    }
}

/// Every place in the document where a business names something.
fn places(document: &Value) -> Vec<Place> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation["security"].as_array().cloned().unwrap_or_default();
            if !security.iter().any(|way| way.get("key").is_some()) {
                continue;
            }
            let mut note = |at: At, name: &str| {
                let place =
                    Place { method: method.to_uppercase(), path: path.clone(), at, name: name.to_owned() };
                let names = if at == At::Path { IN_PATHS } else { IN_REST };
                if names.contains(&name) && !place.is_in(&MAKES) {
                    found.push(place);
                }
            };
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let at = if parameter["in"] == "path" { At::Path } else { At::Query };
                note(at, parameter["name"].as_str().unwrap());
            }
            let body = &operation["requestBody"]["content"]["application/json"]["schema"]["properties"];
            for name in body.as_object().into_iter().flat_map(Map::keys) {
                note(At::Body, name);
            }
        }
    }
    found
}

/// Ids by what they name.
#[derive(Clone)]
struct Ids {
    business: String,
    customer: String,
    customer_key: String,
    business_key: String,
    plan: String,
    limit: String,
    metric: String,
}

impl Ids {
    /// What belongs to a business.
    fn of(app: &TestApp, business: &str, key: &str, customer: &str, metric: &str) -> Self {
        let ask = |method: &str, path: &str, body: Value, status: u16| {
            let answer = app.client().json(method, path, key, Some(&body));
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
            answer.json()
        };
        let keys = format!("/api/v1/customers/{customer}/keys");
        let limit = json!({"metric_name": metric, "limit_value": 5});
        Self {
            business: business.to_owned(),
            customer: customer.to_owned(),
            customer_key: text(&ask("POST", &keys, json!({}), 201), "key_id"),
            business_key: text(&ask("GET", "/api/v1/keys", json!({}), 200)["keys"][0], "id"),
            plan: text(&ask("POST", "/api/v1/plans", json!({"plan_name": "Gold"}), 201), "id"),
            limit: text(&ask("POST", "/api/v1/plan_limits", limit, 201), "id"),
            metric: metric.to_owned(),
        }
    }

    /// What belongs to nobody.
    fn of_nobody(like: &Self) -> Self {
        let unknown = || "unknown".to_owned();
        Self {
            business: format!("biz_{}", "0".repeat(like.business.len() - 4)),
            customer: unknown(),
            customer_key: unknown(),
            business_key: unknown(),
            plan: unknown(),
            limit: unknown(),
            metric: unknown(),
        }
    }

    fn named(&self, path: &str, name: &str) -> &str {
        match name {
            "bid" | "business_id" => &self.business,
            "cid" | "customer_id" => &self.customer,
            "plan_id" => &self.plan,
            "id" if path.contains("/plans/") => &self.plan,
            "id" => &self.limit,
            "key" => &self.customer_key,
            "name" if path.contains("/keys/") => &self.business_key,
            "name" | "metric_name" | "default_metric" => &self.metric,
            other => panic!("{other} names nothing that this test knows"),
        }
    }
}

/// What a body must hold besides.
fn needed(method: &str, path: &str) -> Value {
    let short = path.replace("/businesses/{bid}", "");
    match (method, short.as_str()) {
        ("POST", "/api/v1/customers") => json!({"customer_id": "new"}),
        ("POST", "/api/v1/plans") => json!({"plan_name": "Other"}),
        ("POST", "/api/v1/plan_limits") => json!({"metric_name": "new", "limit_value": 1}),
        ("POST", "/api/v1/metrics") => json!({"metric_name": "new"}),
        ("PUT", "/api/v1/metrics/{name}") => json!({"value": 0}),
        ("POST", "/api/v1/proxy") => json!({"target_url": "http://127.0.0.1:1/", "metric_name": "mine"}),
        ("POST", "/api/v1/track") => json!({"metric_name": "mine"}),
        _ => json!({}),
    }
}

/// The call of a business with its own ids but for one place.
fn send(app: &TestApp, key: &str, place: &Place, own: &Ids, other: &Ids) -> Response {
    let there = other.named(&place.path, &place.name);
    let segment = |part: &str| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        Some("type") => "business".to_owned(),
        Some(name) if place.at == At::Path && name == place.name => there.to_owned(),
        Some(name) => own.named(&place.path, name).to_owned(),
        None => part.to_owned(),
    };
    let mut path = place.path.split('/').map(segment).collect::<Vec<_>>().join("/");
    if place.at == At::Query {
        path.push_str(&format!("?{}={there}", place.name));
    }
    let mut body = needed(&place.method, &place.path);
    if place.at == At::Body {
        body[&place.name] = json!(there);
    }
    let body = (place.method != "GET").then_some(&body);
    app.client().json(&place.method, &path, key, body)
}

/// An answer without what differs by design: the request's id, the time, and the order of headers.
fn bare(answer: &Response) -> (u16, String, Vec<(String, String)>) {
    let kept = |name: &str| !matches!(name, "x-request-id" | "date" | "connection");
    let mut headers: Vec<_> = answer.headers.iter().filter(|(name, _)| kept(name)).cloned().collect();
    headers.sort();
    (answer.status, answer.text(), headers)
}

#[test]
fn anothers_and_nobodys_are_the_same_wherever_they_are_named() {
    let app = TestApp::new();
    let theirs = Ids::of(&app, &app.business_id, &app.business_key, "theirs_1", "theirs");
    let (own_id, own_key) = new_business(&app.node);
    let own = Ids::of(&app, &own_id, &own_key, "mine_1", "mine");
    let nobodys = Ids::of_nobody(&theirs);
    let document = app.client().send("GET", "/openapi.json", &[], b"").json();
    let places = places(&document);
    let before = app.node.configuration();
    let mut found = 0;
    for place in &places {
        let (foreign, unknown) =
            (send(&app, &own_key, place, &own, &theirs), send(&app, &own_key, place, &own, &nobodys));
        assert_eq!(bare(&foreign), bare(&unknown), "{place:?}");
        let is_fixed = foreign.code() == "immutable_field";
        assert!(
            foreign.status == 404 || is_fixed || place.is_in(&FILTERS),
            "{place:?}: {} {}",
            foreign.status,
            foreign.text()
        );
        found += usize::from(foreign.status == 404);
    }
    println!("{} places where something is named, {found} answered with 404", places.len());
    assert!(found > 90, "{found}");
    assert_eq!(app.node.configuration(), before, "refused calls change nothing");
    app.node.verify();
}
