//! New connections, and what they receive.

use std::net::IpAddr;

use super::clock::Why;
use super::effect::Ending;
use super::net::Heard;
use super::session::{self, Protocol, Step};
use super::turn::Core;
use crate::auth::{Question, Verdict};
use crate::limits::{CARRY_BYTES_MAX, TICK};
use crate::reason::{CloseReason, Refused};
use crate::ring::{Layer, RecvEnd, Token};

impl Core {
    pub(super) fn accepted(&mut self, index: u32, peer: Option<IpAddr>, layer: Layer) {
        self.net.accepted(index);
        self.sessions.opened(index);
        if layer == Layer::Tls {
            self.sessions[index].secure();
        }
        self.await_time(index, Why::Head);
        if !self.net.has_room() {
            self.reclaim_half_open(index);
        }
        let admitted = self.net.admit(index, peer);
        if self.net.is_proxy(index) {
            self.sessions[index].come_by_proxy();
        }
        self.refuse_unless(index, admitted);
    }

    fn refuse_unless(&mut self, index: u32, admitted: Result<(), Refused>) {
        if let Err(refused) = admitted {
            self.session(index, |cx| session::refuse_later(cx, refused));
        }
    }

    /// Makes room by ending the oldest connection that has not sent a request yet. The newcomer
    /// itself is spared.
    pub(super) fn reclaim_half_open(&mut self, newcomer: u32) {
        let at_most = self.now + self.settings.head_time.saturating_sub(TICK);
        while let Some(deadline) = self.clock.pop_due_of(Why::Head, at_most) {
            let (token, index) = (deadline.token, deadline.token.slot);
            let waits = self.net.is_current(token)
                && self.sessions[index].matters(Why::Head, deadline.mark);
            // One that was refused is ending already.
            let ends =
                waits && (self.sessions[index].is_refused() || self.net.ends_after_output(index));
            if waits && !ends && index != newcomer {
                return self.end(index, Ending::Now(CloseReason::Refused));
            }
        }
    }

    pub(super) fn receive_ended(&mut self, index: u32, why: RecvEnd) {
        match self.net.receive_ended(index, why) {
            Heard::More => {}
            Heard::End => self.peer_ended(index),
            Heard::Broken => self.end(index, Ending::Now(CloseReason::PeerGone)),
        }
    }

    pub(super) fn peer_ended(&mut self, index: u32) {
        if self.net.is_lingering(index) {
            return self.end(index, Ending::Now(CloseReason::PeerClosed));
        }
        let sends = self.has_output(index);
        self.session(index, |cx| session::peer_ended(cx, sends));
    }

    // --- input ---

    pub(super) fn received(&mut self, token: Token, bytes: &[u8]) {
        let index = token.slot;
        self.net.heard(index);
        self.sessions[index].heard();
        if self.net.is_lingering(index) {
            return;
        }
        match self.sessions[index].protocol() {
            Protocol::Http | Protocol::Http2 | Protocol::Ws => {}
            // A closing WebSocket still has to see the peer's close frame.
            Protocol::WsClosing => {
                return self.session(index, |cx| session::closing_input(cx, bytes));
            }
            Protocol::Sse => return,
        }
        if self.sessions[index].carried() > 0 {
            self.sessions.carry(index, bytes);
            self.take_carry(token);
        } else {
            let used = self.take_input(token, bytes);
            if used < bytes.len() && self.takes_input(token) {
                self.sessions.carry(index, &bytes[used..]);
            }
        }
        if self.takes_input(token) && self.sessions[index].carried() > CARRY_BYTES_MAX {
            self.net.pause(index);
        }
    }

    /// Goes on with unparsed input, now that an answer came or output was sent.
    pub(super) fn take_carry(&mut self, token: Token) {
        self.parse_carry(token);
        if self.net.is_current(token) {
            self.sessions.count_unfinished(token.slot);
        }
    }

    pub(super) fn parse_carry(&mut self, token: Token) {
        let index = token.slot;
        let Some(mut carry) = self.sessions.take_carry(index) else { return };
        let used = self.take_input(token, &carry);
        if !self.takes_input(token) {
            return self.end_if_deaf(token);
        }
        carry.drain(..used);
        if carry.len() <= CARRY_BYTES_MAX {
            self.net.resume(index);
        }
        self.sessions.put_carry(index, carry);
        if self.net.has_peer_ended(index) {
            self.peer_ended(index);
        }
    }

    pub(super) fn takes_input(&self, token: Token) -> bool {
        self.net.is_current(token)
            && !self.net.is_lingering(token.slot)
            && self.sessions[token.slot].takes_input()
    }

    pub(super) fn take_input(&mut self, token: Token, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() && self.takes_input(token) {
            let rest = &bytes[used..];
            match self.session(token.slot, |cx| session::input(cx, rest)) {
                Step::Used(count) => used += count,
                Step::Wait(count) => return used + count,
                Step::Client(count, client) => {
                    let admitted = self.net.count_client(token.slot, client);
                    self.refuse_unless(token.slot, admitted);
                    used += count;
                }
                Step::H2(count, what) => {
                    self.for_h2_streams(token, what, rest);
                    used += count;
                }
            }
        }
        used
    }

    /// A stream that was opened from carried input may have a peer that has ended, or be paused.
    /// Neither may go unnoticed.
    pub(super) fn end_if_deaf(&mut self, token: Token) {
        let index = token.slot;
        if !self.net.is_current(token)
            || self.net.is_lingering(index)
            || self.sessions[index].protocol() != Protocol::Sse
        {
            return;
        }
        if self.net.has_peer_ended(index) {
            self.end(index, Ending::Now(CloseReason::PeerClosed));
        } else {
            self.net.resume(index);
        }
    }

    /// Goes on with the input of connections whose unsent output was in its way.
    pub(super) fn read_on(&mut self) {
        let mut unread = self.sessions.take_unread();
        while !self.sessions.has_begun_enough()
            && let Some(token) = unread.pop_front()
        {
            if self.net.is_current(token) {
                self.sessions[token.slot].read_on();
                self.take_carry(token);
            }
        }
        self.sessions.read_on_first(unread);
    }

    /// Goes on with connections whose token is next to be checked.
    pub(super) fn call_checks(&mut self) {
        while let Some(token) = self.sessions.next_check() {
            self.go_on_checked(token);
        }
        self.sessions.end_checks();
    }

    /// What the connection waited for is there.
    fn go_on_checked(&mut self, token: Token) {
        if !self.net.is_current(token) {
            return;
        }
        self.sessions[token.slot].read_on();
        self.session(token.slot, session::go_on_with_kept);
        if self.net.is_current(token) {
            self.take_carry(token);
        }
    }

    /// The backend has answered: what waited for that is read again.
    pub(super) fn take_verdict(&mut self, question: Question, verdict: Verdict) {
        for token in self.sessions.take_verdict(question, verdict) {
            self.go_on_checked(token);
        }
    }

    /// Keeps unfinished input within its bound: the sessions that hold most lose theirs.
    pub(super) fn bound_unfinished(&mut self) {
        for index in self.sessions.largest_unfinished() {
            if self.sessions.has_enough_left() {
                return;
            }
            let token = self.net.token(index);
            self.session(index, session::refuse_unfinished);
            if self.net.is_current(token) {
                self.sessions.drop_input(index);
                self.net.resume(index);
            }
        }
    }
}
