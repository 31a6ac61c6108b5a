//! The workers' threads: how many, on which cores, with which listeners.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::driver::DriverKind;
use super::listeners::Ports;
use super::vital::{Lost, vital};
use super::{ServerError, Shared, sizing};
use crate::auth::Gate;
use crate::config::Settings;
use crate::limits::SLOTS_PER_WORKER_MAX;
use crate::mesh::hand::{LogHand, SharedLog};
use crate::mesh::{LogEnds, WorkerEnds};
use crate::metrics::WorkerMetrics;
use crate::ring::epoll::EpollDriver;
use crate::ring::tls::{HandshakeConfig, Tls};
use crate::ring::uring::{TABLE_SLOTS_MAX, UringDriver, UringSettings};
use crate::ring::{BellTarget, Driver, DriverSettings, Listener, PeerAddresses, StartError};
use crate::worker::command::Command;
use crate::worker::{Core, LogLine, Setup, Worker};

/// A worker's receive buffers: how many, and bytes of each, so that most requests fit one. They are
/// used in turn, so all of them take memory: 256 KiB a worker, 15 bytes a connection at 17,000
/// each.
const RECV_BUFFERS: u16 = 128;
/// See `RECV_BUFFERS`.
const RECV_BUFFER_BYTES: u32 = 2048;

const _: () = assert!(SLOTS_PER_WORKER_MAX <= TABLE_SLOTS_MAX);

/// Which worker runs on which core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// A core for each worker; `None`: any core the kernel likes.
    cpus: Vec<Option<usize>>,
}

impl Placement {
    pub fn of(settings: &Settings) -> Result<Self, ServerError> {
        let allowed = allowed_cpus()?;
        let cores = sizing::cores(settings, allowed.len());
        let workers = settings.workers.map_or(cores, usize::from);
        let Some(wanted) = &settings.cpus else { return Ok(Self { cpus: vec![None; workers] }) };
        if let Some(&cpu) = wanted.iter().find(|cpu| !allowed.contains(cpu)) {
            return Err(ServerError::NoSuchCpu { cpu });
        }
        let cpus = if wanted.is_empty() { &allowed } else { wanted };
        Ok(Self { cpus: cpus.iter().cycle().take(workers).map(|&cpu| Some(cpu)).collect() })
    }

    pub fn workers(&self) -> u16 {
        self.cpus.len() as u16
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus: Vec<usize> = self.cpus.iter().copied().flatten().collect();
        cpus.sort_unstable();
        cpus.dedup();
        match cpus.as_slice() {
            [] => write!(f, "any core"),
            [cpu] => write!(f, "core {cpu}"),
            [first, .., last] if last - first + 1 == cpus.len() => {
                write!(f, "cores {first}-{last}")
            }
            _ => {
                let list: Vec<String> = cpus.iter().map(ToString::to_string).collect();
                write!(f, "cores {}", list.join(","))
            }
        }
    }
}

pub(super) fn allowed_cpus() -> Result<Vec<usize>, ServerError> {
    let set = sched_getaffinity(None)
        .map_err(|error| ServerError::io("asking for the cores to run on", error.into()))?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// What all workers are made with.
pub(super) struct WorkerPlan<'a> {
    pub shared: &'a Shared,
    pub gate: Arc<Gate>,
    pub slots: u32,
    /// How workers make TLS handshakes, where there is a TLS listener.
    pub handshakes: Option<Arc<HandshakeConfig>>,
    pub to_log: Sender<LogLine>,
    pub tell_lost: Sender<Lost>,
    pub log: Arc<SharedLog>,
    pub log_ends: LogEnds,
}

/// Workers that have their rings and wait to begin.
pub(super) struct Started {
    pub handles: Vec<JoinHandle<()>>,
    pub bells: Arc<[BellTarget]>,
    begin: Sender<Arc<[BellTarget]>>,
}

impl Started {
    /// Makes them accept.
    pub fn begin(&self) {
        for _ in &self.handles {
            // The lane has room, and a worker that has ended need not be told.
            let _ = self.begin.try_send(self.bells.clone());
        }
    }
}

/// Starts the workers; each makes its own driver on its own thread and core. Any of them may ring
/// any other, so they are told all doorbells when they begin.
pub(super) fn start_workers(
    plan: &WorkerPlan<'_>,
    placement: &Placement,
    ports: Ports,
    ends: Vec<WorkerEnds<Command>>,
) -> Result<Started, ServerError> {
    let (begin, may_begin) = bounded(ends.len());
    let (mut handles, mut bells) = (Vec::new(), Vec::new());
    let peers = plan.peers(&ports, placement.workers());
    let shares = ports.shares(placement.workers())?;
    for ((worker, ends), share) in (0..).zip(ends).zip(shares) {
        let (tell, told) = bounded(1);
        let cpu = placement.cpus[usize::from(worker)];
        let new = plan.new_worker(worker, ends, tell, may_begin.clone())?;
        let (sizes, tell_lost) = (plan.driver_settings(peers), plan.tell_lost.clone());
        let handle = thread::Builder::new()
            .name(format!("worker-{worker}"))
            .spawn(move || vital(tell_lost, move || new.run(cpu, sizes, share)))
            .map_err(|error| ServerError::io("starting a worker's thread", error))?;
        handles.push(handle);
        let bell = told.recv().map_err(|_| {
            ServerError::io("starting a worker", io::Error::other("its thread ended at once"))
        })??;
        bells.push(bell);
    }
    Ok(Started { handles, bells: bells.into(), begin })
}

