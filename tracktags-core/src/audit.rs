//! The trail of changes: who changed what, when, and on which request.
//!
//! Each change writes its row in its own transaction, so there is none without the other.

use crate::accounts::BusinessId;
use crate::demand::Operation;
use crate::lists::PageRequest;
use crate::metrics::words;
use crate::time::Timestamp;
use std::sync::Arc;

words! {
    /// What kind of hand changed something.
    ActorKind {
        /// The platform's admin.
        Admin = "admin",
        /// A business, by one of its keys.
        Business = "business",
        /// A customer, by one of its keys.
        Customer = "customer",
        /// The server, of its own accord.
        Server = "server",
        /// A login of the database, past the server.
        Sql = "sql",
    }
}

/// Who asks for a change, and on which request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// What kind of hand.
    pub kind: ActorKind,
    /// The id of the key that was used; never the key.
    pub key_id: Option<Arc<str>>,
    /// The request's id.
    pub request_id: Option<Arc<str>>,
}

impl Author {
    /// The server itself.
    #[must_use]
    pub const fn server() -> Self {
        Self { kind: ActorKind::Server, key_id: None, request_id: None }
    }
}

/// Something that happened outside the configuration and is to be noted.
#[derive(Clone, Debug)]
pub struct Event {
    /// To whom.
    pub business: Option<BusinessId>,
    /// What, as `resource.verb`.
    pub action: &'static str,
    /// Which resource.
    pub resource_id: String,
    /// More of it: a JSON object.
    pub after: Option<String>,
}

/// Usage corrected by hand: all operations, and one row of the trail in their transaction.
#[derive(Clone, Debug)]
pub struct Correction {
    /// What is noted. Without `after`, the first operation's value before and after it.
    pub event: Event,
    /// What is done, in this order.
    pub operations: Vec<Operation>,
}

/// A row of the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its number; later rows have greater ones.
    pub id: i64,
    /// The tenant, if it has one.
    pub business: Option<BusinessId>,
    /// When.
    pub at: Timestamp,
    /// What kind of hand. A row without a proof of ours was put there by SQL.
    pub actor: ActorKind,
    /// The key that was used.
    pub actor_id: Option<String>,
    /// What, as `resource.verb`.
    pub action: String,
    /// Which resource.
    pub resource_id: String,
    /// The fields that changed, as they were: a JSON object.
    pub before: Option<String>,
    /// The fields that changed, as they are since: a JSON object.
    pub after: Option<String>,
    /// The request that asked for it.
    pub request_id: Option<String>,
}

/// Which rows of the trail, newest first.
#[derive(Clone, Debug)]
pub struct AuditQuery {
    /// The tenant; `None` is all of them.
    pub business: Option<BusinessId>,
    /// This action only.
    pub action: Option<String>,
    /// Resources of this type only: what stands before the action's dot.
    pub resource_type: Option<String>,
    /// From this instant on.
    pub from: Option<Timestamp>,
    /// Before this instant.
    pub to: Option<Timestamp>,
    /// Which stretch.
    pub page: PageRequest,
}
