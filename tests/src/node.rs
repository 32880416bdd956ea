//! A server process: started on a free port with a folder of its own, stopped in order, or killed.

use crate::http::Client;
use crate::images::trace::STRACE;
use crate::wait_until;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// How long a node may take to start, and to stop.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(60);

/// The tables that calls of the control plane change.
const CONFIGURATION: [&str; 9] = [
    "businesses",
    "business_keys",
    "customers",
    "customer_keys",
    "plans",
    "plan_limits",
    "metrics",
    "config_versions",
    "audit_logs",
];

/// How to start a node.
#[derive(Clone)]
pub struct NodeOptions {
    /// Its settings as the environment names them, without `TRACKTAGS__`.
    pub settings: Vec<(String, String)>,
    /// The size of its disk, in MiB, if it is to have one of its own (needs root). It goes with the process.
    pub disk_mib: Option<u32>,
    /// Where strace writes down what it does, if it is to run under strace.
    pub trace: Option<PathBuf>,
    /// How long each sync to its disk takes on top, in milliseconds.
    pub sync_delay_ms: Option<u32>,
    /// The descriptors it is started with, of as many as it may take itself.
    pub descriptors: Option<(usize, usize)>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { settings: Vec::new(), disk_mib: None, trace: None, sync_delay_ms: None, descriptors: None }
            .set("PROXY__TARGET_POLICY", "open")
    }
}

impl NodeOptions {
    /// On a disk of its own, of so many MiB.
    #[must_use]
    pub const fn on_disk(mut self, mib: u32) -> Self {
        self.disk_mib = Some(mib);
        self
    }

    /// Under strace, which writes into this file. The tracer is a grandchild: the child is the server itself.
    #[must_use]
    pub fn traced(mut self, into: &Path) -> Self {
        self.trace = Some(into.to_owned());
        self
    }

    /// On a disk whose every sync takes so many milliseconds longer.
    #[must_use]
    pub const fn on_slow_disk(mut self, sync_delay_ms: u32) -> Self {
        self.sync_delay_ms = Some(sync_delay_ms);
        self
    }

    /// Started with so many descriptors, and allowed to take more up to the second number.
    #[must_use]
    pub const fn with_descriptors(mut self, at_start: usize, allowed: usize) -> Self {
        self.descriptors = Some((at_start, allowed));
        self
    }

    /// With one more setting.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running server and its folder.
pub struct Node {
    /// Where it listens.
    pub address: SocketAddr,
    folder: Arc<TempDir>,
    options: NodeOptions,
    process: Option<Child>,
    log: Arc<Mutex<String>>,
}

impl Node {
    /// Starts a server on a folder of its own.
    ///
    /// # Panics
    /// When it does not say where it listens.
    #[must_use]
    pub fn start(options: NodeOptions) -> Self {
        let folder = tempfile::tempdir();
        assert!(folder.is_ok(), "no temporary folder: {folder:?}");
        let folder = Arc::new(folder.unwrap_or_else(|_checked| unreachable!()));
        Self::start_in(&folder, options)
    }

    fn start_in(folder: &Arc<TempDir>, options: NodeOptions) -> Self {
        match Self::try_start(folder, options) {
            Ok(node) => node,
            Err((status, log)) => panic!("the node did not start ({status:?}): {log}"),
        }
    }

