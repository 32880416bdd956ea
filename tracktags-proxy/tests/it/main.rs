//! The way out against upstreams that break the rules: framing first, then targets, headers, limits and names.

mod framing;
mod headers;
mod limits;
mod names;
mod support;
mod targets;
