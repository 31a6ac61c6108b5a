//! The operator's listener: threads of its own with plain blocking sockets, never in the way of
//! the workers. One request a connection, and a time limit over all of it.

mod ask;
mod channels;
mod connections;
mod exchange;
mod exposition;
mod health;
mod metrics;
mod page;
mod process;
mod reply;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use self::reply::Reply;
use super::log_thread::LogOrder;
use super::{ServerError, Shared};
use crate::auth::{Revoked, is_meant_for_loopback};
use crate::mesh::MainEnds;
use crate::proto::http::head::{Method, Request};
use crate::proto::http::response::Status;
use crate::ring::Ringer;

/// How long a connection of an operator may take, from `accept` to the last byte: however slowly
/// it drips, its thread is free again after this.
pub const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(5);

/// Connections served at once; further ones wait in the backlog. More than a scraper, two probes
/// and an operator need, so that some of them may hang.
pub const EXCHANGES_MAX: usize = 8;

/// How long the log or a worker may take to answer before it counts as stalled.
pub const STALL_TIME: Duration = Duration::from_secs(1);

/// Pause after a failed `accept`: for want of descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the operator's address.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).map_err(|error| ServerError::Bind { address, error })
}

/// The threads behind the operator's listener.
pub(super) struct AdminServer {
    listener: Arc<TcpListener>,
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

/// What all admin threads share.
struct State {
    address: SocketAddr,
    shared: Arc<Shared>,
    log_orders: Sender<LogOrder>,
    ends: MainEnds,
    bell: Mutex<Ringer>,
    /// Whose tokens were called back.
    revoked: Mutex<Arc<Revoked>>,
    started_unix_s: f64,
    draining: AtomicBool,
    stopping: AtomicBool,
}

impl AdminServer {
    pub fn start(
        listener: TcpListener,
        shared: Arc<Shared>,
        ends: MainEnds,
        bell: Ringer,
        log_orders: Sender<LogOrder>,
    ) -> Result<Self, ServerError> {
        let failed = |error| ServerError::io("starting the admin threads", error);
        let address = listener.local_addr().map_err(failed)?;
        let listener = Arc::new(listener);
        let state = Arc::new(State {
            address,
            shared,
            log_orders,
            ends,
            bell: Mutex::new(bell),
            revoked: Mutex::default(),
            started_unix_s: process::started_unix_s(),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let mut threads = Vec::with_capacity(EXCHANGES_MAX);
        for _ in 0..EXCHANGES_MAX {
            let (state, listener) = (state.clone(), listener.clone());
            let thread = thread::Builder::new()
                .name("admin".into())
                .spawn(move || state.serve(&listener))
                .map_err(failed)?;
            threads.push(thread);
        }
        Ok(Self { listener, state, threads })
    }

    pub fn address(&self) -> SocketAddr {
        self.state.address
    }

    /// From now on the server is not ready.
    pub fn note_draining(&self) {
        self.state.draining.store(true, Ordering::Relaxed);
    }

    /// Ends the threads; who is being served may finish.
    pub fn stop(&mut self) {
        self.state.stopping.store(true, Ordering::Relaxed);
        // Wakes all threads out of `accept`, and keeps them from waiting there again.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl State {
    fn serve(&self, listener: &TcpListener) {
        while !self.stopping.load(Ordering::Relaxed) {
            match listener.accept() {
                // A client that went away or was too slow: the next one may do.
                Ok((stream, _)) => {
                    let deadline = Instant::now() + EXCHANGE_TIME_MAX;
                    let answer = |request: &Request<'_>| self.answer(request, deadline);
                    let _ = exchange::serve(&stream, deadline, answer);
                }
                Err(_) if self.stopping.load(Ordering::Relaxed) => return,
                Err(_) => thread::sleep(ACCEPT_PAUSE),
            }
        }
    }

    fn answer(&self, request: &Request<'_>, deadline: Instant) -> Reply {
        if self.address.ip().is_loopback() && !is_meant_for_loopback(request.host()) {
            return Reply::error(Status::Forbidden, "host", HOSTS);
        }
        let reading = matches!(request.method(), Method::Get | Method::Head);
        let path = request.path();
        if let Some(id) = path.strip_prefix("/v1/connections/") {
            return match request.method() {
                Method::Delete => self.cut(id),
                _ => Reply::not_allowed("DELETE"),
            };
        }
        if let Some(subject) = path.strip_prefix("/v1/subjects/") {
            return match request.method() {
                Method::Delete => self.call_back(subject),
                _ => Reply::not_allowed("DELETE"),
            };
        }
        let read: &dyn Fn() -> Reply = match path {
            "/healthz" => &|| Reply::text("ok\n"),
            "/readyz" => &|| self.readiness(),
            "/metrics" => &|| self.metrics(),
            "/v1/connections" => &|| self.connections(request.query(), deadline),
            "/v1/channels" => &|| self.channels(request.query(), deadline),
            _ => return Reply::error(Status::NotFound, "not_found", PATHS),
        };
        if reading { read() } else { Reply::not_allowed("GET, HEAD") }
    }
}

/// What a web page is told, and an operator who made up a name.
const HOSTS: &str = "this listener is on loopback: ask for it by its address or as localhost";

/// What a lost operator is told.
const PATHS: &str = "no such path; there are /healthz, /readyz, /metrics, /v1/connections, \
                     /v1/connections/{id}, /v1/subjects/{sub} and /v1/channels";
