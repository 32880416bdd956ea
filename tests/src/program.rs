//! A small program of the harness as a process: started, heard line by line, and killed when it is no longer needed.

use crate::node::program;
use crate::wait_until;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one may take to say that it is ready.
const START: Duration = Duration::from_secs(30);

/// A running program and the lines that it printed.
pub struct Program {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Program {
    /// Starts one and waits until its first line says `ready`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let spawned = Command::new(program(name)).args(arguments).stdout(Stdio::piped()).spawn();
        let mut process = spawned.unwrap_or_else(|error| panic!("{name}: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stdout, heard) = (process.stdout.take(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in stdout.map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok)
            {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let started = Self { process, lines };
        wait_until(name, START, || started.lines().first().is_some_and(|line| line == "ready"));
        started
    }

    /// What it printed so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Gone already is what was wanted.
        let _gone = self.process.kill();
        let _status = self.process.wait();
    }
}
