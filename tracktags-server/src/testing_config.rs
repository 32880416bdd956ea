//! Fuzzed settings, from a file and from the environment: they either make sense together, or every problem is told
//! with the name of its setting; and a secret that stands in them is never said, whatever is wrong around it.

use crate::config::{Config, ConfigError, environment};
use bolero::{check, produce};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracktags_core::upstreams::TargetClass;

/// Stands in values of secrets only.
const CANARY: &str = "canary-of-the-operator";

/// Settings, and what they are set to, as TOML.
const SETTINGS: &[(&str, &[&str])] = &[
    (
        "server.bind",
        &["\"127.0.0.1:0\"", "\"0.0.0.0:80\"", "\"[::1]:8080\"", "\"here\"", "8080", "\"10.0.0.5:80\""],
    ),
    (
        "server.admin_key",
        &[
            "\"canary-of-the-operator-0123456789\"",
            "\"short\"",
            "\"\"",
            "\"tk_live_canary-of-the-operator-000\"",
        ],
    ),
    ("server.admin_key_file", &["\"\"", "\"/run/admin.key\"", "7"]),
    ("server.public_url", &["\"https://a.example\"", "\"ftp://a\"", "\"\"", "\"http://\""]),
    (
        "server.trusted_proxies",
        &["[]", "[\"10.0.0.0/8\", \"::1\"]", "\"10.0.0.0/8, 192.0.2.1\"", "[\"x\"]", "[7]", "[[]]"],
    ),
    ("server.metrics_public", &["true", "false", "\"maybe\"", "1"]),
    ("server.body_timeout_ms", &["30000", "1", "0", "-1", "\"5000\"", "1e9", "99999999999999999999"]),
    ("server.body_idle_timeout_ms", &["10000", "3600000", "1.5"]),
    ("server.connections_max", &["1", "0", "25000", "4294967296"]),
    ("server.speed", &["9", "{}", "[]"]),
    ("lockout.failures_max", &["20", "0", "\"x\""]),
    (
        "store.url",
        &["\"sqlite:a.db\"", "\"a.db\"", "\"\"", "\"postgres://u:canary-of-the-operator@h/d\"", "{}"],
    ),
    ("store.durability", &["\"power_loss\"", "\"process\"", "\"maybe\"", "true"]),
    ("proxy.target_policy", &["\"public\"", "\"open\"", "\"allowlist\"", "\"Open\"", "0"]),
    ("proxy.first_byte_timeout_ms", &["30000", "3600000"]),
    ("proxy.total_timeout_ms", &["60000", "1"]),
    (
        "secrets.master_key",
        &[
            "\"canary-of-the-operator\"",
            "\"\"",
            "{ a = \"canary-of-the-operator\" }",
            "[\"canary-of-the-operator\"]",
        ],
    ),
    ("secrets.master_key_file", &["\"\"", "\"/run/master.key\""]),
    ("log.level", &["\"info\"", "\"loud\"", "3"]),
    ("server", &["7", "\"canary-of-the-operator\"", "[]"]),
    ("x", &["1"]),
];
/// What the name of every setting begins with.
const SECTIONS: &[&str] = &["server.", "lockout.", "store.", "proxy.", "secrets.", "log."];
/// What is put into a file somewhere, instead of so many bytes.
const NOISE: &[&str] =
    &["", "", "", "\"", "'", "=", "\n", "[", "]", "\\", "#", "\u{0}", "é", "\"\"\"", ".", ","];

type Picks = Vec<(u8, u8)>;

fn settings(picks: &Picks) -> impl Iterator<Item = (&'static str, &'static str)> {
    picks.iter().map(|(setting, value)| {
        let (name, values) = SETTINGS[usize::from(*setting) % SETTINGS.len()];
        // The first value makes sense, and comes more often than not.
        let value = if *value < 160 { 0 } else { usize::from(*value) };
        (name, values[value % values.len()])
    })
}

