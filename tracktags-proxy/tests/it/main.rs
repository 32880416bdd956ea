//! The way out against upstreams that break the rules: framing first, then targets, headers, limits, encodings, names,
//! pools and TLS.

// So that clippy knows all of this as tests, the helpers too.
#![cfg(test)]

mod dns;
mod encodings;
mod framing;
mod fuzz;
mod headers;
mod limits;
mod names;
mod pools;
mod support;
mod table;
mod targets;
mod tls;
