//! A TCP proxy that does to connections what networks do: it delays, throttles, slices, swallows, cuts, half-closes and
//! resets. Put it between a client and a node, or between a node and whatever it calls.
//!
//! Each way of a connection is a thread. Faults hold from the next piece of data on, also for connections that are open;
//! a cut counts the bytes of each connection. It is told by calls, or by lines on a local socket ([`listen`]).

use socket2::SockRef;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// What is passed on at once.
const PIECE_BYTES: usize = 16_384;

/// A way through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the target.
    Up,
    /// Back to the client.
    Down,
}

/// What it does to the bytes of a way. The default: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Each piece waits so long.
    pub latency: Duration,
    /// No more bytes than these in a second; 0: as they come.
    pub bytes_per_second: u32,
    /// Pieces of so many bytes; 0: as they come.
    pub slice_bytes: usize,
    /// Bytes vanish, and the connection stays open.
    pub is_silent: bool,
    /// After so many bytes the connection is closed.
    pub cut_at: Option<u64>,
}

/// An open connection through it.
struct Link {
    client: TcpStream,
    target: TcpStream,
    is_reset: AtomicBool,
}

#[derive(Default)]
struct State {
    up: Faults,
    down: Faults,
    links: Vec<Weak<Link>>,
}

/// A running proxy. Cheap to clone.
#[derive(Clone)]
pub struct Chaos {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Chaos {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// The listener's.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), target)
    }

    /// Starts it on this address.
    ///
    /// # Errors
    /// The listener's.
    pub fn start_on(address: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A target that refuses is a client whose connection ends.
                if let Ok(target) = TcpStream::connect(target) {
                    pass(client, target, &shared);
                }
            }
        });
        Ok(Self { address, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what it does to the bytes of a way.
    pub fn set(&self, way: Way, faults: Faults) {
        let mut state = self.state();
        match way {
            Way::Up => state.up = faults,
            Way::Down => state.down = faults,
        }
    }

    /// Passes everything on again.
    pub fn clear(&self) {
        self.set(Way::Up, Faults::default());
        self.set(Way::Down, Faults::default());
    }

    fn links(&self) -> Vec<Arc<Link>> {
        let mut state = self.state();
        state.links.retain(|link| link.strong_count() > 0);
        state.links.iter().filter_map(Weak::upgrade).collect()
    }

    /// Resets every open connection, both of its halves.
    pub fn reset(&self) {
        for link in self.links() {
            link.is_reset.store(true, Ordering::SeqCst);
            for half in [&link.client, &link.target] {
                // Closed with nothing to wait for, it is reset; the end of reading lets its threads go.
                let _gone = SockRef::from(half).set_linger(Some(Duration::ZERO));
                let _gone = half.shutdown(Shutdown::Read);
            }
        }
    }

    /// Ends a way of every open connection; the other one goes on.
    pub fn half_close(&self, way: Way) {
        for link in self.links() {
            let to = if way == Way::Up { &link.target } else { &link.client };
            let _gone = to.shutdown(Shutdown::Write);
        }
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.links().len()
    }

    /// Does what a line says: `[up|down] latency MS`, `bandwidth BYTES`, `slice BYTES`, `silent 0|1`, `cut BYTES`,
    /// `half-close`, or `reset`, `clear`. Without a way it means both.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn tell(&self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace().peekable();
        let ways: &[Way] = match words.peek() {
            Some(&"up") => &[Way::Up],
            Some(&"down") => &[Way::Down],
            _ => &[Way::Up, Way::Down],
        };
        if ways.len() == 1 {
            words.next();
        }
        let (name, number) = (words.next().unwrap_or_default(), words.next());
        match name {
            "reset" => self.reset(),
            "clear" => self.clear(),
            "half-close" => ways.iter().for_each(|way| self.half_close(*way)),
            _ => {
                let number = number.and_then(|number| number.parse::<u32>().ok());
                let number = number.ok_or_else(|| format!("{line:?}: a number is missing"))?;
                for way in ways {
                    let mut faults = *of(&self.state(), *way);
                    change(&mut faults, name, number)
                        .ok_or_else(|| format!("{line:?}: {name:?} is unknown"))?;
                    self.set(*way, faults);
                }
            }
        }
        Ok(())
    }
}

