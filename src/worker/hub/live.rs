//! Live subscribers: one immutable slice of bytes per dialect, one fire-and-forget send each.

use std::ops::Range;
use std::sync::Arc;

use super::Hub;
use super::subscriber::{Rest, Subscriber};
use crate::limits::{
    ARENA_BYTES_KEPT, EVENT_BYTES_MAX, FANOUT_BYTES_PER_TURN, FANOUT_SENDS_AT_ONCE,
    FANOUT_TIME_PER_TURN, SLOTS_PER_WORKER_MAX,
};
use crate::log::event::Event;
use crate::proto::dialect::{Dialect, Heartbeat};
use crate::worker::budget::{Budget, encode_ns};

/// Where a subscriber's bytes go.
pub trait Wire {
    /// The memory that holds the bytes of sends.
    fn arena(&mut self) -> &mut Vec<u8>;
    /// Where the next byte of the arena goes.
    fn arena_end(&self) -> u32;
    /// Sends bytes of the arena, which other sends may share, and returns the price; `None` if the
    /// subscriber can take none of them now.
    fn send_shared(&mut self, index: u32, bytes: Range<u32>) -> Option<u64>;
    /// Whether the connection of this index is still the one of this generation.
    fn is_of(&self, index: u32, generation: u32) -> bool;
    /// Notes that an explicit subscriber has something to read.
    fn wake(&mut self, index: u32);
}

/// A turn's budgets, and beyond them the largest event in every form, must be addressable by `u32`;
/// half of that is spare.
const _: () =
    assert!(ARENA_BYTES_KEPT + Dialect::COUNT * Dialect::GROWTH_MAX * EVENT_BYTES_MAX < 1 << 31);

/// Where the present slice is in the arena, per dialect; encoded when first needed.
type Encoded = [Option<Range<u32>>; Dialect::COUNT];

/// Where this turn's heartbeats are in the arena, by dialect and form; `None` until one was needed.
pub type Beats = [[Option<Range<u32>>; 2]; Dialect::COUNT];

/// What the socket did not take of a shared send.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Untaken {
    /// How many bytes it is.
    pub bytes: u64,
    /// The rest of a heartbeat, which goes out before anything else.
    pub heartbeat: Vec<u8>,
}

/// A live subscriber: its slot and its dialect in one word, so that fan-out reads nothing of the
/// connection itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live(u32);

const _: () = assert!(SLOTS_PER_WORKER_MAX <= 1 << Live::SLOT_BITS);

impl Live {
    const SLOT_BITS: u32 = u32::BITS - Dialect::BITS;

    /// Packs the two.
    pub fn new(slot: u32, dialect: Dialect) -> Self {
        debug_assert!(slot < 1 << Self::SLOT_BITS);
        Self(slot | (dialect as u32) << Self::SLOT_BITS)
    }

    /// The index of its socket.
    pub fn slot(self) -> u32 {
        self.0 & ((1 << Self::SLOT_BITS) - 1)
    }

    /// The dialect, as an index (`Dialect as usize`).
    pub fn dialect_index(self) -> usize {
        (self.0 >> Self::SLOT_BITS) as usize
    }
}

impl Hub {
    /// Takes an event from the log.
    pub fn event(&mut self, event: Arc<Event>) {
        self.head_seen = event.seq;
        let Some(index) = self.channels.find(event.channel_hash, &event.channel) else { return };
        self.channels.change(index, |replica| replica.push(event));
        self.shed(index);
        self.schedule(index);
    }

    fn schedule(&mut self, index: u32) {
        if self.channels[index].schedule() {
            self.scheduled.push_back(index);
        }
    }

    /// Whether there is something to fan out.
    pub fn has_scheduled(&self) -> bool {
        !self.scheduled.is_empty()
    }

    /// Fans out to live subscribers within the turn's budgets, at most one slice per channel.
    pub fn fan_out(&mut self, wire: &mut impl Wire) {
        let mut budget = Budget::new(FANOUT_TIME_PER_TURN);
        for _ in 0..self.scheduled.len() {
            if budget.is_spent() || wire.arena_end() as usize >= FANOUT_BYTES_PER_TURN {
                return;
            }
            let Some(index) = self.scheduled.pop_front() else { return };
            // Its last subscribers may have left meanwhile, and the replica with them.
            let Some(replica) = self.channels.at(index) else { continue };
            if !replica.unschedule() {
                continue;
            }
            if !replica.slice_unfinished() {
                replica.begin_slice();
                self.leave_out_senders(index, wire);
                let replica = &self.channels[index];
                replica.followers().iter().for_each(|&follower| wire.wake(follower));
            }
            self.hand_out(index, wire, &mut budget);
            self.fanned.push(index);
            self.schedule(index);
        }
    }

    /// Live subscribers are all sent the same. One that has published some of the slice for others
    /// reads it with a cursor of its own.
    fn leave_out_senders(&mut self, index: u32, wire: &mut impl Wire) {
        let Self { channels, refused, subscribers, home, .. } = self;
        let senders = channels[index].slice().filter_map(|event| event.sender());
        for sender in senders.filter(|sender| sender.home == *home) {
            let reader = subscribers.get(sender.slot);
            let is_here =
                matches!(reader, Some(Subscriber::Live { replica, .. }) if *replica == index);
            if is_here && wire.is_of(sender.slot, sender.generation) {
                refused.push(sender.slot);
            }
        }
        self.make_refused_explicit(index, wire);
    }

