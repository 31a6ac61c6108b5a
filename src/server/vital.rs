//! The threads a server cannot do without: its workers and the log's clerk. If one ended
//! unexpectedly, the others would carry on with its connections and events silently unanswered. So
//! main is told, and ends the process; its supervisor starts it again.

use std::{fmt, io, thread};

use crossbeam_channel::Sender;

use crate::cluster::Ended;

/// A thread that ended without being told to.
#[derive(Debug)]
pub struct Lost {
    thread: String,
    why: String,
    begins_again: bool,
}

impl Lost {
    /// Whether nothing is wrong with the server: its log has ended, and a start finds the next one.
    pub fn begins_again(&self) -> bool {
        self.begins_again
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { thread, why, begins_again } = self;
        if *begins_again {
            return f.write_str(why);
        }
        write!(f, "thread {thread} has ended, and the server can't go on without it: {why}")
    }
}

impl std::error::Error for Lost {}

/// Runs the body of a thread; reports if it fails or panics.
pub(super) fn vital(tell: Sender<Lost>, body: impl FnOnce() -> io::Result<()>) {
    let mut guard = Guard { tell, why: Some(io::Error::other("it panicked")) };
    guard.why = body().err();
}

/// Dropped when the thread ends, by a panic too (in a build that unwinds; others abort at once).
struct Guard {
    tell: Sender<Lost>,
    why: Option<io::Error>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(why) = self.why.take() else { return };
        let thread = thread::current().name().unwrap_or("without a name").to_owned();
        // Full or disconnected: the server is ending already.
        let begins_again = why.get_ref().is_some_and(|error| error.is::<Ended>());
        let _ = self.tell.try_send(Lost { thread, why: why.to_string(), begins_again });
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, bounded};

    use super::*;

    fn lost_of(body: impl FnOnce() -> io::Result<()> + Send + 'static) -> Receiver<Lost> {
        let (tell, lost) = bounded(1);
        let named = thread::Builder::new().name("worker-7".into());
        // The panic is what this test wants.
        let _ = named.spawn(move || vital(tell, body)).expect("a thread").join();
        lost
    }

    #[test]
    fn a_thread_that_fails_or_panics_is_told_of_by_name() {
        let failed = lost_of(|| Err(io::Error::other("no ring"))).recv().expect("told").to_string();
        assert!(failed.contains("worker-7") && failed.contains("no ring"), "{failed}");
        let panicked = lost_of(|| panic!("on purpose")).recv().expect("told").to_string();
        assert!(panicked.contains("worker-7") && panicked.contains("panicked"), "{panicked}");
    }

    #[test]
    fn a_log_that_ends_is_no_fault_of_the_server() {
        let lost = lost_of(|| Err(io::Error::other(Ended::Recreated))).recv().expect("told");
        assert!(lost.begins_again(), "{lost}");
        assert!(!lost_of(|| Err(io::Error::other("no ring"))).recv().expect("told").begins_again());
    }

    #[test]
    fn a_thread_that_was_told_to_end_is_not_lost() {
        assert!(lost_of(|| Ok(())).recv().is_err());
    }
}
