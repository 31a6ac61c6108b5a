//! Joins that are ahead of this node: another one has shown their subscribers events that have not
//! come here yet. Only where the order is given elsewhere; else no cursor can be ahead.

use std::time::Duration;

use super::message::{FromLog, Refusal, Ticket};
use super::sequencer::{Outlet, Sequencer};
use crate::proto::cursor::Cursor;

/// Joins that may wait. Each holds one of the answers its worker may wait for, so it is less than
/// those.
pub const AHEAD_MAX: usize = 512;

/// How long one may wait: nodes are milliseconds apart, and behind a balancer another one may have
/// what this one lacks.
pub const AHEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// A join that waits.
#[derive(Debug)]
struct Join {
    /// For this event.
    seq: u64,
    until: Duration,
    worker: u16,
    ticket: Ticket,
    channels: Vec<Box<str>>,
}

/// All of them, in the order in which they came.
#[derive(Debug)]
pub(super) struct Ahead {
    joins: Vec<Join>,
    /// No join waits for an event before this.
    lowest: u64,
}

impl Ahead {
    pub fn new() -> Self {
        Self { joins: Vec::new(), lowest: u64::MAX }
    }

    fn push(&mut self, join: Join) {
        self.lowest = self.lowest.min(join.seq);
        self.joins.push(join);
    }

    /// Takes those that need not wait any longer.
    fn take(&mut self, is_over: impl Fn(&Join) -> bool) -> Vec<Join> {
        let taken = self.joins.extract_if(.., |join| is_over(join)).collect();
        self.lowest = self.joins.iter().map(|join| join.seq).min().unwrap_or(u64::MAX);
        taken
    }
}

impl Sequencer {
    /// Joins these channels once this node has seen this event.
    pub(super) fn wait_for(
        &mut self,
        seq: u64,
        worker: u16,
        ticket: Ticket,
        channels: Vec<Box<str>>,
        outlet: &mut impl Outlet,
    ) {
        if self.ahead.joins.len() >= AHEAD_MAX {
            return self.refuse_join(worker, ticket, outlet);
        }
        let until = self.now + AHEAD_TIME_MAX;
        self.ahead.push(Join { seq, until, worker, ticket, channels });
    }

    /// Joins those whose event has come.
    #[inline]
    pub(super) fn join_reached(&mut self, outlet: &mut impl Outlet) {
        let head_seq = self.head_seq;
        if self.ahead.lowest > head_seq {
            return;
        }
        for join in self.ahead.take(|join| join.seq <= head_seq) {
            let Join { seq, worker, ticket, channels, .. } = join;
            self.answer_join(worker, ticket, channels, Cursor::After(seq), outlet);
        }
    }

    /// Answers those that have waited for too long. Where there is no such event they are told of a
    /// gap; a node that may be behind refuses them, and another one may be asked. Returns when to
    /// come again.
    pub(super) fn answer_overdue(&mut self, outlet: &mut impl Outlet) -> Option<Duration> {
        let now = self.now;
        for Join { seq, worker, ticket, channels, .. } in self.ahead.take(|join| join.until <= now)
        {
            match self.store.newest().filter(|_| self.store_is_up) {
                Some(newest) if newest < seq => {
                    self.answer_join(worker, ticket, channels, Cursor::After(seq), outlet);
                }
                _ => self.refuse_join(worker, ticket, outlet),
            }
        }
        self.ahead.joins.iter().map(|join| join.until).min()
    }

    fn refuse_join(&mut self, worker: u16, ticket: Ticket, outlet: &mut impl Outlet) {
        let refusal = Refusal::Behind;
        self.counters.refused.count(refusal);
        outlet.send(worker, FromLog::JoinRefused { ticket, refusal });
    }
}
