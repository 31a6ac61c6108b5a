//! How a connection of HTTP/2 and its streams work together. To its session, a stream is a connection
//! of HTTP/1.1 with one request: it is given head and body in that form. The head of its answer then
//! becomes a field block, and the rest DATA frames.

use super::budget::{Budget, EVENT_NS, SEND_NS, STREAM_NS, copy_ns};
use super::clock::{Deadline, Mark, Why};
use super::effect::Ending;
use super::net::{Carrier, Progress};
use super::session::{self, ForH2Streams, Protocol};
use super::turn::Core;
use crate::limits::STALLED_BYTES_MIN;
use crate::metrics::Flood;
use crate::proto::h2::request::Body;
use crate::proto::h2::response;
use crate::reason::CloseReason;
use crate::ring::{RecvEnd, Token};

impl Core {
    // --- what comes ---

    /// Carries out what a frame means for the connection's streams. The frame was read from `bytes`.
    pub(super) fn for_h2_streams(&mut self, carrier: Token, what: ForH2Streams, bytes: &[u8]) {
        match what {
            ForH2Streams::Opens { id, ended, body } => {
                self.open_h2_stream(carrier.slot, id, ended, body)
            }
            ForH2Streams::Data { index, length, from, to, ended } => {
                self.net.h2_mut().count_data(index, length);
                self.h2_data(self.net.token(index), &bytes[from..to], ended);
            }
            ForH2Streams::Reset { index } => {
                self.net.h2_mut().abandon(index);
                self.end(index, Ending::Now(CloseReason::PeerClosed));
            }
            ForH2Streams::Fault { index, code } => {
                self.net.reset(index, code);
                self.end(index, Ending::Now(CloseReason::BadRequest));
            }
            ForH2Streams::Widen { index, by } => self.net.widen(carrier.slot, index, by),
            ForH2Streams::InitialWindow(window) => {
                let fits = self.net.set_initial_window(carrier.slot, window);
                self.session(carrier.slot, |cx| session::h2_window_set(cx, fits));
            }
        }
    }

    fn open_h2_stream(&mut self, carrier: u32, id: u32, ended: bool, body: Body) {
        let index = self.net.open_stream(carrier, id, body);
        let Some(index) = index else { return };
        self.sessions.opened_h2_stream(index, carrier);
        let token = self.net.token(index);
        let head = self.sessions.take_h2_head();
        self.received(token, &head);
        self.sessions.put_h2_head(head);
        if ended {
            self.h2_half_closed(token);
        }
    }

    fn h2_data(&mut self, token: Token, payload: &[u8], ended: bool) {
        let is_chunked = self.net.h2().is_chunked(token.slot);
        if is_chunked && !payload.is_empty() {
            self.h2_input(token, format!("{:x}\r\n", payload.len()).as_bytes());
            self.h2_input(token, payload);
            self.h2_input(token, b"\r\n");
        } else {
            self.h2_input(token, payload);
        }
        if is_chunked && ended {
            self.h2_input(token, b"0\r\n\r\n");
        }
        if ended {
            self.h2_half_closed(token);
        } else if self.net.is_current(token) {
            self.net.take_more(token.slot);
        }
    }

    fn h2_input(&mut self, token: Token, bytes: &[u8]) {
        if self.net.is_current(token) && !bytes.is_empty() {
            self.received(token, bytes);
        }
        if self.net.is_current(token) {
            self.sessions.count_unfinished(token.slot);
        }
    }

    /// The peer sends no more on the stream: the request is complete. For a WebSocket it is as if its
    /// connection had ended (RFC 8441 section 5).
    fn h2_half_closed(&mut self, token: Token) {
        if !self.net.is_current(token) {
            return;
        }
        let index = token.slot;
        self.net.h2_mut().half_close(index);
        let is_websocket =
            matches!(self.sessions[index].protocol(), Protocol::Ws | Protocol::WsClosing);
        if is_websocket || self.net.is_lingering(index) {
            self.receive_ended(index, RecvEnd::Eof);
        }
    }

