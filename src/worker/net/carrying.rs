//! Sockets that carry streams of HTTP/2. What a stream sends becomes DATA frames in its carrier's own
//! output, so the streams of a connection share its one send of the turn. For the stream, bytes count
//! as sent once they are framed. A closed window is a full socket: the stream is blocked, and wakes
//! when its client opens the window.

use std::ops::Range;

use super::Net;
use super::h2_streams::{Carrier, H2Streams};
use super::output::Queue;
use super::socket::Flags;
use crate::bits::Change;
use crate::limits::CARRIER_OUT_BYTES_MAX;
use crate::proto::h2::ErrorCode;
use crate::proto::h2::frame::{self, Ends, PAYLOAD_BYTES_MAX};
use crate::proto::h2::request::Body;
use crate::reason::CloseReason;
use crate::worker::table::StreamView;

impl Net {
    // --- carriers ---

    /// Makes the socket carry streams. What it has to send waits for what they have, from now on.
    pub fn carry(&mut self, index: u32) {
        let socket = &mut self.sockets[index];
        socket.carrier = Some(self.h2.carry(index));
        if socket.flags.take(Flags::DIRTY) {
            self.queue(index, Queue::Carriers);
        }
    }

    /// The socket has ended. If it has carried streams, these have ended before.
    pub(super) fn drop_carrier(&mut self, index: u32) {
        if let Some(carrier) = self.sockets[index].carrier.take() {
            self.h2.drop_carrier(carrier);
        }
    }

    /// Whether the socket carries streams.
    pub fn carries(&self, index: u32) -> bool {
        self.sockets[index].carrier.is_some()
    }

    /// What the streams that the socket carries have in common, if it carries any.
    pub fn carrier(&self, index: u32) -> Option<&Carrier> {
        self.h2.carrier(self.sockets[index].carrier?)
    }

    /// The same, to be changed.
    pub fn carrier_mut(&mut self, index: u32) -> Option<&mut Carrier> {
        self.h2.carrier_mut(self.sockets[index].carrier?)
    }

    /// The socket that carries a stream; for a socket, itself.
    pub fn carrier_of(&self, index: u32) -> u32 {
        let of_stream = if self.is_stream(index) { self.h2.socket_of(index) } else { None };
        of_stream.unwrap_or(index)
    }

    // --- streams ---

    /// Whether the index is a stream's.
    pub fn is_stream(&self, index: u32) -> bool {
        self.sockets.is_stream(index)
    }

    /// The worker's streams. Whatever of them has nothing to do with sockets and output is found and
    /// changed there.
    pub fn h2(&self) -> &H2Streams {
        &self.h2
    }

    /// The same, to be changed.
    pub fn h2_mut(&mut self) -> &mut H2Streams {
        &mut self.h2
    }

    /// Streams the socket carries.
    pub fn stream_count(&self, index: u32) -> usize {
        self.carrier(index).map_or(0, Carrier::stream_count)
    }

    /// The stream of this id that the socket carries.
    pub fn stream(&self, carrier: u32, id: u32) -> Option<StreamView> {
        self.carrier(carrier)?.stream(id).map(|index| self.h2.view(index))
    }

    /// Opens a stream for a request with this body; `None` if the socket carries none.
    pub fn open_stream(&mut self, carrier: u32, id: u32, body: Body) -> Option<u32> {
        let index = self.h2.open_stream(self.sockets[carrier].carrier?, id, body)?;
        self.opened(index);
        self.sockets[index].flags.insert(Flags::UNCOUNTED);
        self.metrics.http2_streams.add(1);
        Some(index)
    }

    /// Closes a stream, and tells its peer unless that knows already.
    pub(super) fn close_stream(&mut self, index: u32, reason: CloseReason) {
        if let Some(code) = self.h2.code_to_close(index, reason) {
            self.write_reset(index, code);
        }
        self.drop_out(index);
        self.metrics.http2_stream_closes[reason.index()].add(1);
        let carrier = self.carrier_of(index);
        self.h2.close(index);
        self.release_next(carrier);
    }

    // --- frames about a stream ---

    /// Sends the head of a stream's answer, given as a field block. `is_final`: it is not that of a
    /// `100 Continue`.
    pub fn write_head(&mut self, index: u32, block: &[u8], is_final: bool) {
        if is_final {
            self.h2.answered(index);
        }
        self.write_frame(index, |out, id| frame::write_headers(out, id, block, Ends::No));
    }

    /// Ends our side of the stream: all it had to send is framed.
    pub fn finish_stream(&mut self, index: u32) {
        if self.h2.finish(index) {
            self.write_frame(index, |out, id| frame::write_data(out, id, b"", Ends::Yes));
        }
    }

    /// Resets the stream.
    pub fn reset(&mut self, index: u32, code: ErrorCode) {
        self.write_reset(index, code);
        self.h2.abandon(index);
    }

    fn write_reset(&mut self, index: u32, code: ErrorCode) {
        self.write_frame(index, |out, id| frame::write_reset(out, id, code));
    }

