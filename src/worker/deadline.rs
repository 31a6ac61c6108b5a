//! Deadlines of the few connections that are in the middle of something. Each kind has one length,
//! so a queue per kind is in order by itself; a deadline that has lost its meaning is dropped when
//! its time comes, or when there are so many that it is worth looking for such.

use std::collections::VecDeque;
use std::time::Duration;

use super::core::Core;
use super::http::HttpState;
use super::slot::Phase;
use crate::limits::{
    LETTER_TIME_MAX, LINGER_TIME_MAX, PUBLISH_RETRY_PAUSE, REFUSAL_TIME_MAX, TICK,
    WS_CLOSE_TIME_MAX,
};
use crate::proto::http::response::Status;
use crate::proto::reject::Reject;
use crate::reason::CloseReason;
use crate::ring::Token;

const HEAD_TIMEOUT: Reject =
    Reject::new(Status::RequestTimeout, "head_timeout", "the head took too long");

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request head must be complete.
    Head,
    /// The request body, or the message, must have made progress.
    Body,
    /// The peer must have ended after its last answer.
    Linger,
    /// The closing handshake must be over.
    WsClose,
    /// The same where the peer has stopped reading, so that the close frame can't be sent yet.
    WsCloseStalled,
    /// A connection there is no room for must have said what it wants.
    Refusal,
    /// Another worker must have answered.
    Letter,
    /// A publisher's refused lines are to be tried again.
    Retry,
}

const KINDS: [Kind; 8] = [
    Kind::Head,
    Kind::Body,
    Kind::Linger,
    Kind::WsClose,
    Kind::WsCloseStalled,
    Kind::Refusal,
    Kind::Letter,
    Kind::Retry,
];

/// Where in its life a connection is: which request, and how far into its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    requests: u32,
    progress: u32,
}

/// Deadlines of one kind from which on those without meaning are looked for. A storm of connections
/// would leave one for each of them otherwise, for as long as a head may take.
const TIDY_FROM: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Duration,
    token: Token,
    /// What the connection looked like then; see `Core::mark`.
    mark: Mark,
}

/// All deadlines of a worker.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queues: [VecDeque<Deadline>; KINDS.len()],
    /// Length at which each queue is tidied next.
    tidy_at: [usize; KINDS.len()],
}

impl Deadlines {
    /// When the next one is due.
    pub fn next(&self) -> Option<Duration> {
        self.queues.iter().filter_map(|queue| queue.front()).map(|deadline| deadline.at).min()
    }

    /// Adds one. When the queue has doubled since it was last tidied, those that no longer matter
    /// leave it: constant work per deadline, and a queue never longer than twice what matters.
    fn push(&mut self, kind: Kind, deadline: Deadline, matters: impl Fn(&Deadline) -> bool) {
        let queue = &mut self.queues[kind as usize];
        let tidy_at = &mut self.tidy_at[kind as usize];
        if queue.len() >= (*tidy_at).max(TIDY_FROM) {
            queue.retain(matters);
            *tidy_at = queue.len() * 2;
        }
        queue.push_back(deadline);
    }

    fn pop_due(&mut self, kind: Kind, now: Duration) -> Option<Deadline> {
        let queue = &mut self.queues[kind as usize];
        let deadline = queue.pop_front_if(|deadline| deadline.at <= now);
        if queue.is_empty() && queue.capacity() > 1024 {
            *queue = VecDeque::new();
        }
        deadline
    }
}

impl Core {
    /// The request head must be complete within the time allowed.
    pub(super) fn await_head(&mut self, index: u32) {
        self.set_deadline(index, Kind::Head);
    }

    /// Takes out the oldest connection whose head is awaited, and for longer than a moment.
    pub(super) fn oldest_head(&mut self) -> Option<Token> {
        let at_most = self.now + self.setup.settings.head_time.saturating_sub(TICK);
        loop {
            let deadline = self.deadlines.pop_due(Kind::Head, at_most)?;
            if self.matters(Kind::Head, &deadline) {
                return Some(deadline.token);
            }
        }
    }

    /// What the peer has begun to send must make progress within the time allowed.
    pub(super) fn await_progress(&mut self, index: u32) {
        self.set_deadline(index, Kind::Body);
    }

    pub(super) fn set_deadline(&mut self, index: u32, kind: Kind) {
        let after = match kind {
            Kind::Head => self.setup.settings.head_time,
            Kind::Body => self.setup.settings.body_time,
            Kind::Linger => LINGER_TIME_MAX,
            Kind::WsClose => WS_CLOSE_TIME_MAX,
            // As long as the kernel waits for a peer that takes nothing.
            Kind::WsCloseStalled => self.setup.settings.dead_time.max(WS_CLOSE_TIME_MAX),
            Kind::Refusal => REFUSAL_TIME_MAX,
            Kind::Letter => LETTER_TIME_MAX,
            Kind::Retry => PUBLISH_RETRY_PAUSE,
        };
        let at = match kind {
            Kind::Retry => self.now + after,
            _ => next_tick(self.now + after),
        };
        let deadline = Deadline { at, token: self.token(index), mark: self.mark(index, kind) };
        let mut deadlines = std::mem::take(&mut self.deadlines);
        deadlines.push(kind, deadline, |other| self.matters(kind, other));
        self.deadlines = deadlines;
    }

