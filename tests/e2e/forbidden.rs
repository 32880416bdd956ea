//! Forbidden targets in a network whose every route leads to a sink: each URL form of an address that nobody may
//! reach, as it stands, behind a name in every way that names can lead there, and as a redirect. Whatever is connected
//! to, the sink sees it or the kernel counts it; nothing is. Shows `only-checked-addresses` over the real server.

#![cfg(test)]

use crate::forms::{forms, label};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use tracktags_tests::http::Response;
use tracktags_tests::load::Load;
use tracktags_tests::network::{connections, where_every_route_leads_here};
use tracktags_tests::program::Program;
use tracktags_tests::{NodeOptions, TestApp, call};

const NAME_SERVER: &str = "127.0.0.53";
const CONNECTIONS: usize = 16;
/// What every refusal by policy says, to the byte.
const BLOCKED: &str =
    r#"{"error":"Forbidden","message":"This target is not allowed.","code":"upstream_blocked"}"#;

fn good_v4() -> IpAddr {
    IpAddr::from([93, 184, 216, 34])
}

fn good_v6() -> IpAddr {
    IpAddr::from([0x2606, 0x4700, 0, 0, 0, 0, 0, 0x1111])
}

/// The server, the sink and the name server, all in one network.
struct World {
    app: TestApp,
    key: String,
    sink: Program,
    names: Program,
}

impl World {
    fn new() -> Self {
        let sink = Program::start("sink", &[]);
        let names = Program::start("nameserver", &["--listen", &format!("{NAME_SERVER}:53")]);
        let app = TestApp::with(
            NodeOptions::default()
                .set("PROXY__TARGET_POLICY", "public")
                .set("PROXY__RESOLVE_TIMEOUT_MS", "1500"),
        );
        let _id = app.limit("api_calls", 1_000_000, "yearly");
        let key = app.customer_key("customer_1");
        Self { app, key, sink, names }
    }

    /// Makes these calls at once; what was answered, in their order.
    fn calls(&self, envelopes: Vec<Value>) -> Vec<Response> {
        let (envelopes, key) = (Arc::new(envelopes), self.key.clone());
        let answers = Arc::new(Mutex::new(vec![Response::default(); envelopes.len()]));
        let (count, kept) = (envelopes.len(), Arc::clone(&answers));
        let _tally = Load::start(self.app.node.address, CONNECTIONS, count, move |number, client| {
            let answer = call(client, &key, &envelopes[number]);
            kept.lock().unwrap()[number] = answer.clone();
            answer
        })
        .wait();
        Arc::into_inner(answers).unwrap().into_inner().unwrap()
    }

    /// The addresses that the sink was connected at, so far.
    fn reached(&self) -> Vec<SocketAddr> {
        self.sink.lines().iter().skip(1).map(|line| line.parse().unwrap()).collect()
    }

    /// Every connection of this network was taken by a listener of the test, and at the sink by allowed addresses
    /// only: nothing was sent to any other.
    fn only_reached(&self, allowed: &BTreeSet<IpAddr>) {
        for at in self.reached() {
            assert!(allowed.contains(&at.ip()), "{at} was connected to");
        }
        let counted = connections();
        assert_eq!(counted.begun, counted.taken, "a connection was begun to where nobody listens");
    }

    fn usage(&self) -> usize {
        usize::try_from(self.app.usage("customer_1")).unwrap()
    }
}

fn get(url: &str) -> Value {
    json!({"metric_name": "api_calls", "target_url": url})
}

fn refused(url: &str, answer: &Response) {
    match (answer.status, answer.code().as_str()) {
        (403, "upstream_blocked") => assert_eq!(answer.text(), BLOCKED, "{url}"),
        (400, "invalid_target") => assert!(!answer.text().contains("127."), "{url}: {}", answer.text()),
        _ => panic!("{url}: {} {}", answer.status, answer.text()),
    }
}

/// URLs with names that lead to an address: its own, one of good company, an alias. `number` keeps them apart.
fn names(number: usize, address: IpAddr) -> [String; 3] {
    let (bad, four, six) = (label(address), label(good_v4()), label(good_v6()));
    let mixed = match number % 4 {
        0 => format!("{four}.{bad}"),
        1 => format!("{bad}.{four}.{six}"),
        2 => format!("{six}.{bad}.{four}"),
        _ => format!("{four}.{four}.{six}.{bad}"),
    };
    let alias = if number.is_multiple_of(2) { "hop" } else { "chain" };
    let name_of = |labels: &str, how: &str| {
        let scheme = if number.is_multiple_of(3) { "https" } else { "http" };
        format!("{scheme}://n{number}.{labels}.{how}.target.example/")
    };
    [name_of(&bad, "at"), name_of(&mixed, "at"), name_of(&bad, &format!("{alias}{}", 1 + number % 4))]
}

