//! What of a database an operator should look at.

use crate::{OpenError, database_path, is_postgres, postgres, sqlite};

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
    /// What it is about: a file, a setting of the server, or a business.
    pub subject: String,
    /// What was found and what to do.
    pub message: String,
}

impl Finding {
    pub(crate) fn problem(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Problem, subject: subject.into(), message: message.into() }
    }

    pub(crate) fn warning(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Warning, subject: subject.into(), message: message.into() }
    }
}

/// Looks at a database, closed or in use; changes nothing.
///
/// # Errors
/// [`OpenError`] when it cannot be read at all.
pub fn doctor(url: &str) -> Result<Vec<Finding>, OpenError> {
    if is_postgres(url) {
        postgres::fitness::doctor(url)
    } else {
        sqlite::doctor::doctor(database_path(url)?)
    }
}
