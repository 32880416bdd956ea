//! What a machine can check of how this workspace is built: who may depend on whom, what every file has, what no
//! file has, and that each invariant of ARCHITECTURE.md is kept somewhere and shown by a test.
//!
//! Reads the sources and `cargo metadata`; nothing here starts a server.

// So that clippy knows all of this as tests, the helpers too.
#![cfg(test)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines a source may have: past them, look for the second subject.
const FILE_LINES_MAX: usize = 600;

/// Test files that may sleep, all below a folder: between two looks at a condition that has a deadline.
const MAY_SLEEP: &[&str] = &["tests/src/", "tests/e2e/windows.rs"];

/// What each crate may use of the workspace.
const OWN_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("tracktags-core", &[]),
    ("tracktags-store", &["tracktags-core"]),
    ("tracktags-proxy", &["tracktags-core"]),
    ("tracktags-server", &["tracktags-core", "tracktags-proxy", "tracktags-store"]),
    ("tracktags-cli", &["tracktags-core", "tracktags-store"]),
    ("tracktags-tests", &["tracktags-cli", "tracktags-core", "tracktags-server", "tracktags-store"]),
];

/// Crates that only these packages may use, in their programs and in their tests.
const FENCED: &[(&str, &[&str])] = &[
    ("diesel", &["tracktags-store"]),
    ("diesel_migrations", &["tracktags-store"]),
    ("libsqlite3-sys", &["tracktags-store"]),
    // The command line uses its runtime, on which awc runs, and nothing else of it.
    ("actix-web", &["tracktags-server", "tracktags-cli"]),
    // For peers we trust; those we do not go through tracktags-proxy.
    ("awc", &["tracktags-cli"]),
    ("hyper", &["tracktags-proxy"]),
    ("hyper-util", &["tracktags-proxy"]),
    ("hyper-rustls", &["tracktags-proxy"]),
    ("hickory-resolver", &["tracktags-proxy"]),
];

/// All that the core may use: crates without I/O.
const CORE_DEPENDENCIES: &[&str] = &[
    "blake3",
    "bytes",
    "crc32fast",
    "foldhash",
    "futures-core",
    "http",
    "jiff",
    "rand",
    "serde",
    "smallvec",
    "thiserror",
    "zeroize",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file of the workspace with one of these endings, by its path from the root; nothing that is built or hidden.
fn files(endings: &[&str]) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| path.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no {endings:?} below {}", root().display());
    found.sort();
    found
}

/// Every source of a package.
fn sources() -> Vec<String> {
    files(&[".rs"]).into_iter().filter(|path| path.contains("/src/")).collect()
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.contains("/testing")
}

/// What each package asks for: (name, whether its program needs it).
fn dependencies() -> BTreeMap<String, BTreeSet<(String, bool)>> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let asked = package["dependencies"].as_array().unwrap();
            let asked = asked.iter().map(|one| (text(&one["name"]), one["kind"] != "dev"));
            (text(&package["name"]), asked.collect())
        })
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let dependencies = dependencies();
    let known: BTreeSet<_> = OWN_DEPENDENCIES.iter().map(|(package, _)| (*package).to_owned()).collect();
    assert_eq!(dependencies.keys().cloned().collect::<BTreeSet<_>>(), known, "the members of the workspace");
    for (package, allowed) in OWN_DEPENDENCIES {
        for (name, _) in dependencies[*package].iter().filter(|(name, _)| known.contains(name)) {
            assert!(allowed.contains(&name.as_str()), "{package} must not depend on {name}");
        }
    }
}

#[test]
fn frameworks_stay_behind_their_crate() {
    for (package, asked) in dependencies() {
        for (name, _) in &asked {
            if let Some((_, allowed)) = FENCED.iter().find(|(fenced, _)| fenced == name) {
                assert!(allowed.contains(&package.as_str()), "{package} must not depend on {name}");
            }
        }
        if package == "tracktags-core" {
            for (name, _) in asked.iter().filter(|(_, is_needed)| *is_needed) {
                assert!(CORE_DEPENDENCIES.contains(&name.as_str()), "the core must not depend on {name}");
            }
        }
    }
}

