//! A database of many customers, each with a key and a counter: what `scripts/bench --scale` measures on.
#![expect(clippy::print_stdout, reason = "the business's key is what it hands out")]

use clap::Parser;
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tracktags_core::accounts::{Account, BusinessId, CustomerId, MetricName};
use tracktags_core::audit::Author;
use tracktags_core::demand::Demand;
use tracktags_core::keys::Scopes;
use tracktags_core::limits::{Action, Attachment, Operator};
use tracktags_core::metrics::Units;
use tracktags_core::records::NewLimit;
use tracktags_core::traits::{KeyOwner, NewBusiness, NewKey};
use tracktags_core::windows::Period;
use tracktags_store::{Durability, MasterKey, Node, OpenOptions, StoreLimits, SystemClock, open};

/// How many customers are made at once.
const AT_ONCE: usize = 256;
/// A limit that is never reached.
const LIMIT: i64 = 9_000_000_000_000_000;

/// Makes a business with one monthly limit on `api_calls`, and its customers `customer_0`, `customer_1` and so on, each
/// with a key and with one unit used. Prints the business's key.
#[derive(Parser)]
struct Arguments {
    /// The database as a store URL. The server that uses it must not run.
    #[arg(long)]
    database: String,
    /// The server's master key.
    #[arg(long, env = "TRACKTAGS__SECRETS__MASTER_KEY", hide_env_values = true)]
    master_key: String,
    /// How many customers.
    #[arg(long)]
    customers: usize,
    /// Where their keys go, a line each, in their order.
    #[arg(long)]
    keys: PathBuf,
}

type Failure = Box<dyn Error>;

fn new_key(owner: KeyOwner) -> NewKey {
    NewKey { owner, key_name: None, description: None, expires_at: None, scopes: Scopes::ALL }
}

/// The business, its key and its limit.
async fn business(node: &Node) -> Result<BusinessId, Failure> {
    let fields = NewBusiness {
        business_name: "Scale".to_owned(),
        email: "scale@example.com".to_owned(),
        user_id: None,
    };
    let id = node.store.create_business(Author::server(), fields).await?.business_id;
    let key = node.store.create_key(Author::server(), new_key(KeyOwner::Business(id.clone()))).await?;
    println!("{}", key.plain.expose());
    let limit = NewLimit {
        business: id.clone(),
        metric_name: MetricName::parse("api_calls")?,
        value: Units::new(LIMIT)?,
        period: Period::Monthly,
        operator: Operator::Gte,
        action: Action::Deny,
        attachment: Attachment::Business,
        metric_type: None,
        alert_thresholds: Vec::new(),
        overage_meter: None,
        webhook_urls: None,
    };
    node.store.create_limit(Author::server(), limit).await?;
    Ok(id)
}

/// One customer: its key, and a unit.
async fn customer(node: &Node, business: BusinessId, customer: CustomerId) -> Result<String, Failure> {
    let account = Account::customer(business.clone(), customer.clone());
    let owner = KeyOwner::Customer(business, customer);
    let key = node.store.create_key(Author::server(), new_key(owner)).await?;
    let terms = node.store.read_terms(account).await?.ok_or("the customer is gone")?;
    node.admission.take(Demand::new(terms, 0, Units::ONE)).await?;
    Ok(key.plain.expose().to_owned())
}

async fn customers(node: Arc<Node>, arguments: &Arguments) -> Result<(), Failure> {
    let business = business(&node).await?;
    let mut file = std::io::BufWriter::new(std::fs::File::create(&arguments.keys)?);
    let mut first = 0;
    while first < arguments.customers {
        let end = first.saturating_add(AT_ONCE).min(arguments.customers);
        let mut group = Vec::new();
        for number in first..end {
            let id = CustomerId::parse(&format!("customer_{number}"))?;
            let (node, business) = (Arc::clone(&node), business.clone());
            group.push(tokio::task::spawn_local(async move {
                customer(&node, business, id).await.map_err(|error| error.to_string())
            }));
        }
        for one in group {
            writeln!(file, "{}", one.await??)?;
        }
        first = end;
    }
    Ok(file.flush()?)
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let node = Arc::new(open(OpenOptions {
        url: arguments.database.clone(),
        durability: Durability::Process,
        master_keys: MasterKey::parse_list(&arguments.master_key)?,
        clock: Arc::new(SystemClock),
        limits: StoreLimits::default(),
    })?);
    let runtime = Builder::new_current_thread().build()?;
    LocalSet::new().block_on(&runtime, customers(Arc::clone(&node), &arguments))?;
    Arc::into_inner(node).ok_or("the store is still in use")?.close();
    Ok(())
}
