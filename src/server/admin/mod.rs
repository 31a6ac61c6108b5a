//! The operator's listener: threads of its own with plain sockets, never in the way of the workers.
//! One request per connection, and a time limit on all of it. [`door`] waits for requests, so that
//! slow clients delay no other; a few threads answer, some of them only probes.

mod ask;
mod channels;
mod connections;
mod door;
mod exchange;
mod exposition;
mod health;
mod key;
mod metrics;
mod nodes;
mod page;
mod process;
mod reply;

use std::io::{self, PipeWriter};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::warn;

use self::connections::NotRevoked;
use self::door::{Arrived, Door};
use self::key::Key;
use self::reply::Reply;
use super::clerk::LogCommand;
use super::node::Revoke;
use super::to_workers::ToWorkers;
use super::{ServerError, Shared};
use crate::auth::{Revoked, is_meant_for_loopback};
use crate::cluster::ToNodes;
use crate::config::Settings;
use crate::proto::http::head::{Method, Request};
use crate::proto::http::response::Status;
use crate::web;

/// How long an answer to an operator may take, from the last byte of the request: however slowly it
/// is read, its thread is free after this.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(5);

/// Requests answered at once: more than a scraper and an operator need, so that some may hang.
const EXCHANGES_MAX: usize = 6;

/// Probes answered at once, by threads that do nothing else: a supervisor that gets no answer kills
/// the server.
const PROBES_MAX: usize = 2;

/// Requests of either kind that wait for a thread; more are not answered.
const REQUESTS_WAITING_MAX: usize = 64;

/// How long the log or a worker may take to answer before it counts as stalled.
pub const STALL_TIME: Duration = Duration::from_secs(1);

/// The operator's listener before it is served.
pub(super) struct Bound {
    listener: TcpListener,
    key: Option<Key>,
}

impl Bound {
    /// Binds the operator's address, unless its listener is inherited, and reads its key.
    pub fn new(settings: &Settings, inherited: Option<TcpListener>) -> Result<Self, ServerError> {
        let address = settings.admin;
        let key = settings.admin_key_file.as_deref().map(Key::read).transpose()?;
        // Anyone who reaches it can see and cut every connection.
        if key.is_none() && !settings.open && !address.ip().is_loopback() {
            return Err(ServerError::AdminOpenToTheWorld { admin: address });
        }
        let listener = inherited.map_or_else(|| TcpListener::bind(address), Ok);
        let listener = listener.map_err(|error| ServerError::Bind { address, error })?;
        Ok(Self { listener, key })
    }

    pub fn listener(&self) -> &TcpListener {
        &self.listener
    }
}

/// The threads behind the operator's listener.
pub(super) struct AdminServer {
    state: Arc<State>,
    /// Closing it ends the threads.
    end: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

/// What all admin threads share.
struct State {
    address: SocketAddr,
    key: Option<Key>,
    shared: Arc<Shared>,
    log_commands: Sender<LogCommand>,
    workers: ToWorkers,
    /// Subjects whose tokens are revoked.
    revoked: Mutex<Arc<Revoked>>,
    /// On a node of many.
    to_nodes: Option<ToNodes>,
    started_unix_s: f64,
    draining: AtomicBool,
}

impl AdminServer {
    pub fn start(
        bound: Bound,
        shared: Arc<Shared>,
        workers: ToWorkers,
        log_commands: Sender<LogCommand>,
        to_nodes: Option<ToNodes>,
    ) -> Result<Self, ServerError> {
        let failed = |error| ServerError::io("starting the admin threads", error);
        let Bound { listener, key } = bound;
        let address = listener.local_addr().map_err(failed)?;
        let (ended, end) = io::pipe().map_err(failed)?;
        let state = Arc::new(State {
            address,
            key,
            shared,
            log_commands,
            workers,
            revoked: Mutex::default(),
            to_nodes,
            started_unix_s: process::started_unix_s(),
            draining: AtomicBool::new(false),
        });
        let mut threads = Vec::new();
        let mut spawn = |body: Box<dyn FnOnce() + Send>| {
            let named = thread::Builder::new().name("admin".into());
            named.spawn(body).map(|thread| threads.push(thread)).map_err(failed)
        };
        let (probes, probe_lane) = bounded(REQUESTS_WAITING_MAX);
        let (others, other_lane) = bounded(REQUESTS_WAITING_MAX);
        for (lane, count) in [(probe_lane, PROBES_MAX), (other_lane, EXCHANGES_MAX)] {
            for _ in 0..count {
                let (state, lane) = (state.clone(), lane.clone());
                spawn(Box::new(move || state.serve(&lane)))?;
            }
        }
        // Their lanes end with the door.
        let mut door = Door::new(listener, ended, probes, others).map_err(failed)?;
        spawn(Box::new(move || door.watch()))?;
        Ok(Self { state, end: Some(end), threads })
    }

