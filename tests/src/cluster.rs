//! Several servers on one PostgreSQL database, on the server that `TRACKTAGS_POSTGRES` names (scripts/postgres).

use crate::{Node, NodeOptions, new_business};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// The admin's key on every node.
const ADMIN_KEY: &str = "the-admin-of-this-test-has-a-key-of-forty-chars";

/// Nodes on one database.
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// A business's id.
    pub business_id: String,
    /// Its key.
    pub business_key: String,
    server: String,
    name: String,
}

/// What `psql` says to statements.
fn psql(url: &str, sql: &str) -> String {
    match Command::new("psql").args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]).output() {
        Ok(done) if done.status.success() => String::from_utf8_lossy(&done.stdout).trim().to_owned(),
        other => panic!("{sql}: {other:?}"),
    }
}

fn url_of(server: &str, name: &str) -> String {
    server.rsplit_once('/').map_or_else(|| server.to_owned(), |(server, _)| format!("{server}/{name}"))
}

/// A folder with the admin's key.
fn folder() -> Arc<TempDir> {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let mut file = std::fs::OpenOptions::new();
    let file = file.write(true).create_new(true).mode(0o600).open(folder.path().join("admin.key"));
    let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, ADMIN_KEY.as_bytes()));
    assert!(written.is_ok(), "{written:?}");
    Arc::new(folder)
}

impl Cluster {
    /// So many nodes on a new database, and a business.
    ///
    /// # Panics
    /// When they do not start.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "tests are told where the server is")]
    pub fn start(count: usize) -> Self {
        let Ok(server) = std::env::var("TRACKTAGS_POSTGRES") else {
            panic!("no server: run the tests by scripts/postgres")
        };
        let name = format!("e2e_{:032x}", rand::random::<u128>());
        let _created = psql(&server, &format!("CREATE DATABASE {name}"));
        let nodes: Vec<Node> = (0..count).map(|_| start(&url_of(&server, &name))).collect();
        let Some(first) = nodes.first() else { panic!("no node") };
        let (business_id, business_key) = new_business(first);
        Self { nodes, business_id, business_key, server, name }
    }

    /// The database as a store URL.
    #[must_use]
    pub fn url(&self) -> String {
        url_of(&self.server, &self.name)
    }

    /// What a SQL user does, in another process.
    ///
    /// # Panics
    /// When it fails.
    #[expect(clippy::must_use_candidate, reason = "mostly something is done")]
    pub fn sql(&self, sql: &str) -> String {
        psql(&self.url(), sql)
    }

    /// Starts one more node in the place of one that was killed.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn replace(&mut self, place: usize) {
        let node = start(&self.url());
        match self.nodes.get_mut(place) {
            Some(old) => *old = node,
            None => panic!("no node {place}"),
        }
    }

    /// Checks the books.
    ///
    /// # Panics
    /// Where they do not agree.
    pub fn verify(&self) {
        match tracktags_store::verify(&self.url()) {
            Ok(report) => assert!(report.differences.is_empty(), "{:?}", report.differences),
            Err(error) => panic!("verify: {error}"),
        }
    }
}

fn start(url: &str) -> Node {
    let options = NodeOptions::default()
        .set("STORE__URL", url)
        .set("SECRETS__MASTER_KEY", &"11".repeat(32))
        .set("SERVER__ADMIN_KEY_FILE", "admin.key");
    match Node::try_start(&folder(), options) {
        Ok(node) => node,
        Err((status, log)) => panic!("the node did not start ({status:?}): {log}"),
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        // The server, and all that is on it, goes with the run.
        let _left = Command::new("psql")
            .args(["-XqAt", "-d", &self.server, "-c", &format!("DROP DATABASE {} WITH (FORCE)", self.name)])
            .output();
    }
}
