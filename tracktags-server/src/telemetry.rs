//! Logs on standard error, without secrets: no credentials, bodies, query strings or forwarded headers.
//!
//! Other crates' targets are capped at `info` whatever the setting says, since their debug logs print requests.

use std::io::IsTerminal;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Our own targets.
const OURS: [&str; 4] = ["tracktags_core", "tracktags_store", "tracktags_proxy", "tracktags_server"];

/// Starts logging; a second call in one process changes nothing.
pub(crate) fn start(level: LevelFilter) {
    let ours = OURS.map(|target| (target, level));
    let targets = Targets::new().with_default(level.min(LevelFilter::INFO)).with_targets(ours);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Fails only where a subscriber is set already, which then keeps its own rules.
    if tracing_subscriber::registry().with(targets).with(lines).try_init().is_err() {
        tracing::debug!("logging was started before");
    }
    // The message of a panic may hold a piece of a request, so only its place is logged.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a panic: this is a bug");
    }));
}
