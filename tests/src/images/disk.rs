//! What a disk may hold after the power failed: whatever was synced, and any part of what was written since.
//!
//! A write is on the disk for certain when a sync of its file that began after it had ended has ended too; a file's name
//! when a sync of its folder has. Until then each may be there or not, whatever came before or after it, and of a write
//! some sectors may be there and others not.

use super::trace::{Event, Trace, What};
use std::collections::HashMap;
use std::path::Path;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// What became of something that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is there.
    Whole,
    /// Some of its sectors are.
    Torn,
    /// It is not.
    Nothing,
}

/// Files by name.
pub type Image = Vec<(String, Vec<u8>)>;

struct File<'t> {
    path: &'t str,
    synced: Vec<u8>,
    /// Calls that were not synced, and whether each has ended.
    pending: Vec<(usize, bool)>,
    /// Its name is on the disk.
    is_named: bool,
    /// Its name was taken away.
    is_unlinked: bool,
    /// And that is on the disk.
    is_gone: bool,
}

/// What a sync covers, fixed when it begins.
#[derive(Default)]
struct Covered {
    calls: Vec<usize>,
    named: Vec<usize>,
    gone: Vec<usize>,
}

/// A disk, played forward along a recording.
pub struct Disk<'t> {
    trace: &'t Trace,
    files: Vec<File<'t>>,
    syncing: HashMap<usize, Covered>,
}

impl<'t> Disk<'t> {
    /// An empty disk.
    #[must_use]
    pub fn new(trace: &'t Trace) -> Self {
        Self { trace, files: Vec::new(), syncing: HashMap::new() }
    }

    /// Plays an event.
    pub fn play(&mut self, event: Event) {
        let call = self.trace.call(event);
        match (event, call.what) {
            (Event::Begins(place), What::Write | What::Truncate) => {
                if let Some(file) = self.file(&call.on) {
                    file.pending.push((place, false));
                }
            }
            (Event::Ends(place), What::Write | What::Truncate) => {
                let found = self
                    .file(&call.on)
                    .and_then(|file| file.pending.iter_mut().find(|(call, _)| *call == place));
                if let Some((_, has_ended)) = found {
                    *has_ended = true;
                }
            }
            (Event::Begins(place), What::Sync) => {
                let covered = self.covered_by_sync_of(&call.on);
                self.syncing.insert(place, covered);
            }
            (Event::Ends(place), What::Sync) => {
                let covered = self.syncing.remove(&place).unwrap_or_default();
                if call.done {
                    self.settle(&call.on, &covered);
                }
            }
            (Event::Ends(_), What::Create) if call.done && self.file(&call.on).is_none() => {
                self.files.push(File {
                    path: &call.on,
                    synced: Vec::new(),
                    pending: Vec::new(),
                    is_named: false,
                    is_unlinked: false,
                    is_gone: false,
                });
            }
            (Event::Ends(_), What::Unlink) if call.done => {
                if let Some(file) = self.file(&call.on) {
                    file.is_unlinked = true;
                }
            }
            (Event::Begins(_) | Event::Ends(_), _) => {}
        }
    }

    fn file(&mut self, path: &str) -> Option<&mut File<'t>> {
        self.files.iter_mut().find(|file| !file.is_unlinked && file.path == path)
    }

    fn covered_by_sync_of(&mut self, path: &str) -> Covered {
        let in_folder = |file: &File<'_>| Path::new(file.path).parent() == Some(Path::new(path));
        let places = |is_covered: &dyn Fn(&File<'_>) -> bool| {
            let files = self.files.iter().enumerate();
            files.filter(|(_, file)| in_folder(file) && is_covered(file)).map(|(place, _)| place).collect()
        };
        let (named, gone) = (places(&|file| !file.is_named), places(&|file| file.is_unlinked));
        let ended = |file: &mut File<'_>| {
            file.pending.iter().filter(|(_, has_ended)| *has_ended).map(|(call, _)| *call).collect()
        };
        Covered { calls: self.file(path).map(ended).unwrap_or_default(), named, gone }
    }

    fn settle(&mut self, path: &str, covered: &Covered) {
        for place in &covered.named {
            self.files[*place].is_named = true;
        }
        for place in &covered.gone {
            self.files[*place].is_gone = true;
        }
        let trace = self.trace;
        if let Some(file) = self.file(path) {
            for call in &covered.calls {
                apply(trace, *call, &mut file.synced, &mut || Kept::Whole);
            }
            file.pending.retain(|(call, _)| !covered.calls.contains(call));
        }
    }

    /// The files as the disk may hold them now; `kept` is asked about everything that was not synced.
    pub fn image(&self, kept: &mut dyn FnMut() -> Kept) -> Image {
        let mut image = Vec::new();
        for file in self.files.iter().filter(|file| !file.is_gone) {
            if (!file.is_named && kept() == Kept::Nothing) || (file.is_unlinked && kept() != Kept::Nothing) {
                continue;
            }
            let mut bytes = file.synced.clone();
            for (call, _) in &file.pending {
                apply(self.trace, *call, &mut bytes, kept);
            }
            image.push((name_of(file.path), bytes));
        }
        image
    }

    /// The files as a process sees them that comes after a kill: all that has ended is there. Whether a call that the
    /// kill cut off `acted` nobody has noted.
    #[must_use]
    pub fn after_kill(&self, acted: bool) -> Image {
        let live = self.files.iter().filter(|file| !file.is_unlinked);
        live.map(|file| {
            let mut bytes = file.synced.clone();
            for (call, _) in file.pending.iter().filter(|(_, has_ended)| *has_ended || acted) {
                apply(self.trace, *call, &mut bytes, &mut || Kept::Whole);
            }
            (name_of(file.path), bytes)
        })
        .collect()
    }
}

