//! A log that survives its writer: whoever appends waits until the line is on the disk, and one sync serves all who wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

/// A log that is open.
pub struct SyncedLog {
    file: File,
    state: Mutex<State>,
    synced: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Lines taken in, and those of them that are on the disk.
    taken: u64,
    safe: u64,
    /// Somebody syncs.
    is_busy: bool,
    /// A sync failed: nothing more is promised.
    has_failed: bool,
}

impl SyncedLog {
    /// Opens a log, to append.
    ///
    /// # Errors
    /// The file's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, state: Mutex::default(), synced: Condvar::new() })
    }

    /// Takes a line in; it goes to the disk with the next group.
    pub fn note(&self, line: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.extend_from_slice(line.as_bytes());
        state.waiting.push(b'\n');
        state.taken += 1;
    }

    /// Takes a line in and waits until it, and all before it, are on the disk.
    ///
    /// # Errors
    /// A write or a sync failed, now or earlier.
    pub fn append(&self, line: &str) -> io::Result<()> {
        self.note(line);
        self.flush()
    }

    /// Waits until all that was taken in is on the disk.
    ///
    /// # Errors
    /// A write or a sync failed, now or earlier.
    pub fn flush(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = state.taken;
        while state.safe < mine && !state.has_failed {
            if state.is_busy {
                state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.is_busy = true;
            let (group, upto) = (std::mem::take(&mut state.waiting), state.taken);
            drop(state);
            let written = (&self.file).write_all(&group).and_then(|()| self.file.sync_data());
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.is_busy = false;
            state.has_failed |= written.is_err();
            state.safe = upto;
            self.synced.notify_all();
            written?;
        }
        if state.has_failed { Err(io::Error::other("the log failed")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_many_append_is_there_when_they_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Arc::new(SyncedLog::open(&path).unwrap());
        let threads = (0..8).map(|thread| {
            let (log, path) = (Arc::clone(&log), path.clone());
            std::thread::spawn(move || {
                for number in 0..20 {
                    let line = format!("{thread} {number}");
                    log.append(&line).unwrap();
                    assert!(std::fs::read_to_string(&path).unwrap().lines().any(|known| known == line));
                }
            })
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 160);
    }
}
