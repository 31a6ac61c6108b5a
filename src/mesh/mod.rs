//! Lanes between threads, and the flags that say which threads sleep.
//!
//! Lanes are bounded and FIFO per pair of threads. A thread that puts something into a worker's
//! lane rings its doorbell, but only if it sleeps. The sleep protocol: the worker sets `asleep`,
//! fences, looks into its lanes once more, and only then blocks; the sender puts, fences, and then
//! looks at `asleep`. Whichever fence comes second sees the other side's write, so either the
//! worker sees the message or the sender sees the sleeper: no wake-up is lost.
//!
//! [`hand`] is how threads take turns at the log, [`combine`] why no request is left behind.

pub mod combine;
pub mod hand;
#[cfg(test)]
mod tests;

/// What [`combine`] is built from; its test replaces them with loom's.
mod sync {
    pub(super) use std::sync::atomic::{Ordering, fence};
    pub(super) use std::sync::{Mutex, MutexGuard, TryLockError};
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::limits::{LANE_ANSWERS_MAX, LANE_COMMANDS_MAX, LANE_REQUESTS_MAX};
use crate::log::Outlet;
use crate::log::message::{FromLog, Share, ToLog};

/// Whether a worker sleeps (or is about to).
#[derive(Debug, Default)]
pub struct SleepFlag(AtomicBool);

impl SleepFlag {
    /// Announces that the worker will sleep. It must look into its lanes after this.
    pub fn announce(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Notes that the worker is awake.
    pub fn wake(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the worker sleeps, or is about to; it may wake at any time.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether a sender that has put something into a lane must ring. Only one sender per sleep is
    /// told so.
    pub fn needs_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

/// A worker's ends.
#[derive(Debug)]
pub struct WorkerEnds<O> {
    /// Requests, which all workers put into one lane.
    pub requests: Sender<ToLog>,
    /// Events and answers, in the log's order.
    pub from_log: Receiver<FromLog>,
    /// What main asks of it.
    pub commands: Receiver<O>,
    /// Set while it sleeps.
    pub asleep: Arc<SleepFlag>,
}

impl<O> WorkerEnds<O> {
    /// Whether a lane holds something.
    pub fn has_mail(&self) -> bool {
        !self.from_log.is_empty() || !self.commands.is_empty()
    }
}

/// The log's ends, for each thread that runs it.
#[derive(Clone, Debug)]
pub struct LogEnds {
    /// From all workers.
    pub requests: Receiver<ToLog>,
    /// To each worker.
    pub from_log: Vec<Sender<FromLog>>,
    /// Events that may wait in each of those lanes.
    pub events_max: usize,
    /// Which workers sleep.
    pub asleep: Vec<Arc<SleepFlag>>,
}

/// Main's ends.
#[derive(Clone, Debug)]
pub struct MainEnds<O> {
    /// To each worker.
    pub commands: Vec<Sender<O>>,
    /// Which workers sleep.
    pub asleep: Vec<Arc<SleepFlag>>,
}

/// Makes all lanes of a server with this many workers, where `events_max` events may wait in each
/// worker's lane. `O` is what main commands workers to do.
pub fn mesh<O>(workers: u16, events_max: usize) -> (MainEnds<O>, LogEnds, Vec<WorkerEnds<O>>) {
    let (to_log, requests) = bounded(LANE_REQUESTS_MAX);
    let mut main = MainEnds { commands: Vec::new(), asleep: Vec::new() };
    let mut log = LogEnds { requests, from_log: Vec::new(), events_max, asleep: Vec::new() };
    let mut ends = Vec::new();
    for _ in 0..workers {
        let (to_worker, from_log) = bounded(events_max + LANE_ANSWERS_MAX);
        let (command, commands) = bounded(LANE_COMMANDS_MAX);
        let asleep = Arc::new(SleepFlag::default());
        main.commands.push(command);
        main.asleep.push(asleep.clone());
        log.from_log.push(to_worker);
        log.asleep.push(asleep.clone());
        ends.push(WorkerEnds { requests: to_log.clone(), from_log, commands, asleep });
    }
    (main, log, ends)
}

/// The log's outlet to the workers: their lanes, and which of them were sent something.
#[derive(Debug)]
struct LogOutlet {
    from_log: Vec<Sender<FromLog>>,
    events_max: usize,
    asleep: Vec<Arc<SleepFlag>>,
    touched: Vec<bool>,
}

impl LogOutlet {
    fn new(ends: &LogEnds) -> Self {
        Self {
            from_log: ends.from_log.clone(),
            events_max: ends.events_max,
            asleep: ends.asleep.clone(),
            touched: vec![false; ends.from_log.len()],
        }
    }

    /// Adds the sleeping workers that were sent something since the last call: they must be rung.
    fn sleepers(&mut self, rings: &mut Vec<u16>) {
        for (worker, touched) in (0..).zip(&mut self.touched) {
            if std::mem::take(touched) && self.asleep[usize::from(worker)].needs_ring() {
                rings.push(worker);
            }
        }
    }
}

impl Outlet for LogOutlet {
    fn has_room(&self, worker: u16, share: Share, reserved: usize) -> bool {
        self.from_log[usize::from(worker)].len() + reserved < share.of(self.events_max)
    }

    fn send(&mut self, worker: u16, told: FromLog) {
        let index = usize::from(worker);
        self.touched[index] = true;
        // It cannot be full: events leave room for answers, and a worker never waits for more
        // answers than that. Disconnected means that the worker is gone and its lane is not read
        // any more.
        let sent = self.from_log[index].try_send(told);
        debug_assert!(!matches!(sent, Err(crossbeam_channel::TrySendError::Full(_))));
    }
}