    // --- what goes ---

    /// Turns heads at the front of what a stream's session has just written into field blocks.
    pub(super) fn write_heads(&mut self, index: u32) {
        let mut block = Vec::new();
        while !self.net.h2().is_answered(index)
            && let Some(head) = response::write_block(&mut block, &self.effects.out)
        {
            self.net.write_head(index, &block, head.is_final);
            self.effects.out.drain(..head.length);
            block.clear();
        }
    }

    /// Composes what a stream has to send, as far as there is room. What is framed counts as sent.
    pub(super) fn send_to_h2_stream(&mut self, index: u32, bytes_max: usize, budget: &mut Budget) {
        let room = self.net.room(index);
        if room == 0 && (self.has_output(index) || self.hub.is_behind(index)) {
            return self.block_h2_stream(index);
        }
        let (draft, events, _) = self.draft(index, bytes_max.min(room), budget);
        let carrier = self.net.carrier_of(index);
        let is_first = !self.net.is_queued(carrier);
        let sent = self.net.end_draft(index, draft);
        let length = sent.len().min(room);
        let taken = self.net.send_part(index, &sent, length);
        if let Some(gap) = self.hub.settle(index, taken.rest, taken.events) {
            self.net.keep(&sent, gap);
        }
        if !taken.whole {
            self.hub.end_reading(index);
        }
        self.net.drop_draft(&sent);
        let send_ns = if is_first { SEND_NS } else { 0 };
        budget.spend(STREAM_NS + send_ns + copy_ns(length) + events as u64 * EVENT_NS);
        if sent.len() == 0 {
            if events > 0 {
                self.skipped(index);
            }
            self.rest(index);
        } else {
            self.after_send(self.net.token(index));
        }
        self.net.release_next(carrier);
        self.end_those_that_have_read();
    }

    fn block_h2_stream(&mut self, index: u32) {
        self.net.block(index);
        self.watch_h2_stream(index);
    }

    // --- streams that take nothing ---

    /// A client must not make us hold output for it by keeping a window closed. A blocked stream has as
    /// much time as a peer that reads nothing from its socket.
    fn watch_h2_stream(&mut self, index: u32) {
        if !self.net.h2_mut().begin_watch(index) {
            return;
        }
        let (token, progress) = (self.net.token(index), self.net.h2().progress(index));
        let mark = Mark { requests: progress.connection, progress: progress.stream };
        let Self { net, clock, now, settings, .. } = self;
        let times = (*now, settings.dead_time);
        clock.wait(Why::Stalled, token, mark, times, |other| net.is_current(other.token));
    }

    /// That time is over. A window that opens by a byte now and then counts as closed. A full socket
    /// is the kernel's to watch: whatever shares it gets little.
    pub(super) fn stall_due(&mut self, deadline: &Deadline) {
        let Deadline { token: Token { slot: index, .. }, mark, .. } = *deadline;
        let has_rested = self.net.h2_mut().end_watch(index);
        if !self.has_output(index) && !self.hub.is_behind(index) {
            return;
        }
        let before = Progress { stream: mark.progress, connection: mark.requests };
        let moved = self.net.h2().moved_since(index, before);
        if has_rested || moved.is_none_or(|moved| moved >= STALLED_BYTES_MIN) {
            return self.watch_h2_stream(index);
        }
        self.metrics.add_http2_flood(Flood::ClosedWindow);
        self.end(index, Ending::Now(CloseReason::PeerDead));
    }

    /// Ends all streams of a connection that ends.
    pub(super) fn end_h2_streams(&mut self, carrier: u32, reason: CloseReason) {
        while let Some(index) = self.net.carrier(carrier).and_then(Carrier::last_stream) {
            self.net.h2_mut().abandon(index);
            self.close_one(index, reason);
        }
    }
}
