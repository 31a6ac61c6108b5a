//! The log has no thread of its own: a thread that has a request for it runs it.
//!
//! All requests go into one lane. A worker then runs its hand: if the log's lock is free, it
//! handles what is in the lane, its own requests and those of others, and puts the log's messages
//! into the workers' lanes; if not, the holder does. Only the holder sends into those lanes, so
//! each stays FIFO. A worker never waits for the lock, and nothing under it waits for a lane.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::combine::{Left, abort, combine};
use super::{LogEnds, LogOutlet};
use crate::limits::{AGE_PAUSE_MAX, AGE_PAUSE_MIN, WORK_PER_HAND};
use crate::log::message::ToLog;
use crate::log::{Outlet, Sequencer};

/// What a worker needs of the log. In a simulation it now and then finds the lock taken.
pub trait Hand {
    /// Handles the requests in the log's lane, up to a budget, unless another thread is doing so.
    /// `now` is the workers' clock. Sleeping workers that were sent something are added to `rings`,
    /// for the caller to ring.
    fn run(&mut self, now: Duration, rings: &mut Vec<u16>) -> Left;
}

/// What the lock guards. A simulation replaces the [`Sequencer`] by one that watches it.
pub trait Guarded {
    /// [`Sequencer::handle`].
    fn handle(&mut self, request: ToLog, now: Duration, outlet: &mut impl Outlet);

    /// [`Sequencer::tend`].
    fn tend(&mut self, now: Duration, outlet: &mut impl Outlet) -> Option<Duration>;
}

impl Guarded for Sequencer {
    fn handle(&mut self, request: ToLog, now: Duration, outlet: &mut impl Outlet) {
        self.handle(request, now, outlet);
    }

    fn tend(&mut self, now: Duration, outlet: &mut impl Outlet) -> Option<Duration> {
        self.tend(now, outlet)
    }
}

/// The log, its lock, and the lane of its requests.
#[derive(Debug)]
pub struct SharedLog<L = Sequencer> {
    log: Mutex<L>,
    requests: Receiver<ToLog>,
}

impl<L: Guarded> SharedLog<L> {
    /// Guards `log`, and takes requests from the lane of these ends.
    pub fn new(log: L, ends: &LogEnds) -> Arc<Self> {
        Arc::new(Self { log: Mutex::new(log), requests: ends.requests.clone() })
    }

    /// Requests in the lane.
    pub fn waiting(&self) -> usize {
        self.requests.len()
    }

    /// Waits for the log. Not for workers; and a thread that releases it must then run a hand, for
    /// the workers that found it taken.
    pub fn lock(&self) -> MutexGuard<'_, L> {
        self.log.lock().unwrap_or_else(|_| abort())
    }
}

/// A thread's hand on the log.
#[derive(Debug)]
pub struct LogHand<L = Sequencer> {
    log: Arc<SharedLog<L>>,
    outlet: LogOutlet,
    /// How much one run handles, by [`ToLog::weight`].
    pub budget: usize,
}

impl<L: Guarded> LogHand<L> {
    /// A hand on this log.
    pub fn new(log: Arc<SharedLog<L>>, ends: &LogEnds) -> Self {
        Self { log, outlet: LogOutlet::new(ends), budget: WORK_PER_HAND }
    }

    /// Does something with the log once it is free, and then what workers that found it taken have
    /// asked for. Not for workers.
    pub fn with<T>(
        &mut self,
        now: Duration,
        rings: &mut Vec<u16>,
        act: impl FnOnce(&mut L) -> T,
    ) -> T {
        let done = act(&mut self.log.lock());
        while self.run(now, rings) == Left::Work {}
        done
    }

    /// Tells the log something as soon as it is free, ahead of what waits in its lane. Not for
    /// workers.
    pub fn tell(&mut self, told: ToLog, now: Duration, rings: &mut Vec<u16>) {
        self.log.lock().handle(told, now, &mut self.outlet);
        while self.run(now, rings) == Left::Work {}
    }

    /// Tends the log: ages history, a piece at a time. Returns when to call it again. Not for
    /// workers.
    pub fn age(&mut self, now: Duration, rings: &mut Vec<u16>) -> Duration {
        let due = self.log.lock().tend(now, &mut self.outlet);
        while self.run(now, rings) == Left::Work {}
        match due {
            Some(at) if at <= now => now,
            Some(at) => at.clamp(now + AGE_PAUSE_MIN, now + AGE_PAUSE_MAX),
            None => now + AGE_PAUSE_MAX,
        }
    }
}

impl<L: Guarded> Hand for LogHand<L> {
    fn run(&mut self, now: Duration, rings: &mut Vec<u16>) -> Left {
        let Self { log, outlet, budget } = self;
        let mut budget = *budget;
        let lane = &log.requests;
        let left = combine(
            &log.log,
            || lane.is_empty(),
            |log| {
                while budget > 0 {
                    let Ok(request) = lane.try_recv() else { return Left::Nothing };
                    budget = budget.saturating_sub(request.weight());
                    log.handle(request, now, outlet);
                }
                Left::Work
            },
        );
        outlet.sleepers(rings);
        left
    }
}
