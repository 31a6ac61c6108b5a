//! Streams of HTTP/2, each a socket that another one carries. What a stream sends becomes DATA frames
//! in its carrier's own output, so the streams of a connection share its one send of the turn. For the
//! stream, bytes count as sent once they are framed. A closed window is a full socket: the stream is
//! blocked, and wakes when its client opens the window.

mod windows;

use std::collections::VecDeque;
use std::num::NonZeroU32;

use slab::Slab;

use super::Net;
use super::output::Queue;
use super::socket::{Flags, Socket};
use crate::limits::{
    STREAMS_PER_WORKER_MAX, WINDOW_UPDATES_AHEAD, WINDOW_UPDATES_AHEAD_MAX,
    WINDOW_UPDATES_PER_FRAME,
};
use crate::proto::h2::frame;
use crate::proto::h2::{ErrorCode, WINDOW_DEFAULT};
use crate::reason::CloseReason;
use crate::ring::Token;
use crate::worker::table::{StreamView, Table};

/// A worker's streams, and the sockets that carry them.
#[derive(Debug)]
pub(super) struct Streams {
    /// By index.
    of: Table<Stream>,
    /// Indices no stream has at present.
    free: Vec<u32>,
    carriers: Slab<Carrier>,
    open: u32,
}

/// Place of a socket's [`Carrier`], from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarrierKey(NonZeroU32);

/// What a socket that carries streams has in addition.
#[derive(Debug)]
struct Carrier {
    /// Id and index of each open stream, in the order of their ids.
    streams: Vec<(u32, u32)>,
    /// Bytes of DATA that its peer takes on all streams together.
    window: u32,
    /// Bytes of DATA that its peer takes on a new stream.
    initial_window: u32,
    /// Bytes received for which the peer has not been given new window yet.
    received: u32,
    /// Streams that are blocked by the connection: by its window, or by its output.
    waiting: VecDeque<Token>,
    /// Updates of windows that the peer may send before it is sent more DATA.
    updates_left: u32,
    /// Requests of its streams at the log.
    asked: u16,
}

/// What a stream has in addition to its socket.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    id: u32,
    /// The socket that carries it.
    carrier: u32,
    /// Bytes of DATA that its peer takes; may be negative after the peer has reduced it.
    window: i32,
    /// Bytes of DATA it was sent.
    sent: u32,
    /// As in [`Carrier::received`].
    received: u16,
    facts: Facts,
}

/// Facts about a stream, one bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Facts(u8);

impl Facts {
    /// The peer's side has ended.
    const ENDED: u8 = 1 << 0;
    /// Our side has ended.
    const FINISHED: u8 = 1 << 1;
    /// The head of the answer is sent.
    const ANSWERED: u8 = 1 << 2;
    /// It was reset, or its connection ends: no further frame is sent for it.
    const ABANDONED: u8 = 1 << 3;
    /// Its session is given the body in chunks.
    const CHUNKED: u8 = 1 << 4;
    /// The clock watches whether its peer takes enough.
    const WATCHED: u8 = 1 << 5;

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    fn set(&mut self, bit: u8) {
        self.0 |= bit;
    }
}

impl Streams {
    pub fn new(slots: u32) -> Self {
        Self { of: Table::new(slots), free: Vec::new(), carriers: Slab::new(), open: 0 }
    }
}

impl Carrier {
    fn new() -> Self {
        Self {
            streams: Vec::new(),
            window: WINDOW_DEFAULT,
            initial_window: WINDOW_DEFAULT,
            received: 0,
            waiting: VecDeque::new(),
            updates_left: WINDOW_UPDATES_AHEAD,
            asked: 0,
        }
    }

    fn place(&self, id: u32) -> Result<usize, usize> {
        self.streams.binary_search_by_key(&id, |&(id, _)| id)
    }