    /// Starts a server; the exit status and what it said where it does not.
    ///
    /// # Errors
    /// The exit status and the log.
    ///
    /// # Panics
    /// When the process cannot be started at all.
    pub fn try_start(
        folder: &Arc<TempDir>,
        options: NodeOptions,
    ) -> Result<Self, (Option<ExitStatus>, String)> {
        let mut process = match spawn(folder.path(), &options) {
            Ok(process) => process,
            Err(error) => panic!("{error}"),
        };
        let log = Arc::new(Mutex::new(String::new()));
        let pump = process.stderr.take().map(|stderr| keep(stderr, Arc::clone(&log)));
        let stdout = process.stdout.take();
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok)
            {
                // Nobody listens once the address is known; the pipe is emptied all the same.
                let _known = sender.send(line);
            }
        });
        while let Ok(line) = lines.recv_timeout(START) {
            let address = line.strip_prefix("listening on http://").and_then(|address| address.parse().ok());
            if let Some(address) = address {
                return Ok(Self {
                    address,
                    folder: Arc::clone(folder),
                    options,
                    process: Some(process),
                    log,
                });
            }
        }
        let _killed = process.kill();
        let status = process.wait().ok();
        if let Some(pump) = pump {
            let _ended = pump.join();
        }
        let log = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Err((status, log))
    }

    /// Where its files lie, as this process sees them.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        match (self.options.disk_mib, self.id()) {
            (Some(_), Some(id)) => PathBuf::from(format!("/proc/{id}/root{}", self.folder.path().display())),
            _ => self.folder.path().to_owned(),
        }
    }

    /// The folder with its database.
    #[must_use]
    pub fn folder(&self) -> &Arc<TempDir> {
        &self.folder
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.files().join("tracktags.db")
    }

    /// The database as a store URL.
    #[must_use]
    pub fn store_url(&self) -> String {
        format!("sqlite:{}", self.database().display())
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The platform admin's key, as the first start wrote it.
    #[must_use]
    pub fn admin_key(&self) -> String {
        std::fs::read_to_string(self.files().join("admin.key")).unwrap_or_default().trim().to_owned()
    }

    /// A client with a connection of its own.
    #[must_use]
    pub const fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Gone already is what was wanted.
            let _gone = process.kill();
            let _status = process.wait();
        }
    }

    /// Ends it with a signal, in order; its exit status.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self, signal: &str) -> Option<ExitStatus> {
        let mut process = self.process.take()?;
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(process.id().to_string()).status();
        assert!(sent.is_ok(), "kill: {sent:?}");
        let mut status = None;
        wait_until("the node ends", STOP, || {
            status = process.try_wait().ok().flatten();
            status.is_some()
        });
        status
    }

    /// Starts it again on its folder.
    #[must_use]
    pub fn restart(mut self) -> Self {
        self.kill();
        Self::start_in(&self.folder.clone(), self.options.clone())
    }

    /// Starts it again with other settings.
    #[must_use]
    pub fn restart_with(mut self, options: NodeOptions) -> Self {
        self.kill();
        self.options = options;
        self.restart()
    }

    /// The process's number.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Runs SQL in another process, as an operator would.
    ///
    /// # Panics
    /// When it fails.
    pub fn sql(&self, sql: &str) -> String {
        sql_in(self.folder.path(), sql)
    }

    /// Every row of configuration, and the trail of its changes.
    #[must_use]
    pub fn configuration(&self) -> String {
        let dump: String = CONFIGURATION.iter().map(|table| format!("SELECT * FROM {table};")).collect();
        self.sql(&dump)
    }

    /// The write-ahead log's size now.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        let wal = self.files().join("tracktags.db-wal");
        std::fs::metadata(wal).map_or(0, |data| data.len())
    }

    /// Checks the books.
    ///
    /// # Panics
    /// Where they do not agree.
    pub fn verify(&self) {
        let Some(id) = self.options.disk_mib.and(self.id()) else {
            verify_in(self.folder.path());
            return;
        };
        // SQLite follows the link that leads to the other disk, to where nothing is.
        let ran = Command::new("nsenter")
            .args(["--mount", "--target", &id.to_string()])
            .arg(program("admin"))
            .args(["verify", &format!("sqlite:{}", self.folder.path().join("tracktags.db").display())])
            .output();
        match ran {
            Ok(ran) if ran.status.success() => {}
            other => panic!("verify: {other:?}"),
        }
    }

    /// A copy of the database as it lies there, to be looked at: opening the files themselves would recover and
    /// checkpoint them, and leave the next start nothing to do.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn copied(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        for name in ["tracktags.db", "tracktags.db-wal"] {
            let (from, to) = (self.files().join(name), copy.path().join(name));
            if from.exists() {
                let copied = std::fs::copy(&from, to);
                assert!(copied.is_ok(), "{}: {copied:?}", from.display());
            }
        }
        copy
    }
}

