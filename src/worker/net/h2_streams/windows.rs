//! The windows of connections and their streams: how much peers may send, and how much they take.

use std::ops::Range;

use super::super::Net;
use super::super::output::Queue;
use super::super::socket::Flags;
use super::{Carrier, Facts, Stream};
use crate::bits::Change;
use crate::limits::CARRIER_OUT_BYTES_MAX;
use crate::proto::h2::CREDIT_BYTES_MIN;
use crate::proto::h2::frame::{self, Ends, PAYLOAD_BYTES_MAX};
use crate::ring::Token;
use crate::worker::table::CarrierView;

impl Net {
    // --- what comes ---

    /// Counts received bytes of DATA against the window we gave the stream.
    pub fn count_data(&mut self, index: u32, length: u32) {
        let received = &mut self.streams.of[index].received;
        *received = u16::try_from(u32::from(*received) + length).unwrap_or(u16::MAX);
    }

    /// Gives the stream's peer more window, if that is worth a frame.
    pub fn take_more(&mut self, index: u32) {
        let Stream { id, carrier, received, facts, .. } = self.streams.of[index];
        let is_over = facts.contains(Facts::ENDED) || facts.contains(Facts::ABANDONED);
        let is_due = u32::from(received) >= CREDIT_BYTES_MIN && !is_over;
        if is_due && !self.sockets[index].flags.contains(Flags::PAUSED) {
            self.streams.of[index].received = 0;
            self.write_frame(carrier, |out| frame::write_window_update(out, id, received.into()));
        }
    }

    /// The peer takes `by` more bytes, of one stream or of all together.
    pub fn widen(&mut self, carrier: u32, index: Option<u32>, by: u32) {
        if let Some(index) = index {
            let window = &mut self.streams.of[index].window;
            *window = window.saturating_add_unsigned(by);
            self.unblock_if_open(index);
        } else if let Some(of) = self.carrier_mut(carrier) {
            of.window = of.window.saturating_add(by);
            self.release_next(carrier);
        }
    }

    /// The peer changes the window of new streams. Those of open ones change by the difference (RFC
    /// 9113 section 6.9.2).
    pub fn set_initial_window(&mut self, carrier: u32, window: u32) {
        let Some(of) = self.carrier_mut(carrier) else { return };
        let before = std::mem::replace(&mut of.initial_window, window);
        let indices: Vec<u32> = of.streams.iter().map(|&(_, index)| index).collect();
        for index in indices {
            let stream = &mut self.streams.of[index];
            stream.window = moved(stream.window, before, window).unwrap_or(i32::MAX);
            self.unblock_if_open(index);
        }
    }

    /// Whether the window of each open stream would be one that can be, with this initial one.
    pub fn h2_windows_fit(&self, carrier: u32, initial: u32) -> bool {
        self.carrier(carrier).is_none_or(|of| {
            let window = |&(_, index): &(u32, u32)| self.streams.of[index].window;
            let mut windows = of.streams.iter().map(window);
            windows.all(|window| moved(window, of.initial_window, initial).is_some())
        })
    }

    /// What the streams of a connection share, as far as its session may know.
    pub fn carrier_view(&self, carrier: u32) -> CarrierView {
        let view = |of: &Carrier| CarrierView { window: of.window, exchanges: of.exchanges };
        self.carrier(carrier).map_or_else(CarrierView::default, view)
    }

    // --- what goes ---

    /// Bytes the stream can be sent now. Never more than a frame, so that the streams of a connection
    /// take turns.
    pub fn room(&self, index: u32) -> usize {
        if self.open_window(index) == 0 || !self.has_output_room(self.streams.of[index].carrier) {
            return 0;
        }
        self.open_window(index).min(PAYLOAD_BYTES_MAX)
    }

    /// What the windows of a stream and its connection allow.
    fn open_window(&self, index: u32) -> usize {
        let Stream { carrier, window, .. } = self.streams.of[index];
        u32::try_from(window).unwrap_or(0).min(self.carrier_view(carrier).window) as usize
    }

    /// Whether a carrier takes more from its streams. While it waits for its socket it does not.
    fn has_output_room(&self, carrier: u32) -> bool {
        !self.is_blocked(carrier) && self.out_len(carrier) < CARRIER_OUT_BYTES_MAX
    }