fn name_of(path: &str) -> String {
    Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Does to a file what a call did, or a part of it.
fn apply(trace: &Trace, call: usize, bytes: &mut Vec<u8>, kept: &mut dyn FnMut() -> Kept) {
    let call = &trace.calls[call];
    let at = usize::try_from(call.at).unwrap_or(usize::MAX);
    match (call.what, kept()) {
        (_, Kept::Nothing) => {}
        (What::Write, Kept::Whole) => put(bytes, at, &call.data),
        (What::Write, Kept::Torn) => {
            let mut at = call.at;
            let mut rest = call.data.as_slice();
            while !rest.is_empty() {
                let room = usize::try_from(SECTOR_BYTES - at % SECTOR_BYTES).unwrap_or(usize::MAX);
                let (sector, after) = rest.split_at(room.min(rest.len()));
                if kept() != Kept::Nothing {
                    put(bytes, usize::try_from(at).unwrap_or(usize::MAX), sector);
                }
                at += sector.len() as u64;
                rest = after;
            }
        }
        (_, Kept::Whole | Kept::Torn) => bytes.resize(at, 0),
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::super::trace::Call;
    use super::*;

    fn call(what: What, on: &str, data: &[u8], at: u64) -> Call {
        Call { what, on: on.into(), data: data.into(), at, done: true }
    }

    #[test]
    fn only_what_a_later_sync_covers_is_certain() {
        let calls = vec![
            call(What::Create, "/d/a", b"", 0),
            call(What::Write, "/d/a", b"one", 0),
            call(What::Sync, "/d/a", b"", 0),
            call(What::Write, "/d/a", b"two", 3),
            call(What::Sync, "/d", b"", 0),
        ];
        use Event::{Begins, Ends};
        // The second write ends only when the sync has begun.
        let events = vec![Ends(0), Begins(1), Ends(1), Begins(3), Begins(2), Ends(3), Ends(2)];
        let trace = Trace { calls, events };
        let mut disk = Disk::new(&trace);
        for event in &trace.events {
            disk.play(*event);
        }
        assert_eq!(disk.after_kill(false), [("a".to_owned(), b"onetwo".to_vec())]);
        assert_eq!(disk.image(&mut || Kept::Nothing), [], "its name was not synced");
        disk.play(Begins(4));
        disk.play(Ends(4));
        assert_eq!(disk.image(&mut || Kept::Nothing), [("a".to_owned(), b"one".to_vec())]);
        assert_eq!(disk.image(&mut || Kept::Whole), [("a".to_owned(), b"onetwo".to_vec())]);
    }

    #[test]
    fn a_torn_write_loses_whole_sectors() {
        let calls = vec![call(What::Write, "/d/a", &[7; 1_000], 500)];
        let trace = Trace { calls, events: Vec::new() };
        let mut bytes = Vec::new();
        let mut lot = [Kept::Torn, Kept::Nothing, Kept::Whole, Kept::Nothing].into_iter();
        apply(&trace, 0, &mut bytes, &mut || lot.next().unwrap_or(Kept::Nothing));
        assert_eq!(bytes.len(), 1_024);
        assert!(bytes[..512].iter().all(|byte| *byte == 0) && bytes[512..].iter().all(|byte| *byte == 7));
    }
}
