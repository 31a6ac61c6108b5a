//! Explicit subscribers: what goes into a connection's one send of the turn, and what became of it.
//!
//! A send is composed of items in this order: the rest of a half-sent event, own output, then
//! events (and gaps) of its channels in log order. The next turn begins by looking at what the
//! sockets did not take: everything else was taken, and its items are applied.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::budget::{Budget, CHANNEL_NS, EVENT_NS, PAGE_NS, SEND_NS, copy_ns};
use super::channels::Channels;
use super::core::Core;
use super::reading::{Reading, Unread};
use super::slot::Flags;
use super::work::{Rest, Work};
use crate::limits::{
    EXPLICIT_BYTES_PER_TURN, EXPLICIT_TIME_PER_TURN, FIRST_SEND_BYTES_MAX, REPLAY_TIME_PER_TURN,
    SEND_BYTES_MAX,
};
use crate::log::event::Event;
use crate::proto::cursor::{Epoch, EventId};
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
    /// Channels being merged, empty in between.
    heads: BinaryHeap<Reverse<Head>>,
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

/// Where a send is being composed.
struct Composer<'a> {
    arena: &'a mut Vec<u8>,
    outgoing: &'a mut Outgoing,
    epoch: Epoch,
    variant: Variant,
    /// Where its bytes begin in the arena.
    from: usize,
    /// Where no further event is begun.
    until: usize,
}

/// The next event of one of several channels being merged; the lowest `seq` is the first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    seq: u64,
    /// Which of the connection's channels.
    sub: u16,
    /// Place in the replica's ring.
    place: usize,
}

impl Core {
    // --- deciding what to send ---

    /// Composes sends: first for connections with output of their own, or little to read, then for
    /// those that are further behind. Each has a budget, so that neither waits for ever for the other.
    pub(super) fn flush_dirty(&mut self) {
        let arena_max = self.batch.arena.len() + EXPLICIT_BYTES_PER_TURN;
        let mut budget = Budget::new(EXPLICIT_TIME_PER_TURN);
        for _ in 0..self.dirty.len() {
            if budget.is_spent() || self.batch.arena.len() >= arena_max {
                break;
            }
            let Some(index) = self.dirty.pop_front() else { break };
            if self.is_due(index, Flags::DIRTY)
                && !self.flush(index, FIRST_SEND_BYTES_MAX, &mut budget)
            {
                self.rest(index);
            }
        }
        let mut budget = Budget::new(REPLAY_TIME_PER_TURN);
        for _ in 0..self.replaying.len() {
            if budget.is_spent() || self.batch.arena.len() >= arena_max {
                break;
            }
            let Some(index) = self.replaying.pop_front() else { break };
            if self.is_due(index, Flags::REPLAYING) {
                self.ask_page_if_due(index, &mut budget);
                let bytes_max = self.replay_bytes_max(index);
                if !self.flush(index, bytes_max, &mut budget) {
                    self.rest(index);
                }
            }
        }
    }

    /// Whether a connection taken out of its queue is to be sent something. A blocked one is woken
    /// by `Writable`; one that has its send by the next turn.
    fn is_due(&mut self, index: u32, queued: u16) -> bool {
        let flags = &mut self.slots[index as usize].flags;
        let is_queued = flags.has(queued);
        flags.clear(queued);
        is_queued && !flags.has(Flags::BLOCKED) && !flags.has(Flags::SENT)
    }

    /// More than a socket takes is composed for nothing: where the last send was short, little more
    /// than what it took then.
    fn replay_bytes_max(&self, index: u32) -> usize {
        match self.slots[index as usize].work.as_ref().and_then(|work| work.taken) {
            None => SEND_BYTES_MAX,
            Some(taken) => {
                let unsent = self.setup.settings.unsent.map_or(SEND_BYTES_MAX, |max| max as usize);
                (2 * taken as usize).clamp(FIRST_SEND_BYTES_MAX, unsent.max(FIRST_SEND_BYTES_MAX))
            }
        }
    }

    fn ask_page_if_due(&mut self, index: u32, budget: &mut Budget) {
        let slot = &mut self.slots[index as usize];
        if !slot.is_subscriber() {
            return;
        }
        let Some(mut work) = slot.work.take() else { return };
        if work.needs_page(&self.channels) {
            budget.spend(PAGE_NS + work.subs.len() as u64 * CHANNEL_NS);
            self.ask_page(index, &mut work);
        }
        self.slots[index as usize].work = Some(work);
    }

