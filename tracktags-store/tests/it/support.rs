//! A store in a temporary folder, with a clock that tests set.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tracktags_core::accounts::Business;
use tracktags_core::audit::Author;
use tracktags_core::traits::{Clock, NewBusiness};
use tracktags_core::{Account, Limit, Period, Terms, Timestamp, Units};
use tracktags_store::{Durability, MasterKey, Node, OpenOptions, StoreLimits};

/// A clock that stands where it was set.
#[derive(Clone)]
pub(crate) struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub(crate) fn at(text: &str) -> Self {
        let at: Timestamp = text.parse().unwrap();
        Self(Arc::new(AtomicI64::new(at.as_micros())))
    }

    pub(crate) fn set(&self, at: Timestamp) {
        self.0.store(at.as_micros(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// A random test's number: `TRACKTAGS_SEED` repeats one.
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the seed repeats a run")]
pub(crate) fn seed() -> u64 {
    let given = std::env::var("TRACKTAGS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("TRACKTAGS_SEED={seed}");
    seed
}

/// A database in a folder of its own.
pub(crate) struct Folder {
    folder: tempfile::TempDir,
    pub(crate) clock: ManualClock,
    pub(crate) limits: StoreLimits,
    pub(crate) durability: Durability,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: ManualClock::at("2026-01-15T12:00:00Z"),
            limits: StoreLimits::default(),
            durability: Durability::Process,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("tracktags.db")
    }

    pub(crate) fn url(&self) -> String {
        url(&self.path())
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
