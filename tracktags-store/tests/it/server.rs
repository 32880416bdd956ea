//! A database of its own on the PostgreSQL server that `TRACKTAGS_POSTGRES` names, made from a migrated template. Its
//! `clock_timestamp()` is what a test sets: a function of that name stands before the server's own in the search path.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use tokio_postgres::{NoTls, SimpleQueryMessage};

const TEMPLATE: &str = "tracktags_template";
const CLOCK: &str = "CREATE SCHEMA testing; CREATE TABLE testing.clock (at timestamptz NOT NULL); \
    INSERT INTO testing.clock VALUES ('2026-01-15T12:00:00Z'); \
    CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT at FROM testing.clock'; \
    GRANT USAGE ON SCHEMA testing TO PUBLIC; GRANT SELECT ON testing.clock TO PUBLIC; \
    ALTER TABLE config_changes ALTER changed_at SET DEFAULT public.clock_timestamp()";

type Rows = Vec<Vec<String>>;
type Asked = (String, Sender<Result<Rows, String>>);

/// A connection that any thread may use, on one of its own.
pub(crate) struct Sql(Mutex<Sender<Asked>>);

impl Sql {
    pub(crate) fn connect(url: &str) -> Self {
        let (sender, asked) = channel();
        let url = url.to_owned();
        std::thread::spawn(move || serve(&url, &asked));
        Self(Mutex::new(sender))
    }

    /// What the statements give; `NULL` is that word.
    pub(crate) fn run(&self, text: &str) -> Rows {
        self.try_run(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    pub(crate) fn try_run(&self, text: &str) -> Result<Rows, String> {
        let (sender, rows) = channel();
        self.0.lock().unwrap().send((text.to_owned(), sender)).unwrap();
        rows.recv().unwrap_or_else(|_gone| Err("the connection is gone".to_owned()))
    }
}

fn serve(url: &str, asked: &Receiver<Asked>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls)).unwrap();
    runtime.spawn(connection);
    while let Ok((text, answer)) = asked.recv() {
        let rows = runtime.block_on(client.simple_query(&text));
        let _gone = answer.send(rows.map(read).map_err(|error| said(&error)));
    }
}

fn said(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

fn read(messages: Vec<SimpleQueryMessage>) -> Rows {
    let row = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|place| row.get(place).unwrap_or("NULL").to_owned()).collect())
        }
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

/// A database, which goes with this.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) sql: Arc<Sql>,
    name: String,
    server: Sql,
}

fn with_name(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

impl Database {
    #[expect(clippy::disallowed_methods, reason = "tests are told where the server is")]
    pub(crate) fn new() -> Self {
        let url = std::env::var("TRACKTAGS_POSTGRES").expect("no server: run the tests by scripts/postgres");
        let server = Sql::connect(&url);
        make_template(&server, &url);
        let name = format!("test_{:032x}", rand::random::<u128>());
        server.run(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"));
        server.run(&format!("ALTER DATABASE {name} SET search_path = public, pg_catalog"));
        let url = with_name(&url, &name);
        Self { sql: Arc::new(Sql::connect(&url)), url, name, server }
    }

    /// Without a schema.
    #[expect(clippy::disallowed_methods, reason = "tests are told where the server is")]
    pub(crate) fn empty() -> Self {
        let url = std::env::var("TRACKTAGS_POSTGRES").expect("no server: run the tests by scripts/postgres");
        let server = Sql::connect(&url);
        let name = format!("test_{:032x}", rand::random::<u128>());
        server.run(&format!("CREATE DATABASE {name}"));
        let url = with_name(&url, &name);
        Self { sql: Arc::new(Sql::connect(&url)), url, name, server }
    }
}

/// Makes the template, unless another test did.
fn make_template(server: &Sql, url: &str) {
    server.run("SELECT pg_advisory_lock(1)");
    if server.run(&format!("SELECT FROM pg_database WHERE datname = '{TEMPLATE}'")).is_empty() {
        server.run("DROP DATABASE IF EXISTS tracktags_making WITH (FORCE)");
        server.run("CREATE DATABASE tracktags_making");
        let url = with_name(url, "tracktags_making");
        tracktags_store::migrate(&url).unwrap();
        Sql::connect(&url).run(CLOCK);
        server.run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'tracktags_making'",
        );
        server.run(&format!("ALTER DATABASE tracktags_making RENAME TO {TEMPLATE}"));
    }
    server.run("SELECT pg_advisory_unlock(1)");
}

impl Drop for Database {
    fn drop(&mut self) {
        let _left = self.server.try_run(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}
