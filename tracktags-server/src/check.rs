//! `--check`: reads settings and key files as a start would, says what is notable, and changes nothing.

use crate::config::{Config, ConfigError};
use crate::secrets;
use std::io::{self, Write};
use tracktags_core::upstreams::TargetClass;
use tracktags_store::Durability;

/// What the settings say that is allowed and seldom meant: the setting, and what follows from it.
fn warnings(config: &Config) -> Vec<(&'static str, &'static str)> {
    let server = &config.server;
    let is_public = !server.bind.ip().is_loopback();
    let all = [
        (
            config.proxy.target_policy == TargetClass::Open,
            (
                "proxy.target_policy",
                "open: calls may reach loopback and private addresses; for development only",
            ),
        ),
        (
            config.store.durability == Durability::Process,
            (
                "store.durability",
                "process: a power cut may lose the last moments, which can then be sold again",
            ),
        ),
        (
            is_public && server.trusted_proxies.is_empty(),
            (
                "server.trusted_proxies",
                "empty: behind a proxy all callers share its address, and its lock-out",
            ),
        ),
        (
            is_public && server.admin_key.is_none() && server.admin_key_file.is_none(),
            ("server.admin_key_file", "not set: nobody can create businesses"),
        ),
        (
            is_public && server.metrics_public,
            ("server.metrics_public", "true: whoever reaches this address reads what the server measures"),
        ),
    ];
    all.into_iter().filter(|(is_notable, _)| *is_notable).map(|(_, warning)| warning).collect()
}

/// Says so on `out`, a line each: `warning`, the setting, and what follows, with tabs between.
///
/// # Errors
/// [`ConfigError`] with every problem of the key files.
pub(crate) fn run(config: &Config, out: &mut impl Write) -> Result<(), ConfigError> {
    secrets::inspect(config)?;
    let said = warnings(config)
        .into_iter()
        .try_for_each(|(setting, message)| writeln!(out, "warning\t{setting}\t{message}"));
    // Whoever closed the output has seen enough.
    said.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
        .map_err(|error| ConfigError::one(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_not_notable() {
        assert_eq!(warnings(&Config::defaults().unwrap()), []);
    }

    #[test]
    fn what_is_seldom_meant_is_said() {
        let mut config = Config::defaults().unwrap();
        config.server.bind = "10.0.0.5:8080".parse().unwrap();
        config.store.durability = Durability::Process;
        config.proxy.target_policy = TargetClass::Open;
        config.server.metrics_public = true;
        assert_eq!(warnings(&config).len(), 5);
    }
}