#[test]
fn the_command_line_touches_store_and_runtime_in_one_place_each() {
    for path in files(&[".rs"]).into_iter().filter(|path| path.starts_with("tracktags-cli/src/")) {
        let source = read(&path);
        let store =
            matches!(path.as_str(), "tracktags-cli/src/commands/database.rs" | "tracktags-cli/src/lib.rs");
        assert!(store || !source.contains("tracktags_store::"), "{path} must not use the store");
        let uses_runtime = source.matches("actix_web::").count();
        assert_eq!(
            uses_runtime,
            source.matches("actix_web::rt").count(),
            "{path} may use actix's runtime only"
        );
    }
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<_> = files(&[".rs"]).into_iter().filter(|path| !read(path).starts_with("//!")).collect();
    assert_eq!(silent, Vec::<String>::new(), "these do not open with //!");
}

#[test]
fn files_have_one_subject() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|path| (read(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .collect();
    assert_eq!(long, Vec::new(), "these are longer than {FILE_LINES_MAX} lines");
}

/// Texts that stand in no source. Put together here, so that this file does not hold them.
fn banned() -> Vec<(String, &'static str)> {
    let lint = |name: &str| format!("clippy::{name}{}", "_used");
    vec![
        (lint("unwrap"), "a lint is obeyed, not switched off"),
        (lint("expect"), "a lint is obeyed, not switched off"),
        (format!("#[{}", "ignore"), "a test that does not run shows nothing"),
        (format!("{}_panic", "should"), "say which result is expected"),
        (format!("{}!(", "todo"), "nothing is left for later"),
        (format!("{}!(", "unimplemented"), "nothing is left for later"),
    ]
}

#[test]
fn nothing_is_switched_off() {
    let banned = banned();
    // A benchmark may end with its first surprise.
    for path in files(&[".rs"]).into_iter().filter(|path| !path.contains("/benches/")) {
        let source = read(&path);
        for (text, reason) in &banned {
            assert!(!source.contains(text.as_str()), "{path} holds {text}: {reason}");
        }
    }
    for path in files(&["nextest.toml", "Cargo.toml"]) {
        assert!(!read(&path).contains("unwrap_used = \"allow\""), "{path}");
    }
}

#[test]
fn no_lint_is_silenced() {
    let word = format!("{}(", "allow");
    for path in files(&[".rs"]) {
        let source = read(&path);
        let attributes = source.lines().map(str::trim_start);
        let mut attributes = attributes.filter(|line| line.starts_with("#[") || line.starts_with("#!["));
        assert!(!attributes.any(|line| line.contains(&word)), "{path}: say #[expect(…, reason = …)] instead");
    }
}

#[test]
fn no_test_sleeps_for_luck() {
    let sleeping = format!("{}(", "sleep");
    for path in files(&[".rs"]).iter().filter(|path| is_test_file(path)) {
        let may = MAY_SLEEP.iter().any(|one| path.starts_with(one));
        assert!(may || !read(path).contains(&sleeping), "{path}: wait for a condition, not for a time");
    }
}

#[test]
fn no_test_is_tried_twice() {
    let settings = read(".config/nextest.toml");
    let retries: Vec<_> = settings.lines().filter(|line| line.trim_start().starts_with("retries")).collect();
    assert!(retries.iter().all(|line| line.trim() == "retries = 0"), "{retries:?}");
}

/// An invariant as ARCHITECTURE.md names it.
#[derive(Debug)]
struct Invariant {
    name: String,
    /// Files that keep it, where the row links to some.
    kept_in: Vec<String>,
    /// Tests that show it, as `package::module::name`.
    shown_by: Vec<String>,
}

/// The rows like ``| `counted-before-forwarded` | … | `package::module::test_name` |``.
fn invariants() -> Vec<Invariant> {
    let text = read("ARCHITECTURE.md");
    let found: Vec<_> = text.lines().filter_map(invariant).collect();
    assert!(!found.is_empty(), "ARCHITECTURE.md has no table of invariants");
    found
}

fn invariant(line: &str) -> Option<Invariant> {
    let cells: Vec<&str> = line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
    let [name, middle @ .., last] = cells.as_slice() else { return None };
    let name = name.trim().strip_prefix('`')?.strip_suffix('`')?;
    let is_name = name.contains('-') && name.chars().all(|char| char.is_ascii_lowercase() || char == '-');
    let shown = last.split('`').skip(1).step_by(2).filter(|text| text.contains("::"));
    is_name.then(|| Invariant {
        name: name.to_owned(),
        kept_in: links(&middle.concat()),
        shown_by: shown.map(str::to_owned).collect(),
    })
}

/// The targets of the links in a text, without their anchors; those into the web are left out.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let files = targets.map(|target| target.split('#').next().unwrap_or_default());
    files.filter(|file| !file.is_empty() && !file.contains("://")).map(str::to_owned).collect()
}

