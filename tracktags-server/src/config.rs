//! Settings: embedded defaults, a file over them, the environment over both; read once and checked whole.
//!
//! Every problem is told at once, each with the name of its setting. This is the only place that reads the
//! environment. Secrets hide in `Debug`. Deliberately not here: generating keys that are missing (`secrets.rs`).

use crate::lockout::LockoutLimits;
use crate::settings::Reader;
use config::{Config as Source, Environment, File, FileFormat};
use ipnet::IpNet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;
use tracktags_core::upstreams::TargetClass;
use tracktags_store::{Durability, StoreLimits};
use url::Url;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The commented defaults, which are the reference too.
pub const DEFAULTS: &str = include_str!("config.default.toml");

/// The shortest admin key.
const ADMIN_KEY_BYTES_MIN: usize = 32;

/// A secret text: hides in `Debug`, wiped on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// A secret with this text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The listener and what it lets in.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen.
    pub bind: SocketAddr,
    /// The admin's key, as given.
    pub admin_key: Option<Secret>,
    /// The file that holds it.
    pub admin_key_file: Option<PathBuf>,
    /// Base of links that are handed out.
    pub public_url: Option<Url>,
    /// Proxies in front that are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether everyone may read what the server measures.
    pub metrics_public: bool,
    /// Connections at once.
    pub connections_max: usize,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// How long a head may take.
    pub head_timeout: Duration,
    /// How large a head may be.
    pub head_bytes_max: usize,
    /// How long a body may make no progress.
    pub body_idle_timeout: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long `/ready` says no before the listener closes.
    pub drain_notice: Duration,
    /// How long requests in flight have then.
    pub drain_timeout: Duration,
}

/// The database.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `sqlite:PATH`, or `postgres://USER@HOST/DATABASE`, which may hold a password.
    pub url: Secret,
    /// What a commit survives.
    pub durability: Durability,
    /// Its limits.
    pub limits: StoreLimits,
}

impl StoreConfig {
    /// The database's file, where it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        let path = self.url.expose().strip_prefix("sqlite:")?;
        Some(Path::new(path.strip_prefix("//").unwrap_or(path)))
    }

    fn names_a_server(&self) -> bool {
        ["postgres://", "postgresql://"].iter().any(|scheme| self.url.expose().starts_with(scheme))
    }
}

/// The way out.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Which targets.
    pub target_policy: TargetClass,
    /// Calls in flight of one customer.
    pub customer_calls_max: usize,
    /// Calls in flight to one target.
    pub target_calls_max: usize,
    /// Name look-up.
    pub resolve_timeout_ms: u64,
    /// Connect.
    pub connect_timeout_ms: u64,
    /// TLS.
    pub tls_timeout_ms: u64,
    /// First byte of the answer.
    pub first_byte_timeout_ms: u64,
    /// All of the call.
    pub total_timeout_ms: u64,
    /// The largest body that is handed back.
    pub answer_bytes_max: u64,
    /// How long an answer waits for its units to be released.
    pub settle_wait: Duration,
}

/// The master key, as given.
#[derive(Clone, Debug)]
pub struct SecretsConfig {
    /// Hex, several separated by commas.
    pub master_key: Option<Secret>,
    /// The file that holds it.
    pub master_key_file: Option<PathBuf>,
}

/// All settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The listener.
    pub server: ServerConfig,
    /// Failed authentications.
    pub(crate) lockout: LockoutLimits,
    /// The database.
    pub store: StoreConfig,
    /// The way out.
    pub proxy: ProxyConfig,
    /// Keys at rest.
    pub secrets: SecretsConfig,
    /// How much our own crates log.
    pub(crate) log_level: LevelFilter,
}

