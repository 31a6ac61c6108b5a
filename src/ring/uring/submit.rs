//! The two queues shared with the kernel, and the one system call that moves them.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{CompletionQueue, EnterFlags, IoUring, squeue};

use crate::ring::{GATHERED_MAX, Wait};

/// The ring, with `io_uring_enter` reduced to what a turn needs.
pub(super) struct Ring {
    io: IoUring,
    /// Always with extended arguments (for the timeout), always reaping; without iowait if
    /// possible.
    enter_flags: EnterFlags,
    /// `io_uring_enter` calls so far.
    pub(super) enters: u64,
    /// Times completions had to be fetched from outside the completion queue.
    pub(super) cq_overflows: u64,
}

impl Ring {
    pub(super) fn new(io: IoUring) -> Self {
        let mut enter_flags = EnterFlags::EXT_ARG | EnterFlags::GETEVENTS;
        if io.params().is_feature_no_iowait() {
            // A sleeping server is idle, not waiting for a disk: keep it out of the statistics.
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        Ring { io, enter_flags, enters: 0, cq_overflows: 0 }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.io.as_raw_fd()
    }

    pub(super) fn io(&self) -> &IoUring {
        &self.io
    }

    pub(super) fn is_full(&mut self) -> bool {
        self.io.submission().is_full()
    }

    /// How many entries the kernel has not consumed yet.
    pub(super) fn pending(&mut self) -> usize {
        self.io.submission().len()
    }

    pub(super) fn completions(&mut self) -> CompletionQueue<'_> {
        self.io.completion()
    }

    /// Queues one entry; there must be room.
    ///
    /// # Safety
    /// Memory the entry refers to must stay valid until the operation has completed (for a send
    /// that cannot go asynchronous: until the entry is consumed).
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise.
        let pushed = unsafe { self.io.submission().push(entry) };
        assert!(pushed.is_ok(), "the submission queue is full");
    }

    /// Submits what is queued, runs deferred work, and sleeps as told unless there are completions.
    /// Part of the entries may be left in the queue; the caller checks and calls again.
    ///
    /// # Errors
    /// Only errors that leave the ring unusable, as a sentence.
    pub(super) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let (completions_wanted, timeout) = match wait {
            Wait::No => (0, None),
            Wait::AtMost(time) => (1, Some(Timespec::from(time))),
            Wait::Gather(time) => (GATHERED_MAX, Some(Timespec::from(time))),
            Wait::Forever => (1, None),
        };
        let args = match &timeout {
            Some(timeout) => SubmitArgs::new().timespec(timeout),
            None => SubmitArgs::new(),
        };
        self.call(completions_wanted, self.enter_flags, &args)
    }

    /// Submits what is queued and nothing else: deferred work stays deferred, so that the
    /// completion queue is not filled while there is more to submit.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.call(0, EnterFlags::EXT_ARG, &SubmitArgs::new())
    }

    /// Whether the kernel holds deferred work: newer kernels (seen on 6.18) run about 20 pieces per
    /// call and leave the rest for the next.
    pub(super) fn has_deferred_work(&mut self) -> bool {
        self.io.submission().taskrun()
    }

    /// Fetches completions the kernel had to park when the queue was full. Returns whether there
    /// may be more in the queue now; call it when the queue was drained.
    ///
    /// # Errors
    /// As [`Ring::enter`].
    pub(super) fn fetch_overflow(&mut self) -> io::Result<bool> {
        if !self.io.submission().cq_overflow() {
            return Ok(false);
        }
        self.cq_overflows += 1;
        self.enter(Wait::No)?;
        Ok(true)
    }

    fn call(&mut self, want: u32, flags: EnterFlags, args: &SubmitArgs<'_, '_>) -> io::Result<()> {
        let submit = self.pending() as u32;
        self.enters += 1;
        // SAFETY: `args` is what EXT_ARG promises, and it outlives the call.
        let entered = unsafe { self.io.submitter().enter(submit, want, flags.bits(), Some(args)) };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => tolerate(error),
        }
    }
}

/// Separates the errors of `io_uring_enter` that pass from those that end the ring.
fn tolerate(error: io::Error) -> io::Result<()> {
    let sentence = match error.raw_os_error() {
        // The wait timed out: nothing arrived, as agreed.
        Some(libc::ETIME) => return Ok(()),
        // A signal ended the wait: what has arrived is in the queue, and the next turn waits again.
        Some(libc::EINTR) => return Ok(()),
        // No memory for a request just now: what was not consumed is submitted again.
        Some(libc::EAGAIN) => return Ok(()),
        // Parked completions must be reaped before more is taken: the caller reaps, then retries.
        Some(libc::EBUSY) => return Ok(()),
        Some(libc::EBADR) => "the kernel had no memory to park completions and lost some",
        Some(libc::EEXIST) => "the ring is used by a thread that did not create it",
        Some(libc::EBADFD) => "the ring is disabled",
        Some(libc::EBADF) | Some(libc::EOPNOTSUPP) => "the descriptor is not a ring any more",
        Some(libc::ENXIO) => "the ring is being torn down",
        Some(libc::EFAULT) => "a queue or an argument is not mapped",
        Some(libc::EINVAL) => "the kernel does not know a flag we set",
        _ => "io_uring_enter failed in an unknown way",
    };
    Err(io::Error::new(error.kind(), format!("{sentence} ({error})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_errors_pass_and_the_others_become_a_sentence() {
        for errno in [libc::ETIME, libc::EINTR, libc::EAGAIN, libc::EBUSY] {
            assert!(tolerate(io::Error::from_raw_os_error(errno)).is_ok(), "{errno}");
        }
        for errno in [libc::EBADR, libc::EEXIST, libc::EBADFD, libc::EFAULT, libc::ENOMEM] {
            assert!(tolerate(io::Error::from_raw_os_error(errno)).is_err(), "{errno}");
        }
    }
}