#[test]
fn no_form_of_a_forbidden_address_is_connected_to() {
    where_every_route_leads_here(NAME_SERVER, || {
        let world = World::new();
        let forms = forms();
        let urls: Vec<String> =
            forms.iter().flat_map(|form| ["http", "https"].map(|scheme| form.url(scheme))).collect();
        for (url, answer) in urls.iter().zip(world.calls(urls.iter().map(|url| get(url)).collect())) {
            refused(url, &answer);
        }
        assert_eq!(world.names.lines(), ["ready"], "nothing was looked up");
        let addresses = forms.iter().filter_map(|form| form.address).enumerate();
        let led: Vec<String> = addresses.flat_map(|(number, address)| names(number, address)).collect();
        for (url, answer) in led.iter().zip(world.calls(led.iter().map(|url| get(url)).collect())) {
            assert_eq!((answer.status, answer.text().as_str()), (403, BLOCKED), "{url}");
        }
        assert_eq!(world.reached(), []);
        world.only_reached(&BTreeSet::new());
        assert_eq!(world.usage(), 0, "refused before it was counted, or released");
        let searched = world.names.lines().into_iter().find(|line| line.contains("search"));
        assert_eq!(searched, None, "names are absolute");
        println!("{} forms as {} literals and {} names: 0 connections", forms.len(), urls.len(), led.len());
        assert!(forms.len() >= 400 && led.len() >= 1_200);
        world.app.node.verify();
    });
}

#[test]
fn a_redirect_to_a_forbidden_address_is_handed_back_as_it_came() {
    const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
    where_every_route_leads_here(NAME_SERVER, || {
        let world = World::new();
        let forms = forms();
        let envelopes = forms.iter().enumerate().map(|(number, form)| {
            let status = STATUSES[number % STATUSES.len()];
            let target = format!("http://n{number}.{}.at.target.example/redirect/{status}", label(good_v4()));
            json!({"metric_name": "api_calls", "target_url": target, "method": "POST", "body": form.url("http")})
        });
        for (number, (form, answer)) in forms.iter().zip(world.calls(envelopes.collect())).enumerate() {
            let forwarded = &answer.json()["forwarded_response"];
            let status = STATUSES[number % STATUSES.len()];
            assert_eq!(
                (answer.status, &forwarded["status_code"]),
                (200, &json!(status)),
                "{}",
                answer.text()
            );
            if form.host.is_ascii() {
                assert_eq!(forwarded["headers"]["location"], json!(form.url("http")), "{}", answer.text());
            }
        }
        assert_eq!(world.reached().len(), forms.len(), "one connection for each call");
        world.only_reached(&BTreeSet::from([good_v4()]));
        println!("{} redirects handed back, none followed", forms.len());
        assert!(forms.len() >= 400);
    });
}

#[test]
fn a_name_that_changes_its_answer_gains_nothing() {
    const NAMES: usize = 5_000;
    where_every_route_leads_here(NAME_SERVER, || {
        let world = World::new();
        let forbidden: Vec<IpAddr> = forms().iter().filter_map(|form| form.address).collect();
        // Asked for twice at least: the answer's time to live is 0, and the sink keeps no connection.
        let url = |number: usize| {
            let bad = label(forbidden[number % forbidden.len()]);
            let good = label(if bad.len() > 9 { good_v6() } else { good_v4() });
            format!("http://n{number}.{good}.{bad}.flip.target.example/")
        };
        let mut tally = [0; 2];
        for _turn in 0..2 {
            let envelopes = (0..NAMES).map(|number| get(&url(number)));
            for (number, answer) in world.calls(envelopes.collect()).iter().enumerate() {
                let is_blocked = (answer.status, answer.text().as_str()) == (403, BLOCKED);
                assert!(is_blocked || answer.status == 200, "{}: {}", url(number), answer.text());
                tally[usize::from(is_blocked)] += 1;
            }
        }
        let [passed, blocked] = tally;
        world.only_reached(&BTreeSet::from([good_v4(), good_v6()]));
        assert_eq!(world.reached().len(), passed, "each call that passed, and no other");
        assert_eq!(world.usage(), passed, "the units of the others were released");
        println!(
            "{} calls to names that change: {passed} passed, {blocked} refused, 0 hits",
            passed + blocked
        );
        assert!(passed >= NAMES / 2 && blocked >= NAMES / 2);
        world.app.node.verify();
    });
}

