//! Key files: reading them with care for their mode, and making them at the first start on a loopback address.
//!
//! A file that others can read is refused, one that exists is never overwritten, and no key is ever printed.

use crate::config::{Config, ConfigError, Secret, check_admin_key};
use rand::Rng;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tracktags_core::keys::PlainKey;
use tracktags_store::MasterKey;

const MASTER_KEY_BYTES: usize = 32;

/// The master keys: as configured, else from `master.key` beside the database, made if need be. That one is missing
/// where the server does not listen on a loopback address, `Config::validate` has refused.
pub(crate) fn master_keys(config: &Config) -> Result<Vec<MasterKey>, ConfigError> {
    let secrets = &config.secrets;
    if let Some(text) = &secrets.master_key {
        return parse_master_keys(text.expose(), "secrets.master_key");
    }
    if let Some(file) = &secrets.master_key_file {
        return parse_master_keys(read(file, "secrets.master_key_file")?.expose(), "secrets.master_key_file");
    }
    // `Config::validate` has refused a server's database without a key.
    let database = config.store.file().unwrap_or(Path::new(""));
    let file = beside(database, "master.key");
    if !file.exists() && fs::metadata(database).is_ok_and(|database| database.len() > 0) {
        // A new key would open nothing of it.
        return Err(ConfigError::one(format!(
            "secrets.master_key_file: {} exists, but its master key {} does not; restore it",
            database.display(),
            file.display()
        )));
    }
    let mut bytes = [0_u8; MASTER_KEY_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    let hex = Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    create(&file, &hex, "secrets.master_key_file")?;
    parse_master_keys(read(&file, "secrets.master_key_file")?.expose(), "secrets.master_key_file")
}

/// The admin's key: as configured, else on a loopback address from `admin.key` beside the database, made if need
/// be; elsewhere, and with a database on a server, there is none.
pub(crate) fn admin_key(config: &Config) -> Result<Option<Secret>, ConfigError> {
    let server = &config.server;
    let (key, setting) = if let Some(key) = &server.admin_key {
        (key.clone(), "server.admin_key")
    } else if let Some(file) = &server.admin_key_file {
        (read(file, "server.admin_key_file")?, "server.admin_key_file")
    } else if let Some(database) = config.store.file().filter(|_| server.bind.ip().is_loopback()) {
        let file = beside(database, "admin.key");
        let made = PlainKey::for_admin(&mut rand::rng());
        if create(&file, &Secret::new(made.expose()), "server.admin_key_file")? {
            let path = std::path::absolute(&file).unwrap_or_else(|_| file.clone());
            tracing::info!(file = %path.display(), "the admin's key was made; it is in this file");
        }
        (read(&file, "server.admin_key_file")?, "server.admin_key_file")
    } else {
        tracing::warn!("no admin key is configured (server.admin_key): nobody can create businesses");
        return Ok(None);
    };
    checked_admin_key(&key, setting)?;
    Ok(Some(key))
}

/// Looks at every key file there is, and makes none.
///
/// # Errors
/// [`ConfigError`] with what is wrong with each.
pub(crate) fn inspect(config: &Config) -> Result<(), ConfigError> {
    let given = |file: &Option<PathBuf>, name: &str| match file {
        Some(file) => Some(file.clone()),
        None => config.store.file().map(|database| beside(database, name)).filter(|file| file.exists()),
    };
    let master = given(&config.secrets.master_key_file, "master.key")
        .map(|file| read(&file, "secrets.master_key_file"))
        .map(|text| parse_master_keys(text?.expose(), "secrets.master_key_file").map(drop));
    let admin = given(&config.server.admin_key_file, "admin.key")
        .map(|file| read(&file, "server.admin_key_file"))
        .map(|key| checked_admin_key(&key?, "server.admin_key_file"));
    let problems = [master, admin].into_iter().flatten().filter_map(Result::err);
    let problems: Vec<_> = problems.flat_map(|error| error.0).collect();
    if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems)) }
}

fn checked_admin_key(key: &Secret, setting: &str) -> Result<(), ConfigError> {
    check_admin_key(key.expose()).map_err(|problem| ConfigError::one(format!("{setting} {problem}")))
}

fn beside(database: &Path, name: &str) -> PathBuf {
    database.parent().unwrap_or_else(|| Path::new("")).join(name)
}

/// Reads a secret from a file that only its owner can read.
fn read(file: &Path, setting: &str) -> Result<Secret, ConfigError> {
    let refuse = |problem: &str| ConfigError::one(format!("{setting}: {} {problem}", file.display()));
    let metadata = fs::metadata(file).map_err(|error| refuse(&format!("cannot be read ({error})")))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(refuse("can be read by others; give it mode 0600"));
    }
    let text = fs::read_to_string(file).map_err(|error| refuse(&format!("cannot be read ({error})")))?;
    let text = Secret::new(text);
    Ok(Secret::new(text.expose().trim()))
}

/// Writes a secret into a new file of mode 0600; `false` where one exists.
fn create(file: &Path, secret: &Secret, setting: &str) -> Result<bool, ConfigError> {
    let refuse = |error: std::io::Error| ConfigError::one(format!("{setting}: {} ({error})", file.display()));
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Ok(mut opened) => {
            opened.write_all(secret.expose().as_bytes()).map_err(refuse)?;
            opened.sync_all().map_err(refuse)?;
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(refuse(error)),
    }
}

fn parse_master_keys(text: &str, setting: &str) -> Result<Vec<MasterKey>, ConfigError> {
    MasterKey::parse_list(text).map_err(|error| ConfigError::one(format!("{setting}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_is_made_once_and_refused_when_others_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin.key");
        assert_eq!(create(&file, &Secret::new("first"), "x"), Ok(true));
        assert_eq!(create(&file, &Secret::new("second"), "x"), Ok(false));
        assert_eq!(read(&file, "x").unwrap().expose(), "first");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&file, "server.admin_key_file").unwrap_err().0[0].contains("server.admin_key_file"));
    }

    #[test]
    fn master_keys_are_hex_and_may_be_several() {
        let one = "00ff".repeat(16);
        let keys = parse_master_keys(&format!("{one}, {one}"), "x").unwrap();
        assert_eq!(keys.len(), 2);
        assert!(parse_master_keys("00", "x").is_err());
        assert!(parse_master_keys(&"xy".repeat(32), "x").is_err());
    }
}
