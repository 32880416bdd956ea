//! Who may do what, and what nobody may: two tenants, a customer with another's envelope, forbidden targets, bad
//! input, and the lock-out.

use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use tracktags_tests::http::{Client, Response};
use tracktags_tests::load::Load;
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp, call, envelope, new_business, text};

/// An answer without what differs by design.
fn bare(answer: &Response) -> (u16, String, Vec<(String, String)>) {
    let kept = |name: &str| !matches!(name, "x-request-id" | "date" | "connection");
    let headers = answer.headers.iter().filter(|(name, _)| kept(name)).cloned().collect();
    (answer.status, answer.text(), headers)
}

#[test]
fn another_tenants_objects_answer_as_unknown_ones() {
    let app = TestApp::new();
    let (other_id, other_key) = new_business(&app.node);
    let mut other = app.client();
    let theirs = |client: &mut Client, method: &str, path: &str, body: Option<&Value>| client.json(method, path, &other_key, body);
    // What belongs to the first business.
    let plan = text(&app.business("POST", "/api/v1/plans", Some(&json!({"plan_name": "Gold"})), 201), "id");
    let limit = app.limit("api_calls", 5, "monthly");
    let _key = app.customer_key("customer_1");
    let keys = app.business("GET", "/api/v1/customers/customer_1/keys", None, 200);
    let key = text(&keys["keys"][0], "id");
    let dump = |app: &TestApp| app.node.sql("SELECT * FROM plans; SELECT * FROM plan_limits; SELECT * FROM customers; SELECT * FROM customer_keys; SELECT * FROM metrics; SELECT * FROM businesses; SELECT * FROM config_versions");
    let before = dump(&app);
    let (bid, unknown_bid) = (app.business_id.clone(), "biz_unknown".to_owned());
    let name = json!({"customer_name": "x"});
    let value = json!({"limit_value": 1});
    let renamed = json!({"plan_name": "x"});
    let zone = json!({"timezone": "UTC"});
    // The second business asks for the first one's objects, and for ones that nobody has.
    let cases: Vec<(&str, String, String, Option<&Value>)> = vec![
        ("GET", format!("/api/v1/plans/{plan}"), "/api/v1/plans/unknown".into(), None),
        ("PUT", format!("/api/v1/plans/{plan}"), "/api/v1/plans/unknown".into(), Some(&renamed)),
        ("DELETE", format!("/api/v1/plans/{plan}"), "/api/v1/plans/unknown".into(), None),
        ("GET", format!("/api/v1/plan_limits/{limit}"), "/api/v1/plan_limits/unknown".into(), None),
        ("PUT", format!("/api/v1/plan_limits/{limit}"), "/api/v1/plan_limits/unknown".into(), Some(&value)),
        ("DELETE", format!("/api/v1/plan_limits/{limit}"), "/api/v1/plan_limits/unknown".into(), None),
        ("GET", format!("/api/v1/plan_limits?plan_id={plan}"), "/api/v1/plan_limits?plan_id=unknown".into(), None),
        ("GET", "/api/v1/plan_limits?customer_id=customer_1".into(), "/api/v1/plan_limits?customer_id=unknown".into(), None),
        ("GET", "/api/v1/customers/customer_1".into(), "/api/v1/customers/unknown".into(), None),
        ("PUT", "/api/v1/customers/customer_1".into(), "/api/v1/customers/unknown".into(), Some(&name)),
        ("DELETE", "/api/v1/customers/customer_1".into(), "/api/v1/customers/unknown".into(), None),
        ("GET", "/api/v1/customers/customer_1/keys".into(), "/api/v1/customers/unknown/keys".into(), None),
        ("GET", format!("/api/v1/customers/customer_1/keys/{key}"), "/api/v1/customers/unknown/keys/unknown".into(), None),
        ("DELETE", format!("/api/v1/customers/customer_1/keys/{key}"), "/api/v1/customers/unknown/keys/unknown".into(), None),
        ("GET", "/api/v1/usage?customer_id=customer_1".into(), "/api/v1/usage?customer_id=unknown".into(), None),
        ("GET", format!("/api/v1/customers?plan_id={plan}"), "/api/v1/customers?plan_id=unknown".into(), None),
        ("GET", format!("/api/v1/businesses/{bid}"), format!("/api/v1/businesses/{unknown_bid}"), None),
        ("GET", format!("/api/v1/businesses/{bid}/settings"), format!("/api/v1/businesses/{unknown_bid}/settings"), None),
        ("PATCH", format!("/api/v1/businesses/{bid}/settings"), format!("/api/v1/businesses/{unknown_bid}/settings"), Some(&zone)),
        ("GET", format!("/api/v1/businesses/{bid}/customers"), format!("/api/v1/businesses/{unknown_bid}/customers"), None),
        ("GET", format!("/api/v1/businesses/{bid}/keys"), format!("/api/v1/businesses/{unknown_bid}/keys"), None),
        ("GET", format!("/api/v1/plans?business_id={bid}"), format!("/api/v1/plans?business_id={unknown_bid}"), None),
    ];
    for (method, foreign, unknown, body) in &cases {
        let (foreign_answer, unknown_answer) = (theirs(&mut other, method, foreign, *body), theirs(&mut other, method, unknown, *body));
        assert_eq!(foreign_answer.status, 404, "{method} {foreign}: {}", foreign_answer.text());
        assert_eq!(bare(&foreign_answer), bare(&unknown_answer), "{method} {foreign}");
    }
    let bodies = [
        ("/api/v1/plan_limits", json!({"metric_name": "m", "limit_value": 1, "plan_id": plan}), json!({"metric_name": "m", "limit_value": 1, "plan_id": "unknown"})),
        ("/api/v1/plan_limits", json!({"metric_name": "m", "limit_value": 1, "customer_id": "customer_1"}), json!({"metric_name": "m", "limit_value": 1, "customer_id": "unknown"})),
        ("/api/v1/customers", json!({"customer_id": "mine", "plan_id": plan}), json!({"customer_id": "mine", "plan_id": "unknown"})),
    ];
    for (path, foreign, unknown) in &bodies {
        let (foreign_answer, unknown_answer) = (theirs(&mut other, "POST", path, Some(foreign)), theirs(&mut other, "POST", path, Some(unknown)));
        assert_eq!(foreign_answer.status, 404, "{path} {foreign}: {}", foreign_answer.text());
        assert_eq!(bare(&foreign_answer), bare(&unknown_answer), "{path} {foreign}");
    }
    assert_eq!(dump(&app), before, "refused calls change nothing");
    assert_ne!(other_id, app.business_id);
}

