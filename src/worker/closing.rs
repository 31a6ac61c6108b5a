//! The end of a stream: what is said, what goes out before it, and who ends the TCP connection.

use super::core::Core;
use super::deadline::Kind as Deadline;
use super::reading::Reading;
use super::slot::{Flags, Phase};
use super::work::Work;
use crate::proto::sse;
use crate::proto::ws::close::{CloseCode, write_close};
use crate::proto::ws::message::Received;
use crate::reason::CloseReason;

/// How a WebSocket ends because of what its peer sent.
#[derive(Clone, Copy, Debug)]
pub enum Farewell {
    /// The peer's close frame goes back to it.
    Answer(Option<CloseCode>),
    /// A close frame of our own.
    Refusal {
        /// Its code.
        code: CloseCode,
        /// Its text.
        text: &'static str,
        /// What it is to us.
        reason: CloseReason,
    },
}

impl Core {
    // --- because of what the peer sent ---

    /// Refuses what the peer sent, with the close frame that belongs to the reason.
    pub(super) fn ws_refuse(&mut self, index: u32, reason: CloseReason) {
        let (code, text) = reason.close_frame();
        self.ws_refuse_with(index, code, text, reason);
    }

    pub(super) fn ws_refuse_with(
        &mut self,
        index: u32,
        code: CloseCode,
        text: &'static str,
        reason: CloseReason,
    ) {
        self.ws_ends(index, Farewell::Refusal { code, text, reason });
    }

    /// The peer's input ends the connection. What it published before is ordered and comes back to
    /// it first, as if it had been answered at once.
    pub(super) fn ws_ends(&mut self, index: u32, farewell: Farewell) {
        if self.slots[index as usize].is_live() {
            // Its own events may be among those it was about to be sent.
            let tail = self.channels[self.slots[index as usize].replica].tail;
            let cursor = self.live_cursor(index);
            self.make_explicit(index, cursor).published_to = tail;
        }
        self.work(index).farewell = Some(farewell);
        if !self.say_farewell_if_due(index) {
            self.set_deadline(index, Deadline::WsClose);
            self.mark_dirty(index);
        }
    }

    /// Ends the connection if it is to end and has back what it published; whether it did.
    pub(super) fn say_farewell_if_due(&mut self, index: u32) -> bool {
        let slot = &self.slots[index as usize];
        let Some(work) = &slot.work else { return false };
        let due = slot.phase == Phase::Ws
            && work.farewell.is_some()
            && work.outstanding == 0
            && !self.owes_own_events(work);
        if due {
            self.say_farewell(index);
        }
        due
    }

    /// Whether an event the connection has published is yet to be sent to it.
    fn owes_own_events(&self, work: &Work) -> bool {
        let reads_log =
            !matches!(work.reading, Reading::Replicas) || work.needs_page(&self.channels);
        work.subs.iter().any(|sub| match reads_log {
            true => sub.cursor < work.published_to,
            false => {
                let replica = &self.channels[sub.replica];
                replica.after(sub.cursor, work.published_to).next().is_some()
            }
        })
    }

    /// Ends the connection if it is to end.
    pub(super) fn say_farewell(&mut self, index: u32) {
        match self.work(index).farewell.take() {
            None => {}
            Some(Farewell::Answer(code)) => self.ws_answer_close(index, code),
            Some(Farewell::Refusal { code, text, reason }) => {
                self.ws_close(index, code, text, reason);
                // Nothing further of a peer that broke the protocol may be processed, not even its
                // close frame (RFC 6455 section 7.1.7).
                let ended = self.slots[index as usize].flags.has(Flags::EOF);
                if ended || matches!(reason, CloseReason::Violation(_)) {
                    self.end_after_output(index);
                }
            }
        }
    }

    /// The peer began to close, and gets its close frame back (RFC 6455 section 5.5.1).
    fn ws_answer_close(&mut self, index: u32, code: Option<CloseCode>) {
        self.leave_all(index);
        let work = self.work(index);
        write_close(&mut work.out, code, "");
        work.carry.clear();
        work.ws = None;
        self.set_phase(index, Phase::WsClosing);
        self.set_deadline(index, Deadline::WsClose);
        self.resume(index);
        self.end_after_output(index);
        self.mark_dirty(index);
    }

