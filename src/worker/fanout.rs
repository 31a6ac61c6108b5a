//! Live subscribers: one immutable slice of bytes per transport, one fire-and-forget send each.

use std::ops::Range;
use std::sync::Arc;

use super::budget::{Budget, SEND_NS, copy_ns, encode_ns};
use super::core::Core;
use super::slot::Flags;
use super::work::Rest;
use crate::limits::{
    ARENA_BYTES_KEPT, EVENT_BYTES_MAX, FANOUT_BYTES_PER_TURN, FANOUT_SENDS_AT_ONCE,
    FANOUT_TIME_PER_TURN,
};
use crate::log::event::Event;
use crate::proto::variant::Variant;
use crate::ring::{Op, Token};

const VARIANTS: [Variant; Variant::COUNT] =
    [Variant::SseBare, Variant::SseEnvelope, Variant::WsBare, Variant::WsEnvelope];

/// The budgets of a turn, and beyond them the largest event in every form: all of it is addressed
/// by `u32`, with half of that to spare.
const _: () =
    assert!(ARENA_BYTES_KEPT + Variant::COUNT * Variant::GROWTH_MAX * EVENT_BYTES_MAX < 1 << 31);

/// What the sockets were handed since the last turn was settled. What they did not take is taken
/// back before anyone sees it in the metrics, which never go down.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Handed {
    /// Events, each once per subscriber.
    pub deliveries: u64,
    pub bytes: u64,
}

/// Where the present slice stands in the arena, per variant; encoded when first needed.
type Encoded = [Option<Range<u32>>; Variant::COUNT];

impl Core {
    /// An event of a channel this worker has arrived.
    pub(super) fn event(&mut self, event: Arc<Event>) {
        self.head_seen = event.seq;
        let Some(index) = self.channels.find(&event.channel, event.channel_hash) else { return };
        self.channels.change(index, |replica| replica.push(event));
        self.shed(index);
        self.schedule(index);
    }

    /// The replica may be gone: its last subscribers may just have been too slow for it.
    pub(super) fn schedule(&mut self, index: u32) {
        let Some(replica) = self.channels.at(index) else { return };
        if replica.has_work() && !std::mem::replace(&mut replica.scheduled, true) {
            self.scheduled.push_back(index);
        }
    }

    /// Fans out to live subscribers, within the turn's budgets, a slice a channel at the most.
    pub(super) fn fan_out(&mut self) {
        let mut budget = Budget::new(FANOUT_TIME_PER_TURN);
        for _ in 0..self.scheduled.len() {
            if budget.is_spent() || self.batch.arena.len() >= FANOUT_BYTES_PER_TURN {
                return;
            }
            let Some(index) = self.scheduled.pop_front() else { return };
            let Some(replica) = self.channels.at(index) else { continue };
            if !std::mem::take(&mut replica.scheduled) || !replica.has_work() {
                continue;
            }
            if !replica.slice_unfinished() {
                replica.begin_slice();
                self.wake_followers(index);
            }
            self.hand_out(index, &mut budget);
            self.fanned.push(index);
            self.schedule(index);
        }
    }

    fn wake_followers(&mut self, index: u32) {
        for &slot in self.channels[index].followers() {
            let flags = &mut self.slots[slot as usize].flags;
            let awaits = flags.has(Flags::BLOCKED) || flags.has(Flags::REPLAYING);
            if !awaits && flags.raise(Flags::DIRTY) {
                self.dirty.push_back(slot);
            }
        }
    }

    /// Sends the present slice to live subscribers, as many as the budget allows.
    fn hand_out(&mut self, index: u32, budget: &mut Budget) {
        let replica = &mut self.channels[index];
        replica.sent_in_turn = self.turn;
        let mut slice = std::mem::take(&mut self.slice);
        slice.extend(replica.slice().cloned());
        let mut encoded: Encoded = Default::default();
        let mut count = 0;
        while !budget.is_spent() && self.channels[index].slice_unfinished() {
            count += self.hand_to_some(index, &slice, &mut encoded, budget);
        }
        self.metrics.sends_live.add(count as u64);
        self.handed.deliveries += (count * slice.len()) as u64;
        if !self.channels[index].slice_unfinished() {
            // Its oldest event has waited the longest, and its last subscriber too.
            let age = slice.first().map(|event| self.now.saturating_sub(event.ordered_at));
            if let Some(age) = age {
                self.metrics.delivery_lag.observe_us(age.as_micros() as u64);
            }
        }
        slice.clear();
        self.slice = slice;
    }

    /// The next few of them; tells how many.
    fn hand_to_some(
        &mut self,
        index: u32,
        slice: &[Arc<Event>],
        encoded: &mut Encoded,
        budget: &mut Budget,
    ) -> usize {
        let Self { channels, batch, generations, setup, handed, .. } = self;
        let some = channels[index].hand_out(FANOUT_SENDS_AT_ONCE);
        for live in some {
            let variant = live.variant_index();
            let range = encoded[variant].get_or_insert_with(|| {
                let from = batch.end();
                for event in slice {
                    VARIANTS[variant].write_event(&mut batch.arena, &event.view(setup.epoch));
                }
                budget.spend(encode_ns(batch.arena.len() - from as usize));
                from..batch.end()
            });
            let slot = live.slot();
            let token = Token { slot, generation: generations[slot as usize] };
            batch.ops.push(Op::Send { token, from: range.start, to: range.end });
            handed.bytes += u64::from(range.end - range.start);
            budget.spend(SEND_NS + copy_ns(range.len()));
        }
        some.len()
    }

    /// The last batch's slices are taken, except where the socket said otherwise (those are
    /// explicit by now): the replicas need not keep them.
    pub(super) fn settle_slices(&mut self) {
        let mut fanned = std::mem::take(&mut self.fanned);
        for index in fanned.drain(..) {
            if let Some(replica) = self.channels.at(index) {
                replica.settle_slice();
                self.trim(index);
            }
        }
        self.fanned = fanned;
    }

    /// What the sockets have taken is counted.
    pub(super) fn settle_handed(&mut self) {
        let Handed { deliveries, bytes } = std::mem::take(&mut self.handed);
        self.metrics.deliveries.add(deliveries);
        self.metrics.bytes_out.add(bytes);
    }

    /// A live subscriber's socket took only `taken` bytes of what it was sent: from here on it has
    /// a cursor of its own.
    pub(super) fn settle_live_short(&mut self, slot: u32, taken: usize) {
        let (index, live_index) = {
            let slot = &self.slots[slot as usize];
            (slot.replica, slot.live_index)
        };
        let replica = &self.channels[index];
        if replica.sent_in_turn != self.turn {
            self.settle_heartbeat_short(slot, taken);
            return;
        }
        debug_assert!(replica.is_handed(live_index));
        let variant = self.slots[slot as usize].variant;
        let mut cursor = replica.slice_start();
        let mut rest = None;
        let mut left = taken;
        let mut scratch = Vec::new();
        let mut untaken = Handed::default();
        for event in replica.slice() {
            scratch.clear();
            variant.write_event(&mut scratch, &event.view(self.setup.epoch));
            untaken.bytes += (scratch.len() - left.min(scratch.len())) as u64;
            if left == 0 {
                untaken.deliveries += 1;
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
        self.handed.deliveries -= untaken.deliveries;
        self.handed.bytes -= untaken.bytes;
        let work = self.make_explicit(slot, cursor);
        work.rest = rest;
    }
}
