//! Whether a server can be relied on: what is read back at open, and what an operator should look at.

use super::dialect::Conn;
use super::error::store_error;
use super::migrate;
use super::sessions::Session;
use super::source::Source;
use super::tables::findings;
use super::{Connections, apart, to_open_error};
use crate::findings::Finding;
use crate::{Durability, OpenError};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Integer, Text};
use tracktags_core::error::StoreError;

/// The oldest server whose SQL the migrations are written in.
const VERSION_MIN: i32 = 150_000;

const READ: &str = "SELECT current_setting('server_version') AS version, \
    current_setting('server_version_num')::int AS version_number, current_setting('server_encoding') AS encoding, \
    current_setting('transaction_read_only')::bool OR pg_is_in_recovery() AS is_read_only, \
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes, \
    current_setting('synchronous_commit') AS synchronous_commit, \
    current_setting('data_checksums') AS data_checksums, \
    current_setting('synchronous_standby_names') AS standbys";

/// What a server says of itself.
#[derive(QueryableByName, Debug)]
struct Server {
    #[diesel(sql_type = Text)]
    version: String,
    #[diesel(sql_type = Integer)]
    version_number: i32,
    #[diesel(sql_type = Text)]
    encoding: String,
    #[diesel(sql_type = Bool)]
    is_read_only: bool,
    #[diesel(sql_type = Text)]
    fsync: String,
    #[diesel(sql_type = Text)]
    full_page_writes: String,
    #[diesel(sql_type = Text)]
    synchronous_commit: String,
    #[diesel(sql_type = Text)]
    data_checksums: String,
    #[diesel(sql_type = Text)]
    standbys: String,
}

impl Server {
    fn read(conn: &mut Conn) -> Result<Self, StoreError> {
        diesel::sql_query(READ).get_result(conn).map_err(store_error)
    }

    /// Whether it is one to serve from.
    fn check(&self, durability: Durability) -> Result<(), OpenError> {
        let refuse = |why: String| Err(OpenError::StoreUrl(why));
        if self.version_number < VERSION_MIN {
            return refuse(format!("PostgreSQL 15 or newer is needed, this is {}", self.version));
        }
        if self.encoding != "UTF8" {
            return refuse(format!("the database keeps texts as {}, not as UTF8", self.encoding));
        }
        if self.is_read_only {
            return refuse("the database takes no writes: it is a standby, or read-only".to_owned());
        }
        let off = self.not_durable().into_iter().find(|_| durability == Durability::PowerLoss);
        off.map_or(Ok(()), |(setting, found)| Err(OpenError::Durability { setting, found }))
    }

    /// Settings that lose what was acknowledged.
    fn not_durable(&self) -> Option<(&'static str, String)> {
        let settings = [
            ("fsync", &self.fsync),
            ("full_page_writes", &self.full_page_writes),
            ("synchronous_commit", &self.synchronous_commit),
        ];
        let off = settings.into_iter().find(|(_, found)| *found == "off");
        off.map(|(setting, found)| (setting, found.clone()))
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some((setting, found)) = self.not_durable() {
            let message =
                format!("it is {found}: a power failure loses what was acknowledged, or the database");
            findings.push(Finding::problem(setting, message));
        }
        if self.data_checksums == "off" {
            let message =
                "it is off: damage to the files of the database is not noticed (pg_checksums --enable)";
            findings.push(Finding::warning("data_checksums", message));
        }
        if self.standbys.is_empty() {
            let message = "there is none: what was acknowledged is lost where the server is lost for good";
            findings.push(Finding::warning("synchronous_standby_names", message));
        }
        findings
    }
}

/// Refuses a server that cannot be served from.
pub(super) fn check(session: &mut Session, durability: Durability) -> Result<(), OpenError> {
    let conn = session.conn().map_err(to_open_error)?;
    Server::read(conn).map_err(to_open_error)?.check(durability)
}

/// Looks at a database.
pub(crate) fn doctor(url: &str) -> Result<Vec<Finding>, OpenError> {
    let source = Source::parse(url, Durability::PowerLoss)?;
    let connections = Connections::start()?;
    let mut session = Session::new(source, connections.handle()?);
    apart(move || {
        let mut found = session.read(|conn, _| Ok(Server::read(conn)?.findings())).map_err(to_open_error)?;
        found
            .extend(findings::schema("store.url", migrate::pending(session.conn().map_err(to_open_error)?))?);
        found.extend(session.read(|conn, _| findings::settings(conn)).map_err(to_open_error)?);
        Ok(found)
    })
}