    fn allow_updates(&mut self, count: u32) {
        self.updates_left = (self.updates_left + count).min(WINDOW_UPDATES_AHEAD_MAX);
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

    /// Makes the socket carry streams.
    pub fn carry(&mut self, index: u32) {
        let place = self.streams.carriers.insert(Carrier::new()) as u32;
        self.sockets[index].carrier = NonZeroU32::new(place + 1).map(CarrierKey);
    }

    /// Whether the socket carries streams.
    pub fn carries(&self, index: u32) -> bool {
        self.sockets[index].carrier.is_some()
    }

    /// The socket that carries a stream; for a socket, itself.
    pub fn carrier_of(&self, index: u32) -> u32 {
        if self.is_stream(index) { self.streams.of[index].carrier } else { index }
    }

    fn carrier(&self, index: u32) -> Option<&Carrier> {
        let CarrierKey(key) = self.sockets[index].carrier?;
        self.streams.carriers.get(key.get() as usize - 1)
    }

    fn carrier_mut(&mut self, index: u32) -> Option<&mut Carrier> {
        let CarrierKey(key) = self.sockets[index].carrier?;
        self.streams.carriers.get_mut(key.get() as usize - 1)
    }

    /// Streams the socket carries.
    pub fn stream_count(&self, carrier: u32) -> usize {
        self.carrier(carrier).map_or(0, |carrier| carrier.streams.len())
    }

    /// The stream of this id.
    pub fn stream(&self, carrier: u32, id: u32) -> Option<StreamView> {
        let carrier = self.carrier(carrier)?;
        let (_, index) = carrier.streams[carrier.place(id).ok()?];
        let facts = self.streams.of[index].facts;
        let (has_ended, is_answered) = (facts.has(Facts::ENDED), facts.has(Facts::ANSWERED));
        Some(StreamView { index, has_ended, is_answered })
    }

    /// The newest stream the socket carries.
    pub fn last_stream(&self, carrier: u32) -> Option<u32> {
        self.carrier(carrier)?.streams.last().map(|&(_, index)| index)
    }

    /// Opens a stream; `None` if the worker can't have more. `chunked`: its session is given the body
    /// in chunks.
    pub fn open_stream(&mut self, carrier: u32, id: u32, chunked: bool) -> Option<u32> {
        if self.streams.open >= STREAMS_PER_WORKER_MAX {
            return None;
        }
        let index = self.streams.free.pop().unwrap_or_else(|| self.sockets.next_stream());
        let of = self.carrier_mut(carrier)?;
        of.streams.push((id, index));
        of.allow_updates(WINDOW_UPDATES_PER_FRAME);
        let window = of.initial_window as i32;
        self.opened(index);
        self.sockets[index].flags.set(Flags::UNCOUNTED);
        if self.is_proxied(carrier) {
            self.sockets[index].flags.set(Flags::PROXIED);
        }
        self.streams.of.reach(index, Stream::default);
        let mut facts = Facts::default();
        if chunked {
            facts.set(Facts::CHUNKED);
        }
        self.streams.of[index] = Stream { id, carrier, window, sent: 0, received: 0, facts };
        self.streams.open += 1;
        self.metrics.http2_streams.add(1);
        Some(index)
    }

    /// Closes a stream, and tells its peer unless that knows already.
    pub(super) fn close_stream(&mut self, index: u32, reason: CloseReason) {
        let Stream { id, carrier, facts, .. } = self.streams.of[index];
        if !facts.has(Facts::ABANDONED) {
            match (facts.has(Facts::FINISHED), facts.has(Facts::ENDED)) {
                (true, true) => {}
                // It need not send the rest of its request (RFC 9113 section 8.1).
                (true, false) => self.write_reset(index, ErrorCode::NoError),
                (false, _) => self.write_reset(index, code_of(reason)),
            }
        }
        self.metrics.http2_stream_closes[reason.index()].add(1);
        self.streams.open -= 1;
        self.streams.free.push(index);
        if let Some(of) = self.carrier_mut(carrier)
            && let Ok(place) = of.place(id)
        {
            of.streams.remove(place);
        }
        self.release_next(carrier);
    }

    /// The socket, which carries no more streams, has ended.
    pub(super) fn drop_carrier(&mut self, index: u32) {
        if let Some(CarrierKey(key)) = self.sockets[index].carrier.take() {
            let carrier = self.streams.carriers.remove(key.get() as usize - 1);
            debug_assert!(carrier.streams.is_empty());
        }
    }

    // --- what is known of a stream ---

    /// Whether the stream's session is given the body in chunks.
    pub fn is_chunked(&self, index: u32) -> bool {
        self.streams.of[index].facts.has(Facts::CHUNKED)
    }

    /// The stream's peer sends no more on it.
    pub fn end_stream(&mut self, index: u32) {
        self.streams.of[index].facts.set(Facts::ENDED);
    }

    /// Whether the index is a stream's, and its peer sends no more on it.
    pub(super) fn has_stream_ended(&self, index: u32) -> bool {
        self.is_stream(index) && self.streams.of[index].facts.has(Facts::ENDED)
    }

    /// All streams of a connection, which is given by its own index or by that of a stream.
    pub fn streams_beside(&self, index: u32) -> impl Iterator<Item = u32> {
        let streams = self.carrier(self.carrier_of(index)).map(|of| &of.streams[..]);
        streams.unwrap_or_default().iter().map(|&(_, index)| index)
    }

    // --- requests at the log ---

    /// Requests at the log of all streams of the connection.
    pub fn asked_beside(&self, index: u32) -> u16 {
        self.carrier(self.carrier_of(index)).map_or(0, |carrier| carrier.asked)
    }

    /// Counts one more request of a stream at the log.
    pub fn begin_asking(&mut self, index: u32) {
        if let Some(of) = self.carrier_mut(self.carrier_of(index)) {
            of.asked += 1;
        }
    }

    /// Counts `count` of them as answered, or as belonging to a stream that is gone.
    pub fn end_asking(&mut self, index: u32, count: u16) {
        if let Some(of) = self.carrier_mut(self.carrier_of(index)) {
            of.asked -= count;
        }
    }

    // --- frames about a stream ---

    /// Sends the head of a stream's answer, given as a field block. `is_final`: it is not that of a
    /// `100 Continue`.
    pub fn write_head(&mut self, index: u32, block: &[u8], is_final: bool) {
        let Stream { id, carrier, facts, .. } = &mut self.streams.of[index];
        if is_final {
            facts.set(Facts::ANSWERED);
        }
        let (id, carrier) = (*id, *carrier);
        self.write(carrier, |out| frame::write_headers(out, id, block, false));
    }

    /// Whether the head of a stream's answer is sent.
    pub fn is_answered(&self, index: u32) -> bool {
        self.streams.of[index].facts.has(Facts::ANSWERED)
    }

    /// Ends our side of the stream: all it had to send is framed.
    pub fn finish_stream(&mut self, index: u32) {
        let Stream { id, carrier, facts, .. } = &mut self.streams.of[index];
        if facts.has(Facts::ANSWERED) && !facts.has(Facts::FINISHED) {
            facts.set(Facts::FINISHED);
            let (id, carrier) = (*id, *carrier);
            self.write(carrier, |out| frame::write_data(out, id, b"", true));
        }
    }

    /// Sends no further frame for the stream: its peer knows that it is over, or will learn it from
    /// the end of the connection.
    pub fn abandon(&mut self, index: u32) {
        self.streams.of[index].facts.set(Facts::ABANDONED);
    }

    /// Resets the stream.
    pub fn reset(&mut self, index: u32, code: ErrorCode) {
        self.write_reset(index, code);
        self.abandon(index);
    }

    fn write_reset(&mut self, index: u32, code: ErrorCode) {
        let Stream { id, carrier, .. } = self.streams.of[index];
        self.write(carrier, |out| frame::write_reset(out, id, code));
    }

    fn write(&mut self, carrier: u32, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.out(carrier));
        self.queue(carrier, Queue::Carriers);
    }