fn file(picks: &Picks, (noise, at, cut): (u8, u16, u8)) -> String {
    let mut text: String = settings(picks).map(|(name, value)| format!("{name} = {value}\n")).collect();
    let noise = NOISE[usize::from(noise) % NOISE.len()];
    let at = usize::from(at) % (text.len() + 1);
    let end = (at + usize::from(cut % 8)).min(text.len());
    if !noise.is_empty() && text.is_char_boundary(at) && text.is_char_boundary(end) {
        text.replace_range(at..end, noise);
    }
    text
}

fn variables(picks: &Picks) -> HashMap<String, String> {
    let set = settings(picks).map(|(name, value)| {
        (
            format!("TRACKTAGS__{}", name.to_ascii_uppercase().replace('.', "__")),
            value.trim_matches('"').to_owned(),
        )
    });
    set.collect()
}

fn load(file: &Path, variables: &HashMap<String, String>) -> Result<Config, ConfigError> {
    Config::from_sources(Some(file), environment().source(Some(variables.clone())))
}

/// What settings must be to be served with.
fn makes_sense(config: &Config) {
    assert_eq!(config.validate(), Ok(()));
    let (server, secrets) = (&config.server, &config.secrets);
    let is_loopback = server.bind.ip().is_loopback();
    assert!(is_loopback || config.proxy.target_policy != TargetClass::Open);
    assert!(is_loopback || secrets.master_key.is_some() || secrets.master_key_file.is_some());
    assert!(server.admin_key.is_none() || server.admin_key_file.is_none());
    assert!(
        server
            .admin_key
            .as_ref()
            .is_none_or(|key| key.expose().len() >= 32 && !key.expose().starts_with("tk_"))
    );
    let url = config.store.url.expose();
    let has_key = secrets.master_key.is_some() || secrets.master_key_file.is_some();
    assert!(url.starts_with("sqlite:") || (url.starts_with("postgres://") && has_key));
    assert!(server.body_idle_timeout <= server.body_timeout);
    assert!(config.proxy.first_byte_timeout_ms <= config.proxy.total_timeout_ms);
    assert!(server.connections_max >= 1 && config.lockout.failures_max >= 1);
    assert!(!format!("{config:?}").contains(CANARY));
}

#[test]
fn fuzzed_settings_make_sense_or_every_problem_names_its_setting() {
    let folder = std::panic::AssertUnwindSafe(tempfile::tempdir().unwrap());
    let picks = || produce::<Picks>().with().len(0_usize..5);
    let counts = [const { AtomicUsize::new(0) }; 2];
    check!().with_generator((picks(), produce::<(u8, u16, u8)>(), picks())).for_each(
        |(in_file, noise, set)| {
            let (text, variables) = (file(in_file, *noise), variables(set));
            let path = folder.path().join("tracktags.toml");
            std::fs::write(&path, &text).unwrap();
            let loaded = load(&path, &variables);
            counts[usize::from(loaded.is_ok())].fetch_add(1, Ordering::Relaxed);
            match loaded {
                Ok(config) => makes_sense(&config),
                Err(error) => {
                    let said = error.to_string();
                    assert!(!said.contains(CANARY), "{said}\n{text}\n{variables:?}");
                    assert!(!said.contains(char::is_control), "{said}");
                    assert!(!error.0.is_empty());
                    for problem in &error.0 {
                        let names_one = SECTIONS.iter().any(|section| problem.starts_with(section));
                        let is_no_toml = problem.contains("tracktags.toml");
                        assert!(names_one || is_no_toml || problem.ends_with("unknown setting"), "{problem}");
                    }
                }
            }
        },
    );
    // Neither side goes untried.
    let [refused, passed] = counts.map(AtomicUsize::into_inner);
    let tried = passed + refused;
    assert!(tried < 1_000 || passed.min(refused) > tried / 200, "{passed} passed, {refused} refused");
}
