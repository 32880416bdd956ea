//! The server's program: everything is in the library, so that it can be embedded.

use std::process::ExitCode;

// Takes the place of the C library's allocator, SQLite's and ours alike: asked as that one is, it is quicker than by way of
// its own interface, which asks for an alignment each time.
use mimalloc as _;

fn main() -> ExitCode {
    tracktags_server::main()
}
