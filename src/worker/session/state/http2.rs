//! What a connection of HTTP/2 has, as long as it lasts.

use std::collections::BTreeMap;

use crate::limits::{
    HTTP2_REQUESTS_PER_TURN, WINDOW_UPDATES_AHEAD, WINDOW_UPDATES_AHEAD_MAX,
    WINDOW_UPDATES_PER_FRAME,
};
use crate::metrics::Flood;
use crate::proto::h2::hpack::Decoder;

/// A connection's state.
#[derive(Debug, Default)]
pub struct Http2 {
    pub decoder: Decoder,
    /// The newest stream the client has opened.
    pub last_id: u32,
    /// It has skipped ids, so an id below `last_id` may never have been used.
    pub has_skipped: bool,
    pub has_settings: bool,
    pub is_acknowledged: bool,
    /// A field block whose end has not come.
    pub block: Option<Box<Block>>,
    /// Streams whose bodies have a known length, and how much of each has not come yet.
    pub bodies: BTreeMap<u32, u64>,
    /// Bytes of DATA received for which the client has not been given new window yet.
    pub received: u32,
    pub updates: Updates,
    pub floods: Floods,
    /// Requests begun in this turn.
    pub begun: u32,
    pub begun_in_turn: u32,
}

/// A field block that comes in pieces.
#[derive(Debug)]
pub struct Block {
    pub stream: u32,
    /// Whether the stream ends with it.
    pub ends: bool,
    pub bytes: Vec<u8>,
    pub pieces: u32,
}

impl Http2 {
    /// Bytes of memory of the unfinished field block.
    pub fn held_bytes(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.bytes.capacity())
    }

    /// Whether a field block has begun and not ended.
    pub fn has_block(&self) -> bool {
        self.block.is_some()
    }

    /// Whether no stream ever had this id.
    pub fn is_unused(&self, id: u32) -> bool {
        id > self.last_id || id.is_multiple_of(2)
    }

    /// Whether it has begun as many requests in this turn as it may.
    pub fn has_had_its_turn(&mut self, turn: u32) -> bool {
        if std::mem::replace(&mut self.begun_in_turn, turn) != turn {
            self.begun = 0;
        }
        self.begun >= HTTP2_REQUESTS_PER_TURN
    }

    /// Counts bytes of a stream's body. Returns whether the body is still as long as announced.
    pub fn count_body(&mut self, id: u32, length: usize, ended: bool) -> bool {
        let Some(left) = self.bodies.get_mut(&id) else { return true };
        let fits = left.checked_sub(length as u64).map(|rest| *left = rest).is_some();
        let fits = fits && (!ended || *left == 0);
        if ended || !fits {
            self.bodies.remove(&id);
        }
        fits
    }
}

/// Updates of windows that a client may still send.
#[derive(Debug)]
pub struct Updates {
    left: u32,
    /// What its streams had exchanged by the last one.
    exchanges: u32,
}

impl Default for Updates {
    fn default() -> Self {
        Self { left: WINDOW_UPDATES_AHEAD, exchanges: 0 }
    }
}

impl Updates {
    /// Counts one more. `exchanges`: streams opened and DATA frames sent, each of which earns some.
    /// Returns whether the client may send it.
    pub fn take(&mut self, exchanges: u32) -> bool {
        let new = exchanges.wrapping_sub(std::mem::replace(&mut self.exchanges, exchanges));
        let earned = new.saturating_mul(WINDOW_UPDATES_PER_FRAME);
        let left = self.left.saturating_add(earned).min(WINDOW_UPDATES_AHEAD_MAX);
        self.left = left.saturating_sub(1);
        left > 0
    }
}

/// How often a connection has done each of these lately: the counts are halved every second.
#[derive(Debug, Default)]
pub struct Floods {
    second: u32,
    counts: [u16; Flood::ALL.len()],
}

impl Floods {
    /// Counts one more. Returns whether that is too many.
    pub fn note(&mut self, flood: Flood, second: u32, max: u16) -> bool {
        let elapsed = second.wrapping_sub(self.second);
        if elapsed > 0 {
            self.second = second;
            self.counts.iter_mut().for_each(|count| *count >>= elapsed.min(15));
        }
        let count = &mut self.counts[flood as usize];
        *count = count.saturating_add(1);
        *count > max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_of_windows_are_earned_by_what_is_sent_and_saved_up_to_a_bound() {
        let spend = |updates: &mut Updates, exchanges| {
            (0..).take_while(|_| updates.take(exchanges)).count() as u32
        };
        let mut updates = Updates::default();
        assert_eq!(spend(&mut updates, 0), WINDOW_UPDATES_AHEAD);
        assert_eq!(spend(&mut updates, 3), 3 * WINDOW_UPDATES_PER_FRAME);
        assert_eq!(spend(&mut updates, u32::MAX), WINDOW_UPDATES_AHEAD_MAX);
        assert_eq!(spend(&mut updates, 1), 2 * WINDOW_UPDATES_PER_FRAME, "the count wraps");
    }

    #[test]
    fn what_is_done_now_and_then_is_no_flood() {
        let mut floods = Floods::default();
        for second in 0..1000 {
            assert!((0..50).all(|_| !floods.note(Flood::Ping, second, 100)), "second {second}");
        }
        let mut floods = Floods::default();
        assert_eq!((0..).take_while(|_| !floods.note(Flood::Ping, 7, 100)).count(), 100);
        assert!(!floods.note(Flood::Settings, 7, 100), "each kind has a count of its own");
        assert!(!floods.note(Flood::Ping, 8, 100), "a second later half of it is forgotten");
    }
}
