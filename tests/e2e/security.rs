//! What nobody may: a customer with another's envelope, bad input, and the lock-out. Two tenants are `tenants.rs`; where
//! calls may go and whose bytes come back is `targets.rs`.

#![cfg(test)]

use serde_json::{Value, json};
use std::time::Duration;
use tracktags_tests::http::Client;
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{TestApp, call, envelope, text, wait_until};

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
        ("GET", "/api/v1/plan_limits"),
        ("POST", "/api/v1/plan_limits"),
        ("PUT", "/api/v1/plan_limits/x"),
        ("DELETE", "/api/v1/plan_limits/x"),
        ("GET", "/api/v1/plans"),
        ("POST", "/api/v1/plans"),
        ("GET", "/api/v1/customers"),
        ("POST", "/api/v1/customers"),
        ("GET", "/api/v1/customers/customer_1"),
        ("DELETE", "/api/v1/customers/customer_1"),
        ("POST", "/api/v1/customers/customer_1/keys"),
        ("GET", "/api/v1/settings"),
        ("PATCH", "/api/v1/settings"),
        ("GET", "/api/v1/businesses"),
        ("POST", "/api/v1/businesses"),
        ("POST", "/api/v1/keys"),
    ] {
        let answer = client.json(method, path, &mine, Some(&json!({"nonsense": 0.5})));
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "forbidden"),
            "{method} {path}: {}",
            answer.text()
        );
        let nobody = client.send(method, path, &[], b"");
        assert_eq!((nobody.status, nobody.code().as_str()), (401, "unauthorized"), "{method} {path}");
    }
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
    let dump = |app: &TestApp| {
        app.node.sql(
            "SELECT count(*) FROM plan_limits; SELECT count(*) FROM metrics; SELECT * FROM config_versions",
        )
    };
    let before = dump(&app);
    let json_type = ("content-type", "application/json");
    for (body, status, code) in BAD_BODIES {
        let answer = client.send(
            "POST",
            "/api/v1/plan_limits",
            &[("authorization", &authorization), json_type],
            body.as_bytes(),
        );
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
        client.send("POST", "/api/v1/plan_limits", &all, valid)
    };
    assert_eq!(typed(&mut client, &[("content-type", "text/plain")]).code(), "unsupported_media_type");
    assert_eq!(typed(&mut client, &[]).code(), "unsupported_media_type");
    assert_eq!(
        typed(&mut client, &[json_type, ("content-encoding", "gzip")]).code(),
        "unsupported_media_type"
    );
    let large = vec![b' '; 1_000_001];
    let answer = client.send("POST", "/api/v1/plan_limits", &[json_type], &large);
    assert_eq!(
        (answer.status, answer.json()["max_bytes"].as_i64()),
        (413, Some(1_000_000)),
        "before the key"
    );
    let mut client = app.client();
    let unknown = client.send("GET", "/api/v1/nothing", &[], b"");
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "not_found"));
    let method = client.send("PATCH", "/api/v1/plan_limits", &[], b"");
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
    assert!(
        statuses[..20].iter().all(|(status, code)| *status == 401 && code == "invalid_key"),
        "{statuses:?}"
    );
    assert!(
        statuses[21..].iter().all(|(status, code)| *status == 429 && code == "too_many_failures"),
        "{statuses:?}"
    );
    assert_eq!(call(&mut client, &key, &body).status, 200, "a known key passes");
}

#[test]
fn a_key_can_end_itself_and_nothing_else() {
    let app = TestApp::new();
    let customer = app.customer_key("customer_123");
    let second = app.customer_key("customer_123");
    let mut client = app.client();
    let made = app.business("POST", "/api/v1/keys", Some(&json!({})), 201);
    let business = made["api_key"].as_str().unwrap().to_owned();
    for key in [&customer, &business] {
        let answer = client.json("DELETE", "/api/v1/keys/self", key, None);
        assert_eq!(
            (answer.status, answer.json()["status"].as_str()),
            (200, Some("revoked")),
            "{}",
            answer.text()
        );
        for (method, path) in
            [("DELETE", "/api/v1/keys/self"), ("GET", "/api/v1/usage"), ("POST", "/api/v1/check")]
        {
            let refused = client.json(method, path, key, None);
            assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_key"), "{method} {path}");
        }
    }
    let admin = client.admin("DELETE", "/api/v1/keys/self", &app.node.admin_key(), None);
    assert_eq!((admin.status, admin.code().as_str()), (403, "forbidden"));
    // The others go on.
    assert_eq!(client.json("GET", "/api/v1/usage", &second, None).status, 200);
    assert_eq!(app.usage("customer_123"), 0);
}

