//! More than can be served: what is over is refused at once and says when to come back, what is taken stays quick, and
//! one who floods pays for it alone. Loads come at a fixed rate, whatever becomes of them (`tracktags_tests::overload`).

#![cfg(test)]

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tracktags_core::keys::PlainKey;
use tracktags_tests::http::request;
use tracktags_tests::overload::{Class, Pace, Plan, Tally, run};
use tracktags_tests::process::{forget_peak, resident_bytes, resident_bytes_peak};
use tracktags_tests::upstream::Upstream;
use tracktags_tests::{NodeOptions, TestApp, mostly, new_business, seed, wait_until};

/// A disk on which a sync takes as long as on a spinning one, and batches that it can be seen with: so the store's
/// capacity is far below the processor's, and five times of it can be sent from the same two cores.
fn slow_disk() -> NodeOptions {
    NodeOptions::default().on_slow_disk(SYNC_MS).set("STORE__BATCH_ENTRIES_MAX", &BATCH.to_string())
}

const SYNC_MS: u32 = 30;
const BATCH: usize = 8;
/// What two runs of the same load on two busy cores may differ by.
const NOISE: Duration = Duration::from_millis(5);

/// Requests to record one unit, in the name of a business.
fn track(address: SocketAddr, key: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let authorization = format!("Bearer {key}");
    let body = json!({"metric_name": "api_calls", "units": 1}).to_string();
    let known = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    request(address, "POST", "/api/v1/track", &[&known, headers].concat(), body.as_bytes())
}

fn class(pace: Pace, connections: usize, requests: Vec<Vec<u8>>) -> Class {
    Class { pace, requests, connections, connections_max: 8_000 }
}

fn load(address: SocketAddr, seconds: u64, classes: Vec<Class>) -> Vec<Tally> {
    let (lasts, answers_within) = (Duration::from_secs(seconds), Duration::from_secs(10));
    run(&Plan { address, classes, lasts, answers_within }).unwrap()
}

fn alone(address: SocketAddr, seconds: u64, class: Class) -> Tally {
    load(address, seconds, vec![class]).remove(0)
}

/// What the store can do in a second: while a batch commits, the next one is full, and nothing is refused but where the
/// disk stalls.
fn capacity(address: SocketAddr, requests: &[Vec<u8>]) -> u32 {
    let closed = Class { connections_max: 2 * BATCH, ..class(Pace::Closed, 2 * BATCH, requests.to_vec()) };
    let tally = alone(address, 3, closed);
    all_answered(&tally, &[200, 503]);
    assert_mostly_taken(&tally);
    let per_second = u32::try_from(tally.count(200) / 3).unwrap();
    println!("capacity: {per_second} calls a second");
    per_second
}

/// Everything was answered, with one of these statuses, and a refusal says when to come back.
fn all_answered(tally: &Tally, statuses: &[u16]) {
    assert_eq!(tally.lost(), 0, "{tally}");
    assert!(tally.answers.iter().all(|answer| statuses.contains(&answer.status)), "{tally}");
    assert!(tally.answers.iter().all(|answer| answer.has_retry_after), "{tally}");
}