    /// Composes the connection's send, if there is something to send.
    fn flush(&mut self, index: u32, bytes_max: usize, budget: &mut Budget) -> bool {
        let Some(mut work) = self.slots[index as usize].work.take() else { return true };
        let from = self.batch.arena.len();
        let items_from = self.outgoing.items.len();
        work.sent_at = self.outgoing.sends.len() as u32;
        budget.spend(work.subs.len() as u64 * CHANNEL_NS);
        self.close_if_lossy(index, &mut work);
        self.compose(index, &work, bytes_max);
        self.slots[index as usize].work = Some(work);
        let length = self.batch.arena.len() - from;
        if length == 0 {
            return false;
        }
        let items = self.outgoing.items.len() - items_from;
        budget.spend(SEND_NS + copy_ns(length) + items as u64 * EVENT_NS);
        let token = self.token(index);
        self.slots[index as usize].flags.set(Flags::SENT);
        let (from, to) = (from as u32, self.batch.end());
        self.batch.ops.push(Op::Send { token, from, to });
        self.metrics.sends_explicit.add(1);
        self.outgoing.sends.push(Sent {
            token,
            from,
            items_from: items_from as u32,
            items_to: self.outgoing.items.len() as u32,
        });
        true
    }

    /// There is nothing to send: a page is due, or the connection rests.
    fn rest(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        let needs_page = slot.work.as_ref().is_some_and(|work| work.needs_page(&self.channels));
        if slot.is_subscriber() && needs_page {
            self.go_on(index);
        } else {
            self.relax(index);
        }
    }

    fn compose(&mut self, index: u32, work: &Work, bytes_max: usize) {
        let Self { channels, batch, outgoing, setup, .. } = self;
        let slot = &self.slots[index as usize];
        let from = batch.arena.len();
        let mut send = Composer {
            arena: &mut batch.arena,
            outgoing,
            epoch: setup.epoch,
            variant: slot.variant,
            from,
            until: from + bytes_max,
        };
        if send.own_output(work) == Extent::Part || !slot.is_subscriber() {
            return;
        }
        match &work.reading {
            // Gaps wait for the page, too: it tells how much is lost by now.
            Reading::Asked(_) => {}
            Reading::Replicas if work.needs_page(channels) => {}
            Reading::Page(page) => send.page(work, page, channels),
            Reading::Replicas if work.subs.len() == 1 => send.single(work, channels),
            Reading::Replicas => send.merged(work, channels),
        }
    }

    /// A bare WebSocket has no way to tell a loss in the stream: it is closed with 4000 instead.
    fn close_if_lossy(&mut self, index: u32, work: &mut Work) {
        let slot = &self.slots[index as usize];
        let is_bare = slot.is_subscriber() && slot.variant == Variant::WsBare;
        if is_bare && work.subs.iter().any(|sub| sub.gap.is_some()) {
            self.note_ending(index, CloseReason::Gap);
            self.begin_ws_close(index, work, CloseCode::GAP, "gap");
        }
    }

    /// The channels of an SSE stream are read in one order from one place: up to there nothing is
    /// missing in any of them, and no gap may take its id back behind it.
    pub(super) fn complete_to(&self, index: u32, work: &Work) -> u64 {
        let variant = self.slots[index as usize].variant;
        let one_order = matches!(variant, Variant::SseBare | Variant::SseEnvelope);
        if one_order && work.subs.len() > 1 { work.position } else { 0 }
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
                self.note_taken(index, None);
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
        self.note_taken(index, Some(taken));
        // Who waits for its socket holds no page meanwhile.
        if let Some(work) = &mut self.slots[index as usize].work {
            work.end_reading();
        }
        self.metrics.sends_short.add(1);
        self.slots[index as usize].flags.set(Flags::BLOCKED);
        self.batch.ops.push(Op::PollOut(token));
    }

    /// What a socket took of the last send, if not all of it.
    fn note_taken(&mut self, index: u32, taken: Option<u32>) {
        if let Some(work) = &mut self.slots[index as usize].work {
            work.taken = taken;
        }
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
                let of_page = work.take_from_page(seq);
                let sub = &mut work.subs[usize::from(sub)];
                if !(all && extent == Extent::Whole) {
                    let kept = || self.channels[sub.replica].after(seq - 1, seq).next().cloned();
                    work.rest = of_page.or_else(kept).map(|event| Rest { event, offset: taken });
                }
                sub.cursor = sub.cursor.max(seq);
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
            self.go_on(index);
        } else {
            self.relax(index);
        }
    }

    /// The connection can be sent more: its own output before others' replays, events behind others'
    /// output.
    pub(super) fn go_on(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.work.as_ref().is_none_or(|work| !work.out.is_empty()) {
            self.mark_dirty(index);
        } else if slot.flags.raise(Flags::REPLAYING) {
            self.replaying.push_back(index);
        }
    }

    pub(super) fn is_behind(&self, work: &Work) -> bool {
        match work.reading {
            Reading::Asked(_) => return false,
            Reading::Page(_) => return true,
            Reading::Replicas => {}
        }
        let is_alone = work.subs.len() == 1;
        work.subs.iter().any(|sub| {
            let replica = &self.channels[sub.replica];
            let has_next = match is_alone {
                true => replica.after(sub.cursor, replica.fanned_to).next().is_some(),
                false => replica.newest() > sub.cursor,
            };
            has_next || sub.gap.is_some() || sub.cursor < replica.base
        })
    }
}

