//! Which driver the workers run on and why, and how many connections it has room for.

use std::fmt;

use super::ServerError;
use crate::config::DriverWanted;
use crate::limits::{
    DESCRIPTORS_PER_WORKER, DESCRIPTORS_RESERVED, SLOTS_PER_WORKER_MAX, SLOTS_RESERVED,
};
use crate::ring::{Doorbells, StartError, descriptors_max, grow_descriptor_table, uring};

/// Measured: a broadcast to 15,000 readers on two shared cores took 1.24 times as long as with
/// io_uring.
const EPOLL_COSTS: &str = "all works, and costs about the same but for a broadcast to clients on \
                           this host's own cores (a quarter more)";

/// What the workers run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverKind {
    IoUring(Doorbells),
    Epoll,
}

impl DriverKind {
    /// Its name in log lines and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::IoUring(_) => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// The driver that was chosen.
#[derive(Debug)]
pub(super) struct Choice {
    pub kind: DriverKind,
    /// Why it is not io_uring, if that was wanted.
    pub refusal: Option<StartError>,
}

impl Choice {
    pub fn of(wanted: DriverWanted, workers: u16) -> Result<Self, ServerError> {
        if wanted == DriverWanted::Epoll {
            return Ok(Self { kind: DriverKind::Epoll, refusal: None });
        }
        match uring::probe().and_then(|kernel| uring::try_rings(workers).map(|()| kernel)) {
            Ok(kernel) => Ok(Self { kind: DriverKind::IoUring(kernel.doorbells), refusal: None }),
            Err(error) if wanted == DriverWanted::Auto => {
                Ok(Self { kind: DriverKind::Epoll, refusal: Some(error) })
            }
            Err(error) => Err(ServerError::NoIoUring(error)),
        }
    }

    /// What to tell an operator who may not expect epoll: the cause, the cure, and the cost.
    pub fn note(&self) -> Option<String> {
        let refusal = self.refusal.as_ref()?;
        Some(format!("running on epoll: {refusal}; until then, {EPOLL_COSTS}"))
    }
}

/// How many connections there are descriptors for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    kind: DriverKind,
    files: u64,
    workers: u16,
    /// Connections one worker can hold, including those it refuses.
    pub slots: u32,
}

impl Room {
    pub fn of(kind: DriverKind, workers: u16) -> Result<Self, ServerError> {
        let files = descriptors_max()?;
        let slots = slots(kind, files, workers);
        if slots <= SLOTS_RESERVED {
            return Err(ServerError::NoRoom { files, workers });
        }
        Ok(Self { kind, files, workers, slots })
    }

    /// Connections there is room for.
    pub fn connections(&self) -> u64 {
        u64::from(self.slots.saturating_sub(SLOTS_RESERVED)) * u64::from(self.workers)
    }

    /// The same, but no more than the operator's limit.
    pub fn within(&self, connections_max: Option<u64>) -> u64 {
        connections_max.unwrap_or(u64::MAX).min(self.connections())
    }

    /// Prepares the process for this many connections.
    pub fn prepare(&self, connections: u64) {
        if self.kind == DriverKind::Epoll {
            grow_descriptor_table(self.files.min(connections.saturating_add(DESCRIPTORS_RESERVED)));
        }
    }
}

/// A ring has a table of its own, as large as the limit; with epoll, all sockets share the
/// process's table.
fn slots(kind: DriverKind, files: u64, workers: u16) -> u32 {
    let workers = u64::from(workers);
    let slots = match kind {
        DriverKind::IoUring(_) => files,
        DriverKind::Epoll => {
            files.saturating_sub(DESCRIPTORS_RESERVED + workers * DESCRIPTORS_PER_WORKER) / workers
        }
    };
    u32::try_from(slots).unwrap_or(u32::MAX).min(SLOTS_PER_WORKER_MAX)
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files;
        match self.kind {
            DriverKind::IoUring(_) => {
                write!(f, "RLIMIT_NOFILE {files} per ring, less {SLOTS_RESERVED} for refusals")
            }
            DriverKind::Epoll => write!(
                f,
                "RLIMIT_NOFILE {files} for all workers, each less {SLOTS_RESERVED} for refusals"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_has_all_descriptors_and_workers_on_epoll_share_them() {
        let ring = DriverKind::IoUring(Doorbells::MsgRing);
        assert_eq!(slots(ring, 1024, 4), 1024);
        assert_eq!(slots(DriverKind::Epoll, 1024, 4), (1024 - 64 - 4 * 4) / 4);
        assert_eq!(slots(DriverKind::Epoll, 64, 4), 0);
        for kind in [ring, DriverKind::Epoll] {
            assert_eq!(slots(kind, u64::MAX, 2), SLOTS_PER_WORKER_MAX);
        }
    }
}