/// One stall of the disk in some seconds is no overload: 95 of 100.
fn assert_mostly_taken(tally: &Tally) {
    assert!(tally.count(200) * 100 >= tally.answers.len() * 95, "{tally}");
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

#[test]
fn five_times_what_the_store_can_do_is_refused_early_and_leaves_nothing_behind() {
    let app = TestApp::with(slow_disk());
    let _id = app.limit("api_calls", 1_000_000_000, "yearly");
    let (address, id) = (app.node.address, app.node.id().unwrap());
    let requests = vec![track(address, &app.business_key, &[])];
    let capacity = capacity(address, &requests);
    // Little enough that a stall of the disk fills no queue of two batches.
    let quarter = || class(Pace::PerSecond(capacity / 4), 16, requests.clone());
    let baseline = alone(address, 4, quarter());
    let before = resident_bytes(id);
    forget_peak(id);
    let overload = alone(address, 6, class(Pace::PerSecond(5 * capacity), 64, requests.clone()));
    let grown = resident_bytes_peak(id).saturating_sub(before);
    let next = alone(address, 2, quarter());
    let then = alone(address, 2, quarter());
    println!("a quarter of it: {baseline}\nfive times: {overload}\nthe next 2 s: {next}\nthen: {then}");
    println!("resident memory grew by {} MiB", mib(grown));
    all_answered(&baseline, &[200]);
    all_answered(&overload, &[200, 503]);
    assert_eq!(overload.codes.keys().collect::<Vec<_>>(), [&(503, "overloaded".to_owned())]);
    assert!(overload.per_second(200) >= 0.7 * f64::from(capacity), "what fits goes on: {overload}");
    let bound = baseline.within(200, 990) + Duration::from_millis(150);
    assert!(overload.within(200, 990) <= bound, "accepted within {bound:?}: {overload}");
    // As the client sees it, on the two cores that it shares with the server: 95 of 100.
    assert!(overload.within(503, 950) <= Duration::from_millis(5), "refused within 5 ms: {overload}");
    assert!(mib(grown) <= 100, "{} MiB", mib(grown));
    assert_eq!(then.lost(), 0, "{then}");
    assert_mostly_taken(&then);
    let bound = baseline.within(200, 950) + Duration::from_millis(30);
    assert!(then.within(200, 950) <= bound, "normal again within {bound:?}: {then}");
    app.node.verify();
}

#[test]
fn one_business_that_floods_the_store_leaves_its_neighbour_its_answers() {
    let app = TestApp::with(slow_disk());
    let _id = app.limit("api_calls", 1_000_000_000, "yearly");
    let address = app.node.address;
    let flood = vec![track(address, &app.business_key, &[])];
    let (_business, key) = new_business(&app.node);
    let fields = json!({"metric_name": "api_calls", "limit_value": 1_000_000_000, "limit_period": "yearly"});
    let made = app.client().json("POST", "/api/v1/plan_limits", &key, Some(&fields));
    assert_eq!(made.status, 201, "{}", made.text());
    let capacity = capacity(address, &flood);
    let quiet = || class(Pace::PerSecond(50), 16, vec![track(address, &key, &[])]);
    mostly("a neighbour of a flood is answered as if it were alone", || {
        let by_itself = alone(address, 4, quiet());
        let flood = class(Pace::PerSecond(5 * capacity), 64, flood.clone());
        let tallies = load(address, 5, vec![flood, quiet()]);
        let [flooding, beside] = tallies.as_slice() else { panic!("{tallies:?}") };
        println!("by itself: {by_itself}\nthe flood: {flooding}\nbeside it: {beside}");
        all_answered(&by_itself, &[200, 503]);
        all_answered(flooding, &[200, 503]);
        all_answered(beside, &[200, 503]);
        assert!(flooding.count(503) > flooding.count(200), "it was a flood: {flooding}");
        let alone = by_itself.within(200, 990);
        let bound = (2 * alone).max(alone + Duration::from_millis(20));
        beside.count(503) == 0 && beside.within(200, 990) <= bound
    });
    app.node.verify();
}

/// Requests for a call to a target, in the name of a business.
fn proxied(address: SocketAddr, key: &str, target: &str) -> Vec<u8> {
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let body = json!({"metric_name": "api_calls", "target_url": target, "scope": "business"}).to_string();
    request(address, "POST", "/api/v1/proxy", &headers, body.as_bytes())
}

/// A target that takes 800 ms has 256 places, so it can take 320 calls a second.
#[test]
fn five_times_what_a_target_can_take_is_refused_at_once_and_a_neighbour_finds_its_places() {
    const PER_SECOND: u32 = 320;
    let app = TestApp::new();
    let target = Upstream::start();
    let (_business, other) = new_business(&app.node);
    let limit = json!({"metric_name": "api_calls", "limit_value": 1_000_000_000, "limit_period": "yearly"});
    for key in [&app.business_key, &other] {
        let made = app.client().json("POST", "/api/v1/plan_limits", key, Some(&limit));
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let (address, url) = (app.node.address, target.url("/delay/800/echo"));
    let quiet = || class(Pace::PerSecond(20), 32, vec![proxied(address, &other, &url)]);
    let flood = |rate| class(Pace::PerSecond(rate), 300, vec![proxied(address, &app.business_key, &url)]);
    let by_itself = alone(address, 3, quiet());
    let baseline = alone(address, 3, flood(PER_SECOND / 2));
    // The first seconds are the flood's alone: all places are its own when its neighbour comes.
    let first = std::thread::spawn({
        let flood = flood(5 * PER_SECOND);
        move || alone(address, 7, flood)
    });
    wait_until("all places are taken", Duration::from_secs(5), || target.count() > 450 + 256);
    let arriving = alone(address, 2, quiet());
    let beside = alone(address, 2, quiet());
    let flooding = first.join().unwrap();
    println!("by itself: {by_itself}\nhalf of what fits: {baseline}\nthe flood: {flooding}");
    println!("beside it, first: {arriving}\nthen: {beside}");
    all_answered(&baseline, &[200]);
    all_answered(&flooding, &[200, 503]);
    assert_eq!(flooding.codes.keys().collect::<Vec<_>>(), [&(503, "upstream_busy".to_owned())]);
    let bound = baseline.within(200, 990) + Duration::from_millis(150);
    assert!(flooding.within(200, 990) <= bound, "accepted within {bound:?}: {flooding}");
    assert!(flooding.within(503, 950) <= Duration::from_millis(5), "refused within 5 ms: {flooding}");
    // Until a place becomes free for it, a neighbour that comes late is told to come again.
    all_answered(&arriving, &[200, 503]);
    assert!(arriving.count(503) <= 20, "for a second at most: {arriving}");
    all_answered(&beside, &[200]);
    let alone = by_itself.within(200, 990);
    let bound = (2 * alone).max(alone + Duration::from_millis(20));
    assert!(beside.within(200, 990) <= bound, "within {bound:?}: {beside}");
    app.node.verify();
}

/// Well-formed keys that nobody made, each from one of so many addresses.
fn unknown_keys(address: SocketAddr, count: u32, addresses: u32) -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(seed());
    let from = |number| Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + number % addresses);
    let requests = (0..count).map(|number| {
        let key = PlainKey::for_business(&mut rng);
        track(address, key.expose(), &[("x-forwarded-for", &from(number).to_string())])
    });
    requests.collect()
}

