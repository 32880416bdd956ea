//! Where the server is, and as whom it is asked: flags, the environment, or a profile.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};
use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use tracktags_core::BusinessId;

/// What a profile says: the ids of the flags, and their names.
const IN_PROFILES: [(&str, &str); 3] = [("url", "url"), ("business_key", "key"), ("admin_key", "admin-key")];

/// Where the server is, and as whom it is asked.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// The server.
    #[arg(
        long,
        global = true,
        env = "TRACKTAGS_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub(crate) url: String,
    /// A business's key (`usage` takes a customer's too). Better in the environment: others can see flags.
    // An id of its own: `keys revoke` and `keys check` have an argument `key`.
    #[arg(
        id = "business_key",
        long = "key",
        global = true,
        env = "TRACKTAGS_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    pub(crate) key: Option<Secret>,
    /// The platform admin's key, for businesses and wherever --business is given.
    #[arg(long, global = true, env = "TRACKTAGS_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) admin_key: Option<Secret>,
    /// The business to act for with the admin's key.
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) business: Option<BusinessId>,
    /// Server and keys of this profile, instead of those in the environment.
    #[arg(long, global = true, env = "TRACKTAGS_PROFILE", hide_env_values = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// The file of profiles (TOML, mode 0600) [default: tracktags/profiles.toml in ~/.config].
    #[arg(long, global = true, env = "TRACKTAGS_PROFILES", hide_env_values = true, value_name = "FILE")]
    pub(crate) profiles: Option<PathBuf>,
}

impl Connection {
    /// Refuses a flag beside a profile, which would be ignored, and finds the file of profiles.
    pub(super) fn settle(&mut self, matches: &ArgMatches, command: &mut Command) -> Result<(), clap::Error> {
        let is_flag = |(id, _): &&(&str, &str)| matches.value_source(id) == Some(ValueSource::CommandLine);
        if let (Some(_), Some((_, name))) = (&self.profile, IN_PROFILES.iter().find(is_flag)) {
            let message = format!("--profile says it already: leave out --{name}");
            return Err(command.error(ErrorKind::ArgumentConflict, message));
        }
        if self.profiles.is_none() {
            let folder =
                |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
            let home = || folder("HOME").map(|home| home.join(".config"));
            self.profiles =
                folder("XDG_CONFIG_HOME").or_else(home).map(|folder| folder.join("tracktags/profiles.toml"));
        }
        Ok(())
    }
}

/// A key: hides in `Debug`.
#[derive(Clone)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
