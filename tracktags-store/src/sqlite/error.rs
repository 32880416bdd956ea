//! What the database says → what the store says. Its messages are fixed texts (`sqlite3_errstr`); diesel hands out
//! no result code.

use diesel::result::Error;
use tracktags_core::error::StoreError;

/// Full: nothing was written, and a retry needs room.
const FULL: &[&str] = &["database or disk is full"];
/// Locked, or out of reach for now.
const UNAVAILABLE: &[&str] = &[
    "database is locked",
    "database table is locked",
    "database schema is locked",
    "disk I/O error",
    "unable to open database file",
    "attempt to write a readonly database",
    "locking protocol",
    "interrupted",
    "out of memory",
];
const CORRUPT: &[&str] =
    &["database disk image is malformed", "file is not a database", "malformed database schema"];

/// The store's error for diesel's.
pub(crate) fn store_error(error: Error) -> StoreError {
    match error {
        Error::DatabaseError(kind, info) => {
            let message = info.message();
            let is = |texts: &[&str]| texts.iter().any(|text| message.starts_with(text));
            if is(FULL) {
                StoreError::StorageFull
            } else if is(UNAVAILABLE) {
                StoreError::Unavailable(Box::new(Error::DatabaseError(kind, info)))
            } else if is(CORRUPT) {
                StoreError::Corrupt(message.to_owned())
            } else {
                StoreError::Backend(Box::new(Error::DatabaseError(kind, info)))
            }
        }
        Error::DeserializationError(cause) => StoreError::Corrupt(cause.to_string()),
        // The roll-back failed too; what went wrong first says more.
        Error::RollbackErrorOnCommit { commit_error, .. } => store_error(*commit_error),
        other => StoreError::Backend(Box::new(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diesel::result::DatabaseErrorKind::Unknown;

    #[test]
    fn sqlites_messages_become_the_stores_errors() {
        let of = |text: &str| store_error(Error::DatabaseError(Unknown, Box::new(text.to_owned())));
        assert!(matches!(of("database or disk is full"), StoreError::StorageFull));
        assert!(matches!(of("database is locked"), StoreError::Unavailable(_)));
        assert!(matches!(of("database table is locked: plans"), StoreError::Unavailable(_)));
        assert!(matches!(of("database disk image is malformed"), StoreError::Corrupt(_)));
        assert!(matches!(of("no such business"), StoreError::Backend(_)));
    }
}
