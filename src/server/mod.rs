//! The server: its threads, what they share, and how they end in order. [`Server::start`] is in `start`.

mod admin;
mod backend;
mod balance;
mod clerk;
mod deadline;
mod door;
mod driver;
mod error;
mod inherited;
mod listeners;
mod log_lines;
mod node;
mod reload;
mod sizing;
mod start;
mod store;
mod store_threads;
mod takeover;
mod threads;
mod tls;
mod to_workers;
mod vital;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use self::backend::Backend;
use self::balance::Balance;
use self::clerk::LogCommand;
use self::driver::{Choice, DriverKind, Room};
pub use self::error::ServerError;
pub use self::inherited::Inherited;
pub use self::reload::Reloaded;
pub use self::sizing::Sizing;
use self::store_threads::StoreThreads;
use self::takeover::Succession;
pub use self::takeover::{Successor, TakeOverError};
use self::threads::Placement;
pub use self::tls::TlsError;
use self::tls::TlsKeeper;
use self::to_workers::ToWorkers;
pub use self::vital::Lost;
use crate::auth::{Gate, ProofKey};
use crate::cluster::broker::Nodes;
use crate::cluster::metrics::ClusterMetrics;
use crate::config::Settings;
use crate::journal::metrics::JournalMetrics;
use crate::log::SharedHasher;
use crate::metrics::{Counter, WorkerMetrics};
use crate::proto::cursor::Epoch;
use crate::ring::{BellTarget, Ringer};
use crate::worker::command::Command;
use crate::worker::connection_count::ConnectionCount;

/// What all threads share.
#[derive(Debug)]
pub struct Shared {
    /// The operator's settings at start.
    pub settings: Arc<Settings>,
    /// Begins every id.
    pub epoch: Epoch,
    /// With a secret seed, so that no client can choose names that collide.
    pub hasher: SharedHasher,
    /// Proves connections' names.
    pub proof_key: ProofKey,
    /// Connections open now, and how many may be.
    pub connection_count: Arc<ConnectionCount>,
    /// The metrics of each worker.
    pub metrics: Vec<Arc<WorkerMetrics>>,
    /// Metrics of the journal's thread; zeros if there is none.
    pub journal: Arc<JournalMetrics>,
    /// A node's; zeros without a broker.
    pub cluster: Arc<ClusterMetrics>,
    /// The nodes of the cluster, this one first; empty without a broker.
    pub nodes: Nodes,
    /// The driver the workers run on.
    pub(crate) driver: DriverKind,
}

/// How often a draining server checks whether its workers are done.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);

/// How long workers may take to hear the connections they have accepted before they are drained
/// anyway.
const RETIRE_TIME_MAX: Duration = Duration::from_secs(2);

/// A running server. Dropping it leaves its threads running: end it by [`Server::drain`] or
/// [`Server::stop`].
pub struct Server {
    listen: SocketAddr,
    admin: SocketAddr,
    placement: Placement,
    driver: Choice,
    room: Room,
    to_workers: ToWorkers,
    /// Asks the operator's backend, if there is one.
    backend: Backend,
    shared: Arc<Shared>,
    /// The operator's settings as of the last reload.
    settings: Arc<Settings>,
    /// Set if connections are spread in a way that can leave workers uneven.
    balances: Vec<Balance>,
    /// `None` without a TLS listener.
    listen_tls: Option<SocketAddr>,
    tls: Option<TlsKeeper>,
    /// Whether the service manager has the listeners, too, and keeps them.
    managed: bool,
    succession: Succession,
    workers: Vec<JoinHandle<()>>,
    lost: Receiver<Lost>,
    log_lines: JoinHandle<()>,
    clerk: JoinHandle<()>,
    /// `None` if the log is in memory.
    store: Option<StoreThreads>,
    log_commands: crossbeam_channel::Sender<LogCommand>,
    admin_server: admin::AdminServer,
}

/// What the end of the server did to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Connections that were cut because the drain time was over.
    pub cut: u64,
}

impl Server {
    /// Reports a worker or log that ended unexpectedly: the process should end, too.
    pub fn lost(&self) -> &Receiver<Lost> {
        &self.lost
    }

    /// Whether workers can become uneven, so that [`Server::keep_balance`] must be called.
    pub(crate) fn needs_balance(&self) -> bool {
        !self.balances.is_empty()
    }

    /// Looks at how many connections each worker has; call it about once a second.
    pub fn keep_balance(&mut self) {
        let open = |of: &Arc<WorkerMetrics>| of.open.iter().map(Counter::value).sum();
        let open: Vec<u64> = self.shared.metrics.iter().map(open).collect();
        self.balances.iter_mut().for_each(|balance| balance.look(&open));
    }

    /// Whether every worker responds; takes up to a second to find out.
    pub(crate) fn workers_turn(&self) -> bool {
        self.admin_server.workers_turn()
    }

    /// The address for clients.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where clients connect with TLS, if there is such a listener.
    pub fn listen_tls(&self) -> Option<SocketAddr> {
        self.listen_tls
    }

    /// Whether there are certificates that may be renewed, so that
    /// [`Server::refresh_certificates`] is to be called.
    pub(crate) fn has_certificates(&self) -> bool {
        self.tls.is_some()
    }

