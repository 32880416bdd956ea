//! A hyper server of one single-threaded runtime for each processor, connections dealt out in turn.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::rc::Rc;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::LocalSet;

/// Connections that may wait for a thread.
const WAITING_MAX: usize = 1_024;

/// Listens on a free port of loopback, prints `listening on http://ADDRESS` and serves until it is killed. `handler`
/// is made once a thread.
///
/// # Errors
/// Those of the listener.
pub fn serve<H, F>(make: impl Fn() -> H + Send + Clone + 'static) -> io::Result<()>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<Full<Bytes>>> + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let count = std::thread::available_parallelism()?.get();
    let mut threads = Vec::with_capacity(count);
    for _ in 0..count {
        let (sender, connections) = channel(WAITING_MAX);
        let make = make.clone();
        std::thread::spawn(move || run(connections, make()));
        threads.push(sender);
    }
    println!("listening on http://{}", listener.local_addr()?);
    let mut turn = threads.iter().cycle();
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        if let Some(thread) = turn.next() {
            thread.blocking_send(stream).map_err(io::Error::other)?;
        }
    }
}

fn run<H, F>(mut connections: Receiver<TcpStream>, handler: H) -> io::Result<()>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Response<Full<Bytes>>> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let handler = Rc::new(handler);
    LocalSet::new().block_on(&runtime, async {
        while let Some(stream) = connections.recv().await {
            let io = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
            let handler = Rc::clone(&handler);
            tokio::task::spawn_local(async move {
                let service = service_fn(|request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                // A connection's end, in whatever way, is its client's business.
                let _ended = http1::Builder::new().pipeline_flush(true).serve_connection(io, service).await;
            });
        }
        Ok(())
    })
}
