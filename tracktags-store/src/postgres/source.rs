//! Where the database is, and how to reach it: the store's URL, TLS, and what each session sets.
//!
//! `postgres://user:password@host1:port1,host2:port2/database?sslmode=verify-full&target_session_attrs=read-write`: as
//! libpq reads it, with two differences. TLS is either off or verifies the server's name, so `sslmode` is `disable` or
//! `verify-full` (`require` is read as that); where it is not said, it is `disable` towards this machine and
//! `verify-full` towards any other. `sslrootcert` names a file of certificates to trust in place of the public ones.

use crate::{Durability, OpenError};
use diesel_async::AsyncPgConnection;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracktags_core::error::{Cause, StoreError};

/// How long one of the hosts may take to take a connection.
const HOST_TIMEOUT: Duration = Duration::from_secs(1);
/// How long connecting may take, with as many hosts as are tried in turn before the session is set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// After this long without an answer a connection is given up.
const SILENT_MAX: Duration = Duration::from_secs(3);

/// What a connection is for; it decides how long things may take there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A lane's batches: a row that somebody holds is left to others at once.
    Batches,
    /// What waits for what somebody holds.
    Quarantine,
    /// Reads and changes of configuration.
    Queries,
    /// Folds and sweeps, for which nobody waits.
    Upkeep,
    /// The books, checked from end to end.
    Books,
}

/// How long things may take, in milliseconds; 0 is for as long as they take.
struct Patience {
    /// A lock.
    lock: u32,
    /// A statement.
    statement: u32,
    /// A transaction that does nothing: its node has stopped.
    idle: u32,
    /// All that a session does for one who waits for it, as the node sees it: a network may swallow everything, and with it
    /// what the server says of the others.
    work: u32,
}

impl Purpose {
    /// How long all that a session does for one who waits may take; `None` is for as long as it takes.
    pub(crate) const fn work_max(self) -> Option<Duration> {
        match self.patience().work {
            0 => None,
            millis => Some(Duration::from_millis(millis as u64)),
        }
    }

    const fn patience(self) -> Patience {
        match self {
            Self::Batches => Patience { lock: 25, statement: 3_000, idle: 1_000, work: 0 },
            Self::Quarantine => Patience { lock: 1_000, statement: 3_000, idle: 1_000, work: 0 },
            Self::Queries => Patience { lock: 1_000, statement: 3_000, idle: 1_000, work: 10_000 },
            Self::Upkeep => Patience { lock: 1_000, statement: 30_000, idle: 10_000, work: 120_000 },
            Self::Books => Patience { lock: 1_000, statement: 0, idle: 60_000, work: 0 },
        }
    }
}

/// A connection, and what drives it: that goes with it, whatever is under way.
pub(crate) struct Link {
    pub(crate) conn: AsyncPgConnection,
    pub(crate) end: End,
}

/// Ends a connection when it goes, or when told: whoever waits for an answer is told that there is no connection.
pub(crate) struct End(AbortHandle);

impl End {
    /// Ends it from elsewhere.
    pub(crate) fn handle(&self) -> AbortHandle {
        self.0.clone()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Deref for Link {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.conn
    }
}

/// A database, and how to reach it.
#[derive(Clone)]
pub(crate) struct Source {
    config: tokio_postgres::Config,
    tls: Option<MakeRustlsConnect>,
    durability: Durability,
}

impl std::fmt::Debug for Source {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

fn refused(why: impl Into<String>) -> OpenError {
    OpenError::StoreUrl(why.into())
}

impl Source {
    /// Reads a store's URL.
    pub(crate) fn parse(url: &str, durability: Durability) -> Result<Self, OpenError> {
        let (plain, tls) = split_off_tls(url)?;
        // What a parser says may hold a piece of the password.
        let mut config = tokio_postgres::Config::from_str(&plain).map_err(|_may_hold_a_secret| {
            refused("it is not of the form postgres://user@host:5432/database")
        })?;
        if config.get_dbname().is_none() {
            return Err(refused("it names no database"));
        }
        let loopback = config.get_hosts().iter().all(is_loopback);
        let tls = match tls {
            Tls::Off => None,
            Tls::AsFit if loopback => None,
            Tls::AsFit => Some(verifying(None)?),
            Tls::Verify(roots) => Some(verifying(roots.as_deref())?),
        };
        config
            .ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable })
            .application_name("tracktags")
            .connect_timeout(HOST_TIMEOUT)
            .tcp_user_timeout(SILENT_MAX)
            .keepalives(true)
            .keepalives_idle(SILENT_MAX)
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(2);
        if config.get_hosts().len() > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Ok(Self { config, tls, durability })
    }

