//! The load client as a program: many connections in a closed loop, a log of its own, and the counters compared with it.
#![expect(clippy::print_stdout, reason = "what was found is what it is run for")]

use clap::Parser;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracktags_tests::books::{LoadBooks, Outcome};
use tracktags_tests::http::{Client, Response};
use tracktags_tests::load::Load;
use tracktags_tests::log::SyncedLog;

/// Calls a server from many connections, each as soon as the last was answered, and compares the counters with its log.
///
/// Each attempt is in the log, on the disk, before it is sent, each answer with the next group. The customers must exist
/// and be used by nobody else. With a log that is there already its books go on: so one log can see several starts of a
/// server, and with `--calls 0` the counters are only compared.
///
/// Exits with 1 where a counter is below what was acknowledged, above the limit, or above what was acknowledged and what
/// is unknown (INV1, INV2, INV3 of docs/RELIABILITY.md); with 2 where nothing can be compared.
#[derive(Parser)]
struct Arguments {
    /// Where the server listens.
    #[arg(long)]
    node: SocketAddr,
    /// A key of the business.
    #[arg(long, env = "TRACKTAGS_LOAD_KEY", hide_env_values = true)]
    key: String,
    /// The log.
    #[arg(long)]
    log: PathBuf,
    /// A target's URL, for proxied calls; several take turns. Without one it tracks.
    #[arg(long)]
    target: Vec<String>,
    /// The metric.
    #[arg(long, default_value = "api_calls")]
    metric: String,
    /// The customers are this and a number from 0 on.
    #[arg(long, default_value = "c")]
    prefix: String,
    /// How many customers take turns.
    #[arg(long, default_value_t = 1)]
    customers: usize,
    /// Units of each call.
    #[arg(long, default_value_t = 1)]
    units: i64,
    /// The most units that a customer's limit lets pass.
    #[arg(long, default_value_t = i64::MAX)]
    limit: i64,
    /// Connections at once.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Calls in all.
    #[arg(long, default_value_t = 1_000)]
    calls: usize,
    /// Ends it after so long instead.
    #[arg(long, conflicts_with = "calls")]
    seconds: Option<u64>,
}

impl Arguments {
    fn customer(&self, number: usize) -> String {
        format!("{}{}", self.prefix, number % self.customers.max(1))
    }

    fn attempt(&self, number: usize, client: &mut Client) -> Response {
        let mut body = json!({"metric_name": self.metric, "customer_id": self.customer(number),
            "units": self.units});
        // Each customer meets each target.
        let turn = number / self.customers.max(1);
        let path = match self.target.get(turn % self.target.len().max(1)) {
            Some(target) => {
                body["target_url"] = json!(target);
                "/api/v1/proxy"
            }
            None => "/api/v1/track",
        };
        client.json("POST", path, &self.key, Some(&body))
    }

    /// What a customer has used, as the server says.
    fn counted(&self, customer: &str, client: &mut Client) -> Result<i64, String> {
        let path = format!("/api/v1/usage?customer_id={customer}&metric_name={}", self.metric);
        let usage = client.json("GET", &path, &self.key, None);
        let counted = usage.json()["metrics"][0]["current_value"].as_i64();
        counted.ok_or_else(|| format!("no usage of {customer}: {} {}", usage.status, usage.text()))
    }
}

fn main() -> ExitCode {
    match run(&Arc::new(Arguments::parse())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("{why}");
            ExitCode::from(2)
        }
    }
}

/// Makes the load and compares; whether the invariants hold.
fn run(arguments: &Arc<Arguments>) -> Result<bool, String> {
    let before = LoadBooks::read(&arguments.log).map_err(|error| error.to_string())?;
    let took = load(arguments, before.next)?;
    let books = LoadBooks::read(&arguments.log).map_err(|error| error.to_string())?;
    println!(
        "N {}, A {}, X {}, D {}, released {}, refused {}",
        books.next,
        books.count(Outcome::Kept),
        books.count(Outcome::Unknown),
        books.count(Outcome::Denied),
        books.count(Outcome::Released),
        books.count(Outcome::Refused)
    );
    if let Some(last) = took.len().checked_sub(1) {
        let at = |percent: usize| took[last * percent / 100];
        println!("p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
    }
    let mut client = Client::new(arguments.node);
    let mut holds = true;
    for (customer, account) in &books.accounts {
        let counted = arguments.counted(customer, &mut client)?;
        if let Some(fault) = account.fault(counted, arguments.limit) {
            println!("{customer}: {fault}: counted {counted}, {account:?}");
            holds = false;
        }
    }
    Ok(holds)
}

/// Makes the attempts from a number on; how long each took, in order of length.
#[expect(clippy::disallowed_methods, reason = "measures how long an answer takes")]
fn load(arguments: &Arc<Arguments>, next: usize) -> Result<Vec<Duration>, String> {
    let log = Arc::new(SyncedLog::open(&arguments.log).map_err(|error| error.to_string())?);
    let took = Arc::new(Mutex::new(Vec::new()));
    let calls = if arguments.seconds.is_some() { usize::MAX } else { arguments.calls };
    let load = {
        let (log, took, arguments) = (Arc::clone(&log), Arc::clone(&took), Arc::clone(arguments));
        Load::start(arguments.node, arguments.connections, calls, move |number, client| {
            let number = next + number;
            let asked = format!("ask {number} {} {}", arguments.customer(number), arguments.units);
            if log.append(&asked).is_err() {
                // What is not in the log must not be sent.
                return Response::default();
            }
            let began = Instant::now();
            let answer = arguments.attempt(number, client);
            took.lock().unwrap_or_else(PoisonError::into_inner).push(began.elapsed());
            log.note(&format!("{} {number}", Outcome::of(&answer).word()));
            answer
        })
    };
    if let Some(seconds) = arguments.seconds {
        std::thread::sleep(Duration::from_secs(seconds));
        let _tally = load.stop();
    } else {
        let _tally = load.wait();
    }
    log.flush().map_err(|error| error.to_string())?;
    let mut took = std::mem::take(&mut *took.lock().unwrap_or_else(PoisonError::into_inner));
    took.sort_unstable();
    Ok(took)
}
