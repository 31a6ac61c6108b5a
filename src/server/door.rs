//! Waiting at a listener that another process may have, too: it can't be shut down to wake who
//! waits, because that would end it for the others.

use std::io::PipeReader;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knock {
    /// A connection waits, or did: another thread or process may be faster.
    Somebody,
    /// It is time to end.
    End,
}

/// Waits until a connection comes, or the other end of `ended` is closed.
pub(super) fn wait(listener: &impl AsFd, ended: &PipeReader) -> Knock {
    let mut both = [PollFd::new(listener, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
    // An error here is a descriptor that is none, or no memory: nothing to wait for.
    let failed = retry_on_intr(|| poll(&mut both, None)).is_err();
    if failed || !both[1].revents().is_empty() { Knock::End } else { Knock::Somebody }
}
