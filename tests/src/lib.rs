//! End-to-end tests over real processes, real sockets and a real database: what they are made of.
//!
//! [`TestApp`] is a node on a free port with a database of its own, a business and its key. [`http`] is a blocking
//! client, [`script`] a shell in a network of its own, [`network`] one for a test, in which every route leads back to
//! it, [`cluster`] several nodes on one database, [`program`] a small program as a process, [`upstream`] a target that misbehaves on demand and keeps a log,
//! [`load`] many clients at once, [`overload`] a load at a fixed rate, [`chaos`] a bad network, [`process`] what a
//! process holds, [`slow`] clients that dawdle. [`images`] are disks as a power failure may leave them, [`books`] and
//! [`peek`] compare counters with what a client or a target saw. Most are small programs too, with help of their own.

pub mod books;
pub mod chaos;
pub mod cluster;
pub mod http;
pub mod images;
pub mod load;
pub mod log;
pub mod network;
pub mod node;
pub mod overload;
pub mod peek;
pub mod process;
pub mod program;
pub mod script;
pub mod sim;
pub mod slow;
pub mod upstream;

pub use node::{Node, NodeOptions};

use http::{Client, Response};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `limit`.
#[expect(clippy::disallowed_methods, reason = "a deadline for a condition")]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A comparison of latencies holds in two of three rounds: others use the machine too, and may disturb one.
///
/// # Panics
/// When it does not.
pub fn mostly(what: &str, mut round: impl FnMut() -> bool) {
    let (mut held, mut failed) = (0, 0);
    while held < 2 && failed < 2 {
        if round() {
            held += 1;
        } else {
            failed += 1;
        }
    }
    assert!(failed < 2, "{what}: not in two of three rounds");
}

/// A random number's seed: `TRACKTAGS_SEED` repeats one. Printed, so that a failure can be.
#[must_use]
#[expect(clippy::print_stdout, reason = "the seed repeats a run")]
pub fn seed() -> u64 {
    let seed = given_seed().unwrap_or_else(rand::random);
    println!("TRACKTAGS_SEED={seed}");
    seed
}

/// The seed that `TRACKTAGS_SEED` says, if it does.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the seed repeats a run")]
pub fn given_seed() -> Option<u64> {
    std::env::var("TRACKTAGS_SEED").ok().and_then(|seed| seed.parse().ok())
}

/// A node with a business.
pub struct TestApp {
    /// The node.
    pub node: Node,
    /// The business's id.
    pub business_id: String,
    /// Its key.
    pub business_key: String,
}

impl Default for TestApp {
    fn default() -> Self {
        Self::new()
    }
}

impl TestApp {
    /// A node with the settings of tests: targets on loopback are allowed.
    #[must_use]
    pub fn new() -> Self {
        Self::with(NodeOptions::default())
    }

    /// A node with these settings.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn with(options: NodeOptions) -> Self {
        let node = Node::start(options);
        let (business_id, business_key) = new_business(&node);
        Self { node, business_id, business_key }
    }

    /// A client with a connection of its own.
    #[must_use]
    pub fn client(&self) -> Client {
        self.node.client()
    }

    /// A request of the business; panics unless the status is `expected`.
    ///
    /// # Panics
    /// On any other status.
    #[must_use]
    pub fn business(&self, method: &str, path: &str, body: Option<&Value>, expected: u16) -> Value {
        let answer = self.client().json(method, path, &self.business_key, body);
        assert_eq!(answer.status, expected, "{method} {path}: {}", answer.text());
        answer.json()
    }

    /// Creates a business-wide limit that denies; its id.
    #[must_use]
    pub fn limit(&self, metric: &str, value: i64, period: &str) -> String {
        self.limit_with(&json!({"metric_name": metric, "limit_value": value, "limit_period": period}))
    }

    /// Creates a limit with these fields; its id.
    #[must_use]
    pub fn limit_with(&self, fields: &Value) -> String {
        let made = self.business("POST", "/api/v1/plan_limits", Some(fields), 201);
        text(&made, "id")
    }

    /// Makes a key of a customer, who is created if new.
    #[must_use]
    pub fn customer_key(&self, customer: &str) -> String {
        let made = self.business("POST", &format!("/api/v1/customers/{customer}/keys"), None, 201);
        text(&made, "api_key")
    }

    /// Creates a plan; its id.
    #[must_use]
    pub fn plan(&self, name: &str, is_free: bool) -> String {
        let fields = json!({"plan_name": name, "is_free": is_free});
        text(&self.business("POST", "/api/v1/plans", Some(&fields), 201), "id")
    }

    /// The first metric's usage of a customer.
    #[must_use]
    pub fn usage(&self, customer: &str) -> i64 {
        self.usage_of(customer, "current_value")
    }

    /// A number of the first metric's usage of a customer.
    #[must_use]
    pub fn usage_of(&self, customer: &str, field: &str) -> i64 {
        let usage = self.business("GET", &format!("/api/v1/usage?customer_id={customer}"), None, 200);
        usage["metrics"][0][field].as_i64().unwrap_or_default()
    }
}

/// Creates a business with a key: its id and the key.
///
/// # Panics
/// When it cannot be created.
#[must_use]
pub fn new_business(node: &Node) -> (String, String) {
    let mut client = node.client();
    let fields = json!({"business_name": "Test", "email": "test@example.com"});
    let made = client.admin("POST", "/api/v1/businesses", &node.admin_key(), Some(&fields));
    assert_eq!(made.status, 201, "{}", made.text());
    let id = text(&made.json(), "business_id");
    let key = client.admin("POST", &format!("/api/v1/businesses/{id}/keys"), &node.admin_key(), None);
    assert_eq!(key.status, 201, "{}", key.text());
    (id, text(&key.json(), "api_key"))
}

/// A text field of an answer.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn text(value: &Value, field: &str) -> String {
    let found = value.get(field).and_then(Value::as_str);
    assert!(found.is_some(), "no {field} in {value}");
    found.unwrap_or_default().to_owned()
}

/// An envelope for a target.
#[must_use]
pub fn envelope(target: &str, units: i64) -> Value {
    json!({"metric_name": "api_calls", "target_url": target, "method": "POST", "body": "{}", "units": units})
}

/// A proxied call.
pub fn call(client: &mut Client, key: &str, envelope: &Value) -> Response {
    client.json("POST", "/api/v1/proxy", key, Some(envelope))
}