    /// Sends the present slice to as many live subscribers as the budget allows.
    fn hand_out(&mut self, index: u32, wire: &mut impl Wire, budget: &mut Budget) {
        let replica = &mut self.channels[index];
        replica.send_in(self.turn);
        let mut slice = std::mem::take(&mut self.slice);
        slice.extend(replica.slice().cloned());
        let mut encoded: Encoded = Default::default();
        let mut count = 0;
        while !budget.is_spent() && self.channels[index].slice_unfinished() {
            count += self.hand_to_some(index, &slice, &mut encoded, wire, budget);
        }
        self.metrics.sends_live.add(count as u64);
        self.handed += (count * slice.len()) as u64;
        if !self.channels[index].slice_unfinished() {
            // The slice's oldest event has waited longest, and its last subscriber too.
            let age = slice.first().map(|event| self.now.saturating_sub(event.ordered_at()));
            if let Some(age) = age {
                self.metrics.delivery_lag.observe_us(age.as_micros() as u64);
            }
        }
        slice.clear();
        self.slice = slice;
    }

    /// Sends it to the next few of them; returns how many.
    fn hand_to_some(
        &mut self,
        index: u32,
        slice: &[Arc<Event>],
        encoded: &mut Encoded,
        wire: &mut impl Wire,
        budget: &mut Budget,
    ) -> usize {
        let epoch = self.epoch;
        let some = self.channels[index].hand_out(FANOUT_SENDS_AT_ONCE);
        for live in some {
            let dialect = live.dialect_index();
            let range = encoded[dialect].get_or_insert_with(|| {
                let from = wire.arena_end();
                for event in slice {
                    Dialect::ALL[dialect].write_event(wire.arena(), &event.view(epoch));
                }
                let range = from..wire.arena_end();
                budget.spend(encode_ns(range.len()));
                range
            });
            // Not every event is one in every dialect.
            if range.start == range.end {
                continue;
            }
            match wire.send_shared(live.slot(), range.clone()) {
                Some(price_ns) => budget.spend(price_ns),
                None => self.refused.push(live.slot()),
            }
        }
        let count = some.len() - self.refused.len();
        self.make_refused_explicit(index, wire);
        count
    }

    /// Subscribers whose connection took nothing of the present slice become explicit, with a cursor
    /// before it.
    fn make_refused_explicit(&mut self, index: u32, wire: &mut impl Wire) {
        let cursor = self.channels[index].slice_start();
        while let Some(slot) = self.refused.pop() {
            self.make_explicit_at(slot, cursor);
            wire.wake(slot);
        }
    }

    /// Sends a live subscriber a heartbeat and returns true, unless it is sent an event in this
    /// batch: fan-out comes before heartbeats, and each subscriber gets one send.
    pub fn beat(
        &mut self,
        index: u32,
        form: Heartbeat,
        beats: &mut Beats,
        wire: &mut impl Wire,
    ) -> bool {
        let &Subscriber::Live { dialect, replica, .. } = self.subscriber(index) else {
            return false;
        };
        if self.channels[replica].was_sent_in(self.turn) {
            return false;
        }
        let range = beats[dialect as usize][form as usize].get_or_insert_with(|| {
            let from = wire.arena_end();
            dialect.write_heartbeat(wire.arena(), form);
            from..wire.arena_end()
        });
        wire.send_shared(index, range.clone()).is_some()
    }

    /// A live subscriber's socket took only `taken` bytes of its send, a slice or a heartbeat of
    /// this form: from here on it has a cursor of its own.
    pub fn settle_shared(&mut self, index: u32, taken: usize, form: Heartbeat) -> Untaken {
        let &Subscriber::Live { dialect, replica, place } = self.subscriber(index) else {
            return Untaken::default();
        };
        let replica = &self.channels[replica];
        if !replica.was_sent_in(self.turn) {
            self.make_explicit(index);
            let mut heartbeat = Vec::new();
            dialect.write_heartbeat(&mut heartbeat, form);
            heartbeat.drain(..taken);
            return Untaken { bytes: heartbeat.len() as u64, heartbeat };
        }
        debug_assert!(replica.is_handed(place));
        let (mut cursor, mut rest, mut left) = (replica.slice_start(), None, taken);
        let mut untaken = Untaken::default();
        let mut untaken_events = 0;
        let mut scratch = Vec::new();
        for event in replica.slice() {
            scratch.clear();
            dialect.write_event(&mut scratch, &event.view(self.epoch));
            untaken.bytes += (scratch.len() - left.min(scratch.len())) as u64;
            if left == 0 {
                untaken_events += 1;
                continue;
            }
            cursor = event.seq;
            if left < scratch.len() {
                rest = Some(Rest { event: event.clone(), offset: left });
                left = 0;
                continue;
            }
            left -= scratch.len();
        }
        self.handed -= untaken_events;
        if let Some(explicit) = self.make_explicit_at(index, cursor) {
            explicit.rest = rest;
        }
        untaken
    }

    /// All sends of the last batch are settled. Their slices were taken, except where a socket said
    /// otherwise (those subscribers are explicit by now), so replicas need not keep them.
    pub fn begin_batch(&mut self) {
        let mut fanned = std::mem::take(&mut self.fanned);
        for index in fanned.drain(..) {
            if let Some(replica) = self.channels.at(index) {
                replica.settle_slice();
                self.trim(index);
            }
        }
        self.fanned = fanned;
        self.metrics.deliveries.add(std::mem::take(&mut self.handed));
        self.sending.clear();
        self.turn = self.turn.wrapping_add(1);
    }
}