    /// Whether the deadline may still do something when its time comes. Only heads, bodies and
    /// messages are so many that it is worth a look.
    fn matters(&self, kind: Kind, deadline: &Deadline) -> bool {
        if !self.is_current(deadline.token) {
            return false;
        }
        let index = deadline.token.slot;
        let slot = &self.slots[index as usize];
        let (now, before) = (self.mark(index, kind), deadline.mark);
        match kind {
            Kind::Head => slot.phase == Phase::Http && now == before,
            Kind::Body => {
                let receiving = slot.work.as_ref().is_some_and(|work| work.is_receiving());
                receiving && now.requests == before.requests
            }
            _ => true,
        }
    }

    /// What tells whether the connection is still at the same point.
    fn mark(&self, index: u32, kind: Kind) -> Mark {
        let slot = &self.slots[index as usize];
        match kind {
            Kind::Head | Kind::Refusal | Kind::Letter => {
                Mark { requests: slot.requests, progress: 0 }
            }
            Kind::Body => {
                let progress = slot.work.as_ref().map_or(0, |work| work.progress);
                Mark { requests: slot.requests, progress }
            }
            Kind::Linger | Kind::WsClose | Kind::WsCloseStalled | Kind::Retry => Mark::default(),
        }
    }

    pub(super) fn check_deadlines(&mut self) {
        for kind in KINDS {
            while let Some(deadline) = self.deadlines.pop_due(kind, self.now) {
                if self.is_current(deadline.token) {
                    self.due(deadline.token.slot, kind, deadline.mark);
                }
            }
        }
    }

    fn due(&mut self, index: u32, kind: Kind, mark: Mark) {
        let slot = &self.slots[index as usize];
        let state = slot.work.as_ref().map(|work| &work.http);
        let now = self.mark(index, kind);
        let same = now == mark;
        match (kind, slot.phase, state) {
            (Kind::Head, Phase::Http, None) if same => self.close(index, CloseReason::HeadTimeout),
            (Kind::Head, Phase::Http, Some(HttpState::Head(_))) if same => {
                self.note_ending(index, CloseReason::HeadTimeout);
                self.reject_and_close(index, HEAD_TIMEOUT);
            }
            // A later body or message has a deadline of its own.
            (Kind::Body, Phase::Http | Phase::Ws, _) if now.requests == mark.requests => {
                self.progress_due(index, same);
            }
            (Kind::Linger, Phase::Lingering, _) => self.close(index, CloseReason::Answered),
            (Kind::WsClose, Phase::Ws, _) => self.say_farewell(index),
            (Kind::WsClose | Kind::WsCloseStalled, Phase::WsClosing, _) => {
                self.close(index, CloseReason::CloseTimeout);
            }
            (Kind::Refusal, Phase::Http, _) if same => self.refuse_unheard(index),
            (Kind::Letter, Phase::Http, Some(HttpState::Waiting { .. })) if same => {
                self.letter_lost(index);
            }
            (Kind::Retry, Phase::Http, Some(HttpState::Lines(_))) => self.retry_lines(index),
            // The deadline was kept.
            _ => {}
        }
    }
}

/// Deadlines fall on ticks, so that thousands of connections that came within one are looked at
/// in one turn and not each in a turn of its own.
fn next_tick(at: Duration) -> Duration {
    let tick = TICK.as_nanos() as u64;
    Duration::from_nanos((at.as_nanos() as u64).next_multiple_of(tick))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadline(slot: u32) -> Deadline {
        Deadline {
            at: Duration::from_secs(10),
            token: Token { slot, generation: 0 },
            mark: Mark::default(),
        }
    }

    #[test]
    fn deadlines_that_lost_their_meaning_do_not_pile_up_and_the_others_stay_in_order() {
        let mut deadlines = Deadlines::default();
        for slot in 0..100_000 {
            deadlines.push(Kind::Head, deadline(slot), |other| other.token.slot % 1000 == 0);
            assert!(deadlines.queues[Kind::Head as usize].len() <= TIDY_FROM);
        }
        let mut kept = Vec::new();
        while let Some(due) = deadlines.pop_due(Kind::Head, Duration::from_secs(10)) {
            kept.push(due.token.slot);
        }
        assert!(kept.is_sorted());
        assert_eq!(kept.iter().filter(|slot| *slot % 1000 == 0).count(), 100);
    }

    #[test]
    fn deadlines_that_matter_all_stay() {
        let mut deadlines = Deadlines::default();
        for slot in 0..10_000 {
            deadlines.push(Kind::Head, deadline(slot), |_| true);
        }
        assert_eq!(deadlines.queues[Kind::Head as usize].len(), 10_000);
    }
}
