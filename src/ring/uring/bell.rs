//! Doorbells: how another thread wakes a worker that sleeps in its turn.
//!
//! `MSG_RING` puts a completion into the worker's queue directly, many workers with one system
//! call. Where the kernel lacks it (the probe rings one to see), the worker keeps a read armed on
//! an eventfd of its own and the bell writes to it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};

use super::user_data::BELL;
use crate::ring::Bell;

/// Most `MSG_RING`s submitted at once; more workers take more system calls.
const RINGS_PER_SUBMIT_MAX: usize = 256;

/// Times a ring is sent again when the kernel had no memory for it. A ring lost for good would
/// leave a worker asleep, but a kernel that is out of memory for so long has other troubles.
const RING_ATTEMPTS_MAX: u32 = 100;

/// How workers are woken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doorbells {
    /// `IORING_OP_MSG_RING` from the ringer's own ring.
    #[default]
    MsgRing,
    /// A write to an eventfd the worker reads.
    EventFd,
}

/// Where one worker is rung. Keeps the ring's (or eventfd's) file open, not the connections.
#[derive(Clone, Debug)]
pub struct BellTarget(Target);

#[derive(Clone, Debug)]
enum Target {
    Ring(Arc<OwnedFd>),
    Event(Arc<OwnedFd>),
}

/// The worker's end.
pub(super) struct BellEnd {
    event: Option<Arc<OwnedFd>>,
    /// What is read from the eventfd; only the arrival counts.
    word: Box<u64>,
}

impl BellEnd {
    /// Makes both ends for the ring `ring_fd`.
    pub(super) fn new(doorbells: Doorbells, ring_fd: RawFd) -> io::Result<(Self, BellTarget)> {
        let (event, target) = match doorbells {
            Doorbells::MsgRing => {
                // SAFETY: the caller's ring is open during this call.
                let ring = unsafe { BorrowedFd::borrow_raw(ring_fd) }.try_clone_to_owned()?;
                (None, Target::Ring(Arc::new(ring)))
            }
            Doorbells::EventFd => {
                // Blocking on purpose: a read of a non-blocking file fails instead of waiting.
                let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
                let event = Arc::new(event);
                (Some(Arc::clone(&event)), Target::Event(event))
            }
        };
        Ok((BellEnd { event, word: Box::new(0) }, BellTarget(target)))
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

/// Rings workers. Each thread that rings has one of its own.
pub struct UringBell {
    /// Only where a target is rung by `MSG_RING`.
    ring: Option<IoUring>,
    targets: Vec<BellTarget>,
    /// Workers to ring at the next flush, each once.
    gathered: Vec<u16>,
    is_gathered: Vec<bool>,
    /// Rings the kernel had no memory for, by worker.
    failed: Vec<u16>,
}

impl UringBell {
    /// A bell for workers `0..targets.len()`.
    ///
    /// # Errors
    /// What `io_uring_setup` says.
    pub fn new(targets: Vec<BellTarget>) -> io::Result<Self> {
        assert!(targets.len() <= usize::from(u16::MAX));
        let by_ring = targets.iter().any(|target| matches!(target.0, Target::Ring(_)));
        let entries = targets.len().clamp(1, RINGS_PER_SUBMIT_MAX).next_power_of_two() as u32;
        let ring = if by_ring { Some(IoUring::new(entries)?) } else { None };
        let workers = targets.len();
        Ok(UringBell {
            ring,
            targets,
            gathered: Vec::with_capacity(workers),
            is_gathered: vec![false; workers],
            failed: Vec::with_capacity(workers),
        })
    }

    /// Rings as many of `self.gathered` as fit one submission, from the end.
    fn flush_some(&mut self) {
        while let Some(&worker) = self.gathered.last() {
            match &self.targets[usize::from(worker)].0 {
                Target::Event(event) => {
                    // It can only fail when the counter is full, and then the bell rings already.
                    let _ = rustix::io::write(event.as_ref(), &1u64.to_ne_bytes());
                }
                Target::Ring(target) => {
                    let ring = self.ring.as_mut().expect("made for targets of this kind");
                    let entry = opcode::MsgRingData::new(Fd(target.as_raw_fd()), 0, BELL, None)
                        .build()
                        .flags(squeue::Flags::SKIP_SUCCESS)
                        .user_data(u64::from(worker));
                    // SAFETY: the entry refers to no memory, and the descriptor is ours.
                    if unsafe { ring.submission().push(&entry) }.is_err() {
                        break;
                    }
                }
            }
            self.is_gathered[usize::from(worker)] = false;
            self.gathered.pop();
        }
        self.submit();
    }

    /// Submits queued rings until the kernel has consumed them, and notes those that failed.
    fn submit(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        for _ in 0..RING_ATTEMPTS_MAX {
            // An error means not consumed: the queue tells, and it is tried again.
            let _ = ring.submit();
            for entry in ring.completion() {
                // A worker that has ended needs no bell.
                let gone = matches!(-entry.result(), libc::EOWNERDEAD | libc::EBADFD | libc::EBADF);
                if entry.result() < 0 && !gone {
                    self.failed.push(entry.user_data() as u16);
                }
            }
            if ring.submission().is_empty() {
                return;
            }
            std::thread::yield_now();
        }
    }
}

impl Bell for UringBell {
    fn ring(&mut self, worker: u16) {
        let is_gathered = &mut self.is_gathered[usize::from(worker)];
        if !*is_gathered {
            *is_gathered = true;
            self.gathered.push(worker);
        }
    }

    fn flush(&mut self) {
        for _ in 0..RING_ATTEMPTS_MAX {
            while !self.gathered.is_empty() {
                self.flush_some();
            }
            while let Some(worker) = self.failed.pop() {
                self.ring(worker);
            }
            if self.gathered.is_empty() {
                return;
            }
        }
    }
}