    /// Gives the stream's peer more window, if that is worth a frame.
    pub fn take_more(&mut self, index: u32) {
        if !self.sockets[index].flags.contains(Flags::PAUSED)
            && let Some(by) = self.h2.take_credit(index)
        {
            self.write_frame(index, |out, id| frame::write_window_update(out, id, by));
        }
    }

    fn write_frame(&mut self, index: u32, write: impl FnOnce(&mut Vec<u8>, u32)) {
        let (id, carrier) = (self.h2.id(index), self.carrier_of(index));
        self.write(carrier, |out| write(out, id));
        self.queue(carrier, Queue::Carriers);
    }

    // --- what a stream sends ---

    /// Bytes the stream can be sent now. Never more than a frame, so that the streams of a connection
    /// take turns.
    pub fn room(&self, index: u32) -> usize {
        let window = self.h2.open_window(index);
        if window == 0 || !self.has_output_room(self.carrier_of(index)) {
            return 0;
        }
        window.min(PAYLOAD_BYTES_MAX)
    }

    /// Whether a carrier takes more from its streams. While it waits for its socket it does not.
    fn has_output_room(&self, carrier: u32) -> bool {
        !self.is_blocked(carrier) && self.out_len(carrier) < CARRIER_OUT_BYTES_MAX
    }

    /// Hands bytes of the arena to a stream, all or none (`None`). Returns whether its connection had
    /// nothing to send before.
    pub fn share_with_stream(&mut self, index: u32, bytes: Range<u32>) -> Option<bool> {
        let carrier = self.carrier_of(index);
        if !self.has_output_room(carrier) || bytes.len() > self.h2.open_window(index) {
            return None;
        }
        let is_first = !self.sockets[carrier].flags.contains(Flags::CARRIES);
        self.send_data(index, bytes);
        Some(is_first)
    }

    /// Frames bytes of the arena as DATA of the stream.
    pub(super) fn send_data(&mut self, index: u32, bytes: Range<u32>) {
        if bytes.is_empty() {
            return;
        }
        let counted = self.h2.count_sent(index, bytes.len() as u32);
        let Some((id, carrier)) = counted else { return };
        self.own(carrier);
        let Self { output, sockets, .. } = self;
        if let Some(own) = &mut sockets[carrier].own {
            let bytes = &output.batch.arena[bytes.start as usize..bytes.end as usize];
            own.write(|out| frame::write_data(out, id, bytes, Ends::No));
        }
        self.queue(carrier, Queue::Carriers);
    }

    // --- streams that are blocked ---

    /// Blocks a stream, which waits for its window or for its connection.
    pub fn block(&mut self, index: u32) {
        if self.sockets[index].flags.raise(Flags::BLOCKED) {
            self.h2.block(index);
        }
    }

    /// The peer takes `by` more bytes, of one stream or of all together.
    pub fn widen(&mut self, carrier: u32, index: Option<u32>, by: u32) {
        match (index, self.sockets[carrier].carrier) {
            (Some(index), _) => {
                if self.h2.widen(index, by) {
                    self.unblock(index);
                }
            }
            (None, Some(key)) => {
                self.h2.widen_all(key, by);
                self.release_next(carrier);
            }
            (None, None) => {}
        }
    }

    /// The peer changes the window of new streams, and that of open ones by the difference. Returns
    /// whether no window is wider than one can be.
    pub fn set_initial_window(&mut self, carrier: u32, window: u32) -> bool {
        let Some(key) = self.sockets[carrier].carrier else { return true };
        let opened = self.h2.set_initial_window(key, window);
        let fits = opened.is_some();
        opened.unwrap_or_default().into_iter().for_each(|index| self.unblock(index));
        fits
    }

    /// Unblocks the next stream that waits for the connection, if that takes something now. Once
    /// served, the stream calls this for the next one.
    pub fn release_next(&mut self, carrier: u32) {
        if let Some(key) = self.sockets[carrier].carrier
            && self.has_output_room(carrier)
            && let Some(index) = self.h2.next_waiting(key)
        {
            self.unblock(index);
        }
    }

    fn unblock(&mut self, index: u32) {
        if !self.sockets[index].flags.take(Flags::BLOCKED) {
            return;
        }
        let queue = if self.out_len(index) > 0 { Queue::First } else { Queue::Behind };
        self.queue(index, queue);
    }

    // --- invariants ---

    /// Panics if a stream contradicts its connection.
    pub(super) fn check_stream(&self, index: u32) {
        let flags = self.sockets[index].flags;
        self.h2.check_stream(index, flags.contains(Flags::BLOCKED));
        assert!(!flags.contains(Flags::RECV_ARMED) && !flags.contains(Flags::SENT));
    }

    /// Panics if a socket contradicts the streams it carries.
    pub(super) fn check_carrier(&self, index: u32) {
        if let Some(carrier) = self.carrier(index) {
            let held = carrier.streams().map(|stream| self.out_len(stream)).sum();
            self.h2.check_carrier(carrier, held);
        }
    }
}
