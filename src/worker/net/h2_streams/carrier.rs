//! Sockets that carry streams: which streams, and what these have in common.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use super::super::Net;
use super::super::output::Queue;
use super::super::socket::Flags;
use crate::proto::h2::WINDOW_DEFAULT;
use crate::ring::Token;
use crate::worker::table::StreamView;

use super::{Facts, Stream};

/// Place of a socket's [`Carrier`], from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarrierKey(NonZeroU32);

/// What a socket that carries streams has in addition.
#[derive(Debug)]
pub(super) struct Carrier {
    /// Id and index of each open stream, in the order of their ids.
    pub streams: Vec<(u32, u32)>,
    /// Bytes of DATA that its peer takes on all streams together.
    pub window: u32,
    /// Bytes of DATA that its peer takes on a new stream.
    pub initial_window: u32,
    /// Streams that are blocked by the connection: by its window, or by its output. Each is here once;
    /// some may have closed since.
    pub waiting: VecDeque<Token>,
    /// Streams it has begun to carry and DATA frames it was sent for them, modulo 2^32.
    pub exchanges: u32,
    /// Bytes of DATA it was sent, modulo 2^32.
    pub sent: u32,
    /// Bytes of own output that its streams hold.
    held: usize,
    /// Requests of its streams at the log.
    asked: u32,
    /// Pages that its streams have asked the log for.
    pages: u32,
}

const _: () = assert!(size_of::<Carrier>() <= 96, "an idle connection has one");

impl Carrier {
    fn new() -> Self {
        Self {
            streams: Vec::new(),
            window: WINDOW_DEFAULT,
            initial_window: WINDOW_DEFAULT,
            waiting: VecDeque::new(),
            exchanges: 0,
            sent: 0,
            held: 0,
            asked: 0,
            pages: 0,
        }
    }

    pub fn place(&self, id: u32) -> Result<usize, usize> {
        self.streams.binary_search_by_key(&id, |&(id, _)| id)
    }
}

impl Net {
    /// Makes the socket carry streams. What it has to send waits for what they have, from now on.
    pub fn carry(&mut self, index: u32) {
        let place = self.streams.carriers.insert(Carrier::new()) as u32;
        let socket = &mut self.sockets[index];
        socket.carrier = NonZeroU32::new(place + 1).map(CarrierKey);
        if socket.flags.contains(Flags::DIRTY) {
            socket.flags.remove(Flags::DIRTY);
            self.queue(index, Queue::Carriers);
        }
    }

    /// The socket, which carries no more streams, has ended.
    pub(in super::super) fn drop_carrier(&mut self, index: u32) {
        if let Some(CarrierKey(key)) = self.sockets[index].carrier.take() {
            let carrier = self.streams.carriers.remove(key.get() as usize - 1);
            debug_assert!(carrier.streams.is_empty());
        }
    }

    /// Whether the socket carries streams.
    pub fn carries(&self, index: u32) -> bool {
        self.sockets[index].carrier.is_some()
    }

    pub(super) fn carrier(&self, index: u32) -> Option<&Carrier> {
        let CarrierKey(key) = self.sockets[index].carrier?;
        self.streams.carriers.get(key.get() as usize - 1)
    }

    pub(super) fn carrier_mut(&mut self, index: u32) -> Option<&mut Carrier> {
        let CarrierKey(key) = self.sockets[index].carrier?;
        self.streams.carriers.get_mut(key.get() as usize - 1)
    }

    // --- its streams ---

    /// The socket that carries a stream; for a socket, itself.
    pub fn carrier_of(&self, index: u32) -> u32 {
        if self.is_stream(index) { self.streams.of[index].carrier } else { index }
    }

    /// Streams the socket carries.
    pub fn stream_count(&self, carrier: u32) -> usize {
        self.carrier(carrier).map_or(0, |carrier| carrier.streams.len())
    }

    /// The stream of this id.
    pub fn stream(&self, carrier: u32, id: u32) -> Option<StreamView> {
        let carrier = self.carrier(carrier)?;
        let (_, index) = carrier.streams[carrier.place(id).ok()?];
        let Stream { facts, received, window, .. } = self.streams.of[index];
        let has_ended = facts.contains(Facts::ENDED);
        let is_answered = facts.contains(Facts::ANSWERED);
        Some(StreamView { index, has_ended, is_answered, received, window })
    }

    /// The newest stream the socket carries.
    pub fn last_stream(&self, carrier: u32) -> Option<u32> {
        self.carrier(carrier)?.streams.last().map(|&(_, index)| index)
    }

    /// All streams of a connection, which is given by its own index or by that of a stream.
    pub fn streams_beside(&self, index: u32) -> impl Iterator<Item = u32> {
        let streams = self.carrier(self.carrier_of(index)).map(|of| &of.streams[..]);
        streams.unwrap_or_default().iter().map(|&(_, index)| index)
    }

    // --- their requests at the log ---

    /// Requests at the log of all streams of the connection.
    pub fn asked_beside(&self, index: u32) -> u16 {
        let asked = self.carrier(self.carrier_of(index)).map_or(0, |carrier| carrier.asked);
        u16::try_from(asked).unwrap_or(u16::MAX)
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
            of.asked -= u32::from(count);
        }
    }

    /// Counts one more page that a stream of the connection asks the log for. Returns how many are
    /// under way already.
    pub fn begin_paging(&mut self, carrier: u32) -> u16 {
        let Some(of) = self.carrier_mut(carrier) else { return 0 };
        let before = of.pages;
        of.pages += 1;
        u16::try_from(before).unwrap_or(u16::MAX)
    }

    /// One of them has come, whether or not its stream is still there.
    pub fn end_paging(&mut self, carrier: u32) {
        if let Some(of) = self.carrier_mut(carrier) {
            of.pages -= 1;
        }
    }

    // --- what they hold ---

    /// Bytes of own output that the socket's streams hold.
    pub fn held_for_streams(&self, carrier: u32) -> usize {
        self.carrier(carrier).map_or(0, |carrier| carrier.held)
    }

    /// Counts what a stream holds, which was `before` and is `after` now.
    pub(in super::super) fn count_held(&mut self, index: u32, before: usize, after: usize) {
        if let Some(of) = self.carrier_mut(self.streams.of[index].carrier) {
            of.held = of.held + after - before;
        }
    }

    /// Panics if a socket contradicts the streams it carries.
    pub(in super::super) fn check_carrier(&self, index: u32) {
        let Some(of) = self.carrier(index) else { return };
        let held: usize = self.streams_beside(index).map(|stream| self.out_len(stream)).sum();
        assert_eq!(of.held, held, "bytes its streams hold: {of:?}");
        let facts = |index: u32| self.streams.of[index].facts;
        let waits = of.streams.iter().filter(|&&(_, index)| facts(index).contains(Facts::WAITING));
        let listed = of.waiting.iter().filter(|&&token| self.is_waiting(token));
        assert_eq!(waits.count(), listed.count(), "each waits in one place: {of:?}");
        assert!(of.waiting.len() <= 3 * of.streams.len(), "few that are gone: {of:?}");
    }
}
