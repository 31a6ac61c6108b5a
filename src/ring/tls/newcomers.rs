//! Connections whose handshakes are still far: the worker does not hear of one, and so gives it no time
//! for its request, before its handshake is near. Otherwise a storm would spend that time in our own
//! queue, and what clients say first would fill memory instead of waiting in their sockets.

use std::collections::VecDeque;

use super::{Completion, Driver, Tls};

/// First records that may wait to be processed before newcomers wait unheard: more than a turn takes, so
/// that the next one has some, and so few that even a worker with a hundredth of a core gets to the last
/// one long before its time is over.
pub(super) const FIRST_RECORDS_MAX: usize = 4;

/// Length from which the line is freed once it is empty.
const LINE_KEPT: usize = 1024;

impl<D: Driver> Tls<D> {
    /// Tells the worker of as many newcomers as there is room for.
    pub(super) fn let_in(&mut self, out: &mut Vec<Completion>) {
        self.let_in_at_most(FIRST_RECORDS_MAX.saturating_sub(self.queue.len()), out);
    }

    /// Accepting has ended. A worker that accepts no more must know all connections it has, and one whose
    /// table is full must see that it is.
    pub(super) fn let_all_in(&mut self, out: &mut Vec<Completion>) {
        self.let_in_at_most(usize::MAX, out);
    }

    fn let_in_at_most(&mut self, count: usize, out: &mut Vec<Completion>) {
        for _ in 0..count.min(self.newcomers.len()) {
            let Some(accepted) = self.newcomers.pop_front() else { break };
            if let Completion::Accepted { slot, .. } = accepted {
                self.begin(slot);
            }
            out.push(accepted);
        }
        if self.newcomers.is_empty() && self.newcomers.capacity() > LINE_KEPT {
            self.newcomers = VecDeque::new();
        }
    }
}
