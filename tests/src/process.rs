//! What a process holds, as the kernel counts it.

use std::fs;
use std::process::Command;

/// A line of `/proc/ID/status` that is in kB, in bytes.
fn status_bytes(id: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    assert!(kib.is_some(), "no {name} of process {id}");
    kib.unwrap_or_default() * 1_024
}

/// Its memory that is resident.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn resident_bytes(id: u32) -> u64 {
    status_bytes(id, "VmRSS")
}

/// The most of it since it was last forgotten.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn resident_bytes_peak(id: u32) -> u64 {
    status_bytes(id, "VmHWM")
}

/// Forgets the peak: it begins anew at what is resident now.
///
/// # Panics
/// When the process is not ours.
pub fn forget_peak(id: u32) {
    let forgotten = fs::write(format!("/proc/{id}/clear_refs"), "5");
    assert!(forgotten.is_ok(), "{forgotten:?}");
}

/// Its open descriptors.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn descriptors(id: u32) -> usize {
    let folder = fs::read_dir(format!("/proc/{id}/fd"));
    assert!(folder.is_ok(), "{folder:?}");
    folder.into_iter().flatten().count()
}

/// Lets it have so many descriptors. Needs root where that is more than it may have by itself.
///
/// # Panics
/// When it may not.
pub fn allow_descriptors(id: u32, count: usize) {
    let allowed = Command::new("prlimit")
        .args(["--pid", &id.to_string(), &format!("--nofile={count}:{count}")])
        .status();
    assert!(allowed.as_ref().is_ok_and(std::process::ExitStatus::success), "prlimit: {allowed:?}");
}
