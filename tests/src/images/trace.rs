//! A recording by strace of one server: what it wrote, synced, read and sent, all in one order.
//!
//! strace notes a call when it begins, before the kernel acts, and when it has ended, before its thread goes on. So
//! where a thread woke another after its call, the end of that call stands before whatever the other one did then.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// What strace is told to record, and how: each file by its path, data whole, and the end of a process that is killed.
pub const STRACE: &[&str] = &[
    "-D",
    "-f",
    "-q",
    "--seccomp-bpf",
    "-y",
    "-s",
    "65536",
    "-e",
    "signal=kill",
    "-e",
    "trace=openat,pwrite64,ftruncate,fsync,fdatasync,?unlink,unlinkat,sendto,sendmsg,writev,recvfrom,recvmsg",
    "-o",
];

/// More than the last line takes.
const END_BYTES: i64 = 128;
/// The last words of a process that was killed.
const KILLED: &[u8] = b"+++ killed by SIGKILL +++";

/// How strace ends the line of a call whose thread is killed within it, or before its result could be read.
const NO_RESULT: &[u8] = b"= ?";
const UNKNOWN_RESULT: &[u8] = b"= ? <unavailable>";

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Opens a file, and makes it if it is not there.
    Create,
    /// Writes into a file.
    Write,
    /// Cuts a file to a length, or extends it.
    Truncate,
    /// Brings a file, or the names in a folder, to the disk.
    Sync,
    /// Takes a file's name away.
    Unlink,
    /// Sends on a socket.
    Send,
    /// Receives on a socket.
    Receive,
}

/// A call that was recorded.
#[derive(Debug, Clone)]
pub struct Call {
    /// What it does.
    pub what: What,
    /// Its file by path, or its socket.
    pub on: String,
    /// What was written, sent or received.
    pub data: Vec<u8>,
    /// Where it writes, or the length it cuts to, in bytes.
    pub at: u64,
    /// Whether it ended well.
    pub done: bool,
}

/// One edge of a call, by the call's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Before the kernel acts.
    Begins(usize),
    /// After. A call that a kill cut off has none.
    Ends(usize),
}

/// A recording.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// Every call.
    pub calls: Vec<Call>,
    /// Their edges, in order.
    pub events: Vec<Event>,
}

impl Trace {
    /// Reads what strace wrote.
    ///
    /// # Errors
    /// The file's, and `InvalidData` where data was cut.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut lines = BufReader::with_capacity(1 << 20, File::open(path)?);
        let mut trace = Self::default();
        let mut open = HashMap::new();
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            trace.add(line.trim_ascii_end(), &mut open)?;
            line.clear();
        }
        Ok(trace)
    }

    /// Adds a line; `open` holds what began on each thread and has not ended.
    fn add(&mut self, line: &[u8], open: &mut HashMap<Vec<u8>, (usize, Vec<u8>)>) -> io::Result<()> {
        let Some(space) = line.iter().position(|byte| *byte == b' ') else { return Ok(()) };
        let (thread, text) = (&line[..space], line[space..].trim_ascii_start());
        if let Some(begun) = text.strip_suffix(b" <unfinished ...>") {
            if let Some(call) = parse(begun)? {
                self.events.push(Event::Begins(self.calls.len()));
                open.insert(thread.to_vec(), (self.calls.len(), begun.to_vec()));
                self.calls.push(call);
            }
        } else if text.starts_with(b"<... ") {
            let resumed = find(text, b" resumed>").map(|at| &text[at + b" resumed>".len()..]);
            if let (Some((place, begun)), Some(rest)) = (open.remove(thread), resumed)
                && let Some(call) = parse(&[begun.as_slice(), rest].concat())?
            {
                self.calls[place] = call;
                self.end(place, text);
            }
        } else if let Some(call) = parse(text)? {
            let place = self.calls.len();
            self.events.push(Event::Begins(place));
            self.calls.push(call);
            self.end(place, text);
        }
        Ok(())
    }

    /// Notes that a call has ended, but for one without a result: its thread was killed within it, and the kernel may have
    /// done it, a part of it, or nothing.
    fn end(&mut self, place: usize, text: &[u8]) {
        if !text.ends_with(NO_RESULT) && !text.ends_with(UNKNOWN_RESULT) {
            self.events.push(Event::Ends(place));
        }
    }

    /// The call of an event.
    #[must_use]
    pub fn call(&self, event: Event) -> &Call {
        let (Event::Begins(place) | Event::Ends(place)) = event;
        &self.calls[place]
    }
}

/// Whether a recording has come to its end: the process with this number was killed, and so was noted.
#[must_use]
pub fn is_ended(path: &Path, process: u32) -> bool {
    let mut text = Vec::new();
    let _until_it_is_there = File::open(path)
        .and_then(|mut file| file.seek(SeekFrom::End(-END_BYTES)).and_then(|_| file.read_to_end(&mut text)));
    let last = text.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    last.starts_with(process.to_string().as_bytes()) && last.ends_with(KILLED)
}