    // --- because of us ---

    /// Ends a connection of any kind, saying why where there is a way to.
    pub(super) fn disconnect(&mut self, index: u32, reason: CloseReason) {
        if reason == CloseReason::SlowConsumer {
            self.metrics.slow_disconnects.add(1);
        }
        match self.slots[index as usize].phase {
            Phase::Ws => {
                let (code, text) = reason.close_frame();
                self.ws_close(index, code, text, reason);
            }
            Phase::Sse if reason.is_told() => self.end_sse(index, reason),
            _ => self.close(index, reason),
        }
    }

    /// Ends an SSE stream with an event that says why. A reader that has stopped reading would not
    /// see it.
    fn end_sse(&mut self, index: u32, reason: CloseReason) {
        let flags = self.slots[index as usize].flags;
        if flags.has(Flags::BLOCKED) || flags.has(Flags::CLOSE_AFTER_OUT) {
            return self.close(index, reason);
        }
        self.mark_dirty(index);
        self.leave_all(index);
        let (code, message) = reason.close_frame();
        let label = CloseReason::LABELS[reason.index()];
        sse::write_end(&mut self.work(index).out, label, code.0, message);
        self.note_ending(index, reason);
        self.end_after_output(index);
    }

    /// Begins the closing handshake (RFC 6455 section 7.1.2).
    pub(super) fn ws_close(
        &mut self,
        index: u32,
        code: CloseCode,
        text: &str,
        reason: CloseReason,
    ) {
        if self.slots[index as usize].flags.has(Flags::LIVE) {
            let cursor = self.live_cursor(index);
            self.make_explicit(index, cursor);
        }
        self.work(index);
        let Some(mut work) = self.slots[index as usize].work.take() else { return };
        self.begin_ws_close(index, &mut work, code, text);
        self.slots[index as usize].work = Some(work);
        self.note_ending(index, reason);
        self.leave_all(index);
        self.mark_dirty(index);
    }

    /// The same for a connection whose work is being looked at. No event is sent behind this.
    pub(super) fn begin_ws_close(
        &mut self,
        index: u32,
        work: &mut Work,
        code: CloseCode,
        text: &str,
    ) {
        write_close(&mut work.out, Some(code), text);
        work.carry.clear();
        work.farewell = None;
        self.set_phase(index, Phase::WsClosing);
        let stalled = self.slots[index as usize].flags.has(Flags::BLOCKED);
        let deadline = if stalled { Deadline::WsCloseStalled } else { Deadline::WsClose };
        self.set_deadline(index, deadline);
        self.resume(index);
    }

    // --- behind our close frame ---

    /// We sent a close frame and wait for the peer's; whatever comes before it is thrown away.
    pub(super) fn ws_closing_received(&mut self, index: u32, bytes: &[u8]) {
        if self.slots[index as usize].flags.has(Flags::CLOSE_AFTER_OUT) {
            return;
        }
        let limits = self.message_limits(index);
        let mut receiver = self.work(index).ws.take().unwrap_or_default();
        receiver.discard();
        let mut used = 0;
        while used < bytes.len() {
            match receiver.receive(&bytes[used..], &limits) {
                Ok((taken, received)) => {
                    used += taken;
                    if matches!(received, Some(Received::Close { .. })) {
                        self.end_after_close_frames(index);
                        return;
                    }
                }
                Err(_) => return self.end_after_close_frames(index),
            }
        }
        self.work(index).ws = Some(receiver);
    }

    /// Both close frames are on their way, and the peer has nothing more to send.
    fn end_after_close_frames(&mut self, index: u32) {
        self.slots[index as usize].flags.set(Flags::CLOSE_AFTER_OUT);
        self.finish_if_done(index);
    }

    /// The peer sends no more. Whether there still is something it has to be told.
    pub(super) fn ws_peer_ended(&mut self, index: u32) -> bool {
        let slot = &mut self.slots[index as usize];
        let Some(work) = &slot.work else { return false };
        match slot.phase {
            // It may have said how to end in what waits to be read.
            Phase::Ws => work.farewell.is_some() || !work.carry.is_empty(),
            Phase::WsClosing if work.has_output() => {
                slot.flags.set(Flags::CLOSE_AFTER_OUT);
                true
            }
            _ => false,
        }
    }
}
