//! Sockets that carry streams: which streams, and what these have in common.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use crate::proto::h2::WINDOW_DEFAULT;
use crate::worker::table::CarrierView;

/// Place of a socket's [`Carrier`], from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarrierKey(NonZeroU32);

impl CarrierKey {
    pub(super) fn new(place: usize) -> Self {
        // There are no more carriers than sockets.
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        Self(NonZeroU32::MIN.saturating_add(place))
    }

    pub(super) fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// What a socket that carries streams has in addition.
#[derive(Debug)]
pub struct Carrier {
    pub(super) socket: u32,
    /// Id and index of each stream, in the order of their ids. One that has closed is [`CLOSED`] until
    /// half of them are: to take it out at once would move all that are behind it. The last is open.
    streams: Vec<(u32, u32)>,
    /// How many of them are open.
    open: u32,
    /// Bytes of DATA that its peer takes on all streams together.
    pub(super) window: u32,
    /// Bytes of DATA that its peer takes on a new stream.
    pub(super) initial_window: u32,
    /// Ids of the streams that are blocked by the connection: by its window, or by its output. Each is
    /// here once; some may have closed since.
    pub(super) waiting: VecDeque<u32>,
    /// Streams it has begun to carry and DATA frames it was sent for them, modulo 2^32.
    pub(super) exchanges: u32,
    /// Bytes of DATA it was sent, modulo 2^32.
    pub(super) sent: u32,
    /// Bytes of own output that its streams hold.
    pub(super) held: usize,
    /// Requests of its streams at the log.
    asked: u32,
    /// Pages that its streams have asked the log for.
    pages: u32,
}

const _: () = assert!(size_of::<Carrier>() <= 96, "an idle connection has one");

/// In the place of a closed stream's index.
const CLOSED: u32 = u32::MAX;

impl Carrier {
    pub(super) fn new(socket: u32) -> Self {
        Self {
            socket,
            streams: Vec::new(),
            open: 0,
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

    // --- its streams ---

    /// How many are open.
    pub fn stream_count(&self) -> usize {
        self.open as usize
    }

    /// Index of the open stream of this id.
    pub fn stream(&self, id: u32) -> Option<u32> {
        let (_, index) = self.streams[self.place(id)?];
        (index != CLOSED).then_some(index)
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.streams.binary_search_by_key(&id, |&(id, _)| id).ok()
    }

    /// Index of the newest.
    pub fn last_stream(&self) -> Option<u32> {
        self.streams.last().map(|&(_, index)| index)
    }

    /// Indices of all that are open, by age.
    pub fn streams(&self) -> impl Iterator<Item = u32> {
        self.streams.iter().map(|&(_, index)| index).filter(|&index| index != CLOSED)
    }

    /// Carries one more, whose id is higher than those before.
    pub(super) fn add_stream(&mut self, id: u32, index: u32) {
        debug_assert!(index != CLOSED && self.streams.last().is_none_or(|&(last, _)| last < id));
        self.streams.push((id, index));
        self.open += 1;
        self.exchanges = self.exchanges.wrapping_add(1);
    }

    /// Carries this one no more. Forgets those that have closed once they may be more than the others:
    /// constant work for each.
    pub(super) fn remove_stream(&mut self, id: u32) {
        let Some(place) = self.place(id) else { return };
        if std::mem::replace(&mut self.streams[place].1, CLOSED) == CLOSED {
            return;
        }
        self.open -= 1;
        while self.streams.pop_if(|&mut (_, index)| index == CLOSED).is_some() {}
        if self.streams.len() > 2 * self.stream_count() {
            self.streams.retain(|&(_, index)| index != CLOSED);
        }
        if self.waiting.len() > 2 * self.stream_count() {
            let mut waiting = std::mem::take(&mut self.waiting);
            waiting.retain(|&id| self.stream(id).is_some());
            self.waiting = waiting;
        }
    }

    /// Whether streams wait for the connection.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Bytes of own output that its streams hold.
    pub fn held(&self) -> usize {
        self.held
    }

    /// What its streams share, as far as its session may know.
    pub fn view(&self) -> CarrierView {
        CarrierView { window: self.window, exchanges: self.exchanges }
    }

    // --- their requests at the log ---

    /// Requests at the log of all its streams.
    pub fn asked(&self) -> u16 {
        u16::try_from(self.asked).unwrap_or(u16::MAX)
    }

    /// Counts one more request of a stream at the log. Returns how many there were before.
    pub fn begin_asking(&mut self) -> u16 {
        let before = self.asked();
        self.asked += 1;
        before
    }

    /// Counts `count` of them as answered, or as belonging to a stream that is gone.
    pub fn end_asking(&mut self, count: u16) {
        self.asked -= u32::from(count);
    }

    /// Counts one more page that a stream asks the log for. Returns how many are under way already.
    pub fn begin_paging(&mut self) -> u16 {
        let before = self.pages;
        self.pages += 1;
        u16::try_from(before).unwrap_or(u16::MAX)
    }

    /// One of them has come, whether or not its stream is still there.
    pub fn end_paging(&mut self) {
        self.pages -= 1;
    }

    /// Panics if it contradicts itself.
    pub(super) fn check(&self) {
        assert_eq!(self.streams().count(), self.stream_count(), "{self:?}");
        assert!(self.last_stream() != Some(CLOSED), "{self:?}");
        assert!(self.streams.len() <= 2 * self.stream_count(), "few that are gone: {self:?}");
        assert!(self.waiting.len() <= 3 * self.stream_count(), "few that are gone: {self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carrier_of(streams: u32) -> Carrier {
        let mut carrier = Carrier::new(0);
        (0..streams).for_each(|at| carrier.add_stream(2 * at + 1, 100 + at));
        carrier
    }

    #[test]
    fn the_streams_of_a_connection_are_found_by_their_ids() {
        let mut carrier = carrier_of(3);
        assert_eq!(carrier.stream(3), Some(101));
        carrier.remove_stream(3);
        carrier.remove_stream(3);
        assert_eq!((carrier.stream(3), carrier.stream(4), carrier.stream_count()), (None, None, 2));
        carrier.add_stream(7, 101);
        assert_eq!(carrier.streams().collect::<Vec<_>>(), [100, 102, 101]);
        assert_eq!((carrier.stream(7), carrier.last_stream()), (Some(101), Some(101)));
    }

    #[test]
    fn a_stream_that_closes_moves_no_other_one_until_half_are_closed() {
        let mut carrier = carrier_of(1000);
        for id in 0..500 {
            carrier.remove_stream(2 * id + 1);
            carrier.check();
            assert_eq!(carrier.streams.len(), 1000, "none has moved");
        }
        carrier.remove_stream(1001);
        assert_eq!(carrier.streams.len(), 499, "now those that have closed are forgotten");
        assert_eq!(carrier.stream(1003), Some(601));
    }

    #[test]
    fn streams_that_close_newest_first_leave_nothing_behind() {
        let mut carrier = carrier_of(1000);
        while let Some(index) = carrier.last_stream() {
            carrier.remove_stream(2 * (index - 100) + 1);
            assert_eq!(carrier.streams.len(), carrier.stream_count());
        }
        assert_eq!(carrier.stream_count(), 0);
    }

    #[test]
    fn a_stream_among_old_ones_that_stay_open_is_forgotten_with_its_end() {
        let mut carrier = carrier_of(100);
        for request in 0..1000 {
            carrier.add_stream(1001 + 2 * request, 7);
            carrier.waiting.push_back(1001 + 2 * request);
            carrier.remove_stream(1001 + 2 * request);
            carrier.check();
        }
        assert_eq!(carrier.streams.len(), 100);
        assert!(carrier.waiting.len() <= 200, "nor do those that waited pile up");
    }
}