/// Checks the books of the database in a folder.
///
/// # Panics
/// Where they do not agree.
pub fn verify_in(folder: &Path) {
    match tracktags_store::verify(&format!("sqlite:{}", folder.join("tracktags.db").display())) {
        Ok(report) => assert!(report.differences.is_empty(), "{:?}", report.differences),
        Err(error) => panic!("verify: {error}"),
    }
}

/// Runs SQL on the database in a folder in another process, as an operator would.
///
/// # Panics
/// When it fails.
pub fn sql_in(folder: &Path, sql: &str) -> String {
    let database = folder.join("tracktags.db");
    let run = Command::new("sqlite3").arg("-cmd").arg(".timeout 5000").arg(database).arg(sql).output();
    match run {
        Ok(done) if done.status.success() => String::from_utf8_lossy(&done.stdout).trim().to_owned(),
        other => panic!("{sql}: {other:?}"),
    }
}

/// Starts a server on a folder and kills it `after`, wherever its start is then.
///
/// # Panics
/// When the process cannot be started.
#[expect(clippy::disallowed_methods, reason = "an instant within a start, not a wait for its end")]
pub fn kill_while_starting(folder: &Path, after: Duration) {
    let mut process = spawn(folder, &NodeOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let began = std::time::Instant::now();
    wait_until("the instant of the kill", Duration::from_secs(5), || began.elapsed() >= after);
    // Gone already would be a failed start: the next one says why.
    let _killed = process.kill();
    let _status = process.wait();
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server, and what it runs under. All of these become the server or its grandchild, so its number is the child's.
fn command(server: &Path, options: &NodeOptions) -> Command {
    let (program, arguments): (_, Vec<String>) = if let Some(mib) = options.disk_mib {
        let mount =
            format!("mount -t tmpfs -o size={mib}m,mode=700 none \"$PWD\" && cd \"$PWD\" && exec \"$0\"");
        ("unshare", vec!["--mount".into(), "sh".into(), "-c".into(), mount])
    } else if let Some(trace) = &options.trace {
        let whole = STRACE.iter().map(ToString::to_string);
        ("strace", whole.chain([trace.display().to_string()]).collect())
    } else if let Some(delay_ms) = options.sync_delay_ms {
        // Only syncs stop for the tracer.
        let fixed =
            "-D -f -q --seccomp-bpf -o /dev/null -e trace=fsync,fdatasync -e".split(' ').map(str::to_owned);
        let delay = format!("inject=fsync,fdatasync:delay_exit={}", u64::from(delay_ms) * 1_000);
        ("strace", fixed.chain([delay]).collect())
    } else if let Some((at_start, allowed)) = options.descriptors {
        ("prlimit", vec![format!("--nofile={at_start}:{allowed}")])
    } else {
        return Command::new(server);
    };
    let mut command = Command::new(program);
    command.args(arguments).arg(server);
    command
}

fn spawn(folder: &Path, options: &NodeOptions) -> std::io::Result<Child> {
    let mut command = command(&program("node"), options);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("TRACKTAGS__SERVER__BIND", "127.0.0.1:0").env("TRACKTAGS__LOG__LEVEL", "warn");
    for (name, value) in &options.settings {
        command.env(format!("TRACKTAGS__{name}"), value);
    }
    command.spawn()
}

/// A program that this package builds, beside the running test.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let target = test.ancestors().find(|folder| folder.join(name).is_file());
    target.map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
}

fn keep(stderr: impl std::io::Read + Send + 'static, log: Arc<Mutex<String>>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_str(&line);
            log.push('\n');
        }
    })
}
