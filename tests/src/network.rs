//! A network of its own for a test, in which every route leads back to it: whatever address a program connects to, a
//! listener of the test takes the connection or nobody does, and the kernel counts each attempt.

use nix::sched::{CloneFlags, unshare};
use std::path::Path;
use std::process::Command;

/// Routes for all addresses of both families onto the loopback device, and a list of name servers of the test's own.
/// A search domain stands there too: one that is used shows in the questions.
const SET_UP: &str = r#"
set -eu
mount --make-rprivate /
ip link set lo up
ip route add local 0.0.0.0/0 dev lo
ip -6 route add local ::/0 dev lo
printf 'nameserver %s\nsearch search.example\n' "$1" >"$0/resolv.conf"
mount --bind "$0/resolv.conf" /etc/resolv.conf
"#;

/// Runs `test` on a thread in a network and a view of the file system of its own (needs root). Threads and processes
/// that it starts are in there too; `name_server` is what `/etc/resolv.conf` says to them.
///
/// # Panics
/// When there is no such network to be had, and when `test` does.
pub fn where_every_route_leads_here<T: Send>(name_server: &str, test: impl FnOnce() -> T + Send) -> T {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let ended = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(folder.path(), name_server);
            test()
        });
        thread.join()
    });
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Namespaces belong to threads: what this one starts inherits them, and other tests of the process never see them.
fn enter(folder: &Path, name_server: &str) {
    let entered = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS);
    assert!(entered.is_ok(), "(needs root) {entered:?}");
    let ran = Command::new("sh").args(["-c", SET_UP]).arg(folder).arg(name_server).output();
    match ran {
        Ok(ran) if ran.status.success() => {}
        other => panic!("the network: {other:?}"),
    }
}

/// TCP connections of this thread's network since it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// How often somebody sent a first packet (SYN), to whatever address and port.
    pub begun: u64,
    /// How often a listener took one.
    pub taken: u64,
}

/// What the kernel counted so far (`Tcp` in `/proc/net/snmp`, both families).
///
/// # Panics
/// When it does not say.
#[must_use]
pub fn connections() -> Connections {
    let text =
        std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap_or_else(|error| panic!("{error}"));
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
    let value = |wanted: &str| {
        let place = names.split(' ').position(|name| name == wanted);
        let value = place.and_then(|place| values.split(' ').nth(place)?.parse().ok());
        value.unwrap_or_else(|| panic!("no {wanted} in {text}"))
    };
    Connections { begun: value("ActiveOpens"), taken: value("PassiveOpens") }
}
