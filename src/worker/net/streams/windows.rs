//! The windows of connections and their streams: how much peers may send, and how much they take.

use std::ops::Range;

use super::super::Net;
use super::super::output::Queue;
use super::super::socket::Flags;
use super::{Facts, Stream};
use crate::limits::{CARRIER_OUT_BYTES_MAX, WINDOW_UPDATES_PER_FRAME};
use crate::proto::h2::WINDOW_DEFAULT;
use crate::proto::h2::frame::{self, PAYLOAD_BYTES_MAX};
use crate::ring::Token;
use crate::worker::table::Overflow;

/// Received bytes after which a client is given window for as many more.
const CREDIT_BYTES_MIN: u32 = WINDOW_DEFAULT / 2;

impl Net {
    // --- what comes ---

    /// Counts received bytes of DATA against the windows we gave. `index` is `None` if their stream is
    /// gone.
    pub fn count_data(
        &mut self,
        carrier: u32,
        index: Option<u32>,
        length: u32,
    ) -> Result<(), Overflow> {
        if let Some(index) = index {
            let stream = &mut self.streams.of[index];
            let received = u32::from(stream.received) + length;
            stream.received = u16::try_from(received).map_err(|_| Overflow)?;
        }
        let Some(of) = self.carrier_mut(carrier) else { return Ok(()) };
        of.received += length;
        if of.received > WINDOW_DEFAULT {
            return Err(Overflow);
        }
        // A stream whose session has paused is held up by its own window; the others go on.
        if of.received >= CREDIT_BYTES_MIN {
            let by = std::mem::take(&mut of.received);
            self.write_frame(carrier, |out| frame::write_window_update(out, 0, by));
        }
        Ok(())
    }

    /// Gives the stream's peer more window, if that is worth a frame.
    pub fn take_more(&mut self, index: u32) {
        let Stream { id, carrier, received, facts, .. } = self.streams.of[index];
        let is_over = facts.has(Facts::ENDED) || facts.has(Facts::ABANDONED);
        let is_due = u32::from(received) >= CREDIT_BYTES_MIN && !is_over;
        if is_due && !self.sockets[index].flags.has(Flags::PAUSED) {
            self.streams.of[index].received = 0;
            self.write_frame(carrier, |out| frame::write_window_update(out, id, received.into()));
        }
    }

    /// Counts a peer's update of a window. Returns whether it is taken: there may be only so many for
    /// each frame that was sent.
    pub fn admit_update(&mut self, carrier: u32) -> bool {
        let Some(of) = self.carrier_mut(carrier) else { return true };
        let admitted = of.updates_left > 0;
        of.updates_left = of.updates_left.saturating_sub(1);
        admitted
    }

    /// The peer takes `by` more bytes, of one stream or of all together.
    pub fn widen(&mut self, carrier: u32, index: Option<u32>, by: u32) -> Result<(), Overflow> {
        if let Some(index) = index {
            let stream = &mut self.streams.of[index];
            stream.window = stream.window.checked_add_unsigned(by).ok_or(Overflow)?;
            self.unblock_if_open(index);
            return Ok(());
        }
        let Some(of) = self.carrier_mut(carrier) else { return Ok(()) };
        let window = of.window.checked_add(by).filter(|&window| i32::try_from(window).is_ok());
        of.window = window.ok_or(Overflow)?;
        self.release_next(carrier);
        Ok(())
    }

    /// The peer changes the window of new streams. Those of open ones change by the difference (RFC
    /// 9113 section 6.9.2).
    pub fn set_initial_window(&mut self, carrier: u32, window: u32) -> Result<(), Overflow> {
        let Some(of) = self.carrier_mut(carrier) else { return Ok(()) };
        let before = std::mem::replace(&mut of.initial_window, window);
        let difference = i64::from(window) - i64::from(before);
        let indices: Vec<u32> = of.streams.iter().map(|&(_, index)| index).collect();
        for index in indices {
            let window = &mut self.streams.of[index].window;
            *window = i32::try_from(i64::from(*window) + difference).map_err(|_| Overflow)?;
            self.unblock_if_open(index);
        }
        Ok(())
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
        let of_carrier = self.carrier(carrier).map_or(0, |carrier| carrier.window);
        u32::try_from(window).unwrap_or(0).min(of_carrier) as usize
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
            self.streams.of[index].facts.set(Facts::WAITING);
        }
    }

    /// Unblocks a stream that waits for its own window, if that is open. One that waits for its
    /// connection keeps its place there.
    fn unblock_if_open(&mut self, index: u32) {
        let Stream { window, facts, .. } = self.streams.of[index];
        if window > 0 && self.is_blocked(index) && !facts.has(Facts::WAITING) {
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
        self.is_current(token) && self.streams.of[token.slot].facts.has(Facts::WAITING)
    }

    /// Returns whether the stream can go on. The peer may have closed its window meanwhile: then it
    /// stays blocked, and waits for that.
    fn end_waiting(&mut self, index: u32) -> bool {
        let Stream { window, facts, .. } = &mut self.streams.of[index];
        facts.clear(Facts::WAITING);
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
        let is_first = !self.sockets[carrier].flags.has(Flags::CARRIES);
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
            of.allow_updates(WINDOW_UPDATES_PER_FRAME);
        }
        self.own(carrier);
        let Self { output, sockets, .. } = self;
        if let Some(own) = &mut sockets[carrier].own {
            let bytes = &output.batch.arena[bytes.start as usize..bytes.end as usize];
            own.write(|out| frame::write_data(out, id, bytes, false));
        }
        self.queue(carrier, Queue::Carriers);
    }
}