/// Settings that cannot be served with: every problem, each with its setting's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl ConfigError {
    /// A single problem.
    #[must_use]
    pub fn one(problem: impl Into<String>) -> Self {
        Self(vec![problem.into()])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad configuration: {}", self.0.join("; "))
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the settings: environment over `file` over the embedded defaults.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::from_sources(file, environment())
    }

    /// The defaults alone.
    #[cfg(test)]
    pub(crate) fn defaults() -> Result<Self, ConfigError> {
        Self::from_sources(None, environment().source(Some(std::collections::HashMap::new())))
    }

    pub(crate) fn from_sources(file: Option<&Path>, environment: Environment) -> Result<Self, ConfigError> {
        let mut builder = Source::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(file) = file {
            builder = builder.add_source(File::from(file).format(FileFormat::Toml).required(true));
        }
        let merged = builder.add_source(environment).build();
        let merged = merged.map_err(|error| ConfigError::one(without_source(&error.to_string())))?;
        let known = Source::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml)).build();
        let known = known.map_err(|error| ConfigError::one(error.to_string()))?;
        let mut reader = Reader { source: &merged, defaults: &known, problems: Vec::new() };
        reader.refuse_unknown(&known);
        let read = reader.config();
        match read {
            Some(config) if reader.problems.is_empty() => config.validate().map(|()| config),
            Some(config) => {
                let further = config.validate().err().map(|error| error.0).unwrap_or_default();
                reader.problems.extend(further);
                Err(ConfigError(reader.problems))
            }
            None => Err(ConfigError(reader.problems)),
        }
    }

    /// Checks what settings say together; lists every problem.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut check = |good: bool, problem: &str| {
            if !good {
                problems.push(problem.to_owned());
            }
        };
        let server = &self.server;
        check(
            server.admin_key.is_none() || server.admin_key_file.is_none(),
            "server.admin_key and server.admin_key_file: set only one of them",
        );
        check(
            self.secrets.master_key.is_none() || self.secrets.master_key_file.is_none(),
            "secrets.master_key and secrets.master_key_file: set only one of them",
        );
        check(
            server.bind.ip().is_loopback()
                || self.secrets.master_key.is_some()
                || self.secrets.master_key_file.is_some(),
            "secrets.master_key_file is required where the server does not listen on a loopback address",
        );
        if let Some(Err(problem)) = server.admin_key.as_ref().map(|key| check_admin_key(key.expose())) {
            check(false, &format!("server.admin_key {problem}"));
        }
        check(
            self.proxy.target_policy != TargetClass::Open || server.bind.ip().is_loopback(),
            "proxy.target_policy: open is for servers on a loopback address; bind to 127.0.0.1 or choose public",
        );
        check(
            self.store.file().is_some() || self.store.names_a_server(),
            "store.url must begin with sqlite: or postgres://, as in sqlite:tracktags.db",
        );
        check(
            !self.store.names_a_server()
                || self.secrets.master_key.is_some()
                || self.secrets.master_key_file.is_some(),
            "secrets.master_key_file is required with store.url on a server: all nodes share the key",
        );
        check(
            server.body_idle_timeout <= server.body_timeout,
            "server.body_idle_timeout_ms must not be above server.body_timeout_ms",
        );
        check(
            self.proxy.first_byte_timeout_ms <= self.proxy.total_timeout_ms,
            "proxy.first_byte_timeout_ms must not be above proxy.total_timeout_ms",
        );
        if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems)) }
    }
}

/// What an admin key must be; the problem is told without the key.
pub(crate) fn check_admin_key(key: &str) -> Result<(), &'static str> {
    if key.len() < ADMIN_KEY_BYTES_MIN {
        Err("must have at least 32 bytes")
    } else if key.starts_with("tk_") || key.starts_with("ck_") {
        Err("must not look like a tk_ or ck_ key")
    } else if key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("must be visible ASCII without spaces, or no header could carry it")
    }
}