    /// Reads certificates and keys again if their files have changed. Returns whether they have. Should
    /// be called every few seconds.
    ///
    /// # Errors
    /// The new ones cannot be used; those read before stay in use.
    pub fn refresh_certificates(&mut self) -> Result<bool, ServerError> {
        Ok(self.tls.as_mut().map_or(Ok(false), TlsKeeper::refresh)?)
    }

    /// The address for the operator.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// How many workers there are.
    pub fn workers(&self) -> u16 {
        self.placement.workers()
    }

    /// The cores they run on, as in the banner.
    pub fn cores(&self) -> String {
        self.placement.to_string()
    }

    /// The driver they run on: `io_uring` or `epoll`.
    pub fn driver(&self) -> String {
        self.driver.kind.name().to_owned()
    }

    /// Why they run on epoll although that was not asked for, what to allow, and what it costs.
    pub(crate) fn driver_note(&self) -> Option<String> {
        self.driver.note()
    }

    /// What bounds the number of connections.
    pub fn bound(&self) -> String {
        match self.shared.connection_count.max() < self.room.connections() {
            true => "--max-connections".to_owned(),
            false => self.room.to_string(),
        }
    }

    /// How many of the connections the settings ask for there is no room for.
    pub(crate) fn wanting(&self) -> u64 {
        let wanted = self.settings.connections_max.unwrap_or(0);
        wanted.saturating_sub(self.room.connections())
    }

    /// What the threads share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Reports a process that is ready to take over from this one; see [`Server::hand_over`].
    pub(crate) fn successors(&self) -> &Receiver<Successor> {
        self.succession.successors()
    }

    /// Lets the successor begin, and drains. No connection is refused meanwhile, and none waits
    /// longer than it takes to hear those already accepted.
    pub fn hand_over(mut self, successor: &Successor, cut: &Receiver<()>) -> Ended {
        self.admin_server.leave();
        self.retire();
        // A journal has one owner, which must let go of it. A stream can be followed by both processes.
        if self.settings.data_dir.is_some() {
            self.close_store();
        }
        successor.release();
        self.let_go(cut)
    }

    /// Leaves the port, ends connections over the drain time, then ends all threads. `cut` ends the
    /// wait early.
    pub fn drain(mut self, cut: &Receiver<()>) -> Ended {
        self.succession.end();
        if self.managed {
            self.retire();
        }
        self.let_go(cut)
    }

    /// Stops the log from taking events; those it has are safe when this returns.
    fn close_store(&mut self) {
        if let Some(store) = &mut self.store {
            let _ = self.log_commands.send(LogCommand::Close);
            store.join_keeper();
        }
    }

    /// Leaves the listeners to another process; accepted connections are still served.
    fn retire(&self) {
        let (tell, heard) = bounded(self.workers.len());
        self.to_workers.send_all(|| Command::Retire(tell.clone()));
        let deadline = Instant::now() + RETIRE_TIME_MAX;
        // A worker that does not answer in time is drained anyway.
        let answers = self.workers.iter().map_while(|_| heard.recv_deadline(deadline).ok());
        answers.for_each(drop);
    }

    fn let_go(self, cut: &Receiver<()>) -> Ended {
        let deadline = Instant::now() + self.settings.drain_time;
        self.admin_server.note_draining();
        self.to_workers.send_all(|| Command::Drain);
        while Instant::now() < deadline && self.workers.iter().any(|worker| !worker.is_finished()) {
            match cut.recv_timeout(DRAIN_PAUSE) {
                Ok(()) => break,
                Err(RecvTimeoutError::Timeout) => {}
                // The sender is gone, so the wait can no longer be cut short.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(DRAIN_PAUSE),
            }
        }
        self.end()
    }

    /// Cuts all connections and ends all threads.
    pub fn stop(self) -> Ended {
        self.end()
    }

    fn end(mut self) -> Ended {
        self.succession.end();
        let cut = self.shared.connection_count.open();
        self.to_workers.send_all(|| Command::Stop);
        for worker in self.workers.drain(..) {
            // If it panicked, `lost` has reported that.
            let _ = worker.join();
        }
        self.close_store();
        if let Some(store) = self.store.take() {
            store.end();
        }
        let _ = self.log_lines.join();
        let _ = self.log_commands.send(LogCommand::Stop);
        let _ = self.clerk.join();
        self.admin_server.stop();
        Ended { cut }
    }
}

/// Without keys everyone may do everything. That is restricted to programs and web pages of this
/// machine, unless the operator says otherwise.
fn keep_to_this_machine(settings: &Settings, gate: Gate) -> Result<Gate, ServerError> {
    let listen = settings.listen_tls.filter(|tls| !tls.ip().is_loopback());
    let listen = listen.unwrap_or(settings.listen);
    match (gate.is_open() && !settings.open, settings.is_on_loopback()) {
        (false, _) => Ok(gate),
        (true, true) => Ok(gate.for_this_machine()),
        (true, false) => Err(ServerError::OpenToTheWorld { listen }),
    }
}

fn bell(targets: &[BellTarget]) -> Result<Ringer, ServerError> {
    Ringer::new(targets.to_vec()).map_err(|error| ServerError::io("doorbells", error))
}

fn random() -> Result<u64, ServerError> {
    random_bytes().map(u64::from_ne_bytes)
}

fn random_bytes<const N: usize>() -> Result<[u8; N], ServerError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| ServerError::io("random numbers", std::io::Error::other(error)))?;
    Ok(bytes)
}
