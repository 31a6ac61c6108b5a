//! Questions to the log and to workers: a command, a doorbell if the worker sleeps, and an answer
//! within a deadline or none.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::State;
use crate::server::clerk::LogCommand;
use crate::worker::command::Command;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The thread has ended.
    Gone,
    /// Its lane is full, or it did not answer in time.
    Stalled,
}

impl State {
    /// Puts a question to the log.
    pub fn ask_log<T>(
        &self,
        command: impl FnOnce(Sender<T>) -> LogCommand,
    ) -> Result<Receiver<T>, NoAnswer> {
        let (reply, answer) = bounded(1);
        self.log_commands.try_send(command(reply)).map_err(no_answer)?;
        Ok(answer)
    }

    /// Asks a worker and waits for the answer.
    pub fn ask_worker<T>(
        &self,
        worker: u16,
        deadline: Instant,
        command: impl FnOnce(Sender<T>) -> Command,
    ) -> Result<T, NoAnswer> {
        let (reply, answer) = bounded(1);
        self.command(worker, command(reply))?;
        answer.recv_deadline(deadline).map_err(|error| match error.is_timeout() {
            true => NoAnswer::Stalled,
            false => NoAnswer::Gone,
        })
    }

    /// Asks all these workers at once; fails with the first that does not answer in time.
    pub fn ping(&self, workers: &[u16], deadline: Instant) -> Result<(), u16> {
        let (reply, answers) = bounded(workers.len());
        for &worker in workers {
            self.command(worker, Command::Ping(reply.clone())).map_err(|_| worker)?;
        }
        drop(reply);
        let mut silent = workers.to_vec();
        while !silent.is_empty() {
            match answers.recv_deadline(deadline) {
                Ok(worker) => silent.retain(|&other| other != worker),
                Err(_) => return Err(silent[0]),
            }
        }
        Ok(())
    }

    pub fn command(&self, worker: u16, command: Command) -> Result<(), NoAnswer> {
        self.workers.try_send(worker, command).map_err(no_answer)
    }
}

/// The earlier of the two.
pub(super) fn within(time: Duration, deadline: Instant) -> Instant {
    deadline.min(Instant::now() + time)
}

fn no_answer<T>(error: crossbeam_channel::TrySendError<T>) -> NoAnswer {
    if error.is_disconnected() { NoAnswer::Gone } else { NoAnswer::Stalled }
}
