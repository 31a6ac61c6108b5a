//! Streams of HTTP/2, and the sockets that carry them: which streams there are, how far each has come,
//! what it may be sent and which is next. This is the books of them alone: `worker::net::carrying` does
//! what sockets and output are needed for.

mod carrier;
mod windows;

use bitflags::bitflags;
use slab::Slab;

use crate::bits::Change;
use crate::limits::STREAMS_PER_WORKER_MAX;
use crate::proto::h2::ErrorCode;
use crate::proto::h2::request::Body;
use crate::reason::CloseReason;
use crate::worker::table::{StreamView, Table};

pub use self::carrier::{Carrier, CarrierKey};
pub use self::windows::Progress;

/// A worker's streams, by index, and the sockets that carry them.
#[derive(Debug)]
pub struct H2Streams {
    of: Table<Stream>,
    /// Indices no stream has at present.
    free: Vec<u32>,
    carriers: Slab<Carrier>,
    open: u32,
}

/// What a stream has in addition to its socket.
#[derive(Clone, Copy, Debug)]
struct Stream {
    id: u32,
    carrier: CarrierKey,
    /// Bytes of DATA that its peer takes; may be negative after the peer has reduced it.
    window: i32,
    /// Bytes of DATA it was sent, modulo 2^32.
    sent: u32,
    /// Bytes received for which the peer has not been given new window yet.
    received: u16,
    facts: Facts,
}

