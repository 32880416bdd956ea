//! A store opened on an image, as a server would after the power came back: what it reads, and whether its books agree.

use super::disk::Image;
use super::order::BatchRow;
use crate::node::sql_in;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tracktags_core::usage::EntryKind;
use tracktags_core::{Account, BusinessId, CustomerId, Limit, MetricName, Period, Terms, Units};
use tracktags_store::{Durability, MasterKey, OpenOptions, StoreLimits, SystemClock};

/// Under which key a recorded server keeps its secrets.
pub const MASTER_KEY: &str = "1111111111111111111111111111111111111111111111111111111111111111";
/// The metric that is counted.
pub const METRIC: &str = "api_calls";
/// The database's name.
const DATABASE: &str = "tracktags.db";
/// How many of a row's last bytes name it: its checksum and what is before.
const END_BYTES: usize = 16;

/// Opens stores on images.
pub struct Opener {
    runtime: Runtime,
    terms: Vec<(String, Arc<Terms>)>,
}

impl Opener {
    /// For the customers of a business.
    ///
    /// # Errors
    /// In words.
    pub fn new(business: &str, customers: &[String]) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(words)?;
        let terms = customers.iter().map(|customer| Ok((customer.clone(), terms(business, customer)?)));
        Ok(Self { runtime, terms: terms.collect::<Result<_, String>>()? })
    }

    /// What each customer has used, in the image.
    ///
    /// # Errors
    /// In words: it was refused, or its books do not agree.
    pub fn counters(&self, image: &Image) -> Result<BTreeMap<String, i64>, String> {
        let folder = put(image)?;
        let url = url(folder.path());
        let node = tracktags_store::open(OpenOptions {
            url: url.clone(),
            // Nobody cuts the power while it is looked at.
            durability: Durability::Process,
            master_keys: MasterKey::parse_list(MASTER_KEY).map_err(words)?,
            clock: Arc::new(SystemClock),
            limits: StoreLimits::default(),
        })
        .map_err(words)?;
        let mut counters = BTreeMap::new();
        for (customer, terms) in &self.terms {
            let usage = node.store.usage(Arc::clone(terms), None);
            let usage = self.runtime.block_on(usage).map_err(words)?;
            let counted = usage.metrics.first().map_or(0, |metric| metric.state.value);
            counters.insert(customer.clone(), counted);
        }
        drop(node);
        let report = tracktags_store::verify(&url).map_err(words)?;
        report.differences.first().map_or(Ok(counters), |difference| Err(difference.clone()))
    }
}

/// What the ledger of an image holds: whose business, and every batch in order.
///
/// # Errors
/// In words: it cannot be read.
pub fn ledger(image: &Image) -> Result<(String, Vec<BatchRow>), String> {
    let folder = put(image)?;
    let mut rows: BTreeMap<i64, BatchRow> = BTreeMap::new();
    let mut business = None;
    tracktags_store::read_ledger(&url(folder.path()), &mut |line| {
        let account = line.entry.counter.account();
        business.get_or_insert_with(|| account.business.as_str().to_owned());
        let row = rows.entry(line.batch).or_default();
        row.batch = line.batch;
        let customer = account.customer.as_ref().map_or("", CustomerId::as_str).to_owned();
        match line.entry.kind {
            EntryKind::Take => row.takes.push((customer, line.entry.units)),
            EntryKind::Release => row.releases.push((customer, -line.entry.units)),
            EntryKind::Adjust | EntryKind::Record | EntryKind::Correct | EntryKind::Reset => {}
        }
    })
    .map_err(words)?;
    let ends = format!("SELECT batch, hex(substr(entries, -{END_BYTES})) FROM usage_ledger ORDER BY batch");
    for line in sql_in(folder.path(), &ends).lines() {
        let (batch, end) = line.split_once('|').ok_or("no row")?;
        let row = rows.get_mut(&batch.parse().map_err(words)?).ok_or("a row without entries")?;
        row.end = (0..end.len() / 2)
            .map(|place| u8::from_str_radix(&end[2 * place..2 * place + 2], 16).map_err(words))
            .collect::<Result<_, _>>()?;
    }
    Ok((business.ok_or("an empty ledger")?, rows.into_values().collect()))
}

fn terms(business: &str, customer: &str) -> Result<Arc<Terms>, String> {
    let business = BusinessId::parse(business).map_err(words)?;
    let account = Account::customer(business, CustomerId::parse(customer).map_err(words)?);
    let metric = MetricName::parse(METRIC).map_err(words)?;
    let limit = Limit::new(metric, Units::new(1).map_err(words)?, Period::Yearly);
    Ok(Arc::new(Terms::new(account, vec![limit])))
}

/// An image's files of the database, in a folder of their own: in memory, where there is such a file system.
fn put(image: &Image) -> Result<TempDir, String> {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(base).map_err(words)?;
    for (name, bytes) in image.iter().filter(|(name, _)| is_of_database(name)) {
        std::fs::write(folder.path().join(name), bytes).map_err(words)?;
    }
    Ok(folder)
}

/// Whether a file is the database, its log or its journal: the index of the log is made anew.
#[must_use]
pub fn is_of_database(name: &str) -> bool {
    name.strip_prefix(DATABASE).is_some_and(|end| matches!(end, "" | "-wal" | "-journal"))
}

fn url(folder: &Path) -> String {
    let database: PathBuf = folder.join(DATABASE);
    format!("sqlite:{}", database.display())
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