/// Public addresses beside the ranges that are refused, and in the middle of nowhere.
const PUBLIC: &[&str] = &[
    "1.0.0.0",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.31.195.255",
    "192.52.194.0",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2001:200::",
    "2001:db7:ffff::1",
    "2001:db9::",
    "2003::1",
    "2600::5eff:a00:1",
    "2620:4f:7fff::1",
    "3ffe:ffff::1",
    "3fff:1000::",
    "2a00:1450::200e",
];

#[test]
fn public_targets_are_connected_to() {
    where_every_route_leads_here(NAME_SERVER, || {
        let world = World::new();
        let mut expected = Vec::new();
        let mut urls = Vec::new();
        for (number, address) in PUBLIC.iter().map(|text| text.parse::<IpAddr>().unwrap()).enumerate() {
            let (host, how) = (SocketAddr::new(address, 0).to_string(), ["at", "hop3", "chain3"][number % 3]);
            let literal = host.strip_suffix(":0").unwrap().to_owned();
            let name = format!("n{number}.{}.{how}.target.example", label(address));
            for host in [literal, name] {
                for (scheme, port) in [("http", 80), ("https", 443)] {
                    urls.push(format!("{scheme}://{host}/"));
                    expected.push(SocketAddr::new(address, port));
                }
            }
        }
        urls.push(format!("http://{}.many.target.example/", label(good_v4())));
        for (url, answer) in urls.iter().zip(world.calls(urls.iter().map(|url| get(url)).collect())) {
            // The sink speaks no TLS: there the connection itself is what is to be seen.
            let status = if url.starts_with("https") { 502 } else { 200 };
            assert_eq!(answer.status, status, "{url}: {}", answer.text());
        }
        let mut reached = world.reached();
        let first_of_many: SocketAddr = "93.184.0.0:80".parse().unwrap();
        expected.push(first_of_many);
        expected.sort();
        reached.sort();
        assert_eq!(reached, expected, "each was connected to once, by its literal and by its name");
        assert_eq!(world.usage(), urls.iter().filter(|url| url.starts_with("http:")).count());
        assert!(PUBLIC.len() >= 30);
        println!("{} public controls: {} connections", PUBLIC.len(), reached.len());
    });
}

#[test]
fn what_is_refused_takes_no_units_and_what_is_silent_gives_them_back() {
    where_every_route_leads_here(NAME_SERVER, || {
        let world = World::new();
        let (bad, four) = (label(IpAddr::from([10, 0, 0, 1])), label(good_v4()));
        let of_scarce = |url: &str| json!({"metric_name": "scarce", "target_url": url});
        let one = |url: &str| world.calls(vec![of_scarce(url)]).remove(0);
        let _id = world.app.limit("scarce", 1, "yearly");
        // A bad address behind a thousand good ones; both are released in the connector, so one unit lasts for all.
        for url in [
            format!("http://a.{bad}.at.target.example/"),
            format!("http://b.{bad}.many.target.example/"),
            format!("http://c.{four}.{bad}.hop4.target.example/"),
        ] {
            assert_eq!(one(&url).text(), BLOCKED, "{url}");
        }
        let silent = one("http://d.silent.target.example/");
        assert_eq!(
            (silent.status, silent.json()["status"].as_str()),
            (504, Some("failed")),
            "{}",
            silent.text()
        );
        assert!(
            world.names.lines().iter().any(|line| line.starts_with("tcp")),
            "a thousand answers take TCP"
        );
        assert_eq!(world.reached(), []);
        world.only_reached(&BTreeSet::new());
        assert_eq!(one(&format!("http://{four}.at.target.example/")).status, 200);
        // Nothing is left. A literal is refused before that matters; so is a name that was refused just now; of a new
        // one nothing is known before it is counted.
        let literals = ["http://10.0.0.1/", "http://[::1]/", "http://metadata/"].map(str::to_owned);
        for url in literals.into_iter().chain([format!("http://a.{bad}.at.target.example/")]) {
            assert_eq!(one(&url).text(), BLOCKED, "{url}");
        }
        assert_eq!(one(&format!("http://e.{bad}.at.target.example/")).code(), "limit_exceeded");
        world.app.node.verify();
    });
}
