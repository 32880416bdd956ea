//! The TrackTags server: HTTP for people and programs, and the only crate that knows actix-web.
//!
//! [`main`] reads the settings, opens the store, binds, serves and drains. To embed the server, call [`serve`] with
//! a [`Config`] and a listener of your own inside an actix [`System`](actix_web::rt::System). `routes.rs` is the
//! one table of what there is, `call/` the way of one proxied call, `api/` the control plane.

mod api;
mod app;
mod call;
mod check;
pub mod config;
mod contract;
mod demo;
mod descriptors;
mod error;
mod form;
mod frame;
mod gather;
mod identity;
mod json;
mod lists;
mod lockout;
mod meters;
mod request;
mod routes;
mod schema;
mod secrets;
mod settings;
mod telemetry;
#[cfg(test)]
mod testing_config;

use actix_web::{HttpServer, web};
use app::{App, DemoKey, Shared};
use clap::Parser;
pub use config::{Config, ConfigError};
use futures_util::future::{Either, select};
pub use routes::{Operation, operations};

/// Whether these bytes are an envelope: what its benchmark measures.
#[doc(hidden)]
#[must_use]
pub fn reads_envelope(body: &bytes::Bytes) -> bool {
    call::envelope::parse(body).is_ok()
}
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tracktags_proxy::{Proxy, ProxyError, ProxyOptions};
use tracktags_store::{Node, OpenError, OpenOptions, SystemClock};

/// The exit code of a bad configuration (`EX_USAGE` of sysexits).
const EXIT_BAD_CONFIGURATION: u8 = 64;
/// The exit code of a bad command line.
const EXIT_BAD_USAGE: u8 = 2;

/// Enforces usage limits on every request that passes its proxy.
#[derive(Debug, Parser)]
#[command(name = "tracktags-server", version)]
struct Arguments {
    /// A settings file (TOML) over the defaults; the environment (`TRACKTAGS__SECTION__KEY`) wins over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Start with a throwaway database, a demo business and an upstream of its own, and print what to try.
    #[arg(long, conflicts_with = "config")]
    demo: bool,
    /// Read the settings and the key files, say what is wrong or seldom meant, and end.
    #[arg(long, conflicts_with = "demo")]
    check: bool,
}

/// Why the server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The settings cannot be served with.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database cannot be used.
    #[error("the store did not open")]
    Open(#[from] OpenError),
    /// The way out could not be made.
    #[error("the proxy did not start")]
    Proxy(#[from] ProxyError),
    /// The address could not be bound, or serving failed.
    #[error("cannot listen")]
    Listen(#[from] io::Error),
    /// The demo could not be set up.
    #[error("the demo could not be set up")]
    Demo(#[source] tracktags_core::error::StoreError),
}

/// The program: 0 after a clean end, 1 when it failed, 2 for a bad command line, 64 for a bad configuration.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return told_usage(&error),
    };
    let runner = actix_web::rt::System::new();
    match runner.block_on(start(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => told(&error),
    }
}

fn told_usage(error: &clap::Error) -> ExitCode {
    // Help and version are no errors. Nothing can be done where they cannot be printed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(EXIT_BAD_USAGE) } else { ExitCode::SUCCESS }
}

#[expect(clippy::print_stderr, reason = "the last words of the program, also before logging has started")]
fn told(error: &ServeError) -> ExitCode {
    let ServeError::Config(ConfigError(problems)) = error else {
        eprintln!("tracktags-server: {}", frame::chain(error));
        return ExitCode::FAILURE;
    };
    for problem in problems {
        eprintln!("tracktags-server: {problem}");
    }
    ExitCode::from(EXIT_BAD_CONFIGURATION)
}

async fn start(arguments: Arguments) -> Result<(), ServeError> {
    let config = Config::load(arguments.config.as_deref())?;
    if arguments.check {
        return Ok(check::run(&config, &mut io::stdout().lock())?);
    }
    telemetry::start(config.log_level);
    descriptors::allow(config.server.connections_max);
    let ended = signals()?;
    if arguments.demo {
        return demo::run(config, ended).await;
    }
    let opened = open(&config)?;
    let listener = TcpListener::bind(config.server.bind)?;
    serve_opened(opened, config, listener, Extras::default(), ended, announce).await
}

/// Ends with the first SIGTERM or SIGINT.
fn signals() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        select(Box::pin(terminate.recv()), Box::pin(interrupt.recv())).await;
    })
}