#[test]
fn a_rotated_key_has_a_successor_at_once_and_ends_with_its_grace() {
    let app = TestApp::new();
    let old = app.customer_key("customer_123");
    let _id = app.limit("api_calls", 3, "monthly");
    let target = Upstream::start();
    let mut client = app.client();
    let keys = "/api/v1/customers/customer_123/keys";
    let id = app.business("GET", keys, None, 200)["keys"][0]["id"].as_str().unwrap().to_owned();
    let rotate = |key: &str, body: &Value, status: u16| {
        app.business("POST", &format!("{keys}/{key}/rotate"), Some(body), status)
    };
    let made = rotate(&id, &json!({"grace_seconds": 3_600}), 201);
    assert_eq!(
        (made["status"].as_str(), made["replaces"].as_str()),
        (Some("created"), Some(id.as_str())),
        "{made}"
    );
    assert!(made["old_key_expires_at"].is_string());
    let new = made["api_key"].as_str().unwrap();
    // Two keys of one customer share its usage, and the old one says when it ends.
    let envelope = envelope(&target.url("/echo"), 1);
    for (key, status) in [(old.as_str(), 200), (new, 200), (old.as_str(), 200), (new, 429)] {
        let answer = call(&mut client, key, &envelope);
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("x-tracktags-key-expires").is_some(), key == old);
    }
    let last = rotate(made["key_id"].as_str().unwrap(), &json!({"grace_seconds": 0}), 201);
    for key in [old.as_str(), new] {
        let refused = call(&mut client, key, &envelope);
        assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_key"));
    }
    assert_eq!(call(&mut client, last["api_key"].as_str().unwrap(), &envelope).status, 429);
    for (body, code) in [
        (json!({"grace_seconds": -1}), "validation_failed"),
        (json!({"grace_seconds": 2_592_001}), "validation_failed"),
        (json!({"grace_seconds": 0.5}), "not_integral"),
        (json!({"expires_at": "2020-01-01T00:00:00Z"}), "validation_failed"),
        (json!({"grace": 1}), "unknown_field"),
    ] {
        assert_eq!(rotate(last["key_id"].as_str().unwrap(), &body, 400)["code"], code, "{body}");
    }
    assert_eq!(rotate("nothing", &json!({}), 404)["code"], "key_not_found");
}

#[test]
fn a_customer_has_as_many_keys_as_the_business_says() {
    let app = TestApp::new();
    let path = "/api/v1/customers/customer_123/keys";
    let create = |status| app.business("POST", path, Some(&json!({})), status);
    let set = |count: i64| {
        let change = json!({"max_customer_keys": count});
        app.business("PATCH", "/api/v1/settings", Some(&change), 200)
    };
    let first = create(201);
    let _second = create(201);
    assert_eq!(create(409)["code"], "key_limit_reached");
    assert_eq!(set(4)["max_customer_keys"], 4);
    let (_third, _fourth) = (create(201), create(201));
    assert_eq!(create(409)["code"], "key_limit_reached");
    // A smaller number ends no key, and lets none be made until there are fewer.
    let _settings = set(3);
    let key = |made: &Value| format!("{path}/{}", made["key_id"].as_str().unwrap());
    let _revoked = app.business("DELETE", &key(&first), None, 200);
    assert_eq!(create(409)["code"], "key_limit_reached", "three are left");
    let keys = app.business("GET", path, None, 200);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 3);
    for count in ["0", "51"] {
        let body = format!("{{\"max_customer_keys\":{count}}}");
        let body: Value = serde_json::from_str(&body).unwrap();
        let refused = app.business("PATCH", "/api/v1/settings", Some(&body), 400);
        assert_eq!(refused["details"][0]["field"], "max_customer_keys");
    }
    // By SQL it holds as well.
    app.node.sql("UPDATE businesses SET max_customer_keys = 5");
    let _fourth = create(201);
    app.node.verify();
}

