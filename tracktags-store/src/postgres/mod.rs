//! The PostgreSQL engine: any number of nodes on one database. Nodes hold no authority: the row locks of the counters,
//! taken in one key order, are what makes them agree.
//!
//! | file | what |
//! |---|---|
//! | `source` | where the database is, TLS, what each session sets |
//! | `lane`, `quarantine` | the threads that commit batches, and the one for whom somebody holds up |
//! | `batch`, `locked`, `versions` | THE transaction: its steps, its first round trip, what it reads of versions |
//! | `sessions`, `access` | connections for everything that is no batch: reads, changes |
//! | `upkeep`, `fold`, `boots`, `denied` | what no caller waits for |
//! | `usage` | rows of usage |
//! | `tables` | rows of configuration, and the store's traits |
//! | `schema`, `dialect`, `error`, `trail`, `access` | what those rows need of this engine |
//! | `statement` | statements that the query builder cannot say |
//! | `migrate`, `fitness` | the schema, whose database it is, and whether the server can be relied on |
//! | `verify` | the books, as they are read |

mod access;
mod batch;
mod boots;
mod denied;
mod dialect;
mod error;
pub(crate) mod fitness;
mod fold;
mod lane;
mod locked;
mod migrate;
mod quarantine;
mod schema;
mod sessions;
mod source;
mod statement;
#[path = "../tables/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "compiled once for each engine, with its connection")]
mod tables;
#[cfg(test)]
pub(crate) mod testing;
mod trail;
mod upkeep;
mod usage;
pub(crate) mod verify;
mod versions;

use crate::admission::{Admission, Queue};
use crate::cache::{Caches, KeyUses};
use crate::health::{Condition, Health};
use crate::holds::Holds;
use crate::secrets::Secrets;
use crate::{Durability, Meters, Node, OpenError, OpenOptions};
use denied::Denied;
use lane::{Lane, Shared};
use quarantine::Quarantine;
use sessions::{Session, Sessions};
use source::{Purpose, Source};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle, Runtime};
use tracktags_core::error::StoreError;
use tracktags_core::traits::Store;
use upkeep::{End, Upkeep};

/// Connections that read.
const READERS: usize = 2;
/// Connections that change configuration.
const CHANGERS: usize = 2;

/// A lane's queue, and its thread.
type Running = (Arc<Queue>, JoinHandle<()>);

/// The threads behind an open store.
pub(crate) struct Engine {
    lanes: Vec<Running>,
    quarantine: Option<Running>,
    condition: Arc<Mutex<Condition>>,
    upkeep: Option<(Sender<End>, JoinHandle<()>)>,
    /// Driven for as long as the engine is there.
    _connections: Connections,
}

impl Engine {
    pub(crate) fn health(&self) -> Health {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).health()
    }

    /// Ends in order; whoever still waits is answered.
    pub(crate) fn close(mut self) {
        self.end(End::Clean);
    }

    fn end(&mut self, end: End) {
        // The quarantine goes last: until then lanes may leave work there.
        for lanes in [std::mem::take(&mut self.lanes), self.quarantine.take().into_iter().collect()] {
            for (queue, _) in &lanes {
                queue.close(end == End::Abrupt);
            }
            for (_, thread) in lanes {
                if thread.join().is_err() {
                    tracing::error!("a lane had panicked");
                }
            }
        }
        if let Some((sender, thread)) = self.upkeep.take() {
            // A thread that is gone needs no telling.
            let _gone = sender.send(end);
            if thread.join().is_err() {
                tracing::error!("the upkeep had panicked");
            }
        }
    }
}

impl Drop for Engine {
    /// Without [`close`](Self::close) this is a kill: nothing is folded, another node does it.
    fn drop(&mut self) {
        self.end(End::Abrupt);
    }
}

/// The runtime that drives the connections of all sessions; lanes drive their own.
struct Connections(Option<Runtime>);

impl Connections {
    fn start() -> Result<Self, OpenError> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("tracktags-connections").enable_all();
        builder.build().map(|runtime| Self(Some(runtime))).map_err(OpenError::Thread)
    }

    fn handle(&self) -> Result<Handle, OpenError> {
        let gone = || OpenError::Thread(std::io::Error::other("the runtime is gone"));
        self.0.as_ref().map(|runtime| runtime.handle().clone()).ok_or_else(gone)
    }
}