    /// A connection with its session set up. Call it on the runtime that is to drive it.
    pub(crate) async fn connect(&self, purpose: Purpose) -> Result<Link, StoreError> {
        let connect = async {
            let mut link = self.connect_unset().await.map_err(StoreError::Unavailable)?;
            diesel_async::SimpleAsyncConnection::batch_execute(&mut link.conn, &self.session(purpose))
                .await
                .map_err(super::error::store_error)?;
            Ok(link)
        };
        let unanswered = |_elapsed| StoreError::Unavailable("the database did not answer".into());
        tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(unanswered)?
    }

    async fn connect_unset(&self) -> Result<Link, Cause> {
        let (client, end) = match &self.tls {
            Some(tls) => {
                let (client, conn) = self.config.connect(tls.clone()).await?;
                (client, End(tokio::spawn(conn).abort_handle()))
            }
            None => {
                let (client, conn) = self.config.connect(tokio_postgres::NoTls).await?;
                (client, End(tokio::spawn(conn).abort_handle()))
            }
        };
        Ok(Link { conn: AsyncPgConnection::try_from(client).await?, end })
    }

    /// A node that stops between two statements must not hold the others, nor one that is gone: the server ends both. Its
    /// messages are in English where the role may ask for that, so that `error` knows them.
    fn session(&self, purpose: Purpose) -> String {
        let synchronous = match self.durability {
            Durability::PowerLoss => "on",
            Durability::Process => "off",
        };
        let Patience { lock, statement, idle, .. } = purpose.patience();
        format!(
            "DO $$ BEGIN SET lc_messages = 'C'; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$; \
             SET synchronous_commit = {synchronous}; SET lock_timeout = {lock}; SET statement_timeout = {statement}; \
             SET idle_in_transaction_session_timeout = {idle}; SET tcp_user_timeout = 3000; \
             SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 2; \
             SET client_connection_check_interval = 1000; SET default_transaction_isolation = 'read committed'"
        )
    }
}

enum Tls {
    Off,
    AsFit,
    Verify(Option<String>),
}

/// Takes `sslmode` and `sslrootcert` out of the URL: the driver does not know what they mean here.
fn split_off_tls(url: &str) -> Result<(String, Tls), OpenError> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), Tls::AsFit)) };
    let (mut kept, mut mode, mut roots) = (Vec::new(), None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value),
            Some(("sslrootcert", value)) => roots = Some(value.to_owned()),
            _ => kept.push(pair),
        }
    }
    let tls = match mode {
        None if roots.is_none() => Tls::AsFit,
        Some("disable") => Tls::Off,
        None | Some("require" | "verify-full") => Tls::Verify(roots),
        Some(_) => return Err(refused("sslmode is disable or verify-full")),
    };
    let plain = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    Ok((plain, tls))
}

fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn verifying(roots: Option<&str>) -> Result<MakeRustlsConnect, OpenError> {
    let mut trusted = RootCertStore::empty();
    match roots {
        None => trusted.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let unreadable = || refused(format!("sslrootcert {path} cannot be read as PEM certificates"));
            let certificates = CertificateDer::pem_file_iter(path).map_err(|_why| unreadable())?;
            for certificate in certificates {
                trusted.add(certificate.map_err(|_why| unreadable())?).map_err(|_why| unreadable())?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(error.to_string()))?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
