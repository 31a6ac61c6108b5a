//! Commands to workers, from any thread: into the worker's lane, and a doorbell if it sleeps.

use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::TrySendError;

use crate::mesh::MainEnds;
use crate::ring::{Bell, Ringer};
use crate::worker::command::Command;

/// How every other thread commands the workers.
#[derive(Clone)]
pub(super) struct ToWorkers {
    ends: MainEnds<Command>,
    bell: Arc<Mutex<Ringer>>,
}

impl ToWorkers {
    pub fn new(ends: MainEnds<Command>, bell: Ringer) -> Self {
        Self { ends, bell: Arc::new(Mutex::new(bell)) }
    }

    /// How many workers there are.
    pub fn count(&self) -> u16 {
        self.ends.commands.len() as u16
    }

    /// Waits for room in the lane.
    pub fn send(&self, worker: u16, command: Command) {
        // Disconnected: that worker has ended.
        let _ = self.ends.commands[usize::from(worker)].send(command);
        self.wake(worker);
    }

    /// The same to each worker.
    pub fn send_all(&self, command: impl Fn() -> Command) {
        (0..self.count()).for_each(|worker| self.send(worker, command()));
    }

    /// Fails if the lane is full, or the worker has ended.
    pub fn try_send(&self, worker: u16, command: Command) -> Result<(), TrySendError<Command>> {
        self.ends.commands[usize::from(worker)].try_send(command)?;
        self.wake(worker);
        Ok(())
    }

    fn wake(&self, worker: u16) {
        if self.ends.asleep[usize::from(worker)].needs_ring() {
            // A thread that panicked while ringing left nothing half done.
            let mut bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
            bell.ring(worker);
            bell.flush();
        }
    }
}