#[test]
fn a_customers_key_opens_its_own_account_only() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 100, "monthly");
    let (mine, _theirs) = (app.customer_key("customer_1"), app.customer_key("customer_2"));
    let mut client = app.client();
    let mut body = envelope(&target.url("/echo"), 1);
    body["customer_id"] = json!("customer_2");
    let answer = call(&mut client, &mine, &body);
    assert_eq!((answer.status, answer.code().as_str()), (403, "customer_mismatch"), "{}", answer.text());
    let usage = client.json("GET", "/api/v1/usage?customer_id=customer_2", &mine, None);
    assert_eq!((usage.status, usage.code().as_str()), (403, "customer_mismatch"));
    assert_eq!((app.usage("customer_1"), app.usage("customer_2")), (0, 0), "both counters unchanged");
    assert_eq!(target.count(), 0);
    // Everything but the data plane is not a customer's: before anything else is looked at.
    for (method, path) in [
        ("GET", "/api/v1/plan_limits"), ("POST", "/api/v1/plan_limits"), ("PUT", "/api/v1/plan_limits/x"),
        ("DELETE", "/api/v1/plan_limits/x"), ("GET", "/api/v1/plans"), ("POST", "/api/v1/plans"),
        ("GET", "/api/v1/customers"), ("POST", "/api/v1/customers"), ("GET", "/api/v1/customers/customer_1"),
        ("DELETE", "/api/v1/customers/customer_1"), ("POST", "/api/v1/customers/customer_1/keys"),
        ("GET", "/api/v1/settings"), ("PATCH", "/api/v1/settings"), ("GET", "/api/v1/businesses"),
        ("POST", "/api/v1/businesses"), ("POST", "/api/v1/keys"),
    ] {
        let answer = client.json(method, path, &mine, Some(&json!({"nonsense": 0.5})));
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{method} {path}: {}", answer.text());
        let nobody = client.send(method, path, &[], b"").unwrap();
        assert_eq!((nobody.status, nobody.code().as_str()), (401, "unauthorized"), "{method} {path}");
    }
}