#[test]
fn every_invariant_is_kept_somewhere() {
    let sources: Vec<_> = sources().iter().map(|path| read(path)).collect();
    for Invariant { name, kept_in, .. } in invariants() {
        assert!(sources.iter().any(|source| source.contains(&name)), "no source says that it keeps {name}");
        for file in kept_in.iter().filter(|file| file.ends_with(".rs")) {
            assert!(read(file).contains(&name), "{file} does not say that it keeps {name}");
        }
    }
}

#[test]
fn every_invariant_is_shown_by_a_test_that_exists() {
    let sources: Vec<(String, String)> =
        files(&[".rs"]).into_iter().map(|path| (read(&path), path)).collect();
    for Invariant { name, shown_by, .. } in invariants() {
        assert!(!shown_by.is_empty(), "no test shows {name}");
        for shown in &shown_by {
            let mut parts = shown.split("::");
            let package = parts.next().unwrap_or_default().replace('_', "-");
            let folder =
                if matches!(package.as_str(), "tracktags-tests" | "e2e") { "tests" } else { &package };
            let declared = format!("fn {}(", parts.last().unwrap_or_default());
            let exists = sources.iter().any(|(source, path)| {
                path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
                    && source.contains(&declared)
            });
            assert!(exists, "{name} names the test {shown}, which does not exist");
        }
    }
}

#[test]
fn rows_of_invariants_are_read_and_other_rows_are_not() {
    let row = "| `all-or-nothing` | of a [demand](tracktags-core/src/demand.rs#x) | `tracktags-core::it::a`, `e2e::b` |";
    let read = invariant(row).unwrap();
    assert_eq!(
        (read.name.as_str(), read.kept_in),
        ("all-or-nothing", vec!["tracktags-core/src/demand.rs".to_owned()])
    );
    assert_eq!(read.shown_by, ["tracktags-core::it::a", "e2e::b"]);
    for other in
        ["| invariant | meaning | test |", "| --- | --- | --- |", "| `batch.rs` | a file | `x::y` |", "text"]
    {
        assert!(invariant(other).is_none(), "{other}");
    }
}

#[test]
fn the_invariants_are_all_explained() {
    let explained: BTreeSet<String> = invariants().into_iter().map(|invariant| invariant.name).collect();
    let known = [
        "counted-before-forwarded",
        "exact-under-concurrency",
        "all-or-nothing",
        "denied-writes-nothing",
        "version-checked-in-batch",
        "raise-keeps-usage",
        "unsettled-stays-counted",
        "only-checked-addresses",
        "secrets-never-leave",
        "answers-stay-apart",
    ];
    for name in known {
        assert!(explained.contains(name), "ARCHITECTURE.md does not explain {name}");
    }
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    for path in files(&[".md"]) {
        let folder = Path::new(&path).parent().unwrap().to_owned();
        let text = read(&path);
        // What stands in code is no link.
        let prose: String = text.split("```").step_by(2).collect();
        for link in links(&prose) {
            assert!(root().join(&folder).join(&link).exists(), "{path} links to {link}, which is not there");
        }
    }
}
