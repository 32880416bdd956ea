//! The server's program: everything is in the library, so that it can be embedded.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tracktags_server::main()
}
