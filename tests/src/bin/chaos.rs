//! A TCP proxy that does to connections what networks do, told by lines on a local socket.

use clap::{Parser, Subcommand};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracktags_tests::chaos::{Chaos, listen};

/// A TCP proxy that does to connections what networks do.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Passes connections on until it is ended.
    Run {
        /// Where to listen; port 0 takes a free one.
        listen: SocketAddr,
        /// Where connections lead.
        target: SocketAddr,
        /// The local socket on which it is told what to do.
        #[arg(long, default_value = "chaos.sock")]
        control: PathBuf,
    },
    /// Tells a running one what to do, a line each: `[up|down] latency MS`, `bandwidth BYTES_A_SECOND`, `slice BYTES`,
    /// `silent 0|1`, `cut BYTES`, `half-close`, or `reset`, `clear`. Without a way it means both.
    Tell {
        /// Its local socket.
        control: PathBuf,
        /// What to do.
        #[arg(required = true)]
        lines: Vec<String>,
    },
}

#[expect(clippy::print_stderr, reason = "the last words of the program")]
fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run { listen, target, control } => run(listen, target, &control),
        Command::Tell { control, lines } => tell(&control, &lines),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the address that others wait for")]
fn run(address: SocketAddr, target: SocketAddr, control: &Path) -> std::io::Result<()> {
    let chaos = Chaos::start_on(address, target)?;
    println!("listening on {}", chaos.address);
    listen(&chaos, control)
}

fn tell(control: &Path, lines: &[String]) -> std::io::Result<()> {
    let stream = UnixStream::connect(control)?;
    let (mut out, mut answers) = (&stream, BufReader::new(&stream));
    for line in lines {
        writeln!(out, "{line}")?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        if answer.trim() != "ok" {
            return Err(std::io::Error::other(answer.trim().to_owned()));
        }
    }
    Ok(())
}
