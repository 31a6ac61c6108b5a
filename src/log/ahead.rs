//! Joins with a cursor ahead of this node: another one has shown the subscriber events that have not
//! come here yet. Without other nodes no cursor can be ahead.

use std::time::Duration;

use super::join::Join;
use super::message::{Answer, Refusal};
use super::sequencer::{Outlet, Sequencer};
use crate::proto::cursor::Cursor;

/// Joins that may wait. Each is one of the answers its worker may wait for, so these must be more.
pub const AHEAD_MAX: usize = 512;

/// How long a join may wait. Nodes are milliseconds apart; behind a balancer, another one may have what
/// this one lacks.
pub const AHEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// A join that waits for an event.
#[derive(Debug)]
struct Waiting {
    seq: u64,
    until: Duration,
    join: Join,
}

/// The joins that wait, in the order in which they came.
#[derive(Debug)]
pub(super) struct Ahead {
    joins: Vec<Waiting>,
    /// No join waits for an event before this.
    lowest: u64,
}

impl Ahead {
    pub fn new() -> Self {
        Self { joins: Vec::new(), lowest: u64::MAX }
    }

    fn push(&mut self, waiting: Waiting) {
        self.lowest = self.lowest.min(waiting.seq);
        self.joins.push(waiting);
    }

    /// Takes the joins that need not wait any longer.
    fn take(&mut self, is_over: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let taken = self.joins.extract_if(.., |waiting| is_over(waiting)).collect();
        self.lowest = self.joins.iter().map(|waiting| waiting.seq).min().unwrap_or(u64::MAX);
        taken
    }
}

impl Sequencer {
    /// Joins channels, once this node has the event that the subscriber has read.
    pub(super) fn join_in_time(&mut self, join: Join, outlet: &mut impl Outlet) {
        match join.cursor {
            Cursor::After(seq) if seq > self.order.head() && self.store.is_elsewhere() => {
                self.wait_for(seq, join, outlet);
            }
            _ => self.answer_join(join, outlet),
        }
    }

    fn wait_for(&mut self, seq: u64, join: Join, outlet: &mut impl Outlet) {
        if self.ahead.joins.len() >= AHEAD_MAX {
            return self.refuse_join(&join, outlet);
        }
        let until = self.now + AHEAD_TIME_MAX;
        self.ahead.push(Waiting { seq, until, join });
    }

    /// Ends the wait of joins whose event has come.
    #[inline]
    pub(super) fn join_reached(&mut self, outlet: &mut impl Outlet) {
        let head_seq = self.order.head();
        if self.ahead.lowest > head_seq {
            return;
        }
        for Waiting { join, .. } in self.ahead.take(|waiting| waiting.seq <= head_seq) {
            self.answer_join(join, outlet);
        }
    }

    /// Answers joins that have waited for too long. If there is no such event they are told of a gap.
    /// If this node may be behind, they are refused, and can ask another one. Returns when to call
    /// again.
    pub(super) fn answer_overdue(&mut self, outlet: &mut impl Outlet) -> Option<Duration> {
        let now = self.now;
        for Waiting { seq, join, .. } in self.ahead.take(|waiting| waiting.until <= now) {
            match self.store.newest().filter(|_| self.store_is_up) {
                Some(newest) if newest < seq => self.answer_join(join, outlet),
                _ => self.refuse_join(&join, outlet),
            }
        }
        self.ahead.joins.iter().map(|waiting| waiting.until).min()
    }

    fn refuse_join(&mut self, join: &Join, outlet: &mut impl Outlet) {
        let refusal = Refusal::Behind;
        self.counters.refused.count(refusal);
        outlet.answer(join.worker, join.ticket, Answer::JoinRefused(refusal));
    }
}
