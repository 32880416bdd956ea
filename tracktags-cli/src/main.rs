//! The command line's program: everything is in the library, so that tests can run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracktags_cli::main()
}