#[test]
fn ten_thousand_unknown_keys_cost_few_queries_and_nobody_else() {
    const KEYS: u32 = 10_000;
    const SECONDS: u32 = 10;
    let app = TestApp::with(NodeOptions::default().set("SERVER__TRUSTED_PROXIES", "127.0.0.1"));
    let _id = app.limit("api_calls", 1_000_000_000, "yearly");
    let address = app.node.address;
    let unknown = unknown_keys(address, KEYS, 1_000);
    let queries = || {
        let shown = app.client().admin("GET", "/metrics", &app.node.admin_key(), None).text();
        let line = shown.lines().find_map(|line| line.strip_prefix("tracktags_store_key_queries_total "));
        line.and_then(|count| count.parse::<u32>().ok()).unwrap()
    };
    let valid = || class(Pace::PerSecond(200), 16, vec![track(address, &app.business_key, &[])]);
    let known = alone(address, 1, valid());
    all_answered(&known, &[200]);
    let before = queries();
    let mut rounds = 0;
    mostly("a valid key does not wait for unknown ones", || {
        rounds += 1;
        let by_itself = alone(address, 5, valid());
        // From the same addresses each time: one that has failed too often is not asked for.
        let unknown = class(Pace::PerSecond(KEYS / SECONDS), 64, unknown.clone());
        let tallies = load(address, SECONDS.into(), vec![unknown, valid()]);
        let [guesses, beside] = tallies.as_slice() else { panic!("{tallies:?}") };
        println!("by itself: {by_itself}\nguesses: {guesses}\nbeside them: {beside}");
        all_answered(&by_itself, &[200]);
        all_answered(beside, &[200]);
        let refused = guesses.count(401) + guesses.count(429);
        assert_eq!((guesses.lost(), refused), (0, guesses.sent), "{guesses}");
        // The last one's time is the end of the load, which may come first.
        assert!(guesses.sent + 1 >= KEYS as usize, "{guesses}");
        let alone = by_itself.within(200, 990);
        let bound = (alone * 6 / 5).max(alone + NOISE);
        beside.within(200, 990) <= bound
    });
    let asked = queries() - before;
    println!("{asked} queries in {rounds} rounds of {SECONDS} s");
    assert!(asked > 0 && asked <= 50 * rounds * (SECONDS + 1), "{asked} queries");
}

/// A refusal would cost the processor nearly what an answer does, so what it cannot take waits in the sockets: for as
/// long as the connections that are open take their turns. Nothing is lost, and nothing is left behind.
#[test]
fn five_times_what_the_processor_can_do_waits_its_turn_and_leaves_nothing_behind() {
    const CONNECTIONS: usize = 256;
    let app = TestApp::new();
    let _id = app.limit("api_calls", 1_000_000_000, "yearly");
    let (address, id) = (app.node.address, app.node.id().unwrap());
    let requests = vec![track(address, &app.business_key, &[])];
    let closed = Class { connections_max: 64, ..class(Pace::Closed, 64, requests.clone()) };
    let closed = alone(address, 3, closed);
    let capacity = u32::try_from(closed.count(200) / 3).unwrap();
    let tenth = || class(Pace::PerSecond(capacity / 10), 16, requests.clone());
    let baseline = alone(address, 3, tenth());
    let before = resident_bytes(id);
    forget_peak(id);
    let flood = class(Pace::PerSecond(5 * capacity), CONNECTIONS, requests.clone());
    let flood = Class { connections_max: CONNECTIONS, ..flood };
    let (lasts, answers_within) = (Duration::from_secs(4), Duration::ZERO);
    let flood = run(&Plan { address, classes: vec![flood], lasts, answers_within }).unwrap().remove(0);
    let grown = resident_bytes_peak(id).saturating_sub(before);
    let after = alone(address, 2, tenth());
    println!("capacity: {closed}\na tenth: {baseline}\nfive times: {flood}\nthe next 2 s: {after}");
    println!("resident memory grew by {} MiB", mib(grown));
    assert_eq!(flood.count(200), flood.answers.len(), "none was refused or lost: {flood}");
    assert!(flood.sent - flood.answers.len() <= CONNECTIONS, "but for those under way: {flood}");
    // A turn is one answer for each connection. Twice that is for the client, which shares the processor.
    let turn = Duration::from_secs(1) * u32::try_from(CONNECTIONS).unwrap() / capacity;
    assert!(flood.within_sent(200, 990) <= 3 * turn, "within three turns of {turn:?}: {flood}");
    assert!(mib(grown) <= 100, "{} MiB", mib(grown));
    all_answered(&after, &[200]);
    let bound = baseline.within(200, 950) + Duration::from_millis(30);
    assert!(after.within(200, 950) <= bound, "normal again within {bound:?}: {after}");
    app.node.verify();
}
