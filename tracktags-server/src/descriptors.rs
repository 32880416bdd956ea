//! As many descriptors as the connections need: systems start a process with few, and allow it to take more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For the database, the listeners, and connections that wait for their next call.
const OTHERS: u64 = 1_000;

/// Takes what connections and the calls made for them need, as far as the hard limit goes.
pub(crate) fn allow(connections_max: usize) {
    let connections = u64::try_from(connections_max).unwrap_or(u64::MAX);
    let needed = connections.saturating_mul(2).saturating_add(OTHERS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return;
    }
    let allowed = maximum.map_or(needed, |maximum| maximum.min(needed));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    } else if allowed < needed {
        tracing::warn!(
            allowed,
            needed,
            "connections may run out of descriptors: raise the hard limit of open files, or lower server.connections_max"
        );
    }
}
