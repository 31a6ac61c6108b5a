//! The start of a server. First everything that can be missing is found and bound, then the log is
//! read, then the threads start. Workers accept connections once nothing can fail any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};

use super::backend::Backend;
use super::clerk::{Clerk, LogCommand};
use super::driver::{Choice, Room};
use super::inherited::{Inherited, Source};
use super::listeners::{Listeners, Ports};
use super::node::ForNodes;
use super::store::{Home, Opening, Task};
use super::store_threads::{Reports, StoreThreads};
use super::takeover::{Estate, Succession};
use super::threads::{self, Placement, WorkerPlan};
use super::tls::TlsKeeper;
use super::to_workers::ToWorkers;
use super::vital::Lost;
use super::{
    Server, ServerError, Shared, admin, bell, keep_to_this_machine, log_lines, random, random_bytes,
};
use crate::auth::{Gate, ProofKey};
use crate::cluster::broker::Nodes;
use crate::cluster::metrics::ClusterMetrics;
use crate::config::Settings;
use crate::journal::metrics::JournalMetrics;
use crate::log::message::ToLog;
use crate::log::{Sequencer, SharedHasher};
use crate::mesh::hand::SharedLog;
use crate::mesh::{LogEnds, mesh};
use crate::proto::cursor::Epoch;
use crate::ring::BellTarget;
use crate::web;
use crate::worker::LogLine;
use crate::worker::connection_count::{ByAddress, ConnectionCount};

/// Commands to the clerk that may wait.
const LOG_COMMANDS_WAITING_MAX: usize = 16;

/// What a server is built on.
struct Ground {
    settings: Arc<Settings>,
    placement: Placement,
    driver: Choice,
    room: Room,
    tls: Option<TlsKeeper>,
    ports: Ports,
    admin: admin::Bound,
    estate: Estate,
    source: Option<Source>,
}

/// What threads that run the log have in common.
struct Common {
    shared: Arc<Shared>,
    log: Arc<SharedLog>,
    log_ends: LogEnds,
    requests: Sender<ToLog>,
    tell_lost: Sender<Lost>,
}

impl Server {
    /// Starts everything. When this returns, connections are accepted.
    ///
    /// # Errors
    /// What is missing, what was found instead, and how to cure it.
    pub fn start(settings: Settings, gate: Gate) -> Result<Self, ServerError> {
        Self::start_with(settings, gate, None)
    }

    /// The same on sockets that exist already. If they come from a running server, that one serves
    /// until this one can.
    ///
    /// # Errors
    /// As [`Server::start`]; the other server then carries on.
    pub fn start_with(
        settings: Settings,
        gate: Gate,
        inherited: Option<Inherited>,
    ) -> Result<Self, ServerError> {
        let mut settings = settings.with_demos();
        if let Some(inherited) = &inherited {
            inherited.correct(&mut settings)?;
        }
        let backend = Backend::new();
        let gate = Arc::new(backend.serve(keep_to_this_machine(&settings, gate)?));
        web::prepare();
        let ground = Ground::prepare(settings, &gate, inherited)?;
        let (shared, log, opening) = ground.open_log()?;
        ground.start_threads(shared, log, opening, gate, backend)
    }
}

impl Ground {
    /// Finds out what the host has and the files say, and binds the ports.
    fn prepare(
        mut settings: Settings,
        gate: &Gate,
        inherited: Option<Inherited>,
    ) -> Result<Self, ServerError> {
        let placement = Placement::of(&settings)?;
        let workers = placement.workers();
        let driver = Choice::of(settings.driver, workers)?;
        let room = Room::of(driver.kind, workers)?;
        let tls = TlsKeeper::start(&settings, gate.client_ca())?;
        let (mut inherited, source) = Inherited::into_parts(inherited);
        let admin = inherited.admin.take();
        let ports = Ports::open(inherited, &settings, workers)?;
        // Redirects name this port, and if the kernel has chosen it, it is known only now.
        settings.listen_tls = ports.tls.as_ref().map(Listeners::address);
        let admin = admin::Bound::new(&settings, admin)?;
        let estate = Estate::copy(&ports, admin.listener())?;
        let settings = Arc::new(settings);
        Ok(Self { settings, placement, driver, room, tls, ports, admin, estate, source })
    }

    /// Reads the log, unless another process still has it, and makes what all threads share.
    fn open_log(&self) -> Result<(Arc<Shared>, Sequencer, Opening), ServerError> {
        let Self { settings, placement, driver, room, source, .. } = self;
        let by_address = match settings.address_connections_max {
            Some(_) => ByAddress::Counted,
            None => ByAddress::Ignored,
        };
        let (workers, journal) = (placement.workers(), Arc::<JournalMetrics>::default());
        let (cluster, nodes) = (Arc::<ClusterMetrics>::default(), Nodes::default());
        let home = Home::of(settings, matches!(source, Some(Source::Predecessor(_))))?;
        let hasher = SharedHasher::from_seed(u128::from(random()?) << 64 | u128::from(random()?));
        let epoch = Epoch::from_random(random()?);
        let mut log = Sequencer::new(settings.log_settings(), epoch, workers, hasher.clone());
        let (epoch, opening) = home.open(settings, &journal, &cluster, &nodes, &mut log)?;
        let connection_count =
            ConnectionCount::new(room.within(settings.connections_max), by_address);
        room.prepare(connection_count.max());
        let shared = Arc::new(Shared {
            epoch,
            hasher,
            proof_key: ProofKey::new(&random_bytes()?),
            connection_count: Arc::new(connection_count),
            metrics: (0..workers).map(|_| Arc::default()).collect(),
            journal,
            cluster,
            nodes,
            driver: driver.kind,
            settings: settings.clone(),
        });
        Ok((shared, log, opening))
    }

