//! Going away: no new connections, 503 for new requests, and streams ended in slices spread over
//! the time allowed, so that clients come back one after the other and not all at once.

use std::time::Duration;

use super::core::{Accept, Core};
use super::slot::Phase;
use crate::reason::CloseReason;
use crate::ring::Op;

/// Streams end over this part of the drain time; the rest is for the last ones to be sent.
const SPREAD_PARTS: (u32, u32) = (3, 4);

/// How far a worker's end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Drain {
    /// Not at all.
    #[default]
    No,
    /// Streams are being ended.
    Draining { began: Duration, hand: u32 },
    /// Everything is ended.
    Stopped,
}

impl Core {
    /// Whether the worker has nothing left to do and was told to end.
    pub fn is_done(&self) -> bool {
        match self.drain {
            Drain::No => false,
            Drain::Draining { .. } => self.open == 0 && self.batch.ops.is_empty(),
            Drain::Stopped => self.batch.ops.is_empty(),
        }
    }

    /// Connections still open.
    pub fn open(&self) -> u32 {
        self.open
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain != Drain::No
    }

    pub(super) fn begin_drain(&mut self) {
        if self.is_draining() {
            return;
        }
        self.drain = Drain::Draining { began: self.now, hand: 0 };
        if self.accept == Accept::Armed {
            self.batch.ops.push(Op::AcceptStop);
        }
        self.accept = Accept::Stopped;
    }

    /// Ends what is left, at once.
    pub(super) fn stop(&mut self) {
        self.begin_drain();
        for index in 0..self.slots.len() as u32 {
            if self.slots[index as usize].phase != Phase::Free {
                self.close(index, CloseReason::Drain);
            }
        }
        self.drain = Drain::Stopped;
    }

    /// Ends the next slice of connections.
    pub(super) fn drain_slice(&mut self) {
        let Drain::Draining { began, hand } = self.drain else { return };
        let (part, parts) = SPREAD_PARTS;
        let spread = self.setup.settings.drain_time * part / parts;
        let elapsed = (self.now - began).as_nanos();
        let slots = self.slots.len() as u128;
        let due = elapsed.saturating_mul(slots) / spread.as_nanos().max(1);
        let due = due.min(slots) as u32;
        for index in hand..due {
            self.let_go(index);
        }
        if u128::from(due) == slots {
            // Requests that were in progress are answered by now, or soon: look again.
            for index in 0..slots as u32 {
                self.let_go(index);
            }
        }
        self.drain = Drain::Draining { began, hand: due };
    }

    fn let_go(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        let busy = slot.work.as_ref().is_some_and(|work| !work.is_idle());
        match slot.phase {
            Phase::Sse | Phase::Ws => self.disconnect(index, CloseReason::Drain),
            // A publish that was accepted is finished and answered.
            Phase::Http if !busy => self.close(index, CloseReason::Drain),
            Phase::Http | Phase::Free | Phase::WsClosing | Phase::Lingering => {}
        }
    }
}