#[test]
fn no_answer_reaches_another_customer() {
    const CALLS: usize = 10_000;
    let app = TestApp::with(NodeOptions::default().set("STORE__DURABILITY", "process"));
    let target = Upstream::start();
    let keys: Vec<String> = (0..50).map(|n| app.customer_key(&format!("customer_{n}"))).collect();
    let _id = app.limit("api_calls", 1_000_000, "yearly");
    let foreign = Arc::new(AtomicUsize::new(0));
    let (counted, url) = (Arc::clone(&foreign), target.url(""));
    let tally = Load::start(app.node.address, 32, CALLS, move |number, client| {
        let path = ["/echo", "/short", "/echo", "/garbage", "/echo", "/gone", "/echo"][number % 7];
        let mine = format!("call {number} of customer {}", number % keys.len());
        let body = json!({"metric_name": "api_calls", "target_url": format!("{url}{path}"), "method": "POST", "body": mine});
        let answer = call(client, &keys[number % keys.len()], &body);
        let echoed = &answer.json()["forwarded_response"]["body"];
        if path == "/echo" && echoed != &json!(mine) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        (answer.status, answer.code())
    })
    .wait();
    assert_eq!(foreign.load(Ordering::SeqCst), 0, "{tally:?}");
    assert_eq!(tally.unknown, 0, "{tally:?}");
    // Nothing of a key, and nothing that callers could forge, ever arrives.
    for arrival in target.arrivals() {
        for (name, value) in &arrival.headers {
            assert!(!tracktags_core::keys::contains_key(value.as_bytes()), "{name}");
        }
    }
}

#[test]
fn literal_targets_are_refused_without_a_connection() {
    let app = TestApp::with(NodeOptions::default().set("PROXY__TARGET_POLICY", "public"));
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    target.set_nonblocking(true).unwrap();
    let port = target.local_addr().unwrap().port();
    let _id = app.limit("api_calls", 100, "monthly");
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    let hosts = [
        "127.0.0.1", "2130706433", "0x7f000001", "017700000001", "127.1", "0x7f.1", "127.0.0.1.", "%31%32%37.0.0.1",
        "[::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "localhost", "LOCALHOST", "a.localhost",
        "10.0.0.1", "192.168.0.1", "169.254.169.254", "metadata.google.internal", "[fd00:ec2::254]", "0.0.0.0", "[::]",
        "①②⑦.0.0.1", "127。0。0。1", "intranet", "printer.local", "168.63.129.16",
    ];
    for host in hosts {
        for url in [format!("http://{host}:{port}/"), format!("http://{host}/"), format!("https://{host}/")] {
            let answer = call(&mut client, &key, &envelope(&url, 1));
            let refused = matches!((answer.status, answer.code().as_str()), (403, "upstream_blocked") | (400, "invalid_target"));
            assert!(refused, "{url}: {}", answer.text());
            assert!(!answer.text().contains("127.0.0.1"), "no reason is told: {}", answer.text());
        }
    }
    assert!(target.accept().is_err(), "no connection was opened");
    assert_eq!(app.usage("customer_1"), 0, "and nothing counted");
}

#[test]
fn the_server_is_no_target_of_itself() {
    let app = TestApp::new();
    let _id = app.limit("api_calls", 100, "monthly");
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    for host in ["127.0.0.1", "127.0.0.2", "localhost", "[::ffff:127.0.0.1]"] {
        let answer = call(&mut client, &key, &envelope(&format!("http://{host}:{}/health", app.node.address.port()), 1));
        assert_eq!((answer.status, answer.code().as_str()), (403, "upstream_blocked"), "{host}: {}", answer.text());
    }
    assert_eq!(app.usage("customer_1"), 0);
}

/// A body, and what it is answered with.
const BAD_BODIES: &[(&str, u16, &str)] = &[
    ("{", 400, "invalid_json"),
    ("[]", 400, "invalid_json"),
    ("\"text\"", 400, "invalid_json"),
    ("null", 400, "invalid_json"),
    ("{\"metric_name\":\"a\",\"metric_name\":\"b\",\"limit_value\":1}", 400, "invalid_json"),
    ("{\"metric_name\":\"\\ud800\",\"limit_value\":1}", 400, "invalid_json"),
    ("{\"metric_name\":\"a\",\"limit_value\":0.5}", 400, "not_integral"),
    ("{\"metric_name\":\"a\",\"limit_value\":\"1\"}", 400, "validation_failed"),
    ("{\"metric_name\":\"a\",\"limit_value\":-1}", 400, "validation_failed"),
    ("{\"metric_name\":\"a\",\"limit_value\":9007199254740992}", 400, "validation_failed"),
    ("{\"metric_name\":\"a\",\"limit_value\":1e400}", 400, ""),
    ("{\"metric_name\":\"a b\",\"limit_value\":1}", 400, "validation_failed"),
    ("{\"metric_name\":\"a\",\"limit_value\":1,\"limit_period\":\"fortnightly\"}", 400, "validation_failed"),
    ("{\"metric_name\":\"a\",\"limit_value\":1,\"breach_operator\":\"GTE\"}", 400, "validation_failed"),
    ("{\"metric_name\":\"a\",\"limit_value\":1,\"alert_thresholds\":[0]}", 400, "validation_failed"),
    ("{\"metric_name\":\"a\",\"limit_value\":1,\"surprise\":1}", 400, "unknown_field"),
    ("{\"metric_name\":\"a\",\"limit_value\":1,\"id\":\"mine\"}", 400, "unknown_field"),
    ("{\"limit_value\":1}", 400, "validation_failed"),
    ("{}", 400, "validation_failed"),
];

