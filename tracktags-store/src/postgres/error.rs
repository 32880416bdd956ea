//! What PostgreSQL says → what the store says.

use diesel::result::{DatabaseErrorKind, Error};
use tracktags_core::error::StoreError;

/// Fixed beginnings of the server's messages, for diesel hands out no SQLSTATE for these. They are in English wherever the
/// role may choose so (`source`); elsewhere the error is the same, named less exactly.
const FULL: &[&str] = &["could not extend file", "could not write to file", "No space left on device"];
const UNAVAILABLE: &[&str] = &[
    "canceling statement",
    "terminating connection",
    "the database system is",
    "current transaction is aborted",
    DEADLOCK,
    "sorry, too many clients already",
    "remaining connection slots",
    "cannot execute",
    "out of memory",
];
const DEADLOCK: &str = "deadlock detected";

/// The store's error for diesel's.
pub(crate) fn store_error(error: Error) -> StoreError {
    match error {
        Error::DatabaseError(kind, info) => {
            let is = |texts: &[&str]| texts.iter().any(|text| info.message().contains(text));
            let known = matches!(
                kind,
                DatabaseErrorKind::UnableToSendCommand
                    | DatabaseErrorKind::ClosedConnection
                    | DatabaseErrorKind::SerializationFailure
                    | DatabaseErrorKind::ReadOnlyTransaction
            );
            if is(FULL) {
                StoreError::StorageFull
            } else if known || is(UNAVAILABLE) {
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

/// Whether the server itself refused a statement. Then its transaction is not committed any more.
pub(super) const fn is_refused(error: &Error) -> bool {
    match error {
        Error::DatabaseError(kind, _) => {
            !matches!(kind, DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection)
        }
        _ => false,
    }
}

/// Whether a statement may have been refused because somebody holds what it needs.
pub(super) fn may_be_a_lock(error: &Error) -> bool {
    let Error::DatabaseError(DatabaseErrorKind::Unknown, info) = error else { return false };
    let said = info.message();
    let is_other = |text: &&&str| !said.contains("canceling statement") && **text != DEADLOCK;
    !FULL.iter().chain(UNAVAILABLE.iter().filter(is_other)).any(|text| said.contains(text))
}

/// Whether a COMMIT that ended so was certainly none. What ends a session may also come just after the commit.
pub(super) const fn is_no_commit(error: &Error) -> bool {
    is_refused(error) && !matches!(error, Error::DatabaseError(DatabaseErrorKind::Unknown, _))
}

/// Whether another transaction came in between, so that doing it again is right.
pub(super) fn is_conflict(error: &StoreError) -> bool {
    let (StoreError::Unavailable(cause) | StoreError::Backend(cause)) = error else { return false };
    let Some(Error::DatabaseError(kind, info)) = cause.downcast_ref::<Error>() else { return false };
    matches!(kind, DatabaseErrorKind::SerializationFailure | DatabaseErrorKind::UniqueViolation)
        || info.message().starts_with(DEADLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: DatabaseErrorKind, text: &str) -> Error {
        Error::DatabaseError(kind, Box::new(text.to_owned()))
    }

    #[test]
    fn the_servers_messages_become_the_stores_errors() {
        let of = |text: &str| store_error(error(DatabaseErrorKind::Unknown, text));
        assert!(matches!(of("could not extend file \"base/1/2\": No space left"), StoreError::StorageFull));
        assert!(matches!(of("canceling statement due to lock timeout"), StoreError::Unavailable(_)));
        assert!(matches!(of("the database system is starting up"), StoreError::Unavailable(_)));
        assert!(matches!(of("relation \"counters\" does not exist"), StoreError::Backend(_)));
        let lost = error(DatabaseErrorKind::UnableToSendCommand, "connection closed");
        assert!(matches!(store_error(lost), StoreError::Unavailable(_)));
    }

    #[test]
    fn a_conflict_is_told_from_other_faults() {
        use DatabaseErrorKind::{CheckViolation, SerializationFailure, UniqueViolation, Unknown};
        let is = |kind, text| is_conflict(&store_error(error(kind, text)));
        assert!(is(SerializationFailure, "could not serialize access due to concurrent update"));
        assert!(is(UniqueViolation, "duplicate key value violates unique constraint"));
        assert!(is(Unknown, "deadlock detected"));
        assert!(!is(CheckViolation, "new row violates check constraint"));
    }

    #[test]
    fn a_full_disk_and_a_session_that_ends_are_not_taken_for_a_lock() {
        let is = |text| may_be_a_lock(&error(DatabaseErrorKind::Unknown, text));
        assert!(is("canceling statement due to lock timeout") && is("deadlock detected"));
        assert!(is("Anweisung wird abgebrochen"), "where messages are in another language");
        assert!(!is("could not extend file \"base/1/2\": No space left on device"));
        assert!(!is("terminating connection due to administrator command"));
        assert!(!is("out of memory"));
    }

    #[test]
    fn only_what_the_server_said_of_the_commit_itself_is_believed() {
        use DatabaseErrorKind::{ClosedConnection, SerializationFailure, Unknown};
        assert!(is_no_commit(&error(SerializationFailure, "could not serialize access")));
        assert!(!is_no_commit(&error(Unknown, "terminating connection due to administrator command")));
        assert!(!is_no_commit(&error(ClosedConnection, "connection closed")));
        assert!(is_refused(&error(Unknown, "canceling statement due to statement timeout")));
    }
}
