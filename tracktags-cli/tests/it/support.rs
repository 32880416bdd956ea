//! A server with one canned answer, and the command line run against it inside this process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread::JoinHandle;

/// What one run of the command line came to.
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a command line.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = ["tracktags-cli"].iter().chain(arguments).map(Into::into);
    let code = tracktags_cli::run(words, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code, out: text(out), err: text(err) }
}

/// Runs the program itself, without anything of this process's environment but `environment`.
pub(crate) fn program(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracktags-cli"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).output().unwrap()
}

/// A server that answers one request, and then tells what it was asked.
pub(crate) struct Canned {
    pub(crate) url: String,
    serving: JoinHandle<String>,
}

impl Canned {
    /// Answers with this status and body.
    pub(crate) fn new(status: u16, body: &str) -> Self {
        Self::raw(format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Answers with these bytes.
    pub(crate) fn raw(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let asked = read_request(&stream);
            stream.write_all(answer.as_bytes()).unwrap();
            asked
        });
        Self { url, serving }
    }

    /// Runs a command line against it as a business: what came of it, and the request as the server saw it.
    pub(crate) fn asked_by(self, arguments: &[&str]) -> (Ran, String) {
        let connection = ["--url", &self.url, "--key", "tk_live_placeholder"].map(str::to_owned);
        self.asked_with(&connection, arguments)
    }

    /// The same as the admin, who acts for a business where `business` is given.
    pub(crate) fn asked_by_admin(self, business: Option<&str>, arguments: &[&str]) -> (Ran, String) {
        let mut connection =
            ["--url", &self.url, "--admin-key", "ak_placeholder"].map(str::to_owned).to_vec();
        if let Some(business) = business {
            connection.extend(["--business".to_owned(), business.to_owned()]);
        }
        self.asked_with(&connection, arguments)
    }

    /// The request as the server saw it.
    pub(crate) fn asked(self) -> String {
        self.serving.join().unwrap()
    }

    fn asked_with(self, connection: &[String], arguments: &[&str]) -> (Ran, String) {
        let words: Vec<&str> =
            connection.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        let ran = run(&words);
        // Nothing was sent then, and the server would wait for ever.
        assert!(!matches!(ran.code, 2 | 64), "{arguments:?}: {}", ran.err);
        (ran, self.asked())
    }
}

/// Method, target, key and body of a request.
fn read_request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut asked = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let mut body_bytes = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => body_bytes = value.parse().unwrap(),
            "authorization" | "x-admin-key" => asked.push_str(&format!("\n{}: {value}", name.to_lowercase())),
            _ => {}
        }
    }
    let mut body = vec![0; body_bytes];
    reader.read_exact(&mut body).unwrap();
    if !body.is_empty() {
        asked.push_str(&format!("\n{}", String::from_utf8(body).unwrap()));
    }
    asked
}