const _: () = assert!(size_of::<Stream>() <= 20, "a connection may have thousands that are idle");

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
    pub(super) fn new(slots: u32) -> Self {
        Self { of: Table::new(slots), free: Vec::new(), carriers: Slab::new(), open: 0 }
    }

    // --- carriers ---

    /// Makes a socket carry streams.
    pub(super) fn carry(&mut self, socket: u32) -> CarrierKey {
        CarrierKey::new(self.carriers.insert(Carrier::new(socket)))
    }

    /// The socket has ended, after all of its streams.
    pub(super) fn drop_carrier(&mut self, carrier: CarrierKey) {
        let carrier = self.carriers.remove(carrier.place());
        debug_assert_eq!(carrier.stream_count(), 0);
    }

    pub(super) fn carrier(&self, key: CarrierKey) -> Option<&Carrier> {
        self.carriers.get(key.place())
    }

    pub(super) fn carrier_mut(&mut self, key: CarrierKey) -> Option<&mut Carrier> {
        self.carriers.get_mut(key.place())
    }

    /// The carrier of a stream.
    fn carrier_of(&self, index: u32) -> Option<&Carrier> {
        self.carrier(self.of[index].carrier)
    }

    /// The socket that carries a stream.
    pub(super) fn socket_of(&self, index: u32) -> Option<u32> {
        self.carrier_of(index).map(|carrier| carrier.socket)
    }

    // --- which streams there are ---

    /// Streams open, of all connections.
    pub fn open(&self) -> u32 {
        self.open
    }

    /// Whether the worker can have one more.
    pub fn may_open(&self) -> bool {
        self.open < STREAMS_PER_WORKER_MAX
    }

    /// Opens a stream for a request with this body. Returns its index.
    pub(super) fn open_stream(&mut self, carrier: CarrierKey, id: u32, body: Body) -> Option<u32> {
        let index = self.free.last().copied().unwrap_or_else(|| self.of.next_stream());
        let by = self.carriers.get_mut(carrier.place())?;
        by.add_stream(id, index);
        self.free.pop();
        self.open += 1;
        let window = by.initial_window as i32;
        let facts = if body == Body::Chunked { Facts::CHUNKED } else { Facts::empty() };
        let stream = Stream { id, carrier, window, sent: 0, received: 0, facts };
        self.of.reach(index, || stream);
        self.of[index] = stream;
        Some(index)
    }

    /// Forgets a stream, which has closed.
    pub(super) fn close(&mut self, index: u32) {
        let Stream { id, carrier, facts, .. } = &mut self.of[index];
        facts.remove(Facts::WAITING);
        if let Some(by) = self.carriers.get_mut(carrier.place()) {
            by.remove_stream(*id);
        }
        self.open -= 1;
        self.free.push(index);
    }

    /// By which code its peer must be told that a stream closes, if it must.
    pub(super) fn code_to_close(&self, index: u32, reason: CloseReason) -> Option<ErrorCode> {
        let facts = self.of[index].facts;
        match (facts.contains(Facts::FINISHED), facts.contains(Facts::ENDED)) {
            _ if facts.contains(Facts::ABANDONED) => None,
            (true, true) => None,
            // It need not send the rest of its request (RFC 9113 section 8.1).
            (true, false) => Some(ErrorCode::NoError),
            (false, _) => Some(code_of(reason)),
        }
    }

    // --- what is known of a stream ---

    /// What its connection's session may know of a stream.
    pub(super) fn view(&self, index: u32) -> StreamView {
        let Stream { facts, received, window, .. } = self.of[index];
        let has_ended = facts.contains(Facts::ENDED);
        let is_answered = facts.contains(Facts::ANSWERED);
        StreamView { index, has_ended, is_answered, received, window }
    }

    pub(super) fn id(&self, index: u32) -> u32 {
        self.of[index].id
    }

    /// Whether the stream's session is given the body in chunks.
    pub fn is_chunked(&self, index: u32) -> bool {
        self.of[index].facts.contains(Facts::CHUNKED)
    }

    /// The stream's peer has closed its half: it sends no more on it.
    pub fn half_close(&mut self, index: u32) {
        self.of[index].facts.insert(Facts::ENDED);
    }

    /// Whether the index is a stream's, and its peer has closed its half.
    pub(super) fn is_half_closed(&self, index: u32) -> bool {
        self.of.get(index).is_some_and(|of| of.facts.contains(Facts::ENDED))
    }

    /// Whether the head of a stream's answer is sent.
    pub fn is_answered(&self, index: u32) -> bool {
        self.of[index].facts.contains(Facts::ANSWERED)
    }

    pub(super) fn answered(&mut self, index: u32) {
        self.of[index].facts.insert(Facts::ANSWERED);
    }

    /// Ends our side of a stream. Returns whether its peer must be told: if its answer has begun, and
    /// not ended before.
    pub(super) fn finish(&mut self, index: u32) -> bool {
        let facts = &mut self.of[index].facts;
        facts.contains(Facts::ANSWERED) && facts.raise(Facts::FINISHED)
    }

    /// Sends no further frame for the stream: its peer knows that it is over, or will learn it from
    /// the end of the connection.
    pub fn abandon(&mut self, index: u32) {
        self.of[index].facts.insert(Facts::ABANDONED);
    }

    /// Counts what a stream holds of own output, which was `before` and is `after` now, in bytes.
    pub(super) fn count_held(&mut self, index: u32, before: usize, after: usize) {
        let carrier = self.of[index].carrier;
        if let Some(by) = self.carrier_mut(carrier) {
            by.held = by.held + after - before;
        }
    }

    // --- streams that take nothing ---

    /// Marks a blocked stream as watched. Returns whether it was not watched before.
    pub fn begin_watch(&mut self, index: u32) -> bool {
        self.of[index].facts.raise(Facts::WATCHED)
    }

    /// The stream is watched no more. Returns whether it had nothing more to send in between.
    pub fn end_watch(&mut self, index: u32) -> bool {
        let facts = &mut self.of[index].facts;
        facts.remove(Facts::WATCHED);
        facts.take(Facts::RESTED)
    }

    /// There is nothing more to send to a socket or a stream.
    pub fn note_rest(&mut self, index: u32) {
        if let Some(of) = self.of.get_mut(index)
            && of.facts.contains(Facts::WATCHED)
        {
            of.facts.insert(Facts::RESTED);
        }
    }

    // --- invariants ---

    /// Panics if a stream contradicts its carrier. `blocked`: whether it waits for something.
    pub(super) fn check_stream(&self, index: u32, blocked: bool) {
        let stream = &self.of[index];
        let found = self.carrier_of(index).and_then(|by| by.stream(stream.id));
        assert_eq!(found, Some(index), "{stream:?}");
        let waits = stream.facts.contains(Facts::WAITING);
        assert!(blocked || !waits, "{stream:?} waits although it may go on");
        assert!(!blocked || waits || stream.window <= 0, "{stream:?} waits for nothing");
    }

    /// Panics if a carrier contradicts its streams, which hold this many bytes.
    pub(super) fn check_carrier(&self, by: &Carrier, held: usize) {
        by.check();
        assert_eq!(by.held, held, "bytes its streams hold: {by:?}");
        let waits = by.streams().filter(|&index| self.of[index].facts.contains(Facts::WAITING));
        let listed = by.waiting.iter().filter(|&&id| by.stream(id).is_some());
        assert_eq!(waits.count(), listed.count(), "each waits in one place: {by:?}");
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
