//! The target as a program: misbehaves on demand, keeps a log of its own, and looks at the counters on every arrival.
#![expect(clippy::print_stdout, reason = "what was found is what it is run for")]

use clap::Parser;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tracktags_tests::peek::{Peek, PeekingWatcher};
use tracktags_tests::upstream::{Arrival, Manner, Upstream, Watcher};

/// A target for calls. The path asked for says how it behaves: `/echo`, `/status/N`, `/delay/MS/PATH`, `/hang`, `/slow`,
/// `/reset`, `/gone`, `/garbage`, `/cut`, `/short`, `/chunk`, `/large`, `/interim`, `/surplus`, `/close`, `/raw`.
///
/// Prints where it listens, runs until its input ends, and then prints what it saw. Exits with 1 where `--peek` found
/// fewer units counted than had arrived and are kept (INV4 of docs/RELIABILITY.md), with 2 where it cannot run.
#[derive(Parser)]
struct Arguments {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// A log: a line for each arrival and each answer, written before the answer.
    #[arg(long)]
    log: Option<PathBuf>,
    /// The store URL of the server's database (`sqlite:PATH`): reads the customer's counter there on every arrival.
    #[arg(long)]
    peek: Option<String>,
    /// Behaves as this path says, whatever is asked for.
    #[arg(long)]
    always: Option<String>,
    /// A file with the bytes that `/raw` answers with.
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// Writes its log and peeks.
struct Sentry {
    log: Option<File>,
    peeking: Option<PeekingWatcher>,
}

impl Sentry {
    fn write(&self, line: &serde_json::Value) {
        if let Some(mut log) = self.log.as_ref() {
            // A log that is not whole would show nothing: better no answer at all.
            let written = log.write_all(format!("{line}\n").as_bytes());
            assert!(written.is_ok(), "{written:?}");
        }
    }
}

impl Watcher for Sentry {
    fn arrives(&self, arrival: &Arrival) {
        self.write(&json!({"arrived": arrival.number, "request_id": arrival.header("x-request-id"),
            "customer_id": arrival.customer(), "path": arrival.path()}));
        if let Some(peeking) = &self.peeking {
            peeking.arrives(arrival);
        }
    }

    fn answers(&self, arrival: &Arrival, is_kept: bool) {
        self.write(&json!({"answered": arrival.number, "kept": is_kept}));
        if let Some(peeking) = &self.peeking {
            peeking.answers(arrival, is_kept);
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("{why}");
            ExitCode::from(2)
        }
    }
}

/// Runs; whether nothing arrived before it was counted.
fn run(arguments: Arguments) -> Result<bool, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let open = |path: &PathBuf| OpenOptions::new().create(true).append(true).open(path);
    let log = arguments.log.as_ref().map(open).transpose().map_err(|error| words(&error))?;
    let peek = arguments.peek.as_deref().map(Peek::open).transpose().map_err(|error| words(&error))?;
    let raw = arguments.raw.map(std::fs::read).transpose().map_err(|error| words(&error))?;
    let listener = TcpListener::bind(arguments.listen).map_err(|error| words(&error))?;
    let sentry = Arc::new(Sentry { log, peeking: peek.map(PeekingWatcher::new) });
    let manner =
        Manner { always: arguments.always, raw: raw.unwrap_or_default(), forgets: true, ..Manner::default() };
    let upstream = Upstream::on(listener, manner, Arc::clone(&sentry) as Arc<dyn Watcher>);
    println!("listening on http://{}", upstream.address);
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).map_err(|error| words(&error))?;
    let Some(peeking) = &sentry.peeking else { return Ok(true) };
    let sight = peeking.sight();
    println!("arrived {}, late {}", sight.arrived, sight.late);
    if let Some(first) = &sight.first {
        println!("{first}");
    }
    Ok(sight.late == 0)
}
