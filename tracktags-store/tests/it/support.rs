//! A store with a clock that tests set: SQLite in a temporary folder, or a PostgreSQL database of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tracktags_core::accounts::Business;
use tracktags_core::audit::Author;
use tracktags_core::traits::{Clock, NewBusiness};
use tracktags_core::{Account, Limit, Period, Terms, Timestamp, Units};
use tracktags_store::{Durability, MasterKey, Node, OpenOptions, StoreLimits};

use crate::server::{Database, Sql};

/// A clock that stands where it was set; with it that of the database, where one counts.
#[derive(Clone)]
pub(crate) struct ManualClock {
    now: Arc<AtomicI64>,
    database: Option<Arc<Sql>>,
}

impl ManualClock {
    fn at(text: &str, database: Option<Arc<Sql>>) -> Self {
        let clock = Self { now: Arc::default(), database };
        clock.set(text.parse().unwrap());
        clock
    }

    pub(crate) fn set(&self, at: Timestamp) {
        self.now.store(at.as_micros(), Ordering::SeqCst);
        if let Some(database) = &self.database {
            database.run(&format!("UPDATE testing.clock SET at = '{at}'"));
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now.load(Ordering::SeqCst))
    }
}

/// Where a database is.
enum Place {
    File(tempfile::TempDir),
    Server(Database),
}

/// A random test's number: `TRACKTAGS_SEED` repeats one.
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the seed repeats a run")]
pub(crate) fn seed() -> u64 {
    let given = std::env::var("TRACKTAGS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("TRACKTAGS_SEED={seed}");
    seed
}

/// A database of its own.
pub(crate) struct Folder {
    place: Place,
    pub(crate) clock: ManualClock,
    pub(crate) limits: StoreLimits,
    pub(crate) durability: Durability,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self::at(Place::File(tempfile::tempdir().unwrap()), None)
    }

    /// The same on PostgreSQL.
    pub(crate) fn postgres() -> Self {
        let database = Database::new();
        let sql = Arc::clone(&database.sql);
        Self::at(Place::Server(database), Some(sql))
    }

    fn at(place: Place, database: Option<Arc<Sql>>) -> Self {
        Self {
            place,
            clock: ManualClock::at("2026-01-15T12:00:00Z", database),
            limits: StoreLimits::default(),
            durability: Durability::Process,
        }
    }

    /// The file of a SQLite database.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.place {
            Place::File(folder) => folder.path().join("tracktags.db"),
            Place::Server(_) => panic!("there is no file"),
        }
    }

    pub(crate) fn url(&self) -> String {
        match &self.place {
            Place::File(_) => url(&self.path()),
            Place::Server(database) => database.url.clone(),
        }
    }

    /// What a SQL user does in a PostgreSQL database.
    pub(crate) fn sql(&self, text: &str) -> Vec<Vec<String>> {
        match &self.place {
            Place::File(_) => panic!("there is no server"),
            Place::Server(database) => database.sql.run(text),
        }
    }

    /// The PostgreSQL database is away, for new connections and for a node's; or is there again.
    pub(crate) fn set_away(&self, is_away: bool) {
        let url = self.url();
        let (server, name) = url.rsplit_once('/').unwrap();
        let server = Sql::connect(&format!("{server}/postgres"));
        server.run(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {}", !is_away));
        server.run(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = '{name}' AND application_name = 'tracktags'"
        ));
    }

    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions {
            url: self.url(),
            durability: self.durability,
            master_keys: MasterKey::parse_list(&"11".repeat(32)).unwrap(),
            clock: Arc::new(self.clock.clone()),
            limits: self.limits,
        }
    }

    pub(crate) fn open(&self) -> Node {
        tracktags_store::open(self.options()).unwrap()
    }

    /// Checks the books.
    pub(crate) fn verify(&self) {
        let report = tracktags_store::verify(&self.url()).unwrap();
        assert_eq!(report.differences, Vec::<String>::new());
    }
}

pub(crate) fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

pub(crate) async fn business(node: &Node) -> Business {
    let new = NewBusiness { business_name: "Test".into(), email: "test@example.com".into(), user_id: None };
    node.store.create_business(Author::server(), new).await.unwrap()
}

pub(crate) fn limit(metric: &str, value: i64, period: Period) -> Limit {
    Limit::new(metric.parse().unwrap(), Units::new(value).unwrap(), period)
}

/// Terms of a customer that nobody had to create: what the ledger decides on.
pub(crate) fn terms(business: &Business, customer: &str, limits: Vec<Limit>) -> Terms {
    let account = Account::customer(business.business_id.clone(), customer.parse().unwrap());
    let mut terms = Terms::new(account, limits);
    // Newer than anything the store knows of.
    terms.version = i64::MAX;
    terms
}
