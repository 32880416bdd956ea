//! Shell scripts in a network of their own: its addresses lie on a loopback device that nobody else sees, so fixed ports
//! are free, and servers may listen on addresses that are not loopback.

use crate::node::program;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What every script begins with: the network, helpers, and a target for calls.
const PROLOGUE: &str = r#"
set -euo pipefail
ip link set lo up
for address in 10.0.0.4 10.0.0.5 192.0.2.7 192.0.2.8 192.0.2.9 192.0.2.10; do ip addr add $address/32 dev lo; done
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
within() { for _ in $(seq 300); do if "$@" >/dev/null 2>&1; then return; fi; sleep 0.1; done; echo "never: $*" >&2; exit 1; }
expect() { if ! grep -qF -- "$1" <<<"$2"; then echo "expected $1 in: $2" >&2; exit 1; fi; }
python3 -m http.server 8099 --bind 127.0.0.1 >/dev/null 2>&1 &
within curl -s http://127.0.0.1:8099/
export PATH="$PWD/target/release:$PATH"
"#;

/// A folder in which the programs lie where a build puts them.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let programs = folder.path().join("target/release");
    let made = std::fs::create_dir_all(&programs);
    assert!(made.is_ok(), "{made:?}");
    for (name, built) in [("tracktags-server", "node"), ("tracktags-cli", "admin")] {
        let linked = std::os::unix::fs::symlink(program(built), programs.join(name));
        assert!(linked.is_ok(), "{linked:?}");
    }
    folder
}

/// Runs a script in a network of its own, as root; what it printed.
///
/// # Panics
/// When a command of it fails.
#[must_use]
pub fn run(folder: &Path, parts: &[&str]) -> String {
    let script: PathBuf = folder.join("script.sh");
    let text = [&[PROLOGUE], parts].concat().join("\n");
    let written = std::fs::write(&script, &text);
    assert!(written.is_ok(), "{written:?}");
    let ran = Command::new("unshare")
        .args(["--net", "--mount", "bash"])
        .arg(&script)
        .current_dir(folder)
        .env("TRACKTAGS__PROXY__TARGET_POLICY", "public")
        .output()
        .unwrap_or_else(|error| panic!("unshare: {error}"));
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "(needs root) {out}\n{err}\n{}", text);
    out.into_owned()
}
