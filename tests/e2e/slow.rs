//! Peers that are slow, silent or many: each is ended in time, costs little, and nobody else waits for it.

#![cfg(test)]

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use tracktags_tests::http::{Response, connect, read, request};
use tracktags_tests::overload::{Class, Pace, Plan, Tally, run};
use tracktags_tests::process::{allow_descriptors, descriptors, resident_bytes};
use tracktags_tests::slow::{Ended, Slow};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp, call, envelope, slow, wait_until};

/// What the same load on two nodes that share two busy cores may differ by.
const NOISE: Duration = Duration::from_millis(5);

fn proxied(address: SocketAddr, key: &str, target: &str) -> Vec<u8> {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    request(address, "POST", "/api/v1/proxy", &headers, envelope(target, 1).to_string().as_bytes())
}

/// A call of a customer who does nothing wrong, to a target that answers.
fn good(app: &TestApp, target: &Upstream) -> Vec<u8> {
    let _id = app.limit("api_calls", 1_000_000, "yearly");
    proxied(app.node.address, &app.customer_key("good"), &target.url("/echo"))
}

fn load(address: SocketAddr, per_second: u32, lasts: Duration, request: Vec<u8>) -> Tally {
    let pace = Pace::PerSecond(per_second);
    let class = Class { pace, requests: vec![request], connections: 16, connections_max: 1_000 };
    let plan = Plan { address, classes: vec![class], lasts, answers_within: Duration::from_secs(10) };
    let tally = run(&plan).unwrap().remove(0);
    assert_eq!((tally.lost(), tally.count(200)), (0, tally.answers.len()), "{tally}");
    tally
}

/// What 99 of 100 calls take at most at a node that has others to deal with, and in the same seconds at one that has
/// not: whatever else the machine does meanwhile, it does to both.
fn p99_side_by_side(nodes: [(SocketAddr, &[u8]); 2], lasts: Duration) -> [Duration; 2] {
    let within = std::thread::scope(|scope| {
        let loads =
            nodes.map(|(address, request)| scope.spawn(move || load(address, 100, lasts, request.to_vec())));
        loads.map(|tally| tally.join().unwrap().within(200, 990))
    });
    println!("beside them: {:?}, at a node without them: {:?}", within[0], within[1]);
    within
}

