//! Sends requests to a server at a fixed rate, however long answers take, and says what became of them.

use clap::Parser;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use tracktags_tests::http::request;
use tracktags_tests::overload::{Class, Pace, Plan, run};

/// Sends requests at a fixed rate, however long answers take. Latencies count from when a request was due.
#[derive(Debug, Parser)]
#[command(name = "overload")]
struct Arguments {
    /// The server, as 127.0.0.1:8080.
    address: SocketAddr,
    /// Requests in a second; 0: the next one with each answer, on every connection.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long answers are waited for after that.
    #[arg(long, default_value_t = 10)]
    answers_within_seconds: u64,
    /// Connections that are open before the first request.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Connections at once; further requests wait, and their latency counts on.
    #[arg(long, default_value_t = 4_096)]
    connections_max: usize,
    /// The method.
    #[arg(long, default_value = "GET")]
    method: String,
    /// Path and query.
    #[arg(long, default_value = "/health")]
    path: String,
    /// A key, sent as `Authorization: Bearer`.
    #[arg(long, default_value = "")]
    key: String,
    /// A JSON body.
    #[arg(long, default_value = "")]
    body: String,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the result of the program")]
fn main() -> ExitCode {
    let given = Arguments::parse();
    let authorization = format!("Bearer {}", given.key);
    let mut headers = Vec::new();
    if !given.key.is_empty() {
        headers.push(("authorization", authorization.as_str()));
    }
    if !given.body.is_empty() {
        headers.push(("content-type", "application/json"));
    }
    let class = Class {
        pace: if given.rate == 0 { Pace::Closed } else { Pace::PerSecond(given.rate) },
        requests: vec![request(given.address, &given.method, &given.path, &headers, given.body.as_bytes())],
        connections: given.connections,
        connections_max: given.connections_max.max(given.connections),
    };
    let plan = Plan {
        address: given.address,
        classes: vec![class],
        lasts: Duration::from_secs(given.seconds),
        answers_within: Duration::from_secs(given.answers_within_seconds),
    };
    match run(&plan) {
        Ok(tallies) => {
            tallies.iter().for_each(|tally| println!("{tally}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("overload: {error}");
            ExitCode::FAILURE
        }
    }
}
