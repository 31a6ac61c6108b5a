//! Explicit subscribers: what goes into a connection's one send of the turn, and what became of it.
//!
//! A send is composed of items in this order: the rest of a half-sent event, own output, then
//! events (and gaps) of its channels in log order. The next turn begins by looking at what the
//! sockets did not take: everything else was taken, and its items are applied.

use std::sync::Arc;

use super::core::Core;
use super::slot::Flags;
use super::work::{Gap, Rest, Sub, Work};
use crate::limits::{EXPLICIT_BYTES_PER_TURN, EXPLICIT_SENDS_PER_TURN, SEND_BYTES_MAX};
use crate::log::event::Event;
use crate::log::message::GapReason;
use crate::proto::cursor::EventId;
use crate::proto::envelope::GapView;
use crate::proto::variant::{GapWritten, Variant};
use crate::proto::ws::close::CloseCode;
use crate::reason::CloseReason;
use crate::ring::{Completion, Op, Token};

/// One explicit send of the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    token: Token,
    /// Where its bytes begin in the arena.
    from: u32,
    /// Its items, as a range of `Outgoing::items`.
    items_from: u32,
    items_to: u32,
}

/// A part of an explicit send.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// Where it ends, counted from the send's first byte.
    end: u32,
    kind: ItemKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ItemKind {
    /// Of the half-sent event; whether this is all that was left of it.
    Rest(Extent),
    /// Own output.
    Out,
    /// An event of the connection's channel number `sub`.
    Event { sub: u16, seq: u64, extent: Extent },
    /// The gap of channel number `sub`.
    Gap { sub: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    Part,
}

/// The explicit sends of the batch being decided.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    sends: Vec<Sent>,
    items: Vec<Item>,
    /// The last event too large to be encoded anew for every piece of it.
    large: Option<Large>,
}

#[derive(Debug)]
struct Large {
    seq: u64,
    variant: Variant,
    bytes: Vec<u8>,
}

/// Events above this size are encoded once and kept while their pieces go out.
const LARGE_BYTES_MIN: usize = 32 * 1024;

impl Core {
    // --- deciding what to send ---

    /// Composes sends for dirty connections, within the turn's budget.
    pub(super) fn flush_dirty(&mut self) {
        let arena_from = self.batch.arena.len();
        for _ in 0..self.dirty.len().min(EXPLICIT_SENDS_PER_TURN) {
            if self.batch.arena.len() - arena_from > EXPLICIT_BYTES_PER_TURN {
                return;
            }
            let Some(index) = self.dirty.pop_front() else { return };
            let flags = &mut self.slots[index as usize].flags;
            if !flags.has(Flags::DIRTY) {
                continue;
            }
            flags.clear(Flags::DIRTY);
            // A blocked one is woken by `Writable`; one that has its send by the next turn.
            if !flags.has(Flags::BLOCKED) && !flags.has(Flags::SENT) {
                self.flush(index);
            }
        }
    }

    fn flush(&mut self, index: u32) {
        let Some(mut work) = self.slots[index as usize].work.take() else { return };
        let from = self.batch.arena.len();
        let items_from = self.outgoing.items.len();
        work.sent_at = self.outgoing.sends.len() as u32;
        self.note_gaps(index, &mut work);
        self.compose(index, &mut work, from);
        self.slots[index as usize].work = Some(work);
        let to = self.batch.arena.len();
        if to == from {
            self.relax(index);
            return;
        }
        let token = self.token(index);
        self.slots[index as usize].flags.set(Flags::SENT);
        self.batch.ops.push(Op::Send { token, from: from as u32, to: to as u32 });
        self.metrics.sends_explicit.add(1);
        self.outgoing.sends.push(Sent {
            token,
            from: from as u32,
            items_from: items_from as u32,
            items_to: self.outgoing.items.len() as u32,
        });
    }