/// A worker without a driver.
struct NewWorker {
    kind: DriverKind,
    setup: Setup,
    metrics: Arc<WorkerMetrics>,
    ends: WorkerEnds<Command>,
    hand: LogHand,
    handshakes: Option<Arc<HandshakeConfig>>,
    to_log: Sender<LogLine>,
    /// Takes its doorbell, or why it has no driver.
    tell: Sender<Result<BellTarget, StartError>>,
    /// Brings all doorbells, once nothing else can fail.
    may_begin: Receiver<Arc<[BellTarget]>>,
}

impl NewWorker {
    fn run(
        self,
        cpu: Option<usize>,
        sizes: DriverSettings,
        share: Vec<Listener>,
    ) -> io::Result<()> {
        pin(cpu);
        match self.kind {
            DriverKind::IoUring(doorbells) => {
                let sizes = UringSettings { doorbells, ..sizes.into() };
                self.run_on(UringDriver::new(&sizes, share), UringDriver::set_bells)
            }
            DriverKind::Epoll => {
                self.run_on(EpollDriver::new(&sizes, share), EpollDriver::set_bells)
            }
        }
    }

    /// Returns at once if there is no driver, or if the start fails elsewhere.
    fn run_on<D: Driver>(
        self,
        made: Result<(D, BellTarget), StartError>,
        set_bells: impl FnOnce(&mut D, Arc<[BellTarget]>),
    ) -> io::Result<()> {
        let (tell, may_begin) = (self.tell, self.may_begin);
        let mut driver = match made {
            Ok((driver, bell)) => {
                let _ = tell.send(Ok(bell));
                driver
            }
            Err(error) => {
                let _ = tell.send(Err(error));
                return Ok(());
            }
        };
        let Ok(bells) = may_begin.recv() else { return Ok(()) };
        set_bells(&mut driver, bells);
        let mut core = Core::new(self.setup, self.ends.requests.clone(), self.metrics);
        core.log_to(self.to_log);
        // Without a TLS listener there is no layer of TLS.
        match self.handshakes {
            None => Worker::new(driver, core, self.ends, self.hand).run(),
            Some(config) => {
                Worker::new(Tls::over(driver, config), core, self.ends, self.hand).run()
            }
        }
    }
}

impl WorkerPlan<'_> {
    fn driver_settings(&self, peers: PeerAddresses) -> DriverSettings {
        DriverSettings {
            slots: self.slots,
            recv_buffers: RECV_BUFFERS,
            recv_buffer_bytes: RECV_BUFFER_BYTES,
            peers,
        }
    }

    /// Addresses cost io_uring a separate accept for each connection, so they are only asked for by
    /// a server that counts connections or failed checks by address, shows addresses, or trusts
    /// some peers as proxies.
    fn peers(&self, ports: &Ports, workers: u16) -> PeerAddresses {
        let settings = &self.shared.settings;
        let counts = settings.address_connections_max.is_some() || self.gate.is_slow();
        let shows = settings.log_lines.access || !settings.trusted_proxies.is_empty();
        match counts || shows || ports.are_shared(workers) {
            true => PeerAddresses::Wanted,
            false => PeerAddresses::Unknown,
        }
    }

    fn new_worker(
        &self,
        worker: u16,
        ends: WorkerEnds<Command>,
        tell: Sender<Result<BellTarget, StartError>>,
        may_begin: Receiver<Arc<[BellTarget]>>,
    ) -> Result<NewWorker, ServerError> {
        Ok(NewWorker {
            kind: self.shared.driver,
            setup: self.setup(worker)?,
            metrics: self.shared.metrics[usize::from(worker)].clone(),
            ends,
            hand: LogHand::new(self.log.clone(), &self.log_ends),
            handshakes: self.handshakes.clone(),
            to_log: self.to_log.clone(),
            tell,
            may_begin,
        })
    }

    fn setup(&self, worker: u16) -> Result<Setup, ServerError> {
        Ok(Setup {
            worker,
            epoch: self.shared.epoch,
            hasher: self.shared.hasher.clone(),
            proof_key: self.shared.proof_key.clone(),
            settings: self.shared.settings.clone(),
            connection_count: self.shared.connection_count.clone(),
            slots: self.slots,
            gate: self.gate.clone(),
            seed: super::random()?,
        })
    }
}

fn pin(cpu: Option<usize>) {
    let Some(cpu) = cpu else { return };
    let mut set = CpuSet::new();
    set.set(cpu);
    // The core was allowed a moment ago; if it no longer is, running on another is better than not
    // running.
    let _ = sched_setaffinity(None, &set);
}