#[test]
fn bad_input_gets_a_clear_error_and_changes_nothing() {
    let app = TestApp::new();
    let mut client = app.client();
    let authorization = format!("Bearer {}", app.business_key);
    let dump = |app: &TestApp| app.node.sql("SELECT count(*) FROM plan_limits; SELECT count(*) FROM metrics; SELECT * FROM config_versions");
    let before = dump(&app);
    let json_type = ("content-type", "application/json");
    for (body, status, code) in BAD_BODIES {
        let answer = client.send("POST", "/api/v1/plan_limits", &[("authorization", &authorization), json_type], body.as_bytes()).unwrap();
        assert_eq!(answer.status, *status, "{body}: {}", answer.text());
        assert!(code.is_empty() || answer.code() == *code, "{body}: {}", answer.text());
        for field in ["error", "message", "code"] {
            assert!(answer.json()[field].is_string(), "{body}: {}", answer.text());
        }
    }
    let valid = b"{\"metric_name\":\"a\",\"limit_value\":1.0}";
    let typed = |client: &mut Client, headers: &[(&str, &str)]| {
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend_from_slice(headers);
        client.send("POST", "/api/v1/plan_limits", &all, valid).unwrap()
    };
    assert_eq!(typed(&mut client, &[("content-type", "text/plain")]).code(), "unsupported_media_type");
    assert_eq!(typed(&mut client, &[]).code(), "unsupported_media_type");
    assert_eq!(typed(&mut client, &[json_type, ("content-encoding", "gzip")]).code(), "unsupported_media_type");
    let large = vec![b' '; 1_000_001];
    let answer = client.send("POST", "/api/v1/plan_limits", &[json_type], &large).unwrap();
    assert_eq!((answer.status, answer.json()["max_bytes"].as_i64()), (413, Some(1_000_000)), "before the key");
    let mut client = app.client();
    let unknown = client.send("GET", "/api/v1/nothing", &[], b"").unwrap();
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "not_found"));
    let method = client.send("PATCH", "/api/v1/plan_limits", &[], b"").unwrap();
    assert_eq!((method.status, method.code().as_str()), (405, "method_not_allowed"));
    assert!(method.header("allow").is_some_and(|allow| allow.contains("POST") && allow.contains("GET")));
    assert_eq!(dump(&app), before, "nothing was changed");
    assert_eq!(typed(&mut client, &[json_type]).status, 201, "and 1.0 is 1");
}

#[test]
fn guessing_keys_locks_an_address_out_but_not_its_neighbours() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 100, "monthly");
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    let body = envelope(&target.url("/echo"), 1);
    assert_eq!(call(&mut client, &key, &body).status, 200, "the node knows this key now");
    let forged = |n: usize| {
        use rand::SeedableRng;
        let mut rng = rand::rngs::StdRng::seed_from_u64(n as u64);
        tracktags_core::keys::PlainKey::for_business(&mut rng).expose().to_owned()
    };
    let mut statuses = Vec::new();
    for n in 0..30 {
        let guess = if n % 2 == 0 { forged(n) } else { format!("tk_live_mistyped{n}") };
        let answer = client.json("GET", "/api/v1/plans", &guess, None);
        statuses.push((answer.status, answer.code()));
        if answer.status == 429 {
            assert!(answer.header("retry-after").is_some());
            assert!(answer.json()["retry_after_seconds"].is_number(), "{}", answer.text());
        }
    }
    assert!(statuses[..20].iter().all(|(status, code)| *status == 401 && code == "invalid_key"), "{statuses:?}");
    assert!(statuses[21..].iter().all(|(status, code)| *status == 429 && code == "too_many_failures"), "{statuses:?}");
    assert_eq!(call(&mut client, &key, &body).status, 200, "a known key passes");
}