fn change(faults: &mut Faults, name: &str, number: u32) -> Option<()> {
    match name {
        "latency" => faults.latency = Duration::from_millis(number.into()),
        "bandwidth" => faults.bytes_per_second = number,
        "slice" => faults.slice_bytes = usize::try_from(number).ok()?,
        "silent" => faults.is_silent = number != 0,
        "cut" => faults.cut_at = Some(number.into()),
        _ => return None,
    }
    Some(())
}

const fn of(state: &State, way: Way) -> &Faults {
    match way {
        Way::Up => &state.up,
        Way::Down => &state.down,
    }
}

/// Does what lines on a local socket say; each is answered with `ok`, or with what is wrong with it.
///
/// # Errors
/// The socket's.
pub fn listen(chaos: &Chaos, path: &Path) -> io::Result<()> {
    for stream in UnixListener::bind(path)?.incoming().flatten() {
        let chaos = chaos.clone();
        std::thread::spawn(move || {
            let mut answers = &stream;
            for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                let answer = chaos.tell(&line).err().unwrap_or_else(|| "ok".to_owned());
                if writeln!(answers, "{answer}").is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

fn pass(client: TcpStream, target: TcpStream, state: &Arc<Mutex<State>>) {
    let _fast = client.set_nodelay(true).and_then(|()| target.set_nodelay(true));
    let link = Arc::new(Link { client, target, is_reset: AtomicBool::new(false) });
    let mut known = state.lock().unwrap_or_else(PoisonError::into_inner);
    known.links.retain(|link| link.strong_count() > 0);
    known.links.push(Arc::downgrade(&link));
    drop(known);
    for way in [Way::Up, Way::Down] {
        let (link, state) = (Arc::clone(&link), Arc::clone(state));
        std::thread::spawn(move || pump(&link, way, &state));
    }
}

/// Passes the bytes of one way on until it ends.
fn pump(link: &Link, way: Way, state: &Mutex<State>) {
    let (mut from, to) = match way {
        Way::Up => (&link.client, &link.target),
        Way::Down => (&link.target, &link.client),
    };
    let mut buffer = vec![0; PIECE_BYTES];
    let mut passed = 0;
    while let Ok(count) = from.read(&mut buffer) {
        let faults = *of(&state.lock().unwrap_or_else(PoisonError::into_inner), way);
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        if faults.is_silent {
            continue;
        }
        let left = faults.cut_at.map(|at| usize::try_from(at.saturating_sub(passed)).unwrap_or(usize::MAX));
        let bytes = bytes.get(..left.unwrap_or(usize::MAX).min(bytes.len())).unwrap_or_default();
        passed += bytes.len() as u64;
        if send(to, bytes, faults).is_err() {
            break;
        }
        if faults.cut_at.is_some_and(|at| passed >= at) {
            let _closed = link.client.shutdown(Shutdown::Both);
            let _closed = link.target.shutdown(Shutdown::Both);
            return;
        }
    }
    if !link.is_reset.load(Ordering::SeqCst) {
        let _ended = to.shutdown(Shutdown::Write);
    }
}

fn send(mut to: &TcpStream, bytes: &[u8], faults: Faults) -> io::Result<()> {
    std::thread::sleep(faults.latency);
    let slice = if faults.slice_bytes == 0 { bytes.len() } else { faults.slice_bytes };
    for piece in bytes.chunks(slice.max(1)) {
        to.write_all(piece)?;
        if faults.bytes_per_second > 0 {
            let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            std::thread::sleep(Duration::from_secs(1) * length / faults.bytes_per_second);
        }
    }
    Ok(())
}
