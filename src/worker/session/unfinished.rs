//! Unfinished input: heads, bodies, lines and messages that have begun and not ended. A connection
//! may hold as much as a whole event, needs no right to begin one, and there are many connections.
//! So all connections of a worker share one bound, and those that hold most go first. Time bounds
//! it, too: what has begun must make progress.

use super::state::{HttpState, Protocol};
use super::{Cx, Sessions, closing, ndjson};
use crate::proto::http::response::Status;
use crate::proto::reject::Reject;
use crate::reason::CloseReason;
use crate::worker::clock::Why;

const INPUT_FULL: Reject = Reject::new(
    Status::ServiceUnavailable,
    "input_full",
    "the server holds too much unfinished input; try again",
);

const NO_PROGRESS: Reject =
    Reject::new(Status::RequestTimeout, "body_timeout", "the body made no progress");

/// What is left of the bound after it was exceeded, in eighths: finding those that hold most walks
/// all connections, and must not happen for every few bytes.
const EIGHTHS_LEFT: usize = 7;

impl Sessions {
    /// Counts what the session holds now.
    pub fn count_unfinished(&mut self, index: u32) {
        let Some(work) = &mut self.of[index].work else { return };
        let now = work.unfinished_bytes();
        let before = std::mem::replace(&mut work.unfinished, now);
        self.unfinished_bytes = self.unfinished_bytes + now - before;
    }

    /// The sessions that hold most, if all together hold more than they may. They are to be refused
    /// until [`Sessions::has_enough_left`].
    pub fn largest_unfinished(&mut self) -> Vec<u32> {
        if self.unfinished_bytes <= self.shared.settings.input_bytes_max() {
            return Vec::new();
        }
        let mut holders: Vec<(usize, u32)> = Vec::new();
        for index in self.of.indices() {
            self.count_unfinished(index);
            let held = self.of[index].work().map_or(0, |work| work.unfinished);
            if held > 0 {
                holders.push((held, index));
            }
        }
        holders.sort_unstable_by(|one, other| other.cmp(one));
        holders.into_iter().map(|(_, index)| index).collect()
    }

    /// Whether enough was freed.
    pub fn has_enough_left(&self) -> bool {
        self.unfinished_bytes <= self.shared.settings.input_bytes_max() / 8 * EIGHTHS_LEFT
    }

    /// Drops all input it holds.
    pub fn drop_input(&mut self, index: u32) {
        if let Some(work) = &mut self.of[index].work {
            work.carry = Vec::new();
            if let Some(receiver) = &mut work.ws {
                receiver.discard();
            }
        }
        self.count_unfinished(index);
    }
}

/// Ends the session, with 503 or 1013 where the protocol has a way to say so.
pub fn refuse_unfinished(cx: &mut Cx<'_>) {
    match cx.session.protocol {
        Protocol::Http if !cx.world.ends_after_output() => refuse_request(cx),
        Protocol::Http2 => closing::disconnect(cx, CloseReason::Overloaded),
        Protocol::Ws if !cx.session.has_farewell() && cx.session.work().is_some() => {
            closing::ws_refuse(cx, CloseReason::Overloaded);
        }
        _ => {}
    }
}

fn refuse_request(cx: &mut Cx<'_>) {
    cx.note(CloseReason::Overloaded);
    match cx.work().http {
        HttpState::Ndjson(_) => ndjson::fail(cx, INPUT_FULL),
        // The present request gets its answer; what follows it is not read.
        HttpState::Waiting { .. } => cx.close_after_answer(),
        HttpState::Head(_) | HttpState::Body(_) | HttpState::Stream(_) | HttpState::Discard(_) => {
            cx.reject_and_close(INPUT_FULL);
        }
    }
}

/// The time for progress is over. `stalled`: there was no progress.
pub(super) fn progress_due(cx: &mut Cx<'_>, stalled: bool) {
    let silent = cx.world.is_silent();
    let Some(work) = &cx.session.work else { return };
    // Input we have received and not parsed yet waits for us, not for the peer.
    let stalled = stalled && work.carry.is_empty();
    let waits = work.outstanding > 0;
    match &work.http {
        HttpState::Body(_) if stalled => {
            cx.note(CloseReason::BodyTimeout);
            cx.reject_and_close(NO_PROGRESS);
        }
        // Between lines the peer may pause longer, as between requests.
        HttpState::Ndjson(lines)
            if !waits && lines.awaits_peer() && (silent || stalled && lines.is_within_line()) =>
        {
            cx.note(CloseReason::BodyTimeout);
            ndjson::fail(cx, NO_PROGRESS);
        }
        _ if work.ws.is_some() && stalled => closing::ws_refuse(cx, CloseReason::BodyTimeout),
        // It has a time of its own.
        HttpState::Stream(_) => {}
        _ if work.is_receiving() => cx.wait(Why::Body),
        // A later body or message has a deadline of its own.
        _ => {}
    }
}
