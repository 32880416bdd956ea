//! Crash images as a program: records a server at work under strace, and replays what a disk may hold of it.
#![expect(clippy::print_stdout, reason = "what was found is what it is run for")]

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use tracktags_tests::images::{Recording, record};

/// Cuts the power of a recorded server at random instants, and reads what its disk may hold then.
///
/// Exits with 1 where a unit was lost, sold twice or counted for nobody, where a start refuses what the disk holds, and
/// where a caller or the target heard of something before it was synced.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a server under strace with a load on it, kills it, and keeps what strace saw.
    Record {
        /// The file to write.
        trace: PathBuf,
        /// The server's store.durability: `power_loss` or `process`.
        #[arg(long, default_value = "power_loss")]
        durability: String,
        /// Calls until the kill.
        #[arg(long, default_value_t = 16_000)]
        calls: usize,
    },
    /// Checks what was recorded.
    Check {
        /// The file that `record` wrote.
        trace: PathBuf,
        /// How many images to make.
        #[arg(long, default_value_t = 300)]
        cuts: usize,
        /// Repeats the images of an earlier run; else they are others each time.
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Record { trace, durability, calls } => {
            let (_node, tally) = record(&durability, calls, &trace);
            println!("{tally:?}");
            ExitCode::SUCCESS
        }
        Command::Check { trace, cuts, seed } => {
            match check(&trace, cuts, seed.unwrap_or_else(rand::random)) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(why) => {
                    println!("{why}");
                    ExitCode::from(2)
                }
            }
        }
    }
}

/// Whether nothing is wrong.
fn check(trace: &std::path::Path, cuts: usize, seed: u64) -> Result<bool, String> {
    let recording = Recording::read(trace)?;
    let order = recording.order();
    println!("order: {order:#?}");
    println!("seed: {seed}");
    let findings = recording.images(cuts, seed)?;
    println!("images: {findings:#?}");
    Ok(order.early == 0 && findings.violations() == 0)
}
