//! Streams of HTTP/2, each a socket that another one carries. What a stream sends becomes DATA frames
//! in its carrier's own output, so the streams of a connection share its one send of the turn. For the
//! stream, bytes count as sent once they are framed. A closed window is a full socket: the stream is
//! blocked, and wakes when its client opens the window.

mod carrier;
mod windows;

use bitflags::bitflags;
use slab::Slab;

use self::carrier::Carrier;
use super::Net;
use super::output::Queue;
use super::socket::{Flags, Socket};
use crate::bits::Change;
use crate::limits::STREAMS_PER_WORKER_MAX;
use crate::proto::h2::ErrorCode;
use crate::proto::h2::frame::{self, Ends};
use crate::proto::h2::request::Body;
use crate::reason::CloseReason;
use crate::worker::table::Table;

pub use self::carrier::CarrierKey;

/// A worker's streams, and the sockets that carry them.
#[derive(Debug)]
pub(super) struct H2Streams {
    /// By index.
    of: Table<Stream>,
    /// Indices no stream has at present.
    free: Vec<u32>,
    carriers: Slab<Carrier>,
    open: u32,
}

/// What a stream has in addition to its socket.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    id: u32,
    /// The socket that carries it.
    carrier: u32,
    /// Bytes of DATA that its peer takes; may be negative after the peer has reduced it.
    window: i32,
    /// Bytes of DATA it was sent, modulo 2^32.
    sent: u32,
    /// Bytes received for which the peer has not been given new window yet.
    received: u16,
    facts: Facts,
}

const _: () = assert!(size_of::<Stream>() <= 20, "a connection may have thousands that are idle");

/// How far a stream and its connection have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of DATA the stream was sent, modulo 2^32.
    pub stream: u32,
    /// The same of all streams of the connection.
    pub connection: u32,
}

bitflags! {
    /// Facts about a stream.
    #[derive(Clone, Copy, Debug, Default)]
    struct Facts: u8 {
        /// The peer's side has ended.
        const ENDED = 1 << 0;
        /// Our side has ended.
        const FINISHED = 1 << 1;
        /// The head of the answer is sent.
        const ANSWERED = 1 << 2;
        /// It was reset, or its connection ends: no further frame is sent for it.
        const ABANDONED = 1 << 3;
        /// Its session is given the body in chunks.
        const CHUNKED = 1 << 4;
        /// The clock watches whether its peer takes enough.
        const WATCHED = 1 << 5;
        /// It is blocked, and in its carrier's `waiting`.
        const WAITING = 1 << 6;
        /// Since it is watched it has had nothing more to send at some time.
        const RESTED = 1 << 7;
    }
}

impl H2Streams {
    pub fn new(slots: u32) -> Self {
        Self { of: Table::new(slots), free: Vec::new(), carriers: Slab::new(), open: 0 }
    }
}

impl Net {
    // --- which streams there are ---

    /// Whether the index is a stream's.
    pub fn is_stream(&self, index: u32) -> bool {
        self.sockets.is_stream(index)
    }

    /// Streams open, of all connections.
    pub fn open_streams(&self) -> u32 {
        self.streams.open
    }

    /// Whether the worker can have one more stream.
    pub fn may_open_stream(&self) -> bool {
        self.streams.open < STREAMS_PER_WORKER_MAX
    }

    /// Opens a stream for a request with this body; `None` if the socket carries none.
    pub fn open_stream(&mut self, carrier: u32, id: u32, body: Body) -> Option<u32> {
        let window = self.carrier(carrier)?.initial_window as i32;
        let index = self.streams.free.pop().unwrap_or_else(|| self.sockets.next_stream());
        let of = self.carrier_mut(carrier)?;
        of.streams.push((id, index));
        of.exchanges = of.exchanges.wrapping_add(1);
        self.opened(index);
        self.sockets[index].flags.insert(Flags::UNCOUNTED);
        self.streams.of.reach(index, Stream::default);
        let facts = if body == Body::Chunked { Facts::CHUNKED } else { Facts::empty() };
        self.streams.of[index] = Stream { id, carrier, window, sent: 0, received: 0, facts };
        self.streams.open += 1;
        self.metrics.http2_streams.add(1);
        Some(index)
    }

    /// Closes a stream, and tells its peer unless that knows already.
    pub(super) fn close_stream(&mut self, index: u32, reason: CloseReason) {
        let Stream { id, carrier, facts, .. } = self.streams.of[index];
        if !facts.contains(Facts::ABANDONED) {
            match (facts.contains(Facts::FINISHED), facts.contains(Facts::ENDED)) {
                (true, true) => {}
                // It need not send the rest of its request (RFC 9113 section 8.1).
                (true, false) => self.write_reset(index, ErrorCode::NoError),
                (false, _) => self.write_reset(index, code_of(reason)),
            }
        }
        self.drop_out(index);
        self.metrics.http2_stream_closes[reason.index()].add(1);
        self.streams.open -= 1;
        self.streams.free.push(index);
        self.streams.of[index].facts.remove(Facts::WAITING);
        if let Some(of) = self.carrier_mut(carrier)
            && let Ok(place) = of.place(id)
        {
            of.streams.remove(place);
        }
        self.forget_waiting(carrier);
        self.release_next(carrier);
    }

    // --- what is known of a stream ---

