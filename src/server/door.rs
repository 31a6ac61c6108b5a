//! Waiting at a listener that another process may share: it cannot be shut down to wake the waiting
//! thread, because that would end it for the others, too.

use std::io::PipeReader;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

/// What woke the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knock {
    /// A connection was waiting; another thread or process may have accepted it by now.
    Somebody,
    /// It is time to end.
    End,
}

/// Waits until a connection comes, or the other end of `ended` is closed.
pub(super) fn wait(listener: &impl AsFd, ended: &PipeReader) -> Knock {
    let mut both = [PollFd::new(listener, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
    // An error here means a bad descriptor or no memory: there is nothing to wait for.
    let failed = retry_on_intr(|| poll(&mut both, None)).is_err();
    if failed || !both[1].revents().is_empty() { Knock::End } else { Knock::Somebody }
}