    fn start_threads(
        self,
        shared: Arc<Shared>,
        log: Sequencer,
        opening: Opening,
        gate: Arc<Gate>,
        mut backend: Backend,
    ) -> Result<Server, ServerError> {
        let Self { settings, placement, driver, room, tls, ports, admin, estate, source } = self;
        let (ends, log_ends, worker_ends) = mesh(placement.workers(), settings.lane_events);
        // Each worker, the clerk and both threads of the store may report one end.
        let (tell_lost, lost) = bounded(usize::from(placement.workers()) + 3);
        let log = SharedLog::new(log, &log_ends);
        let requests = worker_ends[0].requests.clone();
        let common = Common { shared: shared.clone(), log, log_ends, requests, tell_lost };
        let (listen, balances) = (ports.plain.address(), ports.balances(settings.steer)?);
        let (to_log, log_lines) = log_lines::start(&shared)?;
        // The log lines' thread ends with the last worker: the plan is no longer there then.
        let workers = {
            let plan = common.plan(gate.clone(), room.slots, tls.as_ref(), to_log);
            threads::start_workers(&plan, &placement, ports, worker_ends)?
        };
        let (log_commands, clerk) = common.start_clerk(&workers.bells)?;
        let to_workers = ToWorkers::new(ends, bell(&workers.bells)?);
        let mut admin_server = admin::AdminServer::start(
            admin,
            shared.clone(),
            to_workers.clone(),
            log_commands.clone(),
            opening.to_nodes(),
        )?;
        let managed = matches!(source, Some(Source::Manager));
        relieve(source, listen)?;
        let store = common.start_store(opening, &mut admin_server, &workers.bells)?;
        backend.start(&gate, &to_workers)?;
        workers.begin();
        Ok(Server {
            listen,
            admin: admin_server.address(),
            placement,
            driver,
            room,
            to_workers,
            backend,
            listen_tls: settings.listen_tls,
            settings,
            shared,
            balances,
            tls,
            managed,
            succession: Succession::start(listen, estate),
            workers: workers.handles,
            lost,
            log_lines,
            clerk,
            store,
            log_commands,
            admin_server,
        })
    }
}

/// Has the predecessor let go of the journal, if there is one.
fn relieve(source: Option<Source>, address: SocketAddr) -> Result<(), ServerError> {
    let Some(Source::Predecessor(predecessor)) = source else { return Ok(()) };
    predecessor.relieve().map_err(|error| ServerError::TakeOver { address, error })
}

impl Common {
    fn plan(
        &self,
        gate: Arc<Gate>,
        slots: u32,
        tls: Option<&TlsKeeper>,
        to_log: Sender<LogLine>,
    ) -> WorkerPlan<'_> {
        WorkerPlan {
            shared: &self.shared,
            gate,
            slots,
            handshakes: tls.map(TlsKeeper::handshakes),
            to_log,
            tell_lost: self.tell_lost.clone(),
            log: self.log.clone(),
            log_ends: self.log_ends.clone(),
        }
    }

    fn start_clerk(
        &self,
        bells: &[BellTarget],
    ) -> Result<(Sender<LogCommand>, JoinHandle<()>), ServerError> {
        let (log_commands, inbox) = bounded(LOG_COMMANDS_WAITING_MAX);
        let clerk = Clerk::new(self.log.clone(), &self.log_ends, bell(bells)?);
        Ok((log_commands, clerk.start(inbox, self.tell_lost.clone())?))
    }

    /// Starts the store's threads, if the log has such a store. A predecessor has closed its journal
    /// by now.
    fn start_store(
        self,
        opening: Opening,
        admin: &mut admin::AdminServer,
        bells: &[BellTarget],
    ) -> Result<Option<StoreThreads>, ServerError> {
        let reports = || -> Result<Reports, ServerError> {
            Ok(Reports::new(self.requests.clone(), &self.log, &self.log_ends, bell(bells)?))
        };
        Ok(match opening.finish(&self.shared, &self.log)? {
            None => None,
            Some(Task::Keep(opened)) => {
                let reports = [reports()?, reports()?];
                let metrics = self.shared.journal.clone();
                Some(StoreThreads::start(*opened, metrics, reports, self.tell_lost)?)
            }
            Some(Task::Follow(node)) => {
                let server = ForNodes {
                    revoke: admin.revoke(),
                    asked: admin.serve_nodes(node.to_nodes())?,
                    connections: self.shared.connection_count.clone(),
                };
                node.revoke(&server);
                Some(StoreThreads::follow(*node, reports()?, server, self.tell_lost)?)
            }
        })
    }
}
