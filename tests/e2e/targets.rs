//! Where calls may go, and whose bytes come back: forbidden targets are refused without a connection, and no answer
//! reaches another customer.

#![cfg(test)]

use crate::forms::NAMES;
use serde_json::json;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracktags_tests::load::Load;
use tracktags_tests::script::{folder, run};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp, call, envelope};

/// Every range and form of docs/SECURITY.md §5 that can be written into an URL.
const FORBIDDEN_HOSTS: &[&str] = &[
    // This host, in other clothes.
    "127.0.0.1",
    "127.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::1]",
    "0.0.0.0",
    "0",
    "[::]",
    // Private, shared, link-local and special ranges, at their edges.
    "0.255.255.255",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "100.100.100.200",
    "[100::1]",
    "[100:0:0:1::1]",
    "[2001::1]",
    "[2001:2::1]",
    "[2001:20::1]",
    "[2001:1ff:ffff::1]",
    "[2001:db8::1]",
    "[2002:7f00:1::]",
    "[2620:4f:8000::1]",
    "[3fff::1]",
    "[3fff:fff:ffff::1]",
    "[5f00::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[fe80::1]",
    "[febf::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[4000::1]",
    "[2600::5efe:7f00:1]",
    "[2600::200:5efe:a00:1]",
];

#[test]
fn no_answer_reaches_another_customer() {
    const CALLS: usize = 10_000;
    const PATHS: [&str; 9] =
        ["/echo", "/short", "/echo", "/interim", "/garbage", "/surplus", "/close", "/gone", "/chunk"];
    let app = TestApp::new();
    let target = Upstream::start();
    let keys: Vec<String> = (0..50).map(|n| app.customer_key(&format!("customer_{n}"))).collect();
    let _id = app.limit("api_calls", 1_000_000, "yearly");
    let foreign = Arc::new(AtomicUsize::new(0));
    let (counted, url) = (Arc::clone(&foreign), target.url(""));
    let tally = Load::start(app.node.address, 32, CALLS, move |number, client| {
        let path = PATHS[number % PATHS.len()];
        let mine = format!("call {number} of customer {}", number % keys.len());
        let body = json!({"metric_name": "api_calls", "target_url": format!("{url}{path}"), "method": "POST", "body": mine});
        let answer = call(client, &keys[number % keys.len()], &body);
        let echoed = &answer.json()["forwarded_response"]["body"];
        let is_whole = matches!(path, "/echo" | "/interim" | "/surplus" | "/close");
        // What is whole is the caller's own, and of what is broken nothing is handed out.
        let is_own = if is_whole { echoed == &json!(mine) } else { echoed.is_null() };
        let of_another = answer.text().contains("of nobody");
        counted.fetch_add(usize::from(!is_own || of_another), Ordering::SeqCst);
        answer
    })
    .wait();
    assert_eq!(foreign.load(Ordering::SeqCst), 0, "{tally:?}");
    assert_eq!((tally.unknown, tally.refused), (0, 0), "{tally:?}");
    println!("{CALLS} calls, 0 foreign bytes: {tally:?}");
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
    let mut refused = 0;
    let port = target.local_addr().unwrap().port();
    let _id = app.limit("api_calls", 100, "monthly");
    let key = app.customer_key("customer_1");
    let mut client = app.client();
    for host in FORBIDDEN_HOSTS.iter().chain(NAMES) {
        for url in [format!("http://{host}:{port}/"), format!("http://{host}/"), format!("https://{host}/")] {
            let answer = call(&mut client, &key, &envelope(&url, 1));
            let is_refused = matches!(
                (answer.status, answer.code().as_str()),
                (403, "upstream_blocked") | (400, "invalid_target")
            );
            assert!(is_refused, "{url}: {}", answer.text());
            refused += 1;
            assert!(!answer.text().contains("127.0.0.1"), "no reason is told: {}", answer.text());
        }
    }
    println!("{refused} URLs refused");
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
        let answer = call(
            &mut client,
            &key,
            &envelope(&format!("http://{host}:{}/health", app.node.address.port()), 1),
        );
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "upstream_blocked"),
            "{host}: {}",
            answer.text()
        );
    }
    assert_eq!(app.usage("customer_1"), 0);
}

#[test]
fn a_name_that_leads_inside_is_refused_and_leaves_a_row_in_the_trail() {
    let folder = folder();
    let out = run(
        folder.path(),
        &[r#"
printf '127.0.0.1 localhost\n10.0.0.9 inside.example\n' >hosts; mount --bind hosts /etc/hosts
ip addr add 10.0.0.9/32 dev lo; (cd "$(mktemp -d)" && exec python3 -u -m http.server 80 --bind 10.0.0.9) >inside.log 2>&1 &
within grep -q Serving inside.log
tracktags-server >server.out 2>server.err &
within grep -q listening server.out
export TRACKTAGS_ADMIN_KEY=$(cat admin.key)
made() { sed -E "s/.*\"$1\":\"([^\"]+)\".*/\1/"; }
business=$(tracktags-cli businesses create --name Acme --email ops@acme.example --output json | made business_id)
export TRACKTAGS_KEY=$(tracktags-cli --business "$business" keys create --output json | made api_key)
unset TRACKTAGS_ADMIN_KEY
tracktags-cli limits create --metric calls --value 5
customer=$(tracktags-cli keys create --customer c1 --output json | made api_key)
said=$(curl -s localhost:8080/api/v1/proxy -H "Authorization: Bearer $customer" -H 'Content-Type: application/json' \
  -d '{"metric_name": "calls", "target_url": "http://inside.example/"}')
expect upstream_blocked "$said"
tracktags-cli audit --output csv
tracktags-cli usage --customer c1 --output csv
# It would have been seen: this call is, and is the only one.
curl -s http://10.0.0.9/ >/dev/null
[ "$(grep -c 'GET /' inside.log)" = 1 ] || { cat inside.log >&2; exit 1; }
"#],
    );
    let refused = out.lines().filter(|line| line.contains("target.refuse")).count();
    assert_eq!(refused, 1, "{out}");
    assert!(!out.contains("10.0.0.9"), "nobody is told where the name leads: {out}");
}
