//! The schema: pending migrations are run at open, in order; a database of a newer program is refused. And whose
//! database it is: the deployment's name, and the check that the master key is the right one.

use super::connection::open_error;
use super::error::store_error;
use crate::OpenError;
use crate::secrets::Secrets;
use crate::sqlite::schema::server_state;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use rand::RngExt;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const DEPLOYMENT: &str = "deployment";
const MASTER_KEY_CHECK: &str = "master_key_check";

/// Brings the schema up to date, and names the steps it took.
pub(super) fn run(conn: &mut SqliteConnection) -> Result<Vec<String>, OpenError> {
    let pending = pending(conn)?;
    conn.run_pending_migrations(MIGRATIONS).map_err(OpenError::Migration)?;
    Ok(pending)
}

/// The names of the steps to be taken.
///
/// # Errors
/// [`OpenError::SchemaNewer`] where one was taken that is not known.
pub(super) fn pending(conn: &mut SqliteConnection) -> Result<Vec<String>, OpenError> {
    use diesel::migration::MigrationSource;
    let source: &dyn MigrationSource<diesel::sqlite::Sqlite> = &MIGRATIONS;
    let migrations = source.migrations().map_err(OpenError::Migration)?;
    let names = migrations.iter().map(|migration| migration.name());
    let known: Vec<(String, String)> =
        names.map(|name| (name.version().to_string(), name.to_string())).collect();
    let applied = conn.applied_migrations().map_err(damaged)?;
    let applied: Vec<_> = applied.iter().map(ToString::to_string).collect();
    if let Some(newer) = applied.iter().find(|version| known.iter().all(|(known, _)| known != *version)) {
        let known = known.last().map(|(version, _)| version.clone()).unwrap_or_default();
        return Err(OpenError::SchemaNewer { found: newer.clone(), known });
    }
    Ok(known.into_iter().filter(|(version, _)| !applied.contains(version)).map(|(_, name)| name).collect())
}

/// A file that is no database, or a damaged one, is named as such.
fn damaged(error: tracktags_core::error::Cause) -> OpenError {
    match error.downcast::<diesel::result::Error>() {
        Ok(error) => open_error(*error),
        Err(error) => OpenError::Migration(error),
    }
}

/// The name of this deployment, made at the first open; and the refusal of a wrong master key, before any customer
/// is refused for it.
pub(super) fn identify_database(conn: &mut SqliteConnection, secrets: &Secrets) -> Result<String, OpenError> {
    conn.immediate_transaction(|conn| {
        let known: Vec<(String, String)> =
            server_state::table.select((server_state::name, server_state::value)).load(conn)?;
        let find = |name: &str| known.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        match find(MASTER_KEY_CHECK) {
            Some(check) if !secrets.is_check(&check) => return Ok(None),
            Some(_) => {}
            None => put(conn, MASTER_KEY_CHECK, &secrets.check())?,
        }
        let deployment = match find(DEPLOYMENT) {
            Some(deployment) => deployment,
            None => {
                let deployment = format!("{:016x}", rand::rng().random::<u64>());
                put(conn, DEPLOYMENT, &deployment)?;
                deployment
            }
        };
        Ok(Some(deployment))
    })
    .map_err(|error: diesel::result::Error| super::to_open_error(store_error(error)))?
    .ok_or(OpenError::WrongMasterKey)
}

fn put(conn: &mut SqliteConnection, name: &str, value: &str) -> QueryResult<()> {
    diesel::insert_into(server_state::table)
        .values((server_state::name.eq(name), server_state::value.eq(value)))
        .execute(conn)
        .map(drop)
}
