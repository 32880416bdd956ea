//! The schema: pending migrations are run at open, in order, by one node while the others wait; a database of a newer
//! program is refused. And whose database it is: the deployment's name, and the check that the master key is the right one.

use super::dialect::Conn;
use super::error::store_error;
use super::schema::server_state;
use super::sessions::Session;
use super::trail;
use crate::OpenError;
use crate::secrets::Secrets;
use diesel::connection::SimpleConnection;
use diesel::migration::MigrationSource;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use rand::RngExt;
use tracktags_core::error::{Cause, StoreError};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");
const DEPLOYMENT: &str = "deployment";
const MASTER_KEY_CHECK: &str = "master_key_check";

/// Held by the session that migrates; nodes that start together migrate once. The number is ours alone by chance.
const LOCK: &str =
    "SET lock_timeout = '60s'; SET statement_timeout = 0; SELECT pg_advisory_lock(7236451920433615)";
const UNLOCK: &str =
    "SELECT pg_advisory_unlock(7236451920433615); RESET lock_timeout; RESET statement_timeout";

/// Brings the schema up to date, and names the steps it took. The session is not used for anything else after it.
pub(super) fn run(session: &mut Session) -> Result<Vec<String>, OpenError> {
    let conn = session.conn().map_err(super::to_open_error)?;
    conn.batch_execute(LOCK).map_err(open_error)?;
    let taken = pending(conn).and_then(|pending| {
        conn.run_pending_migrations(MIGRATIONS).map_err(OpenError::Migration)?;
        Ok(pending)
    });
    conn.batch_execute(UNLOCK).map_err(open_error)?;
    taken
}

fn open_error(error: diesel::result::Error) -> OpenError {
    super::to_open_error(store_error(error))
}

/// The names of the steps to be taken.
///
/// # Errors
/// [`OpenError::SchemaNewer`] where one was taken that is not known.
pub(super) fn pending(conn: &mut Conn) -> Result<Vec<String>, OpenError> {
    let source: &dyn MigrationSource<Pg> = &MIGRATIONS;
    let migrations = source.migrations().map_err(OpenError::Migration)?;
    let names = migrations.iter().map(|migration| migration.name());
    let known: Vec<(String, String)> =
        names.map(|name| (name.version().to_string(), name.to_string())).collect();
    let applied = conn.applied_migrations().map_err(refused)?;
    let applied: Vec<_> = applied.iter().map(ToString::to_string).collect();
    if let Some(newer) = applied.iter().find(|version| known.iter().all(|(known, _)| known != *version)) {
        let known = known.last().map(|(version, _)| version.clone()).unwrap_or_default();
        return Err(OpenError::SchemaNewer { found: newer.clone(), known });
    }
    Ok(known.into_iter().filter(|(version, _)| !applied.contains(version)).map(|(_, name)| name).collect())
}

/// What keeps from reading which steps were taken: mostly that nothing may be created here.
fn refused(error: Cause) -> OpenError {
    match error.downcast::<diesel::result::Error>() {
        Ok(error) => open_error(*error),
        Err(error) => OpenError::Migration(error),
    }
}

/// The name of this deployment, made at the first open; and the refusal of a wrong master key, before any customer
/// is refused for it.
pub(super) fn identify_database(session: &mut Session, secrets: &Secrets) -> Result<String, OpenError> {
    session
        .change(|conn, _| {
            let known: Vec<(String, String)> = server_state::table
                .select((server_state::name, server_state::value))
                .load(conn)
                .map_err(store_error)?;
            let find =
                |name: &str| known.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
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
            trail::settle_in(conn, secrets)?;
            Ok(Some(deployment))
        })
        .map_err(super::to_open_error)?
        .ok_or(OpenError::WrongMasterKey)
}

fn put(conn: &mut Conn, name: &str, value: &str) -> Result<(), StoreError> {
    diesel::insert_into(server_state::table)
        .values((server_state::name.eq(name), server_state::value.eq(value)))
        .execute(conn)
        .map(drop)
        .map_err(store_error)
}

/// Takes every step back.
#[cfg(test)]
pub(super) fn revert(conn: &mut Conn) {
    conn.revert_all_migrations(MIGRATIONS).unwrap();
}
