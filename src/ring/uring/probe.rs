//! What the driver needs from the kernel.

use std::sync::mpsc;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};

use super::bell::BellEnd;
use super::buffers::Buffers;
use super::setup::{self, try_rings};
use super::submit::Ring;
use super::user_data::BELL;
use crate::ring::kernel::{self, KernelVersion, URING_SINCE};
use crate::ring::{Bell, Doorbells, Ringer, StartError, Wait};

/// How long the trial doorbell may take before it counts as lost.
const TRIAL_RING_TIMEOUT: Duration = Duration::from_millis(500);

/// Operations we use, by the names the manual gives them.
const OPERATIONS: [(u8, &str); 9] = [
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::Close::CODE, "CLOSE"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::Shutdown::CODE, "SHUTDOWN"),
    (opcode::MsgRingData::CODE, "MSG_RING"),
    (opcode::Read::CODE, "READ"),
];

/// What the probe found. Everything needed is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelReport {
    /// `uname -r`.
    pub release: String,
    /// Its leading numbers.
    pub version: KernelVersion,
    /// How workers are to be woken: `MSG_RING` if a trial ring arrived.
    pub doorbells: Doorbells,
}

/// Finds out by trial whether this many workers can run on io_uring here, and how they are to be
/// woken.
///
/// # Errors
/// What is missing.
pub fn try_io_uring(workers: u16) -> Result<Doorbells, StartError> {
    let KernelReport { doorbells, .. } = probe()?;
    try_rings(workers)?;
    Ok(doorbells)
}

/// Finds out by trial whether the kernel has all the driver needs. Makes and drops small rings and
/// a thread; call it once at start.
///
/// # Errors
/// What is missing.
pub fn probe() -> Result<KernelReport, StartError> {
    let release = kernel::release();
    let version = KernelVersion::of(&release);
    if version < URING_SINCE {
        return Err(StartError::KernelTooOld { release });
    }
    let ring = setup::build(2, 4)?;
    check_features(&ring, &release)?;
    check_operations(&ring, &release)?;
    ring.submitter()
        .register_files_sparse(1)
        .map_err(|error| StartError::of("registering a descriptor table", error))?;
    Buffers::register(&ring, 1, 1)
        .map(|buffers| {
            drop(ring);
            drop(buffers);
        })
        .map_err(|error| StartError::of("registering receive buffers", error))?;
    let doorbells = match trial_ring() {
        Ok(true) => Doorbells::MsgRing,
        Ok(false) => Doorbells::EventFd,
        Err(error) => return Err(error),
    };
    Ok(KernelReport { release, version, doorbells })
}

fn check_features(ring: &IoUring, release: &str) -> Result<(), StartError> {
    let params = ring.params();
    let needed = [
        (params.is_feature_nodrop(), "NODROP"),
        (params.is_feature_ext_arg(), "EXT_ARG"),
        (params.is_feature_fast_poll(), "FAST_POLL"),
        (params.is_feature_skip_cqe_on_success(), "CQE_SKIP"),
    ];
    let names = missing(needed);
    if names.is_empty() {
        return Ok(());
    }
    Err(StartError::NoFeatures { names, release: release.to_owned() })
}

fn check_operations(ring: &IoUring, release: &str) -> Result<(), StartError> {
    let mut found = Probe::new();
    ring.submitter()
        .register_probe(&mut found)
        .map_err(|error| StartError::of("asking which operations there are", error))?;
    let names = missing(OPERATIONS.map(|(code, name)| (found.is_supported(code), name)));
    if names.is_empty() {
        return Ok(());
    }
    Err(StartError::NoOperations { names, release: release.to_owned() })
}

fn missing<const N: usize>(needed: [(bool, &str); N]) -> String {
    let missing: Vec<&str> = needed.iter().filter(|(is, _)| !is).map(|(_, name)| *name).collect();
    missing.join(" ")
}

/// Rings a ring like a worker's while its thread sleeps in it. Kernels differ in whether `MSG_RING`
/// reaches a ring that defers its work, so only a trial can tell.
fn trial_ring() -> Result<bool, StartError> {
    let (sender, receiver) = mpsc::channel();
    let sleeper = std::thread::Builder::new().spawn(move || -> Result<bool, StartError> {
        let mut ring = Ring::new(setup::build(2, 4)?);
        let (_end, target) = BellEnd::new(Doorbells::MsgRing, ring.fd())
            .map_err(|error| StartError::of("making the trial doorbell", error))?;
        if sender.send(target).is_err() {
            return Ok(false);
        }
        ring.enter(Wait::AtMost(TRIAL_RING_TIMEOUT))
            .map_err(|error| StartError::of("waiting for the trial doorbell", error))?;
        Ok(ring.completions().any(|entry| entry.user_data() == BELL))
    });
    let sleeper = sleeper.map_err(|_| StartError::NoThreads)?;
    if let Ok(target) = receiver.recv() {
        let mut bell = Ringer::new(vec![target]).map_err(StartError::of_setup)?;
        bell.ring(0);
        bell.flush();
    }
    sleeper.join().unwrap_or(Ok(false))
}
