//! The one way out for connections: [`Core::end`].

use super::clock::Why;
use super::effect::Ending;
use super::net::Lingers;
use super::session::{self, Protocol};
use super::turn::Core;
use crate::reason::CloseReason;
use crate::ring::Token;

impl Core {
    /// Ends a connection, telling it why if its protocol has a way to.
    pub(super) fn disconnect(&mut self, index: u32, reason: CloseReason) {
        self.session(index, |cx| session::disconnect(cx, reason));
    }

    /// Ends a connection; all it is told is already in its output.
    pub(super) fn end(&mut self, index: u32, ending: Ending) {
        match ending {
            Ending::Now(reason) => self.close(index, reason),
            Ending::AfterOutput(reason) => {
                self.end_h2_streams(index, reason.unwrap_or(CloseReason::Answered));
                if let Some(reason) = reason {
                    self.net.note_ending(index, reason);
                }
                self.hub.leave_all(index);
                self.net.end_after_output(index, Lingers::Yes);
                if self.sessions[index].protocol() == Protocol::WsClosing {
                    self.net.resume(index);
                }
                // There may be no output left, and the connection ends at once.
                self.queue(index);
            }
            Ending::Handshake(reason) => {
                self.net.note_ending(index, reason);
                self.hub.leave_all(index);
                let stalled = self.net.is_blocked(index);
                self.await_time(index, if stalled { Why::WsCloseStalled } else { Why::WsClose });
                self.net.resume(index);
            }
            Ending::HandshakeOver => {
                self.net.end_after_output(index, Lingers::No);
                self.finish_if_done(index);
            }
        }
    }

    fn close(&mut self, index: u32, reason: CloseReason) {
        self.end_h2_streams(index, reason);
        self.close_one(index, reason);
    }

    pub(super) fn close_one(&mut self, index: u32, reason: CloseReason) {
        let reason = self.net.ending(index).unwrap_or(reason);
        self.session(index, |cx| {
            session::log_closed(cx, reason);
            session::leave_unanswered(cx);
        });
        self.hub.forget(index);
        self.end_asking_beside(index, self.sessions[index].outstanding());
        self.sessions.closed(index);
        self.net.close(index, reason);
    }

    /// Ends the connection if it was to end after its output and that is sent; returns whether it
    /// did.
    pub(super) fn finish_if_done(&mut self, index: u32) -> bool {
        if !self.net.ends_after_output(index)
            || self.has_output(index)
            || self.net.is_lingering(index)
        {
            return false;
        }
        // Both close frames are sent, and the peer's was first.
        let closed = self.sessions[index].protocol() == Protocol::WsClosing;
        let reason = if closed { CloseReason::PeerClosed } else { CloseReason::Answered };
        if self.net.is_stream(index) {
            self.net.finish_stream(index);
        }
        if self.net.will_linger(index) {
            self.net.note_ending(index, reason);
            self.session(index, session::leave_unanswered);
            self.hub.forget(index);
            self.sessions.lingers(index);
            self.net.linger(index);
            self.await_time(index, Why::Linger);
        } else {
            self.close(index, reason);
        }
        true
    }

    /// A WebSocket is to end once it has been sent what it published, for which there is a time.
    pub(super) fn begin_farewell(&mut self, index: u32) {
        self.queue(index);
        if !self.say_farewell_if_due(index) {
            self.await_time(index, Why::WsClose);
        }
    }

    /// Ends a WebSocket that is to end, once it has been sent what it published; returns whether it
    /// did.
    pub(super) fn say_farewell_if_due(&mut self, index: u32) -> bool {
        let due = self.sessions[index]
            .farewell()
            .is_some_and(|published_to| !self.hub.owes_up_to(index, published_to));
        if due {
            self.session(index, session::say_farewell);
        }
        due
    }

    /// Ends a connection for the operator; returns whether there was one. One that is ending
    /// already counts as gone.
    pub(super) fn cut(&mut self, token: Token) -> bool {
        if !self.net.is_current(token) || self.net.ending(token.slot).is_some() {
            return false;
        }
        self.disconnect(token.slot, CloseReason::Operator);
        true
    }
}
