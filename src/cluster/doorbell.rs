//! Wakes the thread that talks to the broker: for messages of the log, or for its sockets.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{read, write};

use crate::mesh::SleepFlag;

/// Rung only while the thread sleeps: a system call for each publication would cost more than the
/// publication.
#[derive(Debug)]
pub struct Doorbell {
    bell: OwnedFd,
    asleep: SleepFlag,
}

impl Doorbell {
    /// # Errors
    /// There is no descriptor left.
    pub fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { bell, asleep: SleepFlag::default() })
    }

    /// Something was put into the thread's lane.
    pub fn ring(&self) {
        if self.asleep.needs_ring() {
            // It can't be full: it is read each time it has rung.
            let _ = write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Whether the thread sleeps, or is about to.
    pub fn is_asleep(&self) -> bool {
        self.asleep.is_set()
    }

    /// The thread is about to sleep. It must look into its lane after this.
    pub fn announce(&self) {
        self.asleep.announce();
    }

    /// Sleeps until the bell rings, a socket is readable (or writable, for those marked), or the time
    /// is over.
    pub fn wait(&self, sockets: &[(&TcpStream, bool)], time: Duration) {
        let mut waits = vec![PollFd::new(&self.bell, PollFlags::IN)];
        for &(socket, wants_to_write) in sockets {
            let write = if wants_to_write { PollFlags::OUT } else { PollFlags::empty() };
            waits.push(PollFd::new(socket, PollFlags::IN | write));
        }
        let time =
            Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        // Interrupted: there may be something to do, or not.
        let _ = poll(&mut waits, Some(&time));
        self.asleep.wake();
        let _ = read(&self.bell, &mut [0; 8]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_bell_that_rings_ends_a_sleep() {
        let bell = Arc::new(Doorbell::new().expect("a descriptor"));
        let ringer = bell.clone();
        bell.announce();
        let ring = std::thread::spawn(move || ringer.ring());
        let began = Instant::now();
        bell.wait(&[], Duration::from_secs(30));
        assert!(began.elapsed() < Duration::from_secs(30));
        ring.join().expect("it rings");
    }
}
