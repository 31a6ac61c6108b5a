//! The workers' threads: how many, on which cores, with which listeners.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::driver::DriverKind;
use super::listeners::Ports;
use super::vital::{Lost, vital};
use super::{ServerError, Shared, sizing};
use crate::auth::Gate;
use crate::config::Settings;
use crate::limits::SLOTS_PER_WORKER_MAX;
use crate::mesh::hand::{Hand, LogHand, SharedLog};
use crate::mesh::{LogEnds, WorkerEnds};
use crate::ring::epoll::EpollDriver;
use crate::ring::tls::{HandshakeConfig, Tls};
use crate::ring::uring::{TABLE_SLOTS_MAX, UringDriver, UringSettings};
use crate::ring::{BellTarget, Driver, DriverSettings, PeerAddresses, StartError};
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
    let (begin, may_begin) = bounded::<Arc<[BellTarget]>>(ends.len());
    let (mut handles, mut bells) = (Vec::new(), Vec::new());
    let peers = plan.peers(&ports, placement.workers());
    let shares = ports.shares(placement.workers())?;
    for (worker, (share, ends)) in shares.into_iter().zip(ends).enumerate() {
        let cpu = placement.cpus[worker];
        let setup = plan.setup(worker as u16)?;
        let metrics = plan.shared.metrics[worker].clone();
        let (kind, sizes) = (plan.shared.driver, plan.driver_settings(peers));
        let (to_log, tell_lost) = (plan.to_log.clone(), plan.tell_lost.clone());
        let (may_begin, handshakes) = (may_begin.clone(), plan.handshakes.clone());
        let hand = LogHand::new(plan.log.clone(), &plan.log_ends);
        let (tell, told) = bounded::<Result<BellTarget, StartError>>(1);
        let body = move || {
            pin(cpu);
            let requests = ends.requests.clone();
            let core = move || {
                let mut core = Core::new(setup, requests, metrics);
                core.log_to(to_log);
                core
            };
            let begins = move |bell| {
                let _ = tell.send(bell);
                // If it is never told to begin, the start has failed elsewhere.
                may_begin.recv().ok()
            };
            match kind {
                DriverKind::IoUring(doorbells) => {
                    let sizes = UringSettings { doorbells, ..sizes.into() };
                    let made = UringDriver::new(&sizes, share);
                    let ready = ready(made, UringDriver::set_bells, begins);
                    ready.map_or(Ok(()), |driver| run(driver, handshakes, (core(), ends, hand)))
                }
                DriverKind::Epoll => {
                    let made = EpollDriver::new(&sizes, share);
                    let ready = ready(made, EpollDriver::set_bells, begins);
                    ready.map_or(Ok(()), |driver| run(driver, handshakes, (core(), ends, hand)))
                }
            }
        };
        let handle = thread::Builder::new()
            .name(format!("worker-{worker}"))
            .spawn(move || vital(tell_lost, body))
            .map_err(|error| ServerError::io("starting a worker's thread", error))?;
        handles.push(handle);
        let bell = told.recv().map_err(|_| {
            ServerError::io("starting a worker", io::Error::other("its thread ended at once"))
        })??;
        bells.push(bell);
    }
    Ok(Started { handles, bells: bells.into(), begin })
}

/// Runs a worker. Without a TLS listener there is no layer of TLS.
fn run<D: Driver, H: Hand>(
    driver: D,
    handshakes: Option<Arc<HandshakeConfig>>,
    (core, ends, hand): (Core, WorkerEnds<Command>, H),
) -> io::Result<()> {
    match handshakes {
        None => Worker::new(driver, core, ends, hand).run(),
        Some(config) => Worker::new(Tls::over(driver, config), core, ends, hand).run(),
    }
}

/// The driver, if it could be made and everything else `begins`, too.
fn ready<D>(
    made: Result<(D, BellTarget), StartError>,
    set_bells: impl FnOnce(&mut D, Arc<[BellTarget]>),
    begins: impl FnOnce(Result<BellTarget, StartError>) -> Option<Arc<[BellTarget]>>,
) -> Option<D> {
    let (mut driver, bell) = match made {
        Ok(made) => made,
        Err(error) => {
            begins(Err(error));
            return None;
        }
    };
    set_bells(&mut driver, begins(Ok(bell))?);
    Some(driver)
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
