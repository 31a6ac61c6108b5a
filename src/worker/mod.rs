//! A worker: one thread, one driver, its connections and its replicas of their channels.
//!
//! A connection is three things: a socket (`net`), a session that speaks its protocol (`session`),
//! and perhaps a subscriber that reads channels (`hub`). Each keeps its own state, by the same
//! index, and none knows the others: [`Core`] takes them through a turn (`turn`), carries out what
//! sessions ask for (`effect`, `carry_out`), and speaks to the log (`link`). [`Worker`] is the
//! shell with the [`Driver`].

mod around;
mod budget;
mod carry_out;
mod clock;
pub mod command;
mod drain;
mod effect;
mod ending;
mod gathering;
mod h2_streams;
mod hub;
mod input;
pub mod inspect;
mod invariants;
mod link;
mod net;
mod pool;
mod sending;
mod session;
mod setup;
mod table;
mod turn;
mod waiting;

pub use self::net::connection_count;
pub use self::session::{ConnectionId, LogLine, LoggedRequest, RefreshLetter, RefreshOutcome};
pub use self::setup::Setup;
pub use self::turn::Core;

use std::io;

use self::command::Command;
use crate::limits::LANE_TAKEN_PER_TURN;
use crate::mesh::WorkerEnds;
use crate::mesh::combine::Left;
use crate::mesh::hand::Hand;
use crate::ring::{Completion, Driver, Wait, coarse_unix_s};

/// Whether a worker goes on turning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// It goes on.
    GoOn,
    /// It has nothing left to do and was told to end.
    Done,
}

/// A worker on its driver, with the hand by which it runs the log.
#[derive(Debug)]
pub struct Worker<D, H> {
    driver: D,
    core: Core,
    ends: WorkerEnds<Command>,
    hand: H,
    /// What the last run left in the log's lane.
    left: Left,
    completions: Vec<Completion>,
}

impl<D: Driver, H: Hand> Worker<D, H> {
    /// A worker of these parts.
    pub fn new(driver: D, core: Core, ends: WorkerEnds<Command>, hand: H) -> Self {
        Self { driver, core, ends, hand, left: Left::Nothing, completions: Vec::new() }
    }

    /// The core, for tests and the simulation.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Turns until told to stop.
    ///
    /// # Errors
    /// What leaves the ring unusable.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn(coarse_unix_s())? == Turned::GoOn {}
        self.finish()
    }

    /// One turn: submit what the last one decided, sleep if there is nothing to do, reap, decide.
    ///
    /// # Errors
    /// What leaves the ring unusable.
    pub fn turn(&mut self, unix_s: u64) -> io::Result<Turned> {
        self.submit()?;
        Ok(self.wake(unix_s))
    }

    /// The first half of a turn, up to the end of the sleep. A simulation, whose driver does not
    /// block, runs the second half when the sleep is over; until then it may call this again to see
    /// what has come.
    ///
    /// # Errors
    /// What leaves the ring unusable.
    pub fn submit(&mut self) -> io::Result<()> {
        let mut wait = match self.left {
            Left::Nothing => self.core.wait(),
            Left::Work => Wait::No,
        };
        if wait != Wait::No {
            self.ends.asleep.announce();
            if self.ends.has_mail() {
                wait = Wait::No;
            }
        }
        self.driver.turn(self.core.batch(), wait, &mut self.completions)
    }

    /// The second half of a turn: decides over what came.
    pub fn wake(&mut self, unix_s: u64) -> Turned {
        self.ends.asleep.wake();
        self.decide(unix_s);
        let took = self.driver.now().saturating_sub(self.core.now());
        self.core.count_turn(took, self.driver.stats());
        if self.core.is_done() { Turned::Done } else { Turned::GoOn }
    }

    /// To be called after the last turn: runs what is left at the log, as other workers may wait
    /// for it, and submits what was decided.
    ///
    /// # Errors
    /// What leaves the ring unusable.
    pub fn finish(&mut self) -> io::Result<()> {
        while self.left == Left::Work {
            self.run_log();
        }
        self.driver.turn(self.core.batch(), Wait::No, &mut self.completions)
    }

    fn decide(&mut self, unix_s: u64) {
        self.core.begin_turn(self.driver.now(), unix_s, &self.completions);
        for completion in &self.completions {
            if let Completion::Received { buffer, .. } = *completion {
                self.core.complete(*completion, self.driver.received(buffer));
                self.driver.recycle(buffer);
            } else {
                self.core.complete(*completion, &[]);
            }
        }
        // The answers to what the completions asked for are taken in this same turn.
        let has_sent = self.core.send_requests();
        self.run_log_if(has_sent);
        self.core.count_lane_depth(self.ends.from_log.len());
        for told in self.ends.from_log.try_iter().take(LANE_TAKEN_PER_TURN) {
            self.core.from_log(told);
        }
        while let Ok(command) = self.ends.commands.try_recv() {
            self.core.command(command);
        }
        self.completions.clear();
        let has_sent = self.core.end_turn();
        self.run_log_if(has_sent);
    }

    /// What others put into the log's lane is theirs to run, or the holder's.
    fn run_log_if(&mut self, has_sent: bool) {
        if has_sent || self.left == Left::Work {
            self.run_log();
        }
    }

    /// Runs what is in the log's lane, unless another thread is doing so.
    fn run_log(&mut self) {
        let now = self.core.now();
        self.left = self.hand.run(now, &mut self.core.batch().rings);
    }
}

impl Core {
    /// Carries out a command of main or the operator.
    pub fn command(&mut self, command: Command) {
        match command {
            Command::Retire(heard) => self.retire(heard),
            Command::Drain => self.begin_drain(),
            Command::Stop => self.stop(),
            Command::Gate(gate) => self.sessions.take_gate(gate),
            Command::Revoke(revoked) => self.sessions.take_revoked(revoked),
            Command::Verdict { question, verdict } => self.take_verdict(question, verdict),
            Command::Settings(settings) => self.apply_settings(settings),
            // The asker may have given up waiting.
            Command::Ping(reply) => drop(reply.try_send(self.worker)),
            Command::List { from, limit, subject, reply } => {
                drop(reply.try_send(self.look(from, limit, subject.as_deref())));
            }
            Command::Cut { token, reply } => drop(reply.try_send(self.cut(token))),
        }
    }
}