    /// Blocks a stream, which waits for its window or for its connection.
    pub fn block(&mut self, index: u32) {
        if !self.sockets[index].flags.raise(Flags::BLOCKED) {
            return;
        }
        let (token, Stream { carrier, window, .. }) = (self.token(index), self.streams.of[index]);
        if window > 0
            && let Some(of) = self.carrier_mut(carrier)
        {
            of.waiting.push_back(token);
            self.streams.of[index].facts.insert(Facts::WAITING);
        }
    }

    /// Unblocks a stream that waits for its own window, if that is open. One that waits for its
    /// connection keeps its place there.
    fn unblock_if_open(&mut self, index: u32) {
        let Stream { window, facts, .. } = self.streams.of[index];
        if window > 0 && self.is_blocked(index) && !facts.contains(Facts::WAITING) {
            self.unblock(index);
        }
    }

    fn unblock(&mut self, index: u32) {
        self.writable(index);
        let queue = if self.out_len(index) > 0 { Queue::First } else { Queue::Behind };
        self.queue(index, queue);
    }

    /// Unblocks the next stream that waits for the connection, if that takes something now. Once
    /// served, the stream calls this for the next one.
    pub fn release_next(&mut self, carrier: u32) {
        if !self.carries(carrier) || !self.has_output_room(carrier) {
            return;
        }
        while let Some(of) = self.carrier_mut(carrier).filter(|of| of.window > 0)
            && let Some(token) = of.waiting.pop_front()
        {
            if self.is_waiting(token) && self.end_waiting(token.slot) {
                return self.unblock(token.slot);
            }
        }
    }

    pub(super) fn is_waiting(&self, token: Token) -> bool {
        self.is_current(token) && self.streams.of[token.slot].facts.contains(Facts::WAITING)
    }

    /// Returns whether the stream can go on. The peer may have closed its window meanwhile: then it
    /// stays blocked, and waits for that.
    fn end_waiting(&mut self, index: u32) -> bool {
        let Stream { window, facts, .. } = &mut self.streams.of[index];
        facts.remove(Facts::WAITING);
        *window > 0
    }

    /// Forgets streams that have closed, once they may be more than those that wait: constant work
    /// for each.
    pub(super) fn forget_waiting(&mut self, carrier: u32) {
        let Some(of) = self.carrier_mut(carrier) else { return };
        if of.waiting.len() <= 2 * of.streams.len() {
            return;
        }
        let mut waiting = std::mem::take(&mut of.waiting);
        waiting.retain(|&token| self.is_waiting(token));
        if let Some(of) = self.carrier_mut(carrier) {
            of.waiting = waiting;
        }
    }

    /// Whether streams wait for their connection.
    pub fn has_waiting(&self, carrier: u32) -> bool {
        self.carrier(carrier).is_some_and(|carrier| !carrier.waiting.is_empty())
    }

    /// Hands bytes of the arena to a stream, all or none (`None`). Returns whether its connection had
    /// nothing to send before.
    pub fn share_with_stream(&mut self, index: u32, bytes: Range<u32>) -> Option<bool> {
        let carrier = self.streams.of[index].carrier;
        if !self.has_output_room(carrier) || bytes.len() > self.open_window(index) {
            return None;
        }
        let is_first = !self.sockets[carrier].flags.contains(Flags::CARRIES);
        self.send_data(index, bytes);
        Some(is_first)
    }

    /// Frames bytes of the arena as DATA of the stream.
    pub fn send_data(&mut self, index: u32, bytes: Range<u32>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len() as u32;
        let stream = &mut self.streams.of[index];
        let (id, carrier) = (stream.id, stream.carrier);
        stream.window -= length as i32;
        stream.sent = stream.sent.wrapping_add(length);
        if let Some(of) = self.carrier_mut(carrier) {
            of.window -= length;
            of.sent = of.sent.wrapping_add(length);
            of.exchanges = of.exchanges.wrapping_add(1);
        }
        self.own(carrier);
        let Self { output, sockets, .. } = self;
        if let Some(own) = &mut sockets[carrier].own {
            let bytes = &output.batch.arena[bytes.start as usize..bytes.end as usize];
            own.write(|out| frame::write_data(out, id, bytes, Ends::No));
        }
        self.queue(carrier, Queue::Carriers);
    }
}

/// A stream's window, once the initial one is changed; `None` if it is more than one can be.
fn moved(window: i32, before: u32, after: u32) -> Option<i32> {
    i32::try_from(i64::from(window) - i64::from(before) + i64::from(after)).ok()
}
