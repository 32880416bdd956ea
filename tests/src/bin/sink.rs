//! Takes every connection, whatever address it was made to, and says which.

use clap::Parser;
use std::io::{self, BufReader, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use tracktags_tests::upstream::read;

/// Takes TCP connections to any address of this network on some ports. Prints `ready`, then a line for each
/// connection: the address it was made to.
///
/// Answers a request with 200, or, where its path is `/redirect/STATUS`, with that status and the request's body as
/// `Location`; then it closes. What is no HTTP (TLS) is closed without an answer.
#[derive(Parser)]
struct Arguments {
    /// A port to listen on, for both families.
    #[arg(long = "port", default_values_t = [80, 443])]
    ports: Vec<u16>,
}

fn main() -> io::Result<()> {
    let listeners =
        Arguments::parse().ports.into_iter().map(|port| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
    let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
    say("ready")?;
    let threads: Vec<_> =
        listeners.into_iter().map(|listener| std::thread::spawn(move || take(&listener))).collect();
    for thread in threads {
        // A listener ends with its process.
        let _ended = thread.join();
    }
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush())
}

fn take(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        let stream = Arc::new(stream);
        // Said before it is answered: what a caller was answered is in the log.
        let said = stream.local_addr().and_then(|address| {
            say(&format!("{}", std::net::SocketAddr::new(address.ip().to_canonical(), address.port())))
        });
        if said.is_err() {
            return;
        }
        std::thread::spawn(move || answer(&stream));
    }
}

fn answer(stream: &TcpStream) {
    let Ok(copy) = stream.try_clone() else { return };
    let Some(arrival) = read(&mut BufReader::new(copy)) else { return };
    let head = match arrival.path().strip_prefix("/redirect/") {
        Some(status) => {
            [format!("HTTP/1.1 {status} Elsewhere\r\nlocation: ").as_bytes(), &arrival.body, b"\r\n"].concat()
        }
        None => b"HTTP/1.1 200 OK\r\n".to_vec(),
    };
    let rest = b"connection: close\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nsink";
    // A caller who left wants no answer.
    let _sent = (&*stream).write_all(&[&head, &rest[..]].concat());
}
