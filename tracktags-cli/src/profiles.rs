//! Several servers by name: a file of profiles, one of which may be chosen instead of the environment's server and keys.
//!
//! A profile is taken whole, so that no key of one server is ever sent to another. The file holds keys, so it must be
//! its owner's alone.

use crate::Failure;
use crate::args::{Connection, Secret};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tracktags_core::BusinessId;

/// One server, and as whom it is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    url: String,
    key: Option<String>,
    admin_key: Option<String>,
    business: Option<String>,
}

/// The connection that is meant: the chosen profile's, or the one that flags and environment say.
pub(crate) fn resolve(connection: Connection) -> Result<Connection, Failure> {
    let Some(name) = &connection.profile else { return Ok(connection) };
    let file = file(&connection)?;
    let mut profiles = read(file)?;
    let names = || profiles.keys().cloned().collect::<Vec<_>>().join(", ");
    let Some(profile) = profiles.get(name) else {
        return Err(bad(file, &format!("has no profile {name}; it has {}", names())));
    };
    let business = match (&connection.business, &profile.business) {
        (Some(given), _) => Some(given.clone()),
        (None, Some(id)) => {
            let id = BusinessId::parse(id);
            Some(id.map_err(|error| bad(file, &format!("profile {name}: business: {error}")))?)
        }
        (None, None) => None,
    };
    let Some(profile) = profiles.remove(name) else { return Ok(connection) };
    Ok(Connection {
        url: profile.url,
        key: profile.key.map(Secret::new),
        admin_key: profile.admin_key.map(Secret::new),
        business,
        ..connection
    })
}

/// The profiles there are, without their keys.
pub(crate) fn list(connection: &Connection) -> Result<Value, Failure> {
    let profiles = read(file(connection)?)?;
    let shown = profiles.into_iter().map(|(name, profile)| {
        json!({
            "name": name,
            "url": profile.url,
            "key": profile.key.is_some(),
            "admin_key": profile.admin_key.is_some(),
            "business": profile.business,
        })
    });
    Ok(json!({"profiles": shown.collect::<Vec<_>>()}))
}

fn file(connection: &Connection) -> Result<&Path, Failure> {
    let missing =
        || Failure::Configuration("no home to look for profiles in: set TRACKTAGS_PROFILES".to_owned());
    connection.profiles.as_deref().ok_or_else(missing)
}

fn read(file: &Path) -> Result<BTreeMap<String, Profile>, Failure> {
    let unreadable = |error: std::io::Error| bad(file, &format!("cannot be read ({error})"));
    let mode = std::fs::metadata(file).map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(bad(file, "can be read by others and holds keys; give it mode 0600"));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    // What is wrong is told without the line, which may hold a key.
    toml::from_str(&text).map_err(|error| bad(file, &format!("is not as it must be: {}", error.message())))
}

fn bad(file: &Path, problem: &str) -> Failure {
    Failure::Configuration(format!("TRACKTAGS_PROFILES (--profiles): {} {problem}", file.display()))
}