impl Drop for Connections {
    /// Waits for nothing, so that a caller on a runtime may do it.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Opens the database: schema, master key; then the threads start.
pub(crate) fn open(options: OpenOptions) -> Result<Node, OpenError> {
    let secrets = Secrets::derive(&options.master_keys).ok_or(OpenError::NoMasterKey)?;
    let source = Source::parse(&options.url, options.durability)?;
    let connections = Connections::start()?;
    let runtime = connections.handle()?;
    let deployment = prepared(&source, options.durability, &runtime, &secrets)?;
    let shared = Shared {
        source: source.clone(),
        secrets: secrets.clone(),
        boot: boots::name().into(),
        holds: Arc::new(Holds::default()),
        denied: Arc::new(Denied::default()),
        quarantine: Arc::new(Quarantine::new(Arc::new(Queue::new(&options.limits)))),
        condition: Arc::new(Mutex::new(Condition::default())),
        meters: Meters::default(),
    };
    let mut engine = Engine {
        lanes: Vec::new(),
        quarantine: None,
        condition: Arc::clone(&shared.condition),
        upkeep: None,
        _connections: connections,
    };
    let count = i32::from(options.limits.lanes.max(1));
    for number in 0..count {
        engine.lanes.push(start_lane(&shared, number, Arc::new(Queue::new(&options.limits)), false)?);
    }
    engine.quarantine = Some(start_lane(&shared, count, shared.quarantine.queue(), true)?);
    let queues = engine.lanes.iter().map(|(queue, _)| Arc::clone(queue)).collect();
    let admission = Admission::new(queues, Arc::clone(&shared.holds));
    let uses = Arc::new(KeyUses::default());
    engine.start_upkeep(&shared, &options, &uses, &runtime)?;
    let store: Arc<dyn Store> = Arc::new(tables::store::EngineStore {
        access: access::Access {
            reads: Sessions::start("read", READERS, &source, &runtime)?,
            changes: Sessions::start("configuration", CHANGERS, &source, &runtime)?,
            holds: Arc::clone(&shared.holds),
        },
        identify: identify_lane(&shared, &runtime)?,
        caches: Caches::new(options.limits.cache_entries_max, uses),
        secrets: secrets.clone(),
        clock: options.clock,
        admission: admission.clone(),
    });
    Ok(Node {
        store,
        admission,
        hashers: secrets.hashers().cloned().collect(),
        cursor_key: secrets.cursor_key(),
        admin_pepper: secrets.admin_pepper(),
        deployment,
        meters: shared.meters,
        engine: crate::Engine::Postgres(engine),
    })
}

fn start_lane(
    shared: &Shared,
    number: i32,
    queue: Arc<Queue>,
    is_quarantine: bool,
) -> Result<Running, OpenError> {
    let lane = Lane::new(shared.clone(), number, Arc::clone(&queue), is_quarantine);
    let runtime = Builder::new_current_thread().enable_all().build().map_err(OpenError::Thread)?;
    let thread = spawn(&format!("tracktags-lane-{number}"), move || lane.serve(&runtime))?;
    Ok((queue, thread))
}

impl Engine {
    fn start_upkeep(
        &mut self,
        shared: &Shared,
        options: &OpenOptions,
        uses: &Arc<KeyUses>,
        runtime: &Handle,
    ) -> Result<(), OpenError> {
        let upkeep = Upkeep {
            session: Session::for_purpose(Purpose::Upkeep, shared.source.clone(), runtime.clone()),
            boot: Arc::clone(&shared.boot),
            secrets: shared.secrets.clone(),
            limits: options.limits,
            denied: Arc::clone(&shared.denied),
            uses: Arc::clone(uses),
        };
        let (sender, end) = channel();
        let thread = spawn("tracktags-upkeep", move || upkeep.serve(&end))?;
        self.upkeep = Some((sender, thread));
        Ok(())
    }
}

/// The lane that looks unknown keys up, on a session of its own.
fn identify_lane(shared: &Shared, runtime: &Handle) -> Result<tables::identify::Lane, OpenError> {
    let session = Session::new(shared.source.clone(), runtime.clone());
    let (lane, look) = tables::identify::lane(session, shared.secrets.clone(), shared.meters.clone());
    spawn("tracktags-identify", look)?;
    Ok(lane)
}

/// Brings a schema up to date, and names the steps.
pub(crate) fn migrate(url: &str) -> Result<Vec<String>, OpenError> {
    let source = Source::parse(url, Durability::PowerLoss)?;
    let connections = Connections::start()?;
    let runtime = connections.handle()?;
    apart(|| migrate::run(&mut Session::new(source, runtime)))
}

/// The deployment's name, of a database whose schema is up to date and whose master key is the right one.
fn prepared(
    source: &Source,
    durability: Durability,
    runtime: &Handle,
    secrets: &Secrets,
) -> Result<String, OpenError> {
    apart(|| {
        fitness::check(&mut Session::new(source.clone(), runtime.clone()), durability)?;
        drop(migrate::run(&mut Session::new(source.clone(), runtime.clone()))?);
        migrate::identify_database(&mut Session::new(source.clone(), runtime.clone()), secrets)
    })
}

/// On a thread of its own, whatever runtime the caller is on: sessions block.
fn apart<T: Send>(run: impl FnOnce() -> Result<T, OpenError> + Send) -> Result<T, OpenError> {
    std::thread::scope(|scope| {
        let panicked =
            |_why| OpenError::Database(StoreError::Unavailable("opening the database failed".into()));
        scope.spawn(run).join().unwrap_or_else(|why| Err(panicked(why)))
    })
}

fn to_open_error(error: StoreError) -> OpenError {
    match error {
        StoreError::Corrupt(detail) => OpenError::Corrupt(detail),
        StoreError::Unavailable(cause) => OpenError::Unreachable(cause),
        other => OpenError::Database(other),
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::Thread)
}