    fn compose(&mut self, index: u32, work: &mut Work, from: usize) {
        let variant = self.slots[index as usize].variant;
        if let Some(rest) = &work.rest {
            let extent = self.append_event(&rest.event, variant, rest.offset);
            self.push_item(from, ItemKind::Rest(extent));
            if extent == Extent::Part {
                return;
            }
        }
        if !work.out.is_empty() {
            self.batch.arena.extend_from_slice(&work.out);
            self.push_item(from, ItemKind::Out);
        }
        if !self.slots[index as usize].is_subscriber() {
            return;
        }
        match work.subs.len() {
            0 => {}
            1 => self.compose_single(work, variant, from),
            _ => self.compose_merged(work, variant, from),
        }
    }

    /// Finds the losses this send has to tell. A bare WebSocket has no way to tell one in the
    /// stream: it is closed with 4000 instead.
    fn note_gaps(&mut self, index: u32, work: &mut Work) {
        if !self.slots[index as usize].is_subscriber() {
            return;
        }
        // The channels of an SSE stream are read in one order from one place: behind its position
        // nothing is missing, and no gap may take its id back there.
        let variant = self.slots[index as usize].variant;
        let one_order = matches!(variant, Variant::SseBare | Variant::SseEnvelope);
        let complete_to = if one_order && work.subs.len() > 1 { work.position } else { 0 };
        for sub in &mut work.subs {
            self.note_overrun(sub, complete_to);
        }
        if variant == Variant::WsBare && work.subs.iter().any(|sub| sub.gap.is_some()) {
            self.note_ending(index, CloseReason::Gap);
            self.begin_ws_close(index, work, CloseCode::GAP, "gap");
        }
    }

    /// One channel: up to where live subscribers are being brought, so that it can join them.
    fn compose_single(&mut self, work: &mut Work, variant: Variant, from: usize) {
        let replica = &self.channels[work.subs[0].replica];
        let (until, mut cursor) = (replica.fanned_to, work.subs[0].cursor);
        if work.subs[0].gap.is_some() {
            self.append_gap(work, 0, variant, from);
        }
        while self.batch.arena.len() - from < SEND_BYTES_MAX {
            let next = self.channels[work.subs[0].replica].after(cursor, until).next().cloned();
            let Some(event) = next else { return };
            cursor = event.seq;
            if self.append_sub_event(0, &event, variant, from) == Extent::Part {
                return;
            }
        }
    }

    /// Several channels: always the lowest `seq` next, so that one id is a cursor for all of them.
    /// Gaps go first: an event behind a loss would carry an id that says the loss was told.
    fn compose_merged(&mut self, work: &mut Work, variant: Variant, from: usize) {
        for sub in 0..work.subs.len() {
            self.append_gap(work, sub, variant, from);
        }
        let mut cursors: Vec<u64> = work.subs.iter().map(|sub| sub.cursor).collect();
        while self.batch.arena.len() - from < SEND_BYTES_MAX {
            let next = |(sub, cursor): (usize, &u64)| {
                let seq = self.channels[work.subs[sub].replica].first_after(*cursor);
                seq.map(|seq| (seq, sub))
            };
            let Some((seq, sub)) = cursors.iter().enumerate().filter_map(next).min() else {
                return;
            };
            let replica = &self.channels[work.subs[sub].replica];
            let Some(event) = replica.after(cursors[sub], seq).next().cloned() else { return };
            cursors[sub] = seq;
            if self.append_sub_event(sub, &event, variant, from) == Extent::Part {
                return;
            }
        }
    }

    /// A cursor that fell out of the replica: the slow-consumer case.
    fn note_overrun(&mut self, sub: &mut Sub, complete_to: u64) {
        let epoch = self.setup.epoch;
        let base = self.channels[sub.replica].base;
        if sub.cursor >= base {
            return;
        }
        if sub.gap.is_none() && base > complete_to {
            let after = EventId { epoch, seq: sub.cursor }.to_string().into();
            sub.gap = Some(Box::new(Gap { reason: GapReason::Overrun, after }));
            self.metrics.gaps_overrun.add(1);
        }
        sub.cursor = base;
    }

