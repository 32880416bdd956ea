//! Forbidden targets in a network whose every route leads to a sink: each URL form of an address that nobody may
//! reach, as it stands, behind a name in every way that names can lead there, and as a redirect. Whatever is connected
//! to, the sink sees it or the kernel counts it; nothing is. Shows `only-checked-addresses` over the real server.

#![cfg(test)]

use crate::forms::{Form, forms, label};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tracktags_tests::http::{Client, Response};
use tracktags_tests::load::Load;
use tracktags_tests::network::{connections, where_every_route_leads_here};
use tracktags_tests::program::Program;
use tracktags_tests::{NodeOptions, TestApp, call};

const NAME_SERVER: &str = "127.0.0.53";
const GOOD_V4: &str = "93.184.216.34";
const GOOD_V6: &str = "2606:4700::1111";
const CONNECTIONS: usize = 16;
/// What every refusal by policy says, to the byte.
const BLOCKED: &str =
    r#"{"error":"Forbidden","message":"This target is not allowed.","code":"upstream_blocked"}"#;

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

/// Names for an address, by how they lead there; `number` keeps them apart.
fn names(number: usize, address: IpAddr) -> Vec<(&'static str, String)> {
    let (bad, four, six) = (label(address), label(GOOD_V4.parse().unwrap()), label(GOOD_V6.parse().unwrap()));
    let mixed = match number % 4 {
        0 => format!("{four}.{bad}"),
        1 => format!("{bad}.{four}.{six}"),
        2 => format!("{six}.{bad}.{four}"),
        _ => format!("{four}.{four}.{six}.{bad}"),
    };
    let hops = 1 + number % 4;
    vec![
        ("answer", format!("n{number}.{bad}.at")),
        ("mixed", format!("n{number}.{mixed}.at")),
        ("chain", format!("n{number}.{bad}.{}{hops}", if number % 2 == 0 { "hop" } else { "chain" })),
    ]
}

fn url_of(number: usize, name: &str) -> String {
    let scheme = if number % 3 == 0 { "https" } else { "http" };
    format!("{scheme}://{name}.target.example/")
}

#[test]
fn no_form_of_a_forbidden_address_is_connected_to() {
    where_every_route_leads_here(NAME_SERVER, || {
        let world = World::new();
        let forms = forms();
        let urls: Vec<String> = forms.iter().flat_map(|form| ["http", "https"].map(|s| form.url(s))).collect();
        for (url, answer) in urls.iter().zip(world.calls(urls.iter().map(|url| get(url)).collect())) {
            refused(url, &answer);
        }
        let questions = world.names.lines().len();
        assert_eq!(questions, 1, "nothing was looked up: {:?}", world.names.lines());
        let mut asked = urls.len();
        let led: Vec<String> = forms
            .iter()
            .enumerate()
            .filter_map(|(number, form)| Some(names(number, form.address?).into_iter().map(move |(_, name)| url_of(number, &name))))
            .flatten()
            .collect();
        for (url, answer) in led.iter().zip(world.calls(led.iter().map(|url| get(url)).collect())) {
            assert_eq!((answer.status, answer.text().as_str()), (403, BLOCKED), "{url}");
        }
        asked += led.len();
        assert_eq!(world.reached(), []);
        world.only_reached(&BTreeSet::new());
        assert_eq!(world.usage(), 0, "refused before it was counted, or released");
        println!("{} forms, {asked} calls, 0 connections", forms.len());
        assert!(forms.len() >= 400);
        world.app.node.verify();
    });
}
