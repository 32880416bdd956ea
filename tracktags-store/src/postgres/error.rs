//! What PostgreSQL says → what the store says.

use diesel::result::{DatabaseErrorKind, Error};
use tracktags_core::error::StoreError;

/// Fixed beginnings of the server's messages; diesel hands out no SQLSTATE for these. Messages are in English
/// whatever the server speaks, since each session says so.
const FULL: &[&str] = &["could not extend file", "could not write to file", "No space left on device"];
const UNAVAILABLE: &[&str] = &[
    "canceling statement",
    "terminating connection",
    "the database system is",
    "current transaction is aborted",
    "deadlock detected",
    "could not serialize access",
    "sorry, too many clients already",
    "remaining connection slots",
    "cannot execute",
    "out of memory",
];
const LOCKED: &str = "canceling statement due to lock timeout";

/// The store's error for diesel's.
pub(crate) fn store_error(error: Error) -> StoreError {
    match error {
        Error::DatabaseError(kind, info) => {
            let message = info.message().to_owned();
            let is = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
            let lost = matches!(
                kind,
                DatabaseErrorKind::UnableToSendCommand
                    | DatabaseErrorKind::ClosedConnection
                    | DatabaseErrorKind::SerializationFailure
                    | DatabaseErrorKind::ReadOnlyTransaction
            );
            if is(FULL) {
                StoreError::StorageFull
            } else if lost || is(UNAVAILABLE) {
                StoreError::Unavailable(Box::new(Error::DatabaseError(kind, info)))
            } else {
                StoreError::Backend(Box::new(Error::DatabaseError(kind, info)))
            }
        }
        Error::DeserializationError(cause) => StoreError::Corrupt(cause.to_string()),
        Error::RollbackErrorOnCommit { commit_error, .. } => store_error(*commit_error),
        other => StoreError::Backend(Box::new(other)),
    }
}

/// Whether somebody held a lock for too long.
pub(crate) fn is_lock_timeout(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(_, info) if info.message().starts_with(LOCKED))
}

/// Whether the server itself said so: then it is known that what it refused was not done.
pub(crate) fn is_from_server(error: &Error) -> bool {
    match error {
        Error::DatabaseError(kind, info) => {
            let lost = matches!(kind, DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection);
            !lost && !info.message().starts_with("terminating connection")
        }
        _ => false,
    }
}

/// Whether another transaction came in between, so that doing it again is right.
pub(crate) fn is_conflict(error: &StoreError) -> bool {
    let cause = match error {
        StoreError::Unavailable(cause) | StoreError::Backend(cause) => cause,
        _ => return false,
    };
    matches!(
        cause.downcast_ref::<Error>(),
        Some(Error::DatabaseError(
            DatabaseErrorKind::SerializationFailure | DatabaseErrorKind::UniqueViolation,
            _
        ))
    )
}
