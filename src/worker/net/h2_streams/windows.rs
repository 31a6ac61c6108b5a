//! The windows of connections and their streams: how much peers may send, how much they take, and
//! which stream is next when they take more.

use super::{CarrierKey, Facts, H2Streams, Stream};
use crate::bits::Change;
use crate::proto::h2::CREDIT_BYTES_MIN;

/// How far a stream and its connection have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of DATA the stream was sent, modulo 2^32.
    pub stream: u32,
    /// The same of all streams of the connection.
    pub connection: u32,
}

impl H2Streams {
    // --- what comes ---

    /// Counts received bytes of DATA against the window we gave the stream.
    pub fn count_data(&mut self, index: u32, length: u32) {
        let received = &mut self.of[index].received;
        *received = u16::try_from(u32::from(*received) + length).unwrap_or(u16::MAX);
    }

    /// Bytes by which the stream's peer is to be given more window now, if that is worth a frame.
    pub(in crate::worker::net) fn take_credit(&mut self, index: u32) -> Option<u32> {
        let Stream { received, facts, .. } = &mut self.of[index];
        let is_over = facts.contains(Facts::ENDED) || facts.contains(Facts::ABANDONED);
        let is_due = u32::from(*received) >= CREDIT_BYTES_MIN && !is_over;
        is_due.then(|| std::mem::take(received).into())
    }

    // --- what goes ---

    /// What the windows of a stream and its connection allow, in bytes.
    pub(in crate::worker::net) fn open_window(&self, index: u32) -> usize {
        let of_connection = self.carrier_of(index).map_or(0, |by| by.window);
        u32::try_from(self.of[index].window).unwrap_or(0).min(of_connection) as usize
    }

    /// Counts bytes of DATA that the stream is sent, in one frame. Returns its id, and the socket that
    /// carries it.
    pub(in crate::worker::net) fn count_sent(
        &mut self,
        index: u32,
        length: u32,
    ) -> Option<(u32, u32)> {
        let Stream { id, carrier, window, sent, .. } = &mut self.of[index];
        let by = self.carriers.get_mut(carrier.place())?;
        *window -= length as i32;
        *sent = sent.wrapping_add(length);
        by.window -= length;
        by.sent = by.sent.wrapping_add(length);
        by.exchanges = by.exchanges.wrapping_add(1);
        Some((*id, by.socket))
    }

    /// How far the stream and its connection have come.
    pub fn progress(&self, index: u32) -> Progress {
        let connection = self.carrier_of(index).map_or(0, |by| by.sent);
        Progress { stream: self.of[index].sent, connection }
    }

    /// Bytes that have gone through the window that is closed, the stream's or its connection's;
    /// `None` if both are open, and the stream waits for nothing but its socket.
    pub fn moved_since(&self, index: u32, before: Progress) -> Option<u32> {
        let Progress { stream, connection } = self.progress(index);
        if self.of[index].window <= 0 {
            return Some(stream.wrapping_sub(before.stream));
        }
        let is_closed = self.carrier_of(index).is_some_and(|by| by.window == 0);
        is_closed.then(|| connection.wrapping_sub(before.connection))
    }

    // --- windows that change ---

    /// The peer takes `by` more bytes of one stream. Returns whether the stream waits for nothing else
    /// than that, if it is blocked.
    pub(in crate::worker::net) fn widen(&mut self, index: u32, by: u32) -> bool {
        let Stream { window, facts, .. } = &mut self.of[index];
        *window = window.saturating_add_unsigned(by);
        *window > 0 && !facts.contains(Facts::WAITING)
    }

    /// The peer takes `by` more bytes of all streams together.
    pub(in crate::worker::net) fn widen_all(&mut self, carrier: CarrierKey, by: u32) {
        if let Some(of) = self.carrier_mut(carrier) {
            of.window = of.window.saturating_add(by);
        }
    }

    /// The peer changes the window of new streams. Those of open ones change by the difference (RFC
    /// 9113 section 6.9.2). Returns the streams whose windows have opened by that; `None` if one would
    /// be wider than a window can be, which is an error of the connection.
    pub(in crate::worker::net) fn set_initial_window(
        &mut self,
        key: CarrierKey,
        after: u32,
    ) -> Option<Vec<u32>> {
        let Self { of, carriers, .. } = self;
        let mut opened = Vec::new();
        let Some(by) = carriers.get_mut(key.place()) else { return Some(opened) };
        let before = std::mem::replace(&mut by.initial_window, after);
        if before == after {
            return Some(opened);
        }
        for index in by.streams() {
            let Stream { window, facts, .. } = &mut of[index];
            let was_closed = *window <= 0;
            *window = moved(*window, before, after)?;
            if was_closed && *window > 0 && !facts.contains(Facts::WAITING) {
                opened.push(index);
            }
        }
        Some(opened)
    }