    fn append_gap(&mut self, work: &Work, sub: usize, variant: Variant, from: usize) {
        let channel = &work.subs[sub];
        let Some(gap) = &channel.gap else { return };
        let epoch = self.setup.epoch;
        let replica = &self.channels[channel.replica];
        // Other channels may have events before the end of the loss: who comes back with this id
        // must still get them.
        let seq = match work.subs.len() {
            1 => channel.cursor,
            _ => channel.cursor.min(work.position),
        };
        let view = GapView {
            id: EventId { epoch, seq },
            channel: &replica.name,
            reason: gap.reason.as_str(),
            after: &gap.after,
            first: replica.first_after(channel.cursor).map(|seq| EventId { epoch, seq }),
        };
        let written = variant.write_gap(&mut self.batch.arena, &view);
        debug_assert_eq!(written, GapWritten::InBand, "bare WebSockets are closed instead");
        self.push_item(from, ItemKind::Gap { sub: sub as u16 });
    }

    fn append_sub_event(
        &mut self,
        sub: usize,
        event: &Arc<Event>,
        variant: Variant,
        from: usize,
    ) -> Extent {
        let extent = self.append_event(event, variant, 0);
        self.push_item(from, ItemKind::Event { sub: sub as u16, seq: event.seq, extent });
        extent
    }

    fn push_item(&mut self, from: usize, kind: ItemKind) {
        let end = (self.batch.arena.len() - from) as u32;
        self.outgoing.items.push(Item { end, kind });
    }

    /// Appends an event's encoding without its first `skip` bytes. Of a large one, only as much as
    /// fits a send.
    fn append_event(&mut self, event: &Event, variant: Variant, skip: usize) -> Extent {
        let arena = &mut self.batch.arena;
        if event.data.len() < LARGE_BYTES_MIN {
            let from = arena.len();
            variant.write_event(arena, &event.view(self.setup.epoch));
            arena.drain(from..from + skip);
            return Extent::Whole;
        }
        let encoded = self.outgoing.encode_large(event, variant, self.setup.epoch);
        let end = encoded.len().min(skip + SEND_BYTES_MAX);
        self.batch.arena.extend_from_slice(&encoded[skip..end]);
        if end == encoded.len() { Extent::Whole } else { Extent::Part }
    }

    // --- what became of it ---

    /// Takes account of the last batch's sends: first those the sockets did not take whole, then
    /// all others. Nothing else may have happened in between.
    pub(super) fn settle_sends(&mut self, completions: &[Completion]) {
        for completion in completions {
            match *completion {
                Completion::SendShort { token, taken } if self.is_current(token) => {
                    self.settle_short(token, taken);
                }
                Completion::SendFailed { token, .. } if self.is_current(token) => {
                    self.close(token.slot, CloseReason::PeerGone);
                }
                _ => {}
            }
        }
        let sends = std::mem::take(&mut self.outgoing.sends);
        for sent in &sends {
            let index = sent.token.slot;
            if self.is_current(sent.token) && self.slots[index as usize].flags.has(Flags::SENT) {
                self.slots[index as usize].flags.clear(Flags::SENT);
                self.apply(sent, u32::MAX);
                self.after_send(index);
            }
        }
        self.outgoing.reuse(sends);
        self.settle_slices();
        self.settle_handed();
    }

    fn settle_short(&mut self, token: Token, taken: u32) {
        let index = token.slot;
        let flags = &mut self.slots[index as usize].flags;
        if flags.has(Flags::SENT) {
            flags.clear(Flags::SENT);
            let at = self.slots[index as usize].work.as_ref().map_or(0, |work| work.sent_at);
            let sent = self.outgoing.sends[at as usize];
            debug_assert_eq!(sent.token, token);
            self.apply(&sent, taken);
        } else if flags.has(Flags::LIVE) {
            self.settle_live_short(index, taken as usize);
        }
        self.metrics.sends_short.add(1);
        self.slots[index as usize].flags.set(Flags::BLOCKED);
        self.batch.ops.push(Op::PollOut(token));
    }