#[test]
fn a_deleted_business_is_refused_at_once_and_comes_back_without_its_keys() {
    let app = TestApp::new();
    let customer = app.customer_key("customer_123");
    let _id = app.limit("api_calls", 10, "monthly");
    let body = json!({"metric_name": "api_calls", "customer_id": "customer_123", "units": 3});
    assert_eq!(app.client().json("POST", "/api/v1/track", &app.business_key, Some(&body)).status, 200);
    let path = format!("/api/v1/businesses/{}", app.business_id);
    let admin = |method: &str, path: &str| app.client().admin(method, path, &app.node.admin_key(), None);
    let forbidden = app.client().json("DELETE", &path, &app.business_key, None);
    assert_eq!((forbidden.status, forbidden.code().as_str()), (403, "forbidden"));
    let deleted = admin("DELETE", &path);
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    assert!(deleted.json()["deletion_scheduled_for"].is_string(), "{}", deleted.text());
    for key in [&app.business_key, &customer] {
        let refused = app.client().json("GET", "/api/v1/usage", key, None);
        assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_key"));
    }
    assert_eq!(admin("GET", &path).code(), "business_not_found");
    assert_eq!(admin("DELETE", &path).code(), "business_not_found");
    let listed = |query: &str| {
        let list = admin("GET", &format!("/api/v1/businesses{query}")).json();
        list["businesses"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["business_id"] == app.business_id.as_str())
    };
    assert!(listed("?deleted=true") && !listed(""));
    assert_eq!(admin("GET", "/api/v1/businesses?deleted=maybe").code(), "validation_failed");
    assert_eq!(admin("POST", &format!("{path}/restore")).status, 200);
    assert!(listed("") && !listed("?deleted=true"));
    assert_eq!(admin("POST", "/api/v1/businesses/nobody/restore").code(), "business_not_found");
    let refused = app.client().json("GET", "/api/v1/usage", &customer, None);
    assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_key"), "keys stay revoked");
    let usage =
        admin("GET", &format!("/api/v1/usage?business_id={}&customer_id=customer_123", app.business_id));
    assert_eq!(usage.json()["metrics"][0]["current_value"], 3, "{}", usage.text());
    app.node.verify();
}

#[test]
fn a_key_does_what_it_was_made_for_and_nothing_else() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 100, "monthly");
    // One of the two a business may have is the one it has.
    let make = |scopes: Value| {
        let made =
            app.business("POST", "/api/v1/keys", Some(&json!({"key_name": "k", "scopes": scopes})), 201);
        (text(&made, "api_key"), text(&made, "key_id"))
    };
    let call = envelope(&target.url("/echo"), 1);
    let limit = json!({"metric_name": "other", "limit_value": 1});
    // What each scope alone opens; everything else is closed to it.
    let tried: [(&str, &str, &str, Option<&Value>, u16); 4] = [
        ("read", "GET", "/api/v1/plan_limits", None, 200),
        ("write", "POST", "/api/v1/plan_limits", Some(&limit), 201),
        ("proxy", "POST", "/api/v1/proxy", Some(&call), 200),
        ("keys", "POST", "/api/v1/customers/c/keys", None, 201),
    ];
    for (scope, ..) in tried {
        let (key, id) = make(json!([scope]));
        let mut client = app.client();
        for (needed, method, path, body, good) in tried {
            let answer = client.json(method, path, &key, body);
            if needed == scope {
                assert_eq!(answer.status, good, "{scope}: {path}: {}", answer.text());
            } else {
                assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{scope}: {path}");
                assert!(answer.text().contains(needed), "the scope is named: {}", answer.text());
            }
        }
        // Known by now, so the data plane goes by what the node knows: the answer is the same.
        let again = client.json("POST", "/api/v1/proxy", &key, Some(&call)).status;
        assert_eq!(again, if scope == "proxy" { 200 } else { 403 });
        let shown = app.business("GET", &format!("/api/v1/keys/business/{id}"), None, 200);
        assert_eq!(shown["scopes"], json!([scope]));
        // SQL widens nothing: the row no longer proves the key.
        let _done = app.node.sql(&format!("UPDATE business_keys SET scopes = NULL WHERE id = '{id}'"));
        assert_eq!(client.json("GET", "/api/v1/plan_limits", &key, None).status, 401);
        let _done = app.node.sql(&format!("UPDATE business_keys SET scopes = '{scope}' WHERE id = '{id}'"));
        // A successor may do the same; and every key may end itself.
        let grace = json!({"grace_seconds": 0});
        let path = format!("/api/v1/keys/business/{id}/rotate");
        let next = text(&app.business("POST", &path, Some(&grace), 201), "api_key");
        let refused = client.json("GET", "/api/v1/plan_limits", &next, None).status;
        assert_eq!(refused, if scope == "read" { 200 } else { 403 });
        assert_eq!(client.json("DELETE", "/api/v1/keys/self", &next, None).status, 200);
    }
    for bad in [json!([]), json!(["admin"]), json!(["read", "read"]), json!("read"), json!([1])] {
        let body = json!({"scopes": bad});
        let refused = app.client().json("POST", "/api/v1/keys", &app.business_key, Some(&body));
        assert_eq!((refused.status, refused.code().as_str()), (400, "validation_failed"), "{bad}");
    }
}

#[test]
fn a_keys_last_use_is_told_within_seconds() {
    let app = TestApp::new();
    let target = Upstream::start();
    let _id = app.limit("api_calls", 100, "monthly");
    let key = app.customer_key("c1");
    let used =
        || app.business("GET", "/api/v1/customers/c1/keys", None, 200)["keys"][0]["last_used_at"].clone();
    assert_eq!(used(), Value::Null);
    assert_eq!(call(&mut app.client(), &key, &envelope(&target.url("/echo"), 1)).status, 200);
    wait_until("the use is written", Duration::from_secs(10), || used().is_string());
}