/// What is wrong with a file, on one line and without the line of the file that is quoted there: a secret may stand in
/// it, and what is said here ends in a log.
fn without_source(error: &str) -> String {
    let is_quoted = |line: &str| {
        let before = line.split_once('|').map(|(before, _)| before);
        before.is_some_and(|before| before.chars().all(|c| c == ' ' || c.is_ascii_digit()))
    };
    let said = error.lines().filter(|line| !is_quoted(line)).map(str::trim).filter(|line| !line.is_empty());
    said.collect::<Vec<_>>().join(", ")
}

pub(crate) fn environment() -> Environment {
    // No `try_parsing`: it would read a master key of digits as a number.
    Environment::with_prefix("TRACKTAGS").prefix_separator("__").separator("__")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn with(settings: &[(&str, &str)], file: Option<&str>) -> Result<Config, ConfigError> {
        let map = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut written = tempfile::NamedTempFile::new().unwrap();
        written.write_all(file.unwrap_or_default().as_bytes()).unwrap();
        Config::from_sources(Some(written.path()), environment().source(Some(map)))
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        let file = "[server]\nbind = \"127.0.0.1:1\"\nconnections_max = 7\n";
        let config = with(&[("TRACKTAGS__SERVER__BIND", "127.0.0.1:2")], Some(file)).unwrap();
        assert_eq!(config.server.bind.port(), 2);
        assert_eq!(config.server.connections_max, 7);
        assert_eq!(config.server.keep_alive, Duration::from_secs(75));
        assert_eq!(config.store.durability, Durability::PowerLoss);
    }

    #[test]
    fn a_secret_of_digits_stays_a_text() {
        let key = "0".repeat(64);
        let config = with(&[("TRACKTAGS__SECRETS__MASTER_KEY", &key)], None).unwrap();
        assert_eq!(config.secrets.master_key.unwrap().expose(), key);
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_without_what_stands_in_it() {
        let ConfigError(problems) =
            with(&[], Some("[server]\nadmin_key = \"secret-of-the-operator\nbind = \"127.0.0.1:0\"\n"))
                .unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("line 2") && !problems[0].contains("secret-of"), "{problems:?}");
    }

    #[test]
    fn lists_come_from_the_environment_by_commas() {
        let config = with(&[("TRACKTAGS__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1")], None).unwrap();
        assert_eq!(config.server.trusted_proxies.len(), 2);
        let config = with(&[], Some("[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n")).unwrap();
        assert_eq!(config.server.trusted_proxies.len(), 1);
    }

    #[test]
    fn every_problem_is_told_at_once_and_names_its_setting() {
        let settings = [
            ("TRACKTAGS__SERVER__BIND", "0.0.0.0:80"),
            ("TRACKTAGS__SERVER__ADMIN_KEY", "short"),
            ("TRACKTAGS__SERVER__SPEED", "9"),
            ("TRACKTAGS__PROXY__TARGET_POLICY", "open"),
            ("TRACKTAGS__STORE__URL", "tracktags.db"),
        ];
        let ConfigError(problems) = with(&settings, None).unwrap_err();
        for name in
            ["server.admin_key", "server.speed", "proxy.target_policy", "store.url", "secrets.master_key"]
        {
            assert!(problems.iter().any(|problem| problem.contains(name)), "{name} in {problems:?}");
        }
        let settings = [
            ("TRACKTAGS__SERVER__BIND", "here"),
            ("TRACKTAGS__STORE__DURABILITY", "maybe"),
            ("TRACKTAGS__X", "1"),
        ];
        let ConfigError(problems) = with(&settings, None).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
    }

    #[test]
    fn an_admin_key_is_long_and_no_other_key() {
        assert!(check_admin_key(&"a".repeat(31)).is_err());
        assert!(check_admin_key(&format!("tk_live_{}", "a".repeat(40))).is_err());
        assert!(check_admin_key(&format!("a b{}", "a".repeat(40))).is_err());
        assert!(check_admin_key(&"a".repeat(32)).is_ok());
    }
}
