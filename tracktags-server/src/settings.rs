//! Reading settings one by one out of the merged sources; whatever is wrong with each is noted, not the first alone.

use crate::config::{Config, ProxyConfig, Secret, SecretsConfig, ServerConfig, StoreConfig};
use crate::lockout::LockoutLimits;
use config::{Config as Source, Value, ValueKind};
use ipnet::IpNet;
use std::path::PathBuf;
use std::time::Duration;
use tracktags_core::upstreams::TargetClass;
use tracktags_store::{Durability, StoreLimits};
use url::Url;

const SECONDS_PER_DAY: u32 = 86_400;
const BYTES_PER_MIB: i64 = 1 << 20;

/// Reads settings one by one and notes what is wrong with each.
pub(crate) struct Reader<'a> {
    pub(crate) source: &'a Source,
    /// What stands in for a setting that cannot be read, so that the others are checked all the same.
    pub(crate) defaults: &'a Source,
    pub(crate) problems: Vec<String>,
}

impl Reader<'_> {
    pub(crate) fn refuse_unknown(&mut self, known: &Source) {
        let known = names(&known.cache, String::new());
        for name in names(&self.source.cache, String::new()) {
            if !known.contains(&name) {
                self.problems.push(format!("{name}: unknown setting"));
            }
        }
    }

    fn text(&mut self, name: &str) -> String {
        self.source.get_string(name).unwrap_or_else(|_| {
            self.problems.push(format!("{name} must be a text"));
            String::new()
        })
    }

    fn optional(&mut self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    fn parsed<T>(&mut self, name: &str, what: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text(name);
        parse(&text).or_else(|| {
            self.problems.push(format!("{name} must be {what}"));
            parse(&self.defaults.get_string(name).ok()?)
        })
    }

    fn number(&mut self, name: &str, min: u32, max: u32) -> Option<u32> {
        let what = format!("a whole number from {min} to {max}");
        self.parsed(name, &what, |text| text.parse().ok().filter(|number| (min..=max).contains(number)))
    }

    fn count(&mut self, name: &str, min: u32, max: u32) -> Option<usize> {
        self.number(name, min, max).and_then(|number| usize::try_from(number).ok())
    }

    fn millis(&mut self, name: &str, min: u32, max: u32) -> Option<Duration> {
        self.number(name, min, max).map(|number| Duration::from_millis(number.into()))
    }

    fn ranges(&mut self, name: &str) -> Vec<IpNet> {
        let texts = self.source.get::<Vec<String>>(name).unwrap_or_else(|_| {
            let text = self.text(name);
            text.split(',').map(|range| range.trim().to_owned()).filter(|range| !range.is_empty()).collect()
        });
        let parse = |text: &String| {
            let host = || text.parse().ok().map(|address: std::net::IpAddr| IpNet::from(address));
            text.parse()
                .ok()
                .or_else(host)
                .ok_or_else(|| format!("{name}: {text:?} is no range such as 10.0.0.0/8"))
        };
        let mut ranges = Vec::new();
        for range in texts.iter().map(parse) {
            match range {
                Ok(range) => ranges.push(range),
                Err(problem) => self.problems.push(problem),
            }
        }
        ranges
    }

    pub(crate) fn config(&mut self) -> Option<Config> {
        // Every section is read before the first missing value ends the reading, so that all problems are told.
        let server = self.server();
        let lockout = self.lockout();
        let store = self.store();
        let proxy = self.proxy();
        let secrets = SecretsConfig {
            master_key: self.optional("secrets.master_key").map(Secret::new),
            master_key_file: self.optional("secrets.master_key_file").map(PathBuf::from),
        };
        let level = "off, error, warn, info, debug or trace";
        let log_level = self.parsed("log.level", level, |text| text.parse().ok());
        Some(Config {
            server: server?,
            lockout: lockout?,
            store: store?,
            proxy: proxy?,
            secrets,
            log_level: log_level?,
        })
    }

    fn server(&mut self) -> Option<ServerConfig> {
        let address = "an address with a port, such as 127.0.0.1:8080";
        let bind = self.parsed("server.bind", address, |text| text.parse().ok());
        let public_url = self.parsed("server.public_url", "an http or https URL, or empty", |text| {
            if text.is_empty() {
                return Some(None);
            }
            let url = Url::parse(text).ok();
            url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()).map(Some)
        });
        let admin_key = self.optional("server.admin_key").map(Secret::new);
        let admin_key_file = self.optional("server.admin_key_file").map(PathBuf::from);
        let trusted_proxies = self.ranges("server.trusted_proxies");
        let metrics_public = self.parsed("server.metrics_public", "true or false", |text| text.parse().ok());
        let connections_max = self.count("server.connections_max", 1, 1_000_000);
        let keep_alive = self.millis("server.keep_alive_ms", 1, 3_600_000);
        let head_timeout = self.millis("server.head_timeout_ms", 1, 600_000);
        let head_bytes_max = self.count("server.head_bytes_max", 1_024, 131_072);
        let body_idle_timeout = self.millis("server.body_idle_timeout_ms", 1, 600_000);
        let body_timeout = self.millis("server.body_timeout_ms", 1, 3_600_000);
        let drain_notice = self.millis("server.drain_notice_ms", 100, 600_000);
        let drain_timeout = self.millis("server.drain_timeout_ms", 1_000, 3_600_000);
        Some(ServerConfig {
            bind: bind?,
            admin_key,
            admin_key_file,
            public_url: public_url?,
            trusted_proxies,
            metrics_public: metrics_public?,
            connections_max: connections_max?,
            keep_alive: keep_alive?,
            head_timeout: head_timeout?,
            head_bytes_max: head_bytes_max?,
            body_idle_timeout: body_idle_timeout?,
            body_timeout: body_timeout?,
            drain_notice: drain_notice?,
            drain_timeout: drain_timeout?,
        })
    }

    fn lockout(&mut self) -> Option<LockoutLimits> {
        let failures_max = self.number("lockout.failures_max", 1, 1_000_000);
        let admin_failures_max = self.number("lockout.admin_failures_max", 1, 1_000_000);
        let addresses_max = self.count("lockout.addresses_max", 2, 10_000_000);
        Some(LockoutLimits {
            failures_max: failures_max?,
            admin_failures_max: admin_failures_max?,
            addresses_max: addresses_max?,
        })
    }

    fn store(&mut self) -> Option<StoreConfig> {
        let url = Secret::new(self.text("store.url"));
        let durability = self.parsed("store.durability", "power_loss or process", |text| match text {
            "power_loss" => Some(Durability::PowerLoss),
            "process" => Some(Durability::Process),
            _ => None,
        });
        let lanes = self.number("store.lanes", 1, 64);
        let queue_entries_max = self.count("store.queue_entries_max", 1, 1_000_000);
        let batch_entries_max = self.count("store.batch_entries_max", 1, 65_536);
        let queue_wait_ms_max = self.number("store.queue_wait_ms_max", 1, 60_000);
        let counters_live_max = self.count("store.counters_live_max", 1, 100_000_000);
        let cache_entries_max = self.count("store.cache_entries_max", 16, 10_000_000);
        let fold_every_ms = self.number("store.fold_every_ms", 1, 3_600_000);
        let ledger_tail_entries_max = self.count("store.ledger_tail_entries_max", 1, 10_000_000);
        let ledger_retention_days = self.number("store.ledger_retention_days", 0, 36_500);
        let ledger_mib_max = self.number("store.ledger_mib_max", 1, 1_048_576);
        let wal_checkpoint_mib = self.number("store.wal_checkpoint_mib", 1, 65_536);
        let wal_mib_max = self.number("store.wal_mib_max", 1, 65_536);
        Some(StoreConfig {
            url,
            durability: durability?,
            limits: StoreLimits {
                lanes: u8::try_from(lanes?).unwrap_or(u8::MAX),
                queue_entries_max: queue_entries_max?,
                batch_entries_max: batch_entries_max?,
                wait_ms_max: queue_wait_ms_max?.into(),
                counters_live_max: counters_live_max?,
                cache_entries_max: cache_entries_max?,
                fold_every_ms: fold_every_ms?.into(),
                ledger_tail_entries_max: ledger_tail_entries_max?,
                ledger_retention_seconds: ledger_retention_days?.saturating_mul(SECONDS_PER_DAY),
                ledger_bytes_max: i64::from(ledger_mib_max?).saturating_mul(BYTES_PER_MIB),
                wal_checkpoint_bytes: u64::from(wal_checkpoint_mib?) << 20,
                wal_bytes_max: u64::from(wal_mib_max?) << 20,
            },
        })
    }

    fn proxy(&mut self) -> Option<ProxyConfig> {
        let target_policy =
            self.parsed("proxy.target_policy", "public, allowlist or open", |text| match text {
                "public" => Some(TargetClass::Public),
                "allowlist" => Some(TargetClass::Allowlist),
                "open" => Some(TargetClass::Open),
                _ => None,
            });
        let customer_calls_max = self.count("proxy.customer_calls_max", 1, 1_000_000);
        let target_calls_max = self.count("proxy.target_calls_max", 1, 1_000_000);
        let resolve_timeout_ms = self.number("proxy.resolve_timeout_ms", 1, 600_000);
        let connect_timeout_ms = self.number("proxy.connect_timeout_ms", 1, 600_000);
        let tls_timeout_ms = self.number("proxy.tls_timeout_ms", 1, 600_000);
        let first_byte_timeout_ms = self.number("proxy.first_byte_timeout_ms", 1, 3_600_000);
        let total_timeout_ms = self.number("proxy.total_timeout_ms", 1, 3_600_000);
        let answer_bytes_max = self.number("proxy.answer_bytes_max", 1, 1_073_741_824);
        let settle_wait = self.millis("proxy.settle_wait_ms", 1, 60_000);
        Some(ProxyConfig {
            target_policy: target_policy?,
            customer_calls_max: customer_calls_max?,
            target_calls_max: target_calls_max?,
            resolve_timeout_ms: resolve_timeout_ms?.into(),
            connect_timeout_ms: connect_timeout_ms?.into(),
            tls_timeout_ms: tls_timeout_ms?.into(),
            first_byte_timeout_ms: first_byte_timeout_ms?.into(),
            total_timeout_ms: total_timeout_ms?.into(),
            answer_bytes_max: answer_bytes_max?.into(),
            settle_wait: settle_wait?,
        })
    }
}

/// The full names of all settings below `value`.
fn names(value: &Value, name: String) -> Vec<String> {
    match &value.kind {
        ValueKind::Table(table) => table
            .iter()
            .flat_map(|(key, value)| {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                names(value, name)
            })
            .collect(),
        _ => vec![name],
    }
}
