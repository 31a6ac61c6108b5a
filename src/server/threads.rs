//! The workers' threads: how many, on which cores, with which listeners.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use socket2::Socket;

use super::balance::Balance;
use super::vital::{Lost, vital};
use super::{ServerError, Shared, sizing};
use crate::auth::Gate;
use crate::config::{Settings, Steer};
use crate::mesh::WorkerEnds;
use crate::ring::uring::{UringDriver, UringSettings};
use crate::ring::{
    BellTarget, Doorbells, ListenOptions, PeerAddresses, StartError, listen, steer_by_cpu,
};
use crate::worker::Worker;
use crate::worker::core::{Core, Setup};
use crate::worker::remark::Remark;

/// Receive buffers of a worker, and bytes of each: most requests fit one. They are touched in turn,
/// so all of them count: 256 KiB a worker, 15 bytes a connection at 17,000 each.
const RECV_BUFFERS: u16 = 128;
/// See `RECV_BUFFERS`.
const RECV_BUFFER_BYTES: u32 = 2048;

/// How long a start waits for its port: a killed server's 20,000 connections keep it for half a
/// second here.
const BIND_TIME_MAX: Duration = Duration::from_secs(3);
/// Pause between two tries.
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// Which worker runs on which core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// A core for each worker; none: wherever the kernel likes.
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

/// How long a connection that says nothing is left to the kernel: nearly every client sends its
/// request right behind the handshake, and accepting both together costs a worker a tenth less.
const DEFER_ACCEPT: Duration = Duration::from_secs(1);

/// One listener per worker, all on one port.
#[derive(Debug)]
pub(super) struct Listeners {
    address: SocketAddr,
    sockets: Vec<Socket>,
}

impl Listeners {
    pub fn bind(settings: &Settings, workers: u16) -> Result<Self, ServerError> {
        let bind_error = |error| ServerError::Bind { address: settings.listen, error };
        // With SO_REUSEPORT a second server of the same user would share the port and nobody
        // would be told; without it, binding fails if anyone listens there.
        let trial = bind_patiently(settings.listen).map_err(bind_error)?;
        let address = trial.local_addr().map_err(bind_error)?;
        drop(trial);
        let options = ListenOptions {
            reuse_port: true,
            // The kernel takes the smaller of this and net.core.somaxconn.
            backlog: i32::MAX,
            send_buffer_bytes: settings.send_buffer,
            unsent_bytes: settings.unsent,
            recv_buffer_bytes: None,
            user_timeout: Some(settings.dead_time),
            nodelay: true,
            defer_accept: Some(DEFER_ACCEPT),
        };
        let sockets: io::Result<Vec<Socket>> =
            (0..workers).map(|_| listen(address, &options)).collect();
        let sockets = sockets.map_err(bind_error)?;
        if settings.steer == Steer::Cpu {
            let steered = sockets.first().map(|first| steer_by_cpu(first, workers));
            steered.transpose().map_err(|error| ServerError::io("steering by core", error))?;
        }
        Ok(Self { address, sockets })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What keeps workers balanced, if these are steered in a way that needs it.
    pub fn balance(&self, steer: Steer) -> Result<Option<Balance>, ServerError> {
        let steered = self.sockets.first().filter(|_| steer == Steer::Cpu);
        let listener = steered.map(Socket::try_clone).transpose();
        let listener = listener.map_err(|error| ServerError::io("sharing a listener", error))?;
        Ok(listener.map(|listener| Balance::new(listener, self.sockets.len() as u16)))
    }
}

/// The kernel takes a ring apart after its process is gone, and with it the listener of a server
/// that was killed under many connections: who is started again at once finds the port in use.
fn bind_patiently(address: SocketAddr) -> io::Result<TcpListener> {
    let deadline = Instant::now() + BIND_TIME_MAX;
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(BIND_PAUSE);
            }
            bound => return bound,
        }
    }
}

/// What all workers are made with.
pub(super) struct WorkerPlan<'a> {
    pub shared: &'a Shared,
    pub gate: Arc<Gate>,
    pub slots: u32,
    pub doorbells: Doorbells,
    pub remarks: Sender<Remark>,
    pub tell_lost: Sender<Lost>,
}

/// Workers that run.
pub(super) struct Started {
    pub handles: Vec<JoinHandle<()>>,
    pub bells: Vec<BellTarget>,
}

/// Starts the workers; each makes its own ring, on its own thread and core.
pub(super) fn start_workers(
    plan: &WorkerPlan<'_>,
    placement: &Placement,
    listeners: Listeners,
    ends: Vec<WorkerEnds>,
) -> Result<Started, ServerError> {
    let mut started = Started { handles: Vec::new(), bells: Vec::new() };
    for (worker, (listener, ends)) in listeners.sockets.into_iter().zip(ends).enumerate() {
        let cpu = placement.cpus[worker];
        let setup = plan.setup(worker as u16)?;
        let metrics = plan.shared.metrics[worker].clone();
        let ring = UringSettings {
            slots: plan.slots,
            peers: plan.peers(),
            doorbells: plan.doorbells,
            recv_buffers: RECV_BUFFERS,
            recv_buffer_bytes: RECV_BUFFER_BYTES,
            ..UringSettings::default()
        };
        let remarks = plan.remarks.clone();
        let tell_lost = plan.tell_lost.clone();
        let (tell, told) = bounded::<Result<BellTarget, StartError>>(1);
        let body = move || {
            pin(cpu);
            let (driver, bell) = match UringDriver::new(&ring, listener) {
                Ok(made) => made,
                Err(error) => {
                    let _ = tell.send(Err(error));
                    return Ok(());
                }
            };
            let mut core = Core::new(setup, ends.requests.clone(), metrics);
            core.remark_to(remarks);
            if tell.send(Ok(bell)).is_err() {
                return Ok(());
            }
            Worker::new(driver, core, ends).run()
        };
        let handle = thread::Builder::new()
            .name(format!("worker-{worker}"))
            .spawn(move || vital(tell_lost, body))
            .map_err(|error| ServerError::io("starting a worker's thread", error))?;
        started.handles.push(handle);
        let bell = told.recv().map_err(|_| {
            ServerError::io("starting a worker", io::Error::other("its thread ended at once"))
        })??;
        started.bells.push(bell);
    }
    Ok(started)
}

impl WorkerPlan<'_> {
    /// Addresses cost an accept of their own each: only who counts connections or failed checks by
    /// them asks for them.
    fn peers(&self) -> PeerAddresses {
        match self.shared.settings.address_connections_max.is_some() || self.gate.is_slow() {
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
            census: self.shared.census.clone(),
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
    // The core was among the allowed ones a moment ago; if it no longer is, running elsewhere is
    // better than not running.
    let _ = sched_setaffinity(None, &set);
}
