//! What of a database an operator should look at: who can read its files, its schema, damage, and settings of businesses
//! that are seldom meant. Reads only; works on a closed database and on one in use.

use super::connection::open_error;
use super::migrate;
use super::schema::{businesses, customer_keys};
use super::verify::open_existing;
use crate::{OpenError, database_path};
use diesel::prelude::*;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tracktags_core::accounts::Enforcement;

/// Businesses named at most for each finding.
const NAMED_MAX: i64 = 20;
/// Faults of a damaged database named at most.
const FAULTS_MAX: i32 = 10;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It must be put right.
    Problem,
    /// It may be meant.
    Warning,
}

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about: a file, or a business.
    pub subject: String,
    /// What was found and what to do.
    pub message: String,
}

impl Finding {
    fn problem(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Problem, subject: subject.into(), message: message.into() }
    }

    fn warning(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Warning, subject: subject.into(), message: message.into() }
    }
}

/// Looks at a database.
///
/// # Errors
/// [`OpenError`] when it cannot be read at all.
pub fn doctor(url: &str) -> Result<Vec<Finding>, OpenError> {
    let path = database_path(url)?;
    let mut conn = open_existing(path)?;
    let mut findings = files(path);
    findings.extend(schema(&mut conn, path)?);
    findings.extend(damage(&mut conn, path)?);
    findings.extend(settings(&mut conn).map_err(open_error)?);
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

fn schema(conn: &mut SqliteConnection, path: &Path) -> Result<Option<Finding>, OpenError> {
    let subject = path.display().to_string();
    match migrate::pending(conn) {
        Ok(pending) if pending.is_empty() => Ok(None),
        Ok(pending) => {
            let message = format!(
                "its schema is older than this program; the next start, or migrate, takes {} steps",
                pending.len()
            );
            Ok(Some(Finding::warning(subject, message)))
        }
        Err(newer @ OpenError::SchemaNewer { .. }) => Ok(Some(Finding::problem(subject, newer.to_string()))),
        Err(error) => Err(error),
    }
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

/// What businesses have set, or have not.
fn settings(conn: &mut SqliteConnection) -> QueryResult<Vec<Finding>> {
    let with_live_keys = customer_keys::table
        .filter(customer_keys::revoked_at.is_null())
        .select(customer_keys::business_id)
        .distinct();
    let uncounted: Vec<String> = businesses::table
        .filter(businesses::deleted_at.is_null())
        .filter(businesses::default_metric.is_null())
        .filter(businesses::business_id.eq_any(with_live_keys))
        .select(businesses::business_id)
        .limit(NAMED_MAX)
        .load(conn)?;
    let watching: Vec<String> = businesses::table
        .filter(businesses::deleted_at.is_null())
        .filter(businesses::enforcement.eq(Enforcement::Observe.as_str()))
        .select(businesses::business_id)
        .limit(NAMED_MAX)
        .load(conn)?;
    let uncounted = uncounted.into_iter().map(|id| {
        let message =
            "customers have keys and there is no default_metric: a call that names no metric is not counted";
        Finding::warning(id, message)
    });
    let watching = watching
        .into_iter()
        .map(|id| Finding::warning(id, "enforcement is observe: everything is counted, nothing is denied"));
    Ok(uncounted.chain(watching).collect())
}