/// Says where the server listens: the one line that programs may wait for.
fn announce(address: SocketAddr) {
    use std::io::Write;
    let mut out = io::stdout().lock();
    // If nobody listens there is nobody to tell; the server serves all the same.
    let _ = writeln!(out, "listening on http://{address}").and_then(|()| out.flush());
}

/// What is open before the first request.
struct Opened {
    node: Node,
    admin_key: Option<config::Secret>,
}

fn open(config: &Config) -> Result<Opened, ServeError> {
    // Everything that can be wrong with the settings shows before the database is touched.
    let master_keys = secrets::master_keys(config)?;
    let admin_key = secrets::admin_key(config)?;
    let node = tracktags_store::open(OpenOptions {
        url: config.store.url.expose().to_owned(),
        durability: config.store.durability,
        master_keys,
        clock: Arc::new(SystemClock),
        limits: config.store.limits,
    })?;
    Ok(Opened { node, admin_key })
}

/// Opens the store and serves on `listener` until `ended`, then drains and closes. Run it inside an actix system.
///
/// # Errors
/// [`ServeError`]: the settings are bad, the store does not open, the listener fails.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    ended: impl Future<Output = ()> + 'static,
) -> Result<(), ServeError> {
    config.validate()?;
    let opened = open(&config)?;
    serve_opened(opened, config, listener, Extras::default(), ended, |_| ()).await
}

/// What only a demo has.
#[derive(Default)]
struct Extras {
    demo_keys: Vec<DemoKey>,
    /// Addresses of ours that calls may reach all the same.
    own_targets: Vec<SocketAddr>,
}

async fn serve_opened(
    opened: Opened,
    config: Config,
    listener: TcpListener,
    extras: Extras,
    ended: impl Future<Output = ()>,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    let upstream = way_out(&config, address, extras.own_targets)?;
    let Opened { node, admin_key } = opened;
    let clock = Arc::new(SystemClock);
    let contract = contract::document(routes::described());
    let app =
        Arc::new(Shared::new(config, clock, node, upstream, admin_key.as_ref(), extras.demo_keys, contract));
    let server = listen(Arc::clone(&app), listener)?;
    let handle = server.handle();
    let serving = actix_web::rt::spawn(server);
    ready(address);
    if let Either::Right(((), serving)) = select(serving, Box::pin(ended)).await {
        tracing::info!("draining");
        app.drain();
        tokio::time::sleep(app.config.server.drain_notice).await;
        handle.stop(true).await;
        drop(serving);
    }
    if let Some(node) = app.take_node() {
        node.close();
    }
    Ok(())
}

/// The way out, with the limits of its settings.
fn way_out(config: &Config, address: SocketAddr, own_targets: Vec<SocketAddr>) -> Result<Proxy, ProxyError> {
    let limits = &config.proxy;
    Proxy::new(ProxyOptions {
        dns_timeout_ms: limits.resolve_timeout_ms,
        connect_timeout_ms: limits.connect_timeout_ms,
        tls_timeout_ms: limits.tls_timeout_ms,
        first_byte_timeout_ms: limits.first_byte_timeout_ms,
        total_timeout_ms: limits.total_timeout_ms,
        answer_body_bytes_max: limits.answer_bytes_max,
        calls_per_origin_max: limits.target_calls_max,
        own_listeners: vec![address],
        public_host: config.server.public_url.as_ref().and_then(|url| url.host_str().map(str::to_owned)),
        own_exceptions: own_targets,
        ..ProxyOptions::default()
    })
}

/// The server on its listener, with the limits of its settings.
fn listen(app: Arc<Shared>, listener: TcpListener) -> io::Result<actix_web::dev::Server> {
    let settings = app.config.server.clone();
    let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let server = HttpServer::new(move || {
        actix_web::App::new()
            .app_data(web::Data::new(App::of_worker(&app)))
            .wrap_fn(frame::frame)
            .configure(routes::configure)
            .default_service(web::to(routes::unknown))
    });
    let drain_seconds = settings.drain_timeout.as_secs().max(1);
    Ok(server
        .workers(workers)
        .max_connections(settings.connections_max.div_ceil(workers))
        .keep_alive(settings.keep_alive)
        .client_request_timeout(settings.head_timeout)
        // Without it an answer whose head and body are written apart waits 40 ms.
        .tcp_nodelay(true)
        .shutdown_timeout(drain_seconds)
        .disable_signals()
        .listen(listener)?
        .run())
}
