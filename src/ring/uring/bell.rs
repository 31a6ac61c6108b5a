//! Doorbells of rings: what a worker waits for, and `MSG_RING` from a ring used for nothing else.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};

use super::user_data::BELL;
use crate::ring::{BellTarget, Doorbells};

/// Most `MSG_RING`s submitted at once; for more workers it takes more system calls.
const RINGS_PER_SUBMIT_MAX: usize = 256;

/// How often a ring is sent again if the kernel had no memory for it. A lost ring would leave a
/// worker asleep for ever, but a kernel that is out of memory for so long has other troubles.
const RING_ATTEMPTS_MAX: u32 = 100;

/// The entry that rings a worker's ring; it completes only if it fails.
pub(super) fn message(ring: RawFd, user_data: u64) -> squeue::Entry {
    opcode::MsgRingData::new(Fd(ring), 0, BELL, None)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(user_data)
}

/// Whether a ring failed because its worker has ended, and needs no bell.
pub(super) fn is_gone(errno: i32) -> bool {
    matches!(errno, libc::EOWNERDEAD | libc::EBADFD | libc::EBADF)
}

/// The worker's end.
pub(super) struct BellEnd {
    event: Option<Arc<OwnedFd>>,
    /// Where the eventfd is read to; only that it is read counts.
    word: Box<u64>,
}

impl BellEnd {
    /// Makes both ends for the ring `ring_fd`.
    pub(super) fn new(doorbells: Doorbells, ring_fd: RawFd) -> io::Result<(Self, BellTarget)> {
        let (event, target) = match doorbells {
            Doorbells::MsgRing => {
                // SAFETY: the caller's ring is open during this call.
                let ring = unsafe { BorrowedFd::borrow_raw(ring_fd) }.try_clone_to_owned()?;
                (None, BellTarget::Ring(Arc::new(ring)))
            }
            Doorbells::EventFd => {
                // Blocking on purpose: a read of a non-blocking file fails instead of waiting.
                let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
                let event = Arc::new(event);
                (Some(Arc::clone(&event)), BellTarget::Event(event))
            }
        };
        Ok((BellEnd { event, word: Box::new(0) }, target))
    }

    pub(super) fn must_read_again(&self) -> bool {
        self.event.is_some()
    }

    /// The entry that waits for the eventfd, if there is one. Its memory is `self.word`.
    pub(super) fn entry(&mut self) -> Option<squeue::Entry> {
        let event = Fd(self.event.as_ref()?.as_raw_fd());
        let word = (&raw mut *self.word).cast();
        Some(opcode::Read::new(event, word, size_of::<u64>() as u32).build().user_data(BELL))
    }
}

/// Sends `MSG_RING` to the rings of sleeping workers, for a thread that has no driver.
pub(in crate::ring) struct RingMessenger {
    ring: IoUring,
    /// Rings the kernel had no memory for.
    failed: Vec<RawFd>,
}

impl RingMessenger {
    /// A messenger for this many workers.
    ///
    /// # Errors
    /// As for `io_uring_setup`.
    pub(in crate::ring) fn new(workers: usize) -> io::Result<Self> {
        let entries = workers.clamp(1, RINGS_PER_SUBMIT_MAX).next_power_of_two() as u32;
        Ok(Self { ring: IoUring::new(entries)?, failed: Vec::with_capacity(workers) })
    }

    /// Queues a ring. The target stays open until [`Self::flush`] is over.
    pub(in crate::ring) fn ring(&mut self, target: &OwnedFd) {
        self.queue(target.as_raw_fd());
    }

    fn queue(&mut self, target: RawFd) {
        if self.ring.submission().is_full() {
            self.submit();
        }
        let entry = message(target, target as u64);
        // SAFETY: the entry refers to no memory. If the descriptor belonged to another file by now,
        // that could only be a ring, whose turn would end early.
        let queued = unsafe { self.ring.submission().push(&entry) };
        debug_assert!(queued.is_ok(), "submitting makes room");
    }

    /// Sends what is queued, again if the kernel had no memory.
    pub(in crate::ring) fn flush(&mut self) {
        for _ in 0..RING_ATTEMPTS_MAX {
            self.submit();
            if self.failed.is_empty() {
                return;
            }
            for target in std::mem::take(&mut self.failed) {
                self.queue(target);
            }
        }
    }

    /// Submits queued rings until the kernel has consumed them, and notes those that failed.
    fn submit(&mut self) {
        for _ in 0..RING_ATTEMPTS_MAX {
            // An error means that entries were not consumed: the queue shows that, and they are
            // tried again.
            let _ = self.ring.submit();
            for entry in self.ring.completion() {
                if entry.result() < 0 && !is_gone(-entry.result()) {
                    self.failed.push(entry.user_data() as RawFd);
                }
            }
            if self.ring.submission().is_empty() {
                return;
            }
            std::thread::yield_now();
        }
    }
}
