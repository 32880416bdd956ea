//! The command line's main again, so that cargo builds it fresh and tells tests its path.

fn main() -> std::process::ExitCode {
    tracktags_cli::main()
}
