//! The server's main again, so that cargo builds it fresh and tells tests its path.

fn main() -> std::process::ExitCode {
    tracktags_server::main()
}
