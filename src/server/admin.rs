//! The operator's listener: a thread of its own, plain blocking sockets, never in the way of the
//! workers.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::log_thread::LogOrder;
use super::{ServerError, Shared};
use crate::mesh::MainEnds;
use crate::proto::http::head::{self, HEAD_BYTES_MAX, HeaderSpace, Method, Parsed};
use crate::proto::http::response::{self, BodyMode, Connection, Head, Status};
use crate::ring::uring::UringBell;

/// How long an operator's client may take over a request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the log may take to answer before it counts as stalled.
const STALL_TIME: Duration = Duration::from_secs(1);

/// Binds the operator's address.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).map_err(|error| ServerError::Bind { address, error })
}

/// The thread behind the operator's listener.
#[derive(Debug)]
pub(super) struct AdminServer {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    shared: Arc<Shared>,
    log_orders: Sender<LogOrder>,
    draining: AtomicBool,
    stopping: AtomicBool,
}

impl AdminServer {
    pub fn start(
        listener: TcpListener,
        shared: Arc<Shared>,
        _ends: MainEnds,
        _bell: UringBell,
        log_orders: Sender<LogOrder>,
    ) -> Result<Self, ServerError> {
        let failed = |error| ServerError::io("starting the admin thread", error);
        let address = listener.local_addr().map_err(failed)?;
        let (draining, stopping) = (AtomicBool::new(false), AtomicBool::new(false));
        let state = Arc::new(State { shared, log_orders, draining, stopping });
        let of_thread = state.clone();
        let thread = thread::Builder::new()
            .name("admin".into())
            .spawn(move || of_thread.serve(&listener))
            .map_err(failed)?;
        Ok(Self { address, state, thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the server is not ready.
    pub fn note_draining(&self) {
        self.state.draining.store(true, Ordering::Relaxed);
    }

    pub fn stop(&mut self) {
        self.state.stopping.store(true, Ordering::Relaxed);
        // Wakes the thread out of `accept`.
        let _ = TcpStream::connect_timeout(&self.address, REQUEST_TIME_MAX);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn serve(&self, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            // A client that went away, or a moment without descriptors: the next one may do.
            let _ = stream.and_then(|stream| self.answer(stream));
        }
    }

    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(REQUEST_TIME_MAX))?;
        stream.set_write_timeout(Some(REQUEST_TIME_MAX))?;
        let mut received = Vec::new();
        let mut space = HeaderSpace::new();
        let mut out = Vec::new();
        loop {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece)?;
            received.extend_from_slice(&piece[..count]);
            match head::parse_prefix(&received, &mut space) {
                Ok(Parsed::Complete(request)) => {
                    self.respond(request.method(), request.path(), &mut out);
                    break;
                }
                Ok(Parsed::Partial) if count > 0 && received.len() < HEAD_BYTES_MAX => {}
                Ok(Parsed::Partial) => return Ok(()),
                Err(error) => {
                    let head = Head::new(error.status(), Connection::Close);
                    let (code, message) = (error.code(), error.message());
                    response::write_error(&mut out, &head, code, message, BodyMode::Whole);
                    break;
                }
            }
        }
        stream.write_all(&out)
    }

    fn respond(&self, method: Method<'_>, path: &str, out: &mut Vec<u8>) {
        let mode = if method == Method::Head { BodyMode::HeadOnly } else { BodyMode::Whole };
        let (status, text) = match (method, path) {
            (Method::Get | Method::Head, "/healthz") => (Status::Ok, "ok\n"),
            (Method::Get | Method::Head, "/readyz") => self.readiness(),
            _ => {
                let head = Head::new(Status::NotFound, Connection::Close);
                return response::write_error(out, &head, "not_found", "no such path", mode);
            }
        };
        let content_type = Some("text/plain; charset=utf-8");
        let head = Head { content_type, ..Head::new(status, Connection::Close) };
        response::write_response(out, &head, text.as_bytes(), mode);
    }

    fn readiness(&self) -> (Status, &'static str) {
        if self.draining.load(Ordering::Relaxed) {
            return (Status::ServiceUnavailable, "draining\n");
        }
        let (reply, answer) = bounded(1);
        let asked = self.log_orders.try_send(LogOrder::Stats(reply)).is_ok();
        if !asked || answer.recv_timeout(STALL_TIME).is_err() {
            return (Status::ServiceUnavailable, "the log is stalled\n");
        }
        (Status::Ok, "ready\n")
    }
}