impl Composer<'_> {
    fn is_full(&self) -> bool {
        self.arena.len() >= self.until
    }

    /// The rest of a half-sent event, then own output; a part of it if more is left of the event
    /// than fits.
    fn own_output(&mut self, work: &Work) -> Extent {
        if let Some(rest) = &work.rest {
            let extent = self.event(&rest.event, rest.offset);
            self.push_item(ItemKind::Rest(extent));
            if extent == Extent::Part {
                return extent;
            }
        }
        if !work.out.is_empty() {
            self.arena.extend_from_slice(&work.out);
            self.push_item(ItemKind::Out);
        }
        Extent::Whole
    }

    /// What a page of history has left.
    fn page(&mut self, work: &Work, page: &Unread, channels: &Channels) {
        for sub in 0..work.subs.len() as u16 {
            self.gap(work, sub, channels);
        }
        for (sub, event) in &page.events {
            if self.is_full() || self.sub_event(*sub, event) == Extent::Part {
                return;
            }
        }
    }

    /// One channel: up to where live subscribers are being brought, so that it can join them.
    fn single(&mut self, work: &Work, channels: &Channels) {
        self.gap(work, 0, channels);
        let replica = &channels[work.subs[0].replica];
        for event in replica.after(work.subs[0].cursor, replica.fanned_to) {
            if self.is_full() || self.sub_event(0, event) == Extent::Part {
                return;
            }
        }
    }

    /// Several channels: always the lowest `seq` next, so that one id is a cursor for all of them.
    /// Gaps go first: an event behind a loss would carry an id that says the loss was told.
    fn merged(&mut self, work: &Work, channels: &Channels) {
        let mut heads = std::mem::take(&mut self.outgoing.heads);
        for (sub, of) in (0..).zip(&work.subs) {
            self.gap(work, sub, channels);
            let replica = &channels[of.replica];
            if replica.newest() > of.cursor {
                let place = replica.place_after(of.cursor);
                let seq = replica.at(place).map(|event| event.seq);
                heads.extend(seq.map(|seq| Reverse(Head { seq, sub, place })));
            }
        }
        while !self.is_full()
            && let Some(mut first) = heads.peek_mut()
        {
            let Head { seq, sub, place } = &mut first.0;
            let (sub, replica) = (*sub, &channels[work.subs[usize::from(*sub)].replica]);
            let Some(event) = replica.at(*place) else { break };
            *place += 1;
            match replica.at(*place) {
                Some(next) => *seq = next.seq,
                None => drop(PeekMut::pop(first)),
            }
            if self.sub_event(sub, event) == Extent::Part {
                break;
            }
        }
        heads.clear();
        self.outgoing.heads = heads;
    }

    fn gap(&mut self, work: &Work, sub: u16, channels: &Channels) {
        let channel = &work.subs[usize::from(sub)];
        let Some(gap) = &channel.gap else { return };
        let epoch = self.epoch;
        let replica = &channels[channel.replica];
        // Other channels may have events before the end of the loss: who comes back with this id
        // must still get them.
        let seq = match work.subs.len() {
            1 => channel.cursor,
            _ => channel.cursor.min(work.position),
        };
        let first = gap.first.or_else(|| replica.first_after(channel.cursor));
        let view = GapView {
            id: EventId { epoch, seq },
            channel: &replica.name,
            reason: gap.reason.as_str(),
            after: &gap.after,
            first: first.map(|seq| EventId { epoch, seq }),
        };
        let written = self.variant.write_gap(self.arena, &view);
        debug_assert_eq!(written, GapWritten::InBand, "bare WebSockets are closed instead");
        self.push_item(ItemKind::Gap { sub });
    }

    fn sub_event(&mut self, sub: u16, event: &Event) -> Extent {
        let extent = self.event(event, 0);
        self.push_item(ItemKind::Event { sub, seq: event.seq, extent });
        extent
    }

    fn push_item(&mut self, kind: ItemKind) {
        let end = self.arena.len() - self.from;
        let end = u32::try_from(end).expect("turns have budgets of bytes");
        self.outgoing.items.push(Item { end, kind });
    }

    /// Appends an event's encoding without its first `skip` bytes. Of a large one, only as much as
    /// fits a send.
    fn event(&mut self, event: &Event, skip: usize) -> Extent {
        if event.data.len() < LARGE_BYTES_MIN {
            let from = self.arena.len();
            self.variant.write_event(self.arena, &event.view(self.epoch));
            self.arena.drain(from..from + skip);
            return Extent::Whole;
        }
        let encoded = self.outgoing.encode_large(event, self.variant, self.epoch);
        let room = self.until.saturating_sub(self.arena.len()).max(LARGE_BYTES_MIN);
        let end = encoded.len().min(skip + room);
        self.arena.extend_from_slice(&encoded[skip..end]);
        if end == encoded.len() { Extent::Whole } else { Extent::Part }
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

    fn encode_large(&mut self, event: &Event, variant: Variant, epoch: Epoch) -> &[u8] {
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
