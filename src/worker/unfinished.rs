//! Input that has begun and not ended: heads, bodies, lines and messages. A connection may hold a
//! whole event of it, needs no right to begin one, and there are many connections: so those of a
//! worker share one bound, and whoever holds most goes first. Time bounds it, too: what has begun
//! must make progress.

use super::core::Core;
use super::http::HttpState;
use super::slot::{Flags, Phase};
use super::work::Work;
use crate::proto::http::response::Status;
use crate::proto::reject::Reject;
use crate::reason::CloseReason;

const INPUT_FULL: Reject = Reject::new(
    Status::ServiceUnavailable,
    "input_full",
    "too much has begun and not ended; try again",
);

const NO_PROGRESS: Reject =
    Reject::new(Status::RequestTimeout, "body_timeout", "the body made no progress");

/// What is left of the bound when it was exceeded, in eighths: looking for whoever holds most walks
/// all connections, and is not to be done for every few bytes.
const EIGHTHS_LEFT: usize = 7;

impl Core {
    /// Counts what the connection holds now.
    pub(super) fn note_unfinished(&mut self, index: u32) {
        let Some(work) = &mut self.slots[index as usize].work else { return };
        let now = work.unfinished_bytes();
        let before = std::mem::replace(&mut work.unfinished, now);
        self.unfinished_bytes = self.unfinished_bytes + now - before;
    }

    /// What the work held is gone.
    pub(super) fn forget_unfinished(&mut self, work: &mut Work) {
        self.unfinished_bytes -= std::mem::take(&mut work.unfinished);
    }

    /// More is held than may be: the connections that hold most lose it.
    pub(super) fn bound_unfinished(&mut self) {
        let bytes_max = self.setup.settings.input_bytes_max();
        if self.unfinished_bytes <= bytes_max {
            return;
        }
        let mut holders: Vec<(usize, u32)> = Vec::new();
        for index in 0..self.slots.len() as u32 {
            self.note_unfinished(index);
            let work = self.slots[index as usize].work.as_ref();
            holders.extend(work.filter(|work| work.unfinished > 0).map(|w| (w.unfinished, index)));
        }
        holders.sort_unstable_by(|one, other| other.cmp(one));
        let bytes_left = bytes_max / 8 * EIGHTHS_LEFT;
        for (_, index) in holders {
            if self.unfinished_bytes <= bytes_left {
                break;
            }
            self.refuse_unfinished(index);
            self.note_unfinished(index);
        }
    }

    /// The connection ends, with 503 or 1013 where there is a way to say so, and holds nothing.
    fn refuse_unfinished(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        let answered = slot.flags.has(Flags::CLOSE_AFTER_OUT);
        match slot.phase {
            Phase::Http if !answered => self.refuse_request(index),
            Phase::Ws if slot.work.as_ref().is_some_and(|work| work.farewell.is_none()) => {
                self.ws_refuse(index, CloseReason::Overloaded);
            }
            _ => {}
        }
        let Some(work) = &mut self.slots[index as usize].work else { return };
        work.carry = Vec::new();
        if let Some(receiver) = &mut work.ws {
            receiver.discard();
        }
        self.resume(index);
    }

    fn refuse_request(&mut self, index: u32) {
        self.note_ending(index, CloseReason::Overloaded);
        match self.work(index).http {
            HttpState::Lines(_) => self.fail_lines(index, INPUT_FULL),
            // The present request gets its answer; what is behind it is not read.
            HttpState::Waiting { .. } => self.close_after_answer(index),
            HttpState::Head(_) | HttpState::Body(_) | HttpState::Discard(_) => {
                self.reject_and_close(index, INPUT_FULL);
            }
        }
    }

    /// The time for progress is over. `stalled`: there was none.
    pub(super) fn progress_due(&mut self, index: u32, stalled: bool) {
        let silent = self.is_silent(index);
        let Some(work) = &self.slots[index as usize].work else { return };
        // What was received and is not looked at yet waits for us.
        let stalled = stalled && work.carry.is_empty();
        let waits = work.outstanding > 0;
        match &work.http {
            HttpState::Body(_) if stalled => {
                self.note_ending(index, CloseReason::BodyTimeout);
                self.reject_and_close(index, NO_PROGRESS);
            }
            HttpState::Lines(lines) if !waits && lines.is_late(stalled, silent) => {
                self.note_ending(index, CloseReason::BodyTimeout);
                self.fail_lines(index, NO_PROGRESS);
            }
            _ if work.ws.is_some() && stalled => self.ws_refuse(index, CloseReason::BodyTimeout),
            _ if work.is_receiving() => self.await_progress(index),
            // A later one has a deadline of its own.
            _ => {}
        }
    }
}