    // --- streams that take nothing ---

    /// Bytes the stream was sent, modulo 2^32.
    pub fn sent(&self, index: u32) -> u32 {
        self.streams.of[index].sent
    }

    /// Marks a blocked stream as watched. Returns whether it was not watched before.
    pub fn begin_watch(&mut self, index: u32) -> bool {
        let facts = &mut self.streams.of[index].facts;
        let was_watched = facts.has(Facts::WATCHED);
        facts.set(Facts::WATCHED);
        !was_watched
    }

    /// The stream is watched no more.
    pub fn end_watch(&mut self, index: u32) {
        self.streams.of[index].facts.0 &= !Facts::WATCHED;
    }

    /// Panics if a stream contradicts its connection.
    pub(super) fn check_stream(&self, index: u32) {
        let (socket, stream): (&Socket, &Stream) = (&self.sockets[index], &self.streams.of[index]);
        let found = self.stream(stream.carrier, stream.id).map(|view| view.index);
        assert_eq!(found, Some(index), "{stream:?}");
        let waits = || {
            let carrier = self.carrier(stream.carrier);
            carrier.is_some_and(|of| of.waiting.contains(&self.token(index)))
        };
        let blocked = socket.flags.has(Flags::BLOCKED);
        assert!(!blocked || stream.window <= 0 || waits(), "{stream:?} waits for nothing");
        assert!(!socket.flags.has(Flags::RECV_ARMED) && !socket.flags.has(Flags::SENT));
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