#[test]
fn a_target_that_hangs_holds_its_own_places_and_nobody_elses() {
    const PLACES: usize = 256;
    let app = TestApp::new();
    let (hanging, fast) = (Upstream::start(), Upstream::start());
    let [patient, other] = ["patient", "other"].map(|customer| app.customer_key(customer));
    let address = app.node.address;
    let undisturbed = TestApp::new();
    let [quick, quick_there] = [&app, &undisturbed].map(|app| good(app, &fast));
    let held = proxied(address, &patient, &hanging.url("/hang"));
    let mut holding: Vec<_> = (0..PLACES).map(|_| connect(address).unwrap()).collect();
    for stream in &mut holding {
        stream.get_mut().write_all(&held).unwrap();
    }
    wait_until("all places are taken", Duration::from_secs(10), || hanging.count() == PLACES);
    let refused = call(&mut app.client(), &other, &envelope(&hanging.url("/hang"), 1));
    assert_eq!((refused.status, refused.code().as_str()), (503, "upstream_busy"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!((app.usage("other"), hanging.count()), (0, PLACES), "nothing was counted or sent");
    let nodes = [(address, &*quick), (undisturbed.node.address, &*quick_there)];
    let [beside, alone] = p99_side_by_side(nodes, Duration::from_secs(12));
    assert_eq!(hanging.count(), PLACES);
    assert!(beside <= (alone * 6 / 5).max(alone + NOISE), "{beside:?}, {alone:?} without them");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures a new request")]
fn ten_thousand_idle_connections_cost_little_and_are_given_back() {
    const CONNECTIONS: usize = 10_000;
    const NEW: usize = 300;
    allow_descriptors(std::process::id(), 2 * CONNECTIONS);
    // It starts with few, as a process does, and takes what it needs.
    let app = TestApp::with(NodeOptions::default().with_descriptors(1_024, 2 * CONNECTIONS));
    let (address, id) = (app.node.address, app.node.id().unwrap());
    let health = request(address, "GET", "/health", &[], b"");
    let ask = || {
        let mut stream = connect(address).unwrap();
        stream.get_mut().write_all(&health).unwrap();
        assert_eq!(read(&mut stream, false).unwrap().status, 200);
        stream.into_inner()
    };
    // What all connections share is there before.
    drop(ask());
    let open_before = descriptors(id);
    drop((0..100).map(|_| ask()).collect::<Vec<_>>());
    wait_until("they are closed", Duration::from_secs(10), || descriptors(id) <= open_before);
    let before = resident_bytes(id);
    let idle: Vec<TcpStream> = (0..CONNECTIONS).map(|_| ask()).collect();
    assert!(descriptors(id) >= open_before + CONNECTIONS, "they are open");
    let each = resident_bytes(id).saturating_sub(before) / CONNECTIONS as u64;
    let mut took: Vec<Duration> = (0..NEW)
        .map(|_| {
            let began = Instant::now();
            let _done = ask();
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    let within = took[NEW * 99 / 100];
    println!("{CONNECTIONS} idle connections: {each} bytes each, a new request p99 {within:?}");
    assert!(each <= 25 * 1_024, "{each} bytes each");
    assert!(within <= Duration::from_millis(50), "{within:?}");
    drop(idle);
    wait_until("descriptors are given back", Duration::from_secs(10), || descriptors(id) <= open_before + 2);
}

/// Clients of a kind: how many, what they send, and after how many seconds they are told 408.
struct Kind {
    name: &'static str,
    count: usize,
    sends: Slow,
    seconds: u64,
}

fn kinds(address: SocketAddr, key: &str) -> Vec<Kind> {
    let whole = proxied(address, key, "http://127.0.0.1:9/");
    let head = whole.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let (head, body) = (whole[..head].to_vec(), whole[head..].to_vec());
    let half = [head.as_slice(), &body[..body.len() / 2]].concat();
    let rest = [head.as_slice(), &body].concat();
    let kind = |name, count, first, rest, seconds| Kind { name, count, sends: Slow { first, rest }, seconds };
    vec![
        kind("a head, a byte a second", 1_000, Vec::new(), rest, 5),
        kind("half a body, then nothing", 500, half, Vec::new(), 10),
        kind("a body, a byte a second", 500, head, body, 30),
    ]
}

/// A listener whose queue is full: what is sent to it to open a connection is dropped.
fn deaf() -> (TcpListener, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queued.push(stream);
    }
    (listener, queued)
}

/// A call to a target that does not answer: what it is told, and after how long.
#[expect(clippy::disallowed_methods, reason = "measures a time limit")]
fn told(app: &TestApp, key: &str, target: &str) -> (Response, Duration) {
    let mut client = app.client();
    assert_eq!(client.json("GET", "/health", key, None).status, 200, "it is connected");
    let (began, body) = (Instant::now(), envelope(target, 1));
    (call(&mut client, key, &body), began.elapsed())
}

fn ended_in_time(kind: &Kind, ended: &[Ended]) {
    let statuses: Vec<u16> = ended.iter().map(Ended::status).collect();
    let first = ended.iter().filter_map(|one| one.after).min().unwrap();
    let last = ended.iter().map(|one| one.after.unwrap_or(Duration::MAX)).max().unwrap();
    println!("{} × {}: told {} after {first:.1?} to {last:.1?}", kind.count, kind.name, statuses[0]);
    assert!(statuses.iter().all(|status| *status == 408), "{}: {statuses:?}", kind.name);
    let limit = Duration::from_secs(kind.seconds);
    // The looks at them, and opening two thousand of them, take their time.
    assert!(first + Duration::from_secs(1) >= limit, "{}: {first:?}", kind.name);
    assert!(last <= limit + Duration::from_secs(2), "{}: {last:?}", kind.name);
}

/// All limits as they are by default, at once: it takes as long as the longest.
#[test]
fn two_thousand_slow_clients_are_ended_in_time_and_nobody_waits_for_them() {
    let app = TestApp::with(NodeOptions::default());
    let target = Upstream::start();
    let address = app.node.address;
    let key = app.customer_key("slow");
    let undisturbed = TestApp::with(NodeOptions::default());
    let [good, good_there] = [&app, &undisturbed].map(|app| good(app, &target));
    let kinds = kinds(address, &key);
    let clients: Vec<Slow> =
        kinds.iter().flat_map(|kind| std::iter::repeat_n(kind.sends.clone(), kind.count)).collect();
    let (_listener, queued) = deaf();
    let deaf = format!("http://{}/", queued[0].peer_addr().unwrap());
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let nodes = [(address, &*good), (undisturbed.node.address, &*good_there)];
            p99_side_by_side(nodes, Duration::from_secs(28))
        });
        let hanging = scope.spawn(|| told(&app, &key, &target.url("/hang")));
        let unopened = scope.spawn(|| told(&app, &key, &deaf));
        let mut ended = slow::run(address, &clients, Duration::from_secs(40)).unwrap();
        for kind in &kinds {
            let rest = ended.split_off(kind.count);
            ended_in_time(kind, &ended);
            ended = rest;
        }
        let [beside, alone] = beside.join().unwrap();
        assert!(beside <= (2 * alone).max(alone + NOISE), "{beside:?}, {alone:?} without them");
        for (name, (answer, after), seconds) in [
            ("a SYN that is dropped", unopened.join().unwrap(), 3),
            ("a target that hangs", hanging.join().unwrap(), 30),
        ] {
            println!("{name}: told {} after {after:.1?}", answer.status);
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (504, "upstream_timeout"),
                "{}",
                answer.text()
            );
            let limit = Duration::from_secs(seconds);
            assert!(after >= limit && after <= limit + Duration::from_secs(2), "{name}: {after:?}");
        }
    });
    // The one that was never opened is released, the one that was sent is kept, and no slow client became a call.
    assert_eq!((app.usage("slow"), app.usage_of("slow", "held")), (1, 0));
    app.node.verify();
}
