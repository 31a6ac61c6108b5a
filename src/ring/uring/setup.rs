//! Making a ring: flags, descriptor table, buffers, doorbell.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::IoUring;
use io_uring::types::CancelBuilder;

use super::UringDriver;
use super::accept::Acceptor;
use super::bell::BellEnd;
use super::buffers::{BUFFERS_MAX, Buffers};
use super::reap::{Rearm, State};
use super::receive::Multishots;
use super::release::Release;
use super::slots::Slots;
use super::submit::Ring;
use super::user_data::SLOTS_MAX;
use crate::ring::{
    BellTarget, Doorbells, DriverSettings, KernelVersion, Listener, PeerAddresses, StartError,
    Token, Wait, descriptors_max,
};

/// Direct descriptors a ring can have (`IORING_MAX_FIXED_FILES` in the kernel).
pub const TABLE_SLOTS_MAX: u32 = 1 << 20;
const _: () = assert!(TABLE_SLOTS_MAX <= SLOTS_MAX);

/// How long the end of a driver waits for a shutdown that runs on a kernel thread, in seconds.
const CANCEL_SECONDS_MAX: u64 = 1;

/// How long making a ring waits for the locked memory of rings that have just ended: the kernel
/// gives it back on a thread of its own.
const MEMORY_PATIENCE: Duration = Duration::from_millis(500);

/// Pause between two attempts.
const MEMORY_PAUSE: Duration = Duration::from_millis(10);

/// Sizes of one worker's ring. All of it is paid once per worker, whatever it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UringSettings {
    /// Direct descriptors: connections this worker can hold. At most `RLIMIT_NOFILE`, which here
    /// counts per ring.
    pub slots: u32,
    /// Submission queue entries (64 bytes each, a power of two). Longer batches take more calls.
    pub entries: u32,
    /// Completion queue entries (16 bytes each, a power of two, not below `entries`). If more
    /// completions come at once, the kernel parks them, at extra cost.
    pub cq_entries: u32,
    /// Provided receive buffers, a power of two up to 32,768.
    pub recv_buffers: u16,
    /// Bytes of each.
    pub recv_buffer_bytes: u32,
    /// Connections that may have a multishot receive armed. It costs less than a poll and a receive
    /// each time the connection is heard, but 612 bytes more of kernel memory.
    pub multishots: u16,
    /// Whether connections are reported with their peer's address.
    pub peers: PeerAddresses,
    /// How this worker is woken; take it from [`super::KernelReport`].
    pub doorbells: Doorbells,
}

impl Default for UringSettings {
    /// 64 KiB + 128 KiB of queues and 1 MiB of buffers that are touched only when data arrives.
    fn default() -> Self {
        UringSettings {
            slots: 16_384,
            entries: 1024,
            cq_entries: 8192,
            recv_buffers: 256,
            recv_buffer_bytes: 4096,
            multishots: 1024,
            peers: PeerAddresses::Unknown,
            doorbells: Doorbells::MsgRing,
        }
    }
}

impl From<DriverSettings> for UringSettings {
    fn from(settings: DriverSettings) -> Self {
        let DriverSettings { slots, recv_buffers, recv_buffer_bytes, peers } = settings;
        Self { slots, recv_buffers, recv_buffer_bytes, peers, ..Self::default() }
    }
}

impl UringDriver {
    /// Makes the calling thread's driver for `listeners`, of which there must be at least one.
    /// Raises the process's soft limit of open files to the hard one, see [`slots_max`].
    ///
    /// # Errors
    /// What is missing, what was found, and what to do about it, as one message.
    pub fn new(
        settings: &UringSettings,
        listeners: impl IntoIterator<Item: Into<Listener>>,
    ) -> Result<(Self, BellTarget), StartError> {
        settings.check();
        let limit = slots_max()?;
        if settings.slots > limit {
            return Err(StartError::DescriptorLimit { wanted: settings.slots, limit });
        }
        let io = build(settings.entries, settings.cq_entries)?;
        io.submitter()
            .register_files_sparse(settings.slots)
            .map_err(|error| StartError::of("registering the descriptor table", error))?;
        let buffers = Buffers::register(&io, settings.recv_buffers, settings.recv_buffer_bytes)
            .map_err(|error| StartError::of("registering the receive buffers", error))?;
        let ring = Ring::new(io);
        let (bell, target) = BellEnd::new(settings.doorbells, ring.fd())
            .map_err(|error| StartError::of("making the doorbell", error))?;
        let acceptor =
            Acceptor::new(listeners.into_iter().map(Into::into).collect(), settings.peers);
        let multishots = Multishots::new(settings.multishots);
        let slots = Slots::new(settings.slots);
        let mut state = State::new(slots, buffers, acceptor, bell, multishots);
        state.rearms.push(Rearm::Bell);
        let mut driver = UringDriver {
            ring,
            state,
            release: Release::of(KernelVersion::running()),
            accept_deferred: false,
            leave_within: None,
            arena_in_queue: false,
            submitted_early: false,
            has_receives: false,
            bells: Arc::new([]),
            not_send: PhantomData,
        };
        driver
            .rearm(&mut Vec::new())
            .map_err(|error| StartError::of("arming the doorbell", error))?;
        Ok((driver, target))
    }

