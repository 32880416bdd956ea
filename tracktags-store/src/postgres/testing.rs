//! A database of its own for tests of the configuration, on the server that `TRACKTAGS_POSTGRES` names.

use super::dialect::Conn;
use super::sessions::Session;
use super::source::{End, Source};
use super::{Connections, Durability, migrate, tables, trail};
use diesel::prelude::*;
use diesel::sql_types::Text;
use std::ops::{Deref, DerefMut};

#[path = "../../tests/it/server.rs"]
mod server;
#[path = "testing_writers.rs"]
mod writers_tests;

/// A database of its own.
pub(crate) struct Testing {
    conn: Conn,
    _end: End,
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
    let (conn, end) = Session::new(source, connections.handle().unwrap()).into_conn().unwrap();
    Testing { conn, _end: end, _connections: connections, _database: database }
}

/// All that makes a schema, in words.
const SCHEMA: &str = "
    SELECT 'column ' || c.relname || '.' || attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attnotnull
        || coalesce(' ' || pg_get_expr(adbin, adrelid), '') AS line
    FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT 'trigger ' || tgenabled::text || ' ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ORDER BY 1";

fn schema(conn: &mut Conn) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Line {
        #[diesel(sql_type = Text)]
        line: String,
    }
    let lines: Vec<Line> = diesel::sql_query(SCHEMA).load(conn).unwrap();
    let ours = |line: &String| !line.contains("__diesel_schema_migrations");
    lines.into_iter().map(|line| line.line).filter(ours).collect()
}

#[test]
fn up_down_up_leaves_the_same_schema() {
    let connections = Connections::start().unwrap();
    let database = server::Database::empty();
    let source = Source::parse(&database.url, Durability::Process).unwrap();
    let mut session = Session::new(source, connections.handle().unwrap());
    assert!(!migrate::run(&mut session).unwrap().is_empty());
    let before = schema(session.conn().unwrap());
    assert!(before.len() > 200, "{}", before.len());
    migrate::revert(session.conn().unwrap());
    assert_eq!(schema(session.conn().unwrap()), Vec::<String>::new());
    migrate::run(&mut session).unwrap();
    assert_eq!(schema(session.conn().unwrap()), before);
    assert!(database.sql.run("SELECT FROM businesses").is_empty());
}
