//! The end of a stream: what it is told, and what is sent before that.

use super::state::{Farewell, HttpState, Protocol, Session};
use super::{Cx, http2, ws_streams};
use crate::proto::h2::ErrorCode;
use crate::proto::ws::close::{CloseCode, write_close};
use crate::reason::CloseReason;
use crate::worker::clock::Why;
use crate::worker::effect::{Effect, Ending};

impl Session {
    /// The event up to which the session must be sent everything before it ends, if it is to end.
    pub fn farewell(&self) -> Option<u64> {
        let work = self.work()?;
        let due = self.protocol == Protocol::Ws && work.farewell.is_some() && work.outstanding == 0;
        due.then_some(work.published_to)
    }

    /// Whether the session is to end.
    pub fn has_farewell(&self) -> bool {
        self.work().is_some_and(|work| work.farewell.is_some())
    }
}

// --- because of what the peer sent ---

/// Refuses what the peer sent, with the close frame that belongs to the reason.
pub(super) fn ws_refuse(cx: &mut Cx<'_>, reason: CloseReason) {
    let (code, text) = reason.close_frame();
    ws_refuse_with(cx, code, text, reason);
}

pub(super) fn ws_refuse_with(
    cx: &mut Cx<'_>,
    code: CloseCode,
    text: &'static str,
    reason: CloseReason,
) {
    ws_ends(cx, Farewell::Refusal { code, text, reason });
}

/// The peer's input ends the connection. Events it has published are ordered and delivered to
/// it first, as if they had been answered at once.
pub(super) fn ws_ends(cx: &mut Cx<'_>, farewell: Farewell) {
    let tail = cx.world.live_tail();
    let work = cx.work();
    // Its own events may be among those a live subscriber was about to get.
    work.published_to = tail.unwrap_or(work.published_to);
    work.farewell = Some(farewell);
    cx.push(Effect::Farewell);
}

/// Ends the session if it is to end.
pub fn say_farewell(cx: &mut Cx<'_>) {
    match cx.work().farewell.take() {
        None => {}
        Some(Farewell::Answer(code)) => ws_answer_close(cx, code),
        Some(Farewell::Refusal { code, text, reason }) => {
            ws_close(cx, code, text, reason);
            // After a protocol error, nothing more from the peer may be processed, not even its
            // close frame (RFC 6455 section 7.1.7).
            let hears_more = !cx.world.has_peer_ended();
            if !hears_more || matches!(reason, CloseReason::Violation(_)) {
                cx.end(Ending::AfterOutput(None));
            }
        }
    }
}

/// The peer began to close, and gets its close frame back (RFC 6455 section 5.5.1).
fn ws_answer_close(cx: &mut Cx<'_>, code: Option<CloseCode>) {
    write_close(cx.out(), code, "");
    begin_ws_close(cx);
    cx.work().ws = None;
    cx.wait(Why::WsClose);
    cx.end(Ending::AfterOutput(None));
}

// --- because of us ---

/// Ends a session of any kind, telling it why where the protocol has a way to.
pub fn disconnect(cx: &mut Cx<'_>, reason: CloseReason) {
    if reason == CloseReason::SlowConsumer {
        cx.shared.metrics.slow_disconnects.add(1);
    }
    let (code, text) = reason.close_frame();
    match cx.session.protocol {
        Protocol::Ws => ws_close(cx, code, text, reason),
        // A peer that has stopped reading would not see it.
        Protocol::Sse
            if reason.is_told() && !cx.world.is_blocked() && !cx.world.ends_after_output() =>
        {
            let label = CloseReason::LABELS[reason.index()];
            cx.session.dialect.write_end(cx.out(), label, code, text);
            cx.end(Ending::AfterOutput(Some(reason)));
        }
        Protocol::Http2 if !cx.world.is_blocked() && !cx.world.ends_after_output() => {
            http2::end(cx, ErrorCode::NoError, reason);
        }
        Protocol::Http | Protocol::Http2 | Protocol::Sse | Protocol::WsClosing => {
            cx.end(Ending::Now(reason));
        }
    }
}

/// Begins the closing handshake (RFC 6455 section 7.1.2).
pub fn ws_close(cx: &mut Cx<'_>, code: CloseCode, text: &str, reason: CloseReason) {
    write_close(cx.out(), Some(code), text);
    begin_ws_close(cx);
    cx.end(Ending::Handshake(reason));
}

fn begin_ws_close(cx: &mut Cx<'_>) {
    let work = cx.work();
    work.carry.clear();
    work.farewell = None;
    cx.speak(Protocol::WsClosing);
}

/// The peer sends no more. Returns whether there still is something to tell it.
pub(super) fn ws_peer_ended(cx: &mut Cx<'_>, sends: bool) -> bool {
    match cx.session.protocol {
        // Its last message may be among what waits to be read.
        Protocol::Ws => cx.session.has_farewell() || cx.session.carried() > 0,
        Protocol::WsClosing if sends => {
            cx.end(Ending::AfterOutput(None));
            true
        }
        Protocol::Http | Protocol::Http2 | Protocol::Sse | Protocol::WsClosing => false,
    }
}

/// The connection is gone, perhaps in the middle of a stream.
pub fn leave_unanswered(cx: &mut Cx<'_>) {
    ws_streams::leave_all(cx);
    let Some(work) = &mut cx.session.work else { return };
    if matches!(work.http, HttpState::Stream(_))
        && let HttpState::Stream(producer) = std::mem::take(&mut work.http)
    {
        cx.leave_producer(&producer);
    }
}
