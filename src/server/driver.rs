//! Which driver the workers run on and why, and how many connections it has room for.

use std::fmt;

use super::ServerError;
use super::error::MORE_FILES;
use crate::config::DriverWanted;
use crate::host::{EPOLL_WATCHES, Host};
use crate::limits::{
    DESCRIPTORS_PER_WORKER, DESCRIPTORS_RESERVED, SLOTS_PER_WORKER_MAX, SLOTS_RESERVED,
    WATCHES_PER_WORKER,
};
use crate::ring::{Doorbells, StartError, descriptors_max, grow_descriptor_table, try_io_uring};

/// From the README's table of both drivers (`scripts/bench-drivers`), to which a test compares it.
const EPOLL_COSTS: &str = "all works, but a broadcast to readers on the server's own cores takes \
                           1.2 times the CPU, connecting 1.0 times, a POST 1.1 times, a \
                           WebSocket echo 1.2 times";

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
        match try_io_uring(workers) {
            Ok(doorbells) => Ok(Self { kind: DriverKind::IoUring(doorbells), refusal: None }),
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

/// How many connections there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    bound: Bound,
    workers: u16,
    /// Connections one worker can hold, including those it refuses.
    pub slots: u32,
}

/// What bounds the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A ring has a table of its own, as large as the limit of open files.
    FilesPerRing(u64),
    /// With epoll, all sockets share the process's table.
    Files(u64),
    /// And the user's watches.
    Watches(u64),
}

impl Room {
    pub fn of(kind: DriverKind, workers: u16) -> Result<Self, ServerError> {
        let files = descriptors_max()?;
        let watches = Host::live().epoll_watches_max();
        let room = match kind {
            DriverKind::IoUring(_) => Self::within_bound(Bound::FilesPerRing(files), workers),
            DriverKind::Epoll => Self::on_epoll(files, watches, workers),
        };
        if room.slots <= SLOTS_RESERVED {
            return Err(ServerError::NoRoom { bound: room.bound, workers });
        }
        Ok(room)
    }

    /// On epoll the scarcer of the two decides.
    fn on_epoll(files: u64, watches: Option<u64>, workers: u16) -> Self {
        let by_files = Self::within_bound(Bound::Files(files), workers);
        let by_watches = watches.map(|it| Self::within_bound(Bound::Watches(it), workers));
        by_watches.filter(|it| it.slots < by_files.slots).unwrap_or(by_files)
    }

    fn within_bound(bound: Bound, workers: u16) -> Self {
        let slots = u32::try_from(bound.slots(workers.into())).unwrap_or(u32::MAX);
        Self { bound, workers, slots: slots.min(SLOTS_PER_WORKER_MAX) }
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
        if !matches!(self.bound, Bound::FilesPerRing(_)) {
            grow_descriptor_table(connections.saturating_add(DESCRIPTORS_RESERVED));
        }
    }
}

impl Bound {
    /// What that leaves for the connections of each worker.
    fn slots(self, workers: u64) -> u64 {
        match self {
            Self::FilesPerRing(files) => files,
            Self::Files(files) => {
                files.saturating_sub(DESCRIPTORS_RESERVED + workers * DESCRIPTORS_PER_WORKER)
                    / workers
            }
            Self::Watches(watches) => {
                watches.saturating_sub(workers * WATCHES_PER_WORKER) / workers
            }
        }
    }

    /// How to raise it.
    pub fn cure(self) -> &'static str {
        match self {
            Self::FilesPerRing(_) | Self::Files(_) => MORE_FILES,
            Self::Watches(_) => "raise it (sysctl -w)",
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FilesPerRing(files) => write!(f, "RLIMIT_NOFILE {files} per ring"),
            Self::Files(files) => write!(f, "RLIMIT_NOFILE {files} for all workers"),
            Self::Watches(watches) => write!(f, "{EPOLL_WATCHES} {watches} for all workers"),
        }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, less {SLOTS_RESERVED} of each worker for refusals", self.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_has_all_descriptors_and_workers_on_epoll_share_them() {
        let ring = |files| Room::within_bound(Bound::FilesPerRing(files), 4).slots;
        let epoll = |files| Room::on_epoll(files, None, 4).slots;
        assert_eq!(ring(1024), 1024);
        assert_eq!(epoll(1024), (1024 - 64 - 4 * 6) / 4);
        assert_eq!(epoll(64), 0);
        assert_eq!([ring(u64::MAX), epoll(u64::MAX)], [SLOTS_PER_WORKER_MAX; 2]);
    }

    #[test]
    fn on_epoll_no_more_connections_are_admitted_than_can_be_watched() {
        let room = |watches| Room::on_epoll(20_000, Some(watches), 2);
        assert_eq!(room(1_811_240), Room::on_epoll(20_000, None, 2));
        assert_eq!(room(5_000).slots, (5_000 - 2 * 3) / 2);
        let told = room(5_000).to_string();
        assert!(told.starts_with("fs.epoll.max_user_watches 5000 for all workers"), "{told}");
    }
}
