//! What of a database's files an operator should look at: who can read them, and damage. Reads only; works on a closed
//! database and on one in use.

use super::connection::open_error;
use super::migrate;
use super::tables::findings::{schema, settings};
use super::verify::open_existing;
use crate::OpenError;
use crate::findings::Finding;
use diesel::prelude::*;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Faults of a damaged database named at most.
const FAULTS_MAX: i32 = 10;

/// Looks at a database.
pub(crate) fn doctor(path: &Path) -> Result<Vec<Finding>, OpenError> {
    let mut conn = open_existing(path)?;
    let mut findings = files(path);
    findings.extend(schema(&path.display().to_string(), migrate::pending(&mut conn))?);
    findings.extend(damage(&mut conn, path)?);
    findings.extend(settings(&mut conn).map_err(super::to_open_error)?);
    Ok(findings)
}

/// The database and its keys are their owner's alone.
fn files(database: &Path) -> Vec<Finding> {
    let beside = |name: &str| database.with_file_name(name);
    let with = |ending: &str| {
        let mut name = database.as_os_str().to_owned();
        name.push(ending);
        name.into()
    };
    let files = [database.to_owned(), with("-wal"), with("-shm"), beside("master.key"), beside("admin.key")];
    let others_can = |file: &Path| {
        std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    };
    let open = files.into_iter().filter(|file| others_can(file));
    open.map(|file| Finding::problem(file.display().to_string(), "others can read it; give it mode 0600"))
        .collect()
}

#[derive(QueryableByName)]
struct Fault {
    #[diesel(sql_type = diesel::sql_types::Text)]
    said: String,
}

fn damage(conn: &mut SqliteConnection, path: &Path) -> Result<Vec<Finding>, OpenError> {
    let check = format!("SELECT quick_check AS said FROM pragma_quick_check LIMIT {FAULTS_MAX}");
    let faults: Vec<Fault> = diesel::sql_query(check).load(conn).map_err(open_error)?;
    let faults = faults.into_iter().filter(|fault| fault.said != "ok");
    Ok(faults.map(|fault| Finding::problem(path.display().to_string(), fault.said)).collect())
}
