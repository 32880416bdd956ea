//! Runs of the simulator, from the command line: `simulate --help`.
#![expect(clippy::print_stdout, reason = "a program says what it found")]

use clap::Parser;
use std::process::ExitCode;
use tracktags_tests::sim::{self, Plant, Summary};

/// Simulates the admission stage: nodes, a store whose commits may fail or stay unknown, a clock, callers and kills, all
/// of it from a run's number. Exit code 1: a run broke an invariant.
#[derive(Parser)]
struct Arguments {
    /// How many runs.
    #[arg(long, default_value_t = 10_000)]
    runs: u64,
    /// The first run's number.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// This run only.
    #[arg(long, conflicts_with_all = ["runs", "from"])]
    run: Option<u64>,
    /// A fault to plant; the simulator must find it.
    #[arg(long)]
    plant: Option<Plant>,
    /// Prints every step.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let numbers = match arguments.run {
        Some(number) => number..=number,
        None => arguments.from..=arguments.from.saturating_add(arguments.runs.saturating_sub(1)),
    };
    let trace: Option<fn(&str)> = if arguments.trace { Some(|line| println!("{line}")) } else { None };
    let mut summary = Summary::default();
    for number in numbers {
        match sim::run(number, arguments.plant, trace) {
            Ok(one) => summary += one,
            Err(violation) => {
                println!("{violation}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("no invariant was broken: {summary:?}");
    ExitCode::SUCCESS
}