    /// Ends everything in flight and closes every connection now. The kernel would do so later, but
    /// not while a [`BellTarget`] keeps the ring's file open.
    fn end_all(&mut self) -> io::Result<()> {
        let mut ignored = Vec::new();
        self.ring.enter(Wait::No)?;
        let timeout = io_uring::types::Timespec::new().sec(CANCEL_SECONDS_MAX);
        // If there is nothing to cancel, that is an error (ENOENT), and a welcome one.
        let _ =
            self.ring.io().submitter().register_sync_cancel(Some(timeout), CancelBuilder::any());
        for slot in 0..self.state.slots.count() {
            if self.state.slots.is_occupied(slot) {
                self.push(&super::close(Token { slot, generation: 0 }), &mut ignored)?;
            }
        }
        self.ring.enter(Wait::No)
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        // After a failed turn the queue may refer to a batch that is gone, and after a panic the
        // tables may be wrong: then the kernel cleans up in its own time.
        if !self.arena_in_queue && !std::thread::panicking() {
            let _ = self.end_all();
        }
    }
}

impl UringSettings {
    /// Catches sizes that are our own mistake: operators do not choose these one by one.
    fn check(&self) {
        assert!(self.slots > 0);
        assert!(self.entries.is_power_of_two() && self.cq_entries.is_power_of_two());
        assert!(self.entries <= self.cq_entries);
        assert!(self.recv_buffers.is_power_of_two() && self.recv_buffers <= BUFFERS_MAX);
        assert!(self.recv_buffer_bytes > 0);
    }
}

/// Makes the rings of this many workers, and one more for the threads that ring them, and drops
/// them: the user's limit of locked memory may be enough for only some of them.
///
/// # Errors
/// As [`UringDriver::new`].
pub(super) fn try_rings(workers: u16) -> Result<(), StartError> {
    let UringSettings { entries, cq_entries, .. } = UringSettings::default();
    let made: Result<Vec<IoUring>, _> = (0..=workers).map(|_| build(entries, cq_entries)).collect();
    made.map(drop)
}

/// Builds a ring like a worker's on the calling thread, and waits a little for memory.
pub(super) fn build(entries: u32, cq_entries: u32) -> Result<IoUring, StartError> {
    let give_up_at = Instant::now() + MEMORY_PATIENCE;
    loop {
        match build_now(entries, cq_entries) {
            Err(StartError::NoMemory { .. }) if Instant::now() < give_up_at => {
                std::thread::sleep(MEMORY_PAUSE);
            }
            other => return other,
        }
    }
}

fn build_now(entries: u32, cq_entries: u32) -> Result<IoUring, StartError> {
    let mut builder = IoUring::builder();
    builder
        .setup_cqsize(cq_entries)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all();
    // Saves an indirection since Linux 6.6; older kernels do not know the flag.
    let direct = builder.clone().setup_no_sqarray().build(entries);
    let built = match direct {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => builder.build(entries),
        other => other,
    };
    built.map_err(StartError::of_setup)
}

/// The most slots one worker's table can have: the hard limit of open files, to which this raises
/// the soft one, or the kernel's limit for a ring.
///
/// # Errors
/// When the limit cannot be raised.
pub fn slots_max() -> Result<u32, StartError> {
    let files = descriptors_max()?;
    Ok(u32::try_from(files).unwrap_or(u32::MAX).min(TABLE_SLOTS_MAX))
}
