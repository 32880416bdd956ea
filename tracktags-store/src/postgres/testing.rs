//! A database of its own for tests of the configuration, on the server that `TRACKTAGS_POSTGRES` names.

use super::dialect::Conn;
use super::sessions::Session;
use super::source::Source;
use super::{Connections, Durability};
use std::ops::{Deref, DerefMut};

#[path = "../../tests/it/server.rs"]
mod server;

/// A database of its own.
pub(crate) struct Testing {
    conn: Conn,
    _connections: Connections,
    _database: server::Database,
}

impl Deref for Testing {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for Testing {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

/// A new database without anything in it.
pub(crate) fn database() -> Testing {
    let database = server::Database::new();
    let connections = Connections::start().unwrap();
    let source = Source::parse(&database.url, Durability::Process).unwrap();
    let conn = Session::new(source, connections.handle().unwrap()).into_conn().unwrap();
    Testing { conn, _connections: connections, _database: database }
}