    pub fn address(&self) -> SocketAddr {
        self.state.address
    }

    /// Whether every worker responds.
    pub fn workers_turn(&self) -> bool {
        self.state.find_stalled(Instant::now() + STALL_TIME).is_ok()
    }

    /// Revokes tokens when other nodes say so.
    pub fn revoke(&self) -> Revoke {
        let state = self.state.clone();
        Box::new(move |revocations| match state.revoke(revocations) {
            Ok(()) => true,
            Err(NotRevoked::Stalled(_)) => false,
            Err(NotRevoked::TooMany) => {
                warn!("too many subjects are revoked: change the key that signs tokens");
                true
            }
        })
    }

    /// Makes the server report that it is not ready.
    pub fn note_draining(&self) {
        self.state.draining.store(true, Ordering::Relaxed);
    }

    /// Stops accepting: another process accepts on the same socket.
    pub fn leave(&mut self) {
        self.end = None;
    }

    /// Ends the threads; requests being served may complete.
    pub fn stop(&mut self) {
        self.leave();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl State {
    fn serve(&self, lane: &Receiver<Arrived>) {
        for arrived in lane {
            let deadline = Instant::now() + EXCHANGE_TIME_MAX;
            let answer = |request: &Request<'_>| self.answer(request, deadline);
            // The client left or was too slow; the next one may do better.
            let _ = exchange::serve(&arrived, deadline, answer);
        }
    }

    fn answer(&self, request: &Request<'_>, deadline: Instant) -> Reply {
        if self.address.ip().is_loopback() && !is_meant_for_loopback(request.host()) {
            return Reply::error(Status::Forbidden, "host", HOSTS);
        }
        let reading = matches!(request.method(), Method::Get | Method::Head);
        let path = request.path();
        // The dashboard is the same for all: it asks for the key itself.
        let may_ask =
            path == "/" || is_probe(path) || self.key.as_ref().is_none_or(|key| key.opens(request));
        if !may_ask {
            return Reply::unauthorized();
        }
        if let Some(id) = path.strip_prefix("/v1/connections/") {
            return match request.method() {
                Method::Delete => self.cut(id),
                _ => Reply::not_allowed("DELETE"),
            };
        }
        if let Some(subject) = path.strip_prefix("/v1/subjects/") {
            return match request.method() {
                Method::Delete => self.call_back(subject, deadline),
                _ => Reply::not_allowed("DELETE"),
            };
        }
        let read: &dyn Fn() -> Reply = match path {
            "/" => &|| self.dashboard(),
            "/healthz" => &|| Reply::text("ok\n"),
            "/readyz" => &|| self.readiness(),
            "/metrics" => &|| self.metrics(),
            "/v1/connections" => &|| self.connections(request.query(), deadline),
            "/v1/channels" => &|| self.channels(request.query(), deadline),
            "/v1/nodes" => &|| self.nodes(),
            _ => return Reply::error(Status::NotFound, "not_found", PATHS),
        };
        if reading { read() } else { Reply::not_allowed("GET, HEAD") }
    }

    fn dashboard(&self) -> Reply {
        Reply::page(web::dashboard(self.shared.settings.listen.port()))
    }
}

/// Whether this is a supervisor's probe. It needs no key, as it only tells whether the server is
/// well.
fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// The answer to a web page, or to an operator who uses some other host name.
const HOSTS: &str = "this listener is on loopback: ask for it by its address or as localhost";

/// The answer to a path that does not exist.
const PATHS: &str = "no such path; there are /, /healthz, /readyz, /metrics, /v1/connections, \
                     /v1/connections/{id}, /v1/subjects/{sub}, /v1/channels and /v1/nodes";