    // --- streams that wait for their connection ---

    /// A stream is blocked. If its own window is open, it waits for its connection.
    pub(in crate::worker::net) fn block(&mut self, index: u32) {
        let Stream { id, carrier, window, facts, .. } = &mut self.of[index];
        if *window > 0
            && let Some(by) = self.carriers.get_mut(carrier.place())
            && facts.raise(Facts::WAITING)
        {
            by.waiting.push_back(*id);
        }
    }

    /// Takes out the next stream that waits for the connection and can go on, if the connection's
    /// window is open. One whose peer has closed its own window meanwhile waits for that from now on.
    pub(in crate::worker::net) fn next_waiting(&mut self, key: CarrierKey) -> Option<u32> {
        let by = self.carriers.get_mut(key.place())?;
        while by.window > 0
            && let Some(id) = by.waiting.pop_front()
        {
            // It may have closed.
            let Some(index) = by.stream(id) else { continue };
            let Stream { window, facts, .. } = &mut self.of[index];
            facts.remove(Facts::WAITING);
            if *window > 0 {
                return Some(index);
            }
        }
        None
    }
}

/// A stream's window, once the initial one is changed; `None` if it is more than one can be.
fn moved(window: i32, before: u32, after: u32) -> Option<i32> {
    i32::try_from(i64::from(window) - i64::from(before) + i64::from(after)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::h2::request::Body;
    use crate::proto::h2::{WINDOW_DEFAULT, WINDOW_MAX};

    /// A connection with three streams, and their indices.
    fn three() -> (H2Streams, CarrierKey, [u32; 3]) {
        let mut streams = H2Streams::new(10);
        let key = streams.carry(4);
        let open = [1, 3, 5].map(|id| streams.open_stream(key, id, Body::None));
        (streams, key, open.map(|index| index.expect("it carries streams")))
    }

    #[test]
    fn what_is_sent_goes_through_both_windows() {
        let (mut streams, key, [first, second, _]) = three();
        streams.count_sent(first, WINDOW_DEFAULT);
        assert_eq!((streams.open_window(first), streams.open_window(second)), (0, 0));
        streams.widen_all(key, 10);
        assert_eq!((streams.open_window(first), streams.open_window(second)), (0, 10));
        assert!(streams.widen(first, 4));
        assert_eq!(streams.open_window(first), 4);
        assert_eq!(streams.socket_of(second), Some(4));
    }

    #[test]
    fn a_change_of_the_initial_window_tells_which_windows_it_opens() {
        let (mut streams, key, [first, second, third]) = three();
        assert_eq!(streams.set_initial_window(key, 0), Some(vec![]));
        streams.widen(second, 5);
        streams.block(third);
        assert_eq!(streams.set_initial_window(key, 0), Some(vec![]), "it is the same");
        assert_eq!(streams.set_initial_window(key, 1), Some(vec![first, third]));
        assert_eq!(streams.open_window(second), 6);
    }

    #[test]
    fn no_change_of_the_initial_window_makes_one_wider_than_a_window_can_be() {
        let (mut streams, key, [first, ..]) = three();
        streams.widen(first, WINDOW_MAX - WINDOW_DEFAULT);
        assert_eq!(streams.set_initial_window(key, WINDOW_DEFAULT), Some(vec![]));
        assert_eq!(streams.set_initial_window(key, WINDOW_DEFAULT + 1), None);
    }

    #[test]
    fn streams_that_wait_for_their_connection_go_on_in_turn() {
        let (mut streams, key, [first, second, third]) = three();
        [third, first, second].into_iter().for_each(|index| streams.block(index));
        streams.close(first);
        streams.count_sent(second, WINDOW_DEFAULT);
        assert_eq!(streams.next_waiting(key), None, "the connection's window is closed");
        streams.widen_all(key, 1);
        assert_eq!(streams.next_waiting(key), Some(third));
        assert_eq!(streams.next_waiting(key), None, "one is gone, one waits for its own window");
        assert!(streams.widen(second, 1), "which is all it waits for");
    }
}