    /// Whether the stream's session is given the body in chunks.
    pub fn is_chunked(&self, index: u32) -> bool {
        self.streams.of[index].facts.contains(Facts::CHUNKED)
    }

    /// The stream's peer has closed its half: it sends no more on it.
    pub fn half_close(&mut self, index: u32) {
        self.streams.of[index].facts.insert(Facts::ENDED);
    }

    /// Whether the index is a stream's, and its peer has closed its half.
    pub(super) fn is_half_closed(&self, index: u32) -> bool {
        self.is_stream(index) && self.streams.of[index].facts.contains(Facts::ENDED)
    }

    // --- frames about a stream ---

    /// Sends the head of a stream's answer, given as a field block. `is_final`: it is not that of a
    /// `100 Continue`.
    pub fn write_head(&mut self, index: u32, block: &[u8], is_final: bool) {
        let Stream { id, carrier, facts, .. } = &mut self.streams.of[index];
        if is_final {
            facts.insert(Facts::ANSWERED);
        }
        let (id, carrier) = (*id, *carrier);
        self.write_frame(carrier, |out| frame::write_headers(out, id, block, Ends::No));
    }

    /// Whether the head of a stream's answer is sent.
    pub fn is_answered(&self, index: u32) -> bool {
        self.streams.of[index].facts.contains(Facts::ANSWERED)
    }

    /// Ends our side of the stream: all it had to send is framed.
    pub fn finish_stream(&mut self, index: u32) {
        let Stream { id, carrier, facts, .. } = &mut self.streams.of[index];
        if facts.contains(Facts::ANSWERED) && !facts.contains(Facts::FINISHED) {
            facts.insert(Facts::FINISHED);
            let (id, carrier) = (*id, *carrier);
            self.write_frame(carrier, |out| frame::write_data(out, id, b"", Ends::Yes));
        }
    }

    /// Sends no further frame for the stream: its peer knows that it is over, or will learn it from
    /// the end of the connection.
    pub fn abandon(&mut self, index: u32) {
        self.streams.of[index].facts.insert(Facts::ABANDONED);
    }

    /// Resets the stream.
    pub fn reset(&mut self, index: u32, code: ErrorCode) {
        self.write_reset(index, code);
        self.abandon(index);
    }

    fn write_reset(&mut self, index: u32, code: ErrorCode) {
        let Stream { id, carrier, .. } = self.streams.of[index];
        self.write_frame(carrier, |out| frame::write_reset(out, id, code));
    }

    fn write_frame(&mut self, carrier: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.write(carrier, write);
        self.queue(carrier, Queue::Carriers);
    }

    // --- streams that take nothing ---

    /// How far the stream and its connection have come.
    pub fn progress(&self, index: u32) -> Progress {
        let Stream { carrier, sent, .. } = self.streams.of[index];
        Progress { stream: sent, connection: self.carrier(carrier).map_or(0, |of| of.sent) }
    }

    /// Bytes that have gone through the window that is closed, the stream's or its connection's;
    /// `None` if both are open, and the stream waits for nothing but its socket.
    pub fn moved_since(&self, index: u32, before: Progress) -> Option<u32> {
        let Stream { carrier, window, .. } = self.streams.of[index];
        let Progress { stream, connection } = self.progress(index);
        if window <= 0 {
            return Some(stream.wrapping_sub(before.stream));
        }
        let is_closed = self.carrier(carrier).is_some_and(|of| of.window == 0);
        is_closed.then(|| connection.wrapping_sub(before.connection))
    }

    /// Marks a blocked stream as watched. Returns whether it was not watched before.
    pub fn begin_watch(&mut self, index: u32) -> bool {
        self.streams.of[index].facts.raise(Facts::WATCHED)
    }

    /// The stream is watched no more. Returns whether it had nothing more to send in between.
    pub fn end_watch(&mut self, index: u32) -> bool {
        let facts = &mut self.streams.of[index].facts;
        let has_rested = facts.contains(Facts::RESTED);
        facts.remove(Facts::WATCHED | Facts::RESTED);
        has_rested
    }

    /// There is nothing more to send to a socket or a stream.
    pub fn note_rest(&mut self, index: u32) {
        if self.is_stream(index) && self.streams.of[index].facts.contains(Facts::WATCHED) {
            self.streams.of[index].facts.insert(Facts::RESTED);
        }
    }

    /// Panics if a stream contradicts its connection.
    pub(super) fn check_stream(&self, index: u32) {
        let (socket, stream): (&Socket, &Stream) = (&self.sockets[index], &self.streams.of[index]);
        let found = self.stream(stream.carrier, stream.id).map(|view| view.index);
        assert_eq!(found, Some(index), "{stream:?}");
        let (blocked, waits) =
            (socket.flags.contains(Flags::BLOCKED), stream.facts.contains(Facts::WAITING));
        assert!(blocked || !waits, "{stream:?} waits although it may go on");
        assert!(!blocked || waits || stream.window <= 0, "{stream:?} waits for nothing");
        assert!(!socket.flags.contains(Flags::RECV_ARMED) && !socket.flags.contains(Flags::SENT));
    }
}

/// The code by which a stream's peer is told of an end before that of the answer.
fn code_of(reason: CloseReason) -> ErrorCode {
    match reason {
        CloseReason::BadRequest => ErrorCode::ProtocolError,
        CloseReason::Refused => ErrorCode::RefusedStream,
        _ => ErrorCode::Cancel,
    }
}