/// Reads a call, as far as it is there; `None` for one that does not matter.
fn parse(text: &[u8]) -> io::Result<Option<Call>> {
    let Some(bracket) = text.iter().position(|byte| *byte == b'(') else { return Ok(None) };
    let what = match &text[..bracket] {
        b"openat" => What::Create,
        b"pwrite64" => What::Write,
        b"ftruncate" => What::Truncate,
        b"fsync" | b"fdatasync" => What::Sync,
        b"unlink" | b"unlinkat" => What::Unlink,
        b"sendto" | b"sendmsg" | b"writev" => What::Send,
        b"recvfrom" | b"recvmsg" => What::Receive,
        _ => return Ok(None),
    };
    let (data, plain, is_cut) = strings(&text[bracket + 1..]);
    if is_cut {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "strace cut the data"));
    }
    let plain = String::from_utf8_lossy(&plain);
    let (arguments, result) = plain.rsplit_once(" = ").unwrap_or((&*plain, "?"));
    let arguments = arguments.trim_end().trim_end_matches(')');
    if what == What::Create && !arguments.contains("O_CREAT") {
        return Ok(None);
    }
    let decoded = if what == What::Create { result } else { arguments };
    let on = match what {
        What::Unlink => String::from_utf8_lossy(&data).into_owned(),
        _ => decoded
            .split_once('<')
            .and_then(|(_, rest)| rest.split_once('>'))
            .map_or("", |(path, _)| path)
            .to_owned(),
    };
    let at = arguments.rsplit(", ").next().and_then(|number| number.trim().parse().ok()).unwrap_or(0);
    let done = result.starts_with(|first: char| first.is_ascii_digit());
    Ok(Some(Call { what, on, data, at, done }))
}

/// The strings among the arguments, put together; the rest without them; and whether a string was cut.
fn strings(text: &[u8]) -> (Vec<u8>, Vec<u8>, bool) {
    let (mut data, mut plain, mut is_cut) = (Vec::new(), Vec::new(), false);
    let mut rest = text.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'"' {
            plain.push(byte);
            continue;
        }
        while let Some(byte) = rest.next() {
            match byte {
                b'"' => break,
                b'\\' => data.push(escaped(&mut rest)),
                other => data.push(other),
            }
        }
        is_cut |= rest.peek() == Some(&b'.');
    }
    (data, plain, is_cut)
}

/// The byte that an escape stands for, as C has it.
fn escaped(rest: &mut std::iter::Peekable<impl Iterator<Item = u8>>) -> u8 {
    let first = rest.next().unwrap_or(b'\\');
    if !(b'0'..=b'7').contains(&first) {
        return match first {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 0x0b,
            b'f' => 0x0c,
            other => other,
        };
    }
    let mut byte = first - b'0';
    for _ in 0..2 {
        let Some(digit) = rest.next_if(|next| (b'0'..=b'7').contains(next)) else { break };
        byte = byte.wrapping_mul(8).wrapping_add(digit - b'0');
    }
    byte
}

/// Where a text begins in another.
#[must_use]
pub(super) fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_two_threads_are_put_together() {
        let mut trace = Trace::default();
        let mut open = HashMap::new();
        for line in [
            r#"12 openat(AT_FDCWD</d>, "/d/a", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 3</d/a>"#,
            r#"12 pwrite64(3</d/a>, "\0\1x\0001\"\\\377", 7, 4096 <unfinished ...>"#,
            r#"13 recvfrom(7<socket:[5]>,  <unfinished ...>"#,
            r#"12 <... pwrite64 resumed>)         = 7"#,
            r#"13 <... recvfrom resumed>"GET / HTTP/1.1\r\n", 8192, 0, NULL, NULL) = 16"#,
            r#"12 fdatasync(3</d/a>)              = -1 EIO (Input/output error)"#,
            r#"12 unlink("/d/a") = 0"#,
            r#"12 epoll_wait(3<anon_inode:[eventpoll]>, [], 1024, 0) = 0"#,
        ] {
            trace.add(line.as_bytes(), &mut open).unwrap();
        }
        let seen: Vec<_> = trace.calls.iter().map(|call| (call.what, call.on.as_str(), call.done)).collect();
        assert_eq!(
            seen,
            [
                (What::Create, "/d/a", true),
                (What::Write, "/d/a", true),
                (What::Receive, "socket:[5]", true),
                (What::Sync, "/d/a", false),
                (What::Unlink, "/d/a", true),
            ]
        );
        assert_eq!(
            (trace.calls[1].data.as_slice(), trace.calls[1].at),
            (&b"\0\x01x\x001\"\\\xff"[..], 4_096)
        );
        assert_eq!(trace.calls[2].data, b"GET / HTTP/1.1\r\n");
        assert_eq!(trace.events[2..6], [Event::Begins(1), Event::Begins(2), Event::Ends(1), Event::Ends(2)]);
        assert!(trace.add(br#"12 pwrite64(3</d/a>, "ab"..., 7, 0) = 7"#, &mut open).is_err());
    }

    #[test]
    fn a_call_that_a_kill_cut_off_has_begun_only() {
        let mut trace = Trace::default();
        let mut open = HashMap::new();
        for line in [
            r#"12 pwrite64(3</d/a>, "one", 3, 0) = 3"#,
            r#"12 pwrite64(3</d/a>, "two", 3, 3 <unfinished ...>"#,
            r#"13 pwrite64(4</d/b>, "three", 5, 0) = ?"#,
            r#"12 <... pwrite64 resumed>)         = ?"#,
            r#"12 +++ killed by SIGKILL +++"#,
        ] {
            trace.add(line.as_bytes(), &mut open).unwrap();
        }
        assert_eq!(
            trace.events,
            [Event::Begins(0), Event::Ends(0), Event::Begins(1), Event::Begins(2)],
            "{:?}",
            trace.calls
        );
        assert_eq!(trace.calls[2].data, b"three");
    }
}