    /// Applies a send's items up to the byte the socket took.
    fn apply(&mut self, sent: &Sent, taken: u32) {
        let Some(mut work) = self.slots[sent.token.slot as usize].work.take() else { return };
        let mut start = 0;
        for at in sent.items_from..sent.items_to {
            let item = self.outgoing.items[at as usize];
            let item_taken = item.end.min(taken).saturating_sub(start);
            if item_taken == 0 {
                break;
            }
            self.handed.bytes += u64::from(item_taken);
            let all = item.end <= taken;
            self.apply_item(&mut work, item, item_taken as usize, all);
            if !all {
                if let ItemKind::Gap { .. } = item.kind {
                    // What is left of a gap is like own output: it may not change any more. A
                    // heartbeat may have been written there since; it has to wait.
                    let bytes = (sent.from + taken) as usize..(sent.from + item.end) as usize;
                    work.out.splice(0..0, self.batch.arena[bytes].iter().copied());
                }
                break;
            }
            start = item.end;
        }
        self.slots[sent.token.slot as usize].work = Some(work);
    }

    fn apply_item(&mut self, work: &mut Work, item: Item, taken: usize, all: bool) {
        match item.kind {
            ItemKind::Rest(extent) => {
                if all && extent == Extent::Whole {
                    work.rest = None;
                } else if let Some(rest) = &mut work.rest {
                    rest.offset += taken;
                }
            }
            ItemKind::Out => {
                work.out.drain(..taken);
            }
            ItemKind::Event { sub, seq, extent } => {
                let sub = &mut work.subs[usize::from(sub)];
                if !(all && extent == Extent::Whole) {
                    let event = self.channels[sub.replica].after(seq - 1, seq).next().cloned();
                    work.rest = event.map(|event| Rest { event, offset: taken });
                }
                sub.cursor = seq;
                self.handed.deliveries += 1;
                work.position = seq.max(work.position);
            }
            ItemKind::Gap { sub } => work.subs[usize::from(sub)].gap = None,
        }
    }

    /// Everything the connection had in the batch was taken: is there more, or can it rest?
    pub(super) fn after_send(&mut self, index: u32) {
        if self.say_farewell_if_due(index) {
            return;
        }
        let slot = &self.slots[index as usize];
        let Some(work) = &slot.work else { return };
        let is_unread = !work.carry.is_empty();
        let has_more = work.has_output() || (slot.is_subscriber() && self.is_behind(work));
        if is_unread {
            self.read_on_later(index);
        }
        if has_more {
            self.mark_dirty(index);
        } else {
            self.relax(index);
        }
    }

    pub(super) fn is_behind(&self, work: &Work) -> bool {
        work.subs.iter().any(|sub| {
            let replica = &self.channels[sub.replica];
            let until = if work.subs.len() == 1 { replica.fanned_to } else { replica.tail };
            sub.gap.is_some()
                || sub.cursor < replica.base
                || replica.after(sub.cursor, until).next().is_some()
        })
    }
}

impl Outgoing {
    /// Whether no send of the last batch waits to be taken account of.
    pub fn is_settled(&self) -> bool {
        self.sends.is_empty()
    }

    /// Whether the batch being decided has an explicit send to it.
    pub fn has_send_to(&self, token: Token) -> bool {
        self.sends.iter().any(|sent| sent.token == token)
    }

    fn reuse(&mut self, mut sends: Vec<Sent>) {
        if sends.is_empty() {
            self.large = None;
        }
        sends.clear();
        self.sends = sends;
        self.items.clear();
    }

    fn encode_large(
        &mut self,
        event: &Event,
        variant: Variant,
        epoch: crate::proto::cursor::Epoch,
    ) -> &[u8] {
        let known = self
            .large
            .as_ref()
            .is_some_and(|large| large.seq == event.seq && large.variant == variant);
        if !known {
            let mut bytes = Vec::with_capacity(event.data.len() + event.data.len() / 2);
            variant.write_event(&mut bytes, &event.view(epoch));
            self.large = Some(Large { seq: event.seq, variant, bytes });
        }
        self.large.as_ref().map_or(&[], |large| &large.bytes)
    }
}
