//! Explicit subscribers: what goes into the one send of the turn, and how it is settled.
//!
//! A subscriber's part of a send is the rest of a half-sent event, then (after what else its
//! connection has to send) events and gaps of its channels in log order. Each is an item; it is
//! applied once the next turn knows how much of it the socket took.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;

use super::Hub;
use super::channels::Channels;
use super::reading::{Reading, Unread};
use super::subscriber::{Explicit, Rest, Subscriber};
use crate::log::event::Event;
use crate::proto::cursor::{Epoch, EventId};
use crate::proto::dialect::Dialect;
use crate::proto::envelope::GapView;
use crate::proto::sender::Sender;
use crate::proto::stream::Part;

/// A part of a send.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// Its end in the send: counted from the first byte for a rest, from the first event otherwise.
    end: u32,
    kind: ItemKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ItemKind {
    /// The rest of a half-sent event, `Whole` if nothing of it is left behind this send.
    Rest(Extent),
    /// An event of the subscriber's channel number `sub`. `ends`: it is the last one for it.
    Event { sub: u16, seq: u64, extent: Extent, ends: bool },
    /// The gap of channel number `sub`.
    Gap { sub: u16 },
}

/// How much of an event was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Whole,
    Part,
}

/// The items of the batch being decided.
#[derive(Debug, Default)]
pub(super) struct Sending {
    items: Vec<Item>,
    /// Channels being merged; empty between merges.
    heads: BinaryHeap<Reverse<Head>>,
    /// The last event too large to be encoded again for every piece of it.
    large: Option<Large>,
}

#[derive(Debug)]
struct Large {
    seq: u64,
    dialect: Dialect,
    bytes: Vec<u8>,
}

/// Events above this size are encoded once and kept while their pieces go out.
const LARGE_BYTES_MIN: usize = 32 * 1024;

/// A send being composed.
struct Composer<'a> {
    arena: &'a mut Vec<u8>,
    sending: &'a mut Sending,
    epoch: Epoch,
    dialect: Dialect,
    /// The connection it is for, unless it is to get all of it.
    to: Option<Sender>,
    /// Where this part of the send begins in the arena.
    from: usize,
    /// No further event is begun from here on.
    until: usize,
    /// The last event for this reader is written.
    ended: bool,
}

/// The next event of one of several channels being merged; the lowest `seq` is the first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    seq: u64,
    /// The channel's number among the subscriber's.
    sub: u16,
    /// Its place in the replica's ring.
    place: usize,
}

impl Hub {
    // --- whether there is something to send ---

    /// Whether an event was sent only in part.
    pub fn has_rest(&self, index: u32) -> bool {
        self.explicit(index).is_some_and(|explicit| explicit.rest.is_some())
    }

    /// Whether there is an event to be sent to the subscriber, or a loss to be told.
    pub fn is_behind(&self, index: u32) -> bool {
        self.explicit(index).is_some_and(|explicit| explicit.is_behind(&self.channels))
    }

    /// Whether the subscriber has lost something and cannot be told in band.
    pub fn must_end_for_gap(&self, index: u32) -> bool {
        match self.subscriber(index) {
            Subscriber::Explicit(dialect, explicit) => {
                !dialect.tells_gaps() && explicit.subs.iter().any(|sub| sub.gap.is_some())
            }
            Subscriber::None | Subscriber::Live { .. } => false,
        }
    }

    /// Whether an event up to its own last one is still to be sent to the subscriber.
    pub fn owes_up_to(&self, index: u32, published_to: u64) -> bool {
        let Some(explicit) = self.explicit(index) else { return false };
        let reads_log = !matches!(explicit.reading, Reading::Replicas) || self.needs_page(index);
        explicit.subs.iter().any(|sub| match reads_log {
            true => sub.cursor < published_to,
            false => self.channels[sub.replica].after(sub.cursor, published_to).next().is_some(),
        })
    }

    /// The newest event that the channel of a live subscriber has here.
    pub fn live_tail(&self, index: u32) -> Option<u64> {
        match *self.subscriber(index) {
            Subscriber::Live { replica, .. } => Some(self.channels[replica].tail()),
            Subscriber::None | Subscriber::Explicit(..) => None,
        }
    }

    /// Channels the subscriber has cursors for.
    pub fn cursor_count(&self, index: u32) -> usize {
        self.explicit(index).map_or(0, |explicit| explicit.subs.len())
    }

    // --- composing ---

    /// Appends what is left of a half-sent event, or the part of it that fits.
    pub fn write_rest(&mut self, index: u32, arena: &mut Vec<u8>, until: usize) -> Extent {
        let Self { subscribers, sending, epoch, .. } = self;
        let Some(Subscriber::Explicit(dialect, explicit)) = subscribers.get_mut(index) else {
            return Extent::Whole;
        };
        let items_from = sending.items.len() as u32;
        let mut extent = Extent::Whole;
        if let Some(rest) = &explicit.rest {
            let from = arena.len();
            let (dialect, epoch) = (*dialect, *epoch);
            let to = None;
            let mut send =
                Composer { arena, sending, epoch, dialect, to, from, until, ended: false };
            extent = send.event(&rest.event, rest.offset);
            send.push_item(ItemKind::Rest(extent));
        }
        explicit.items = items_from..sending.items.len() as u32;
        extent
    }

    /// Appends what the subscriber is to be sent next, after [`Hub::write_rest`]. `generation`: of its
    /// connection. Returns how many events and gaps that is, and whether it is all there is.
    pub fn write_events(
        &mut self,
        (index, generation): (u32, u32),
        arena: &mut Vec<u8>,
        until: usize,
    ) -> (usize, Extent) {
        let needs_page = self.needs_page(index);
        let Self { subscribers, sending, channels, epoch, home, .. } = self;
        let Some(Subscriber::Explicit(dialect, explicit)) = subscribers.get_mut(index) else {
            return (0, Extent::Whole);
        };
        let items_from = sending.items.len();
        let from = arena.len();
        let (dialect, epoch) = (*dialect, *epoch);
        let to = Some(Sender { home: *home, slot: index, generation });
        let mut send = Composer { arena, sending, epoch, dialect, to, from, until, ended: false };
        let extent = match &explicit.reading {
            // Gaps wait for the page, too: it tells how much is lost by then.
            Reading::Asked(_) => Extent::Whole,
            Reading::Log => Extent::Part,
            Reading::Replicas if needs_page => Extent::Part,
            Reading::Page(page) => {
                send.page(explicit, page, channels);
                // More may follow the page.
                Extent::Part
            }
            Reading::Replicas if explicit.subs.len() == 1 => send.single(explicit, channels),
            Reading::Replicas => send.merged(explicit, channels),
        };
        explicit.items.end = sending.items.len() as u32;
        (sending.items.len() - items_from, extent)
    }

    // --- settling ---

    /// The socket took this many bytes of the rest and of the events. If a gap was cut, returns
    /// which bytes of it are left, counted from the first event: they may not change any more, and
    /// go out before anything else.
    pub fn settle(&mut self, index: u32, rest: usize, events: usize) -> Option<Range<usize>> {
        let Self { subscribers, sending, channels, handed, ended, .. } = self;
        let Some(Subscriber::Explicit(dialect, explicit)) = subscribers.get_mut(index) else {
            return None;
        };
        let mut start = 0;
        for at in std::mem::take(&mut explicit.items) {
            let Item { end, kind } = sending.items[at as usize];
            let (end, part) = match kind {
                ItemKind::Rest(_) => (end as usize, rest),
                ItemKind::Event { .. } | ItemKind::Gap { .. } => (end as usize, events),
            };
            let taken = end.min(part).saturating_sub(start);
            // An event this reader does not receive has no bytes that could be taken.
            if taken == 0 && end > start {
                break;
            }
            let all = end <= part;
            match kind {
                ItemKind::Rest(extent) => {
                    let whole = all && extent == Extent::Whole;
                    let rest = explicit.rest.as_ref().filter(|_| whole);
                    if rest.is_some_and(|rest| is_end(*dialect, &rest.event)) {
                        ended.push(index);
                    }
                    explicit.rest_taken(taken, whole);
                }
                ItemKind::Event { sub, seq, extent, ends } => {
                    let whole = all && extent == Extent::Whole;
                    explicit.event_taken(sub, seq, (!whole).then_some(taken), channels);
                    *handed += u64::from(taken > 0);
                    if whole && ends {
                        ended.push(index);
                    }
                }
                ItemKind::Gap { sub } => explicit.subs[usize::from(sub)].gap = None,
            }
            if !all {
                let is_gap = matches!(kind, ItemKind::Gap { .. });
                return is_gap.then_some(events..end);
            }
            start = if matches!(kind, ItemKind::Rest(_)) { 0 } else { end };
        }
        None
    }

    /// A subscriber that was sent its last event.
    pub fn next_ended(&mut self) -> Option<u32> {
        self.ended.pop()
    }
}

/// Whether the event is the last one for readers of this dialect.
fn is_end(dialect: Dialect, event: &Event) -> bool {
    dialect.ends() && event.mark().is_some_and(|mark| matches!(mark.part, Part::End(_)))
}

impl Explicit {
    fn rest_taken(&mut self, taken: usize, whole: bool) {
        if whole {
            self.rest = None;
        } else if let Some(rest) = &mut self.rest {
            rest.offset += taken;
        }
    }

    /// An event was sent, or the first `part` bytes of it.
    fn event_taken(&mut self, sub: u16, seq: u64, part: Option<usize>, channels: &Channels) {
        let of_page = self.take_from_page(seq);
        let sub = &mut self.subs[usize::from(sub)];
        if let Some(offset) = part {
            let kept = || channels[sub.replica].after(seq - 1, seq).next().cloned();
            self.rest = of_page.or_else(kept).map(|event| Rest { event, offset });
        }
        sub.cursor = sub.cursor.max(seq);
        self.position = seq.max(self.position);
    }
}

impl Composer<'_> {
    fn is_full(&self) -> bool {
        self.ended || self.arena.len() >= self.until
    }

    /// What is left of a page of history.
    fn page(&mut self, reader: &Explicit, page: &Unread, channels: &Channels) {
        for sub in 0..reader.subs.len() as u16 {
            self.gap(reader, sub, channels);
        }
        for (sub, event) in &page.events {
            if self.is_full() || self.sub_event(*sub, event) == Extent::Part {
                return;
            }
        }
    }

    /// One channel: up to where live subscribers are being brought, so that it can become live.
    fn single(&mut self, reader: &Explicit, channels: &Channels) -> Extent {
        self.gap(reader, 0, channels);
        let replica = &channels[reader.subs[0].replica];
        for event in replica.after(reader.subs[0].cursor, replica.fanned_to()) {
            if self.is_full() || self.sub_event(0, event) == Extent::Part {
                return Extent::Part;
            }
        }
        // What follows the last event is to be done soon.
        if self.ended { Extent::Part } else { Extent::Whole }
    }

    /// Several channels: always the lowest `seq` next, so that one id is a cursor for all of them.
    /// Gaps go first: an event sent before them would carry an id that says the loss was told.
    fn merged(&mut self, reader: &Explicit, channels: &Channels) -> Extent {
        let mut heads = std::mem::take(&mut self.sending.heads);
        for (sub, of) in (0..).zip(&reader.subs) {
            self.gap(reader, sub, channels);
            let replica = &channels[of.replica];
            if replica.newest() > of.cursor {
                let place = replica.place_after(of.cursor);
                let seq = replica.at(place).map(|event| event.seq);
                heads.extend(seq.map(|seq| Reverse(Head { seq, sub, place })));
            }
        }
        let mut extent = Extent::Whole;
        while extent == Extent::Whole
            && let Some(mut first) = heads.peek_mut()
        {
            if self.is_full() {
                extent = Extent::Part;
                break;
            }
            let Head { seq, sub, place } = &mut first.0;
            let (sub, replica) = (*sub, &channels[reader.subs[usize::from(*sub)].replica]);
            let Some(event) = replica.at(*place) else { break };
            *place += 1;
            match replica.at(*place) {
                Some(next) => *seq = next.seq,
                None => drop(PeekMut::pop(first)),
            }
            extent = self.sub_event(sub, event);
        }
        heads.clear();
        self.sending.heads = heads;
        extent
    }

    fn gap(&mut self, reader: &Explicit, sub: u16, channels: &Channels) {
        let channel = &reader.subs[usize::from(sub)];
        let Some(gap) = &channel.gap else { return };
        let epoch = self.epoch;
        let replica = &channels[channel.replica];
        // Other channels may have events before the end of the loss: a client that reconnects with
        // this id must still get them.
        let seq = match reader.subs.len() {
            1 => channel.cursor,
            _ => channel.cursor.min(reader.position),
        };
        // A replica that begins behind the cursor does not know what comes first: the next page does.
        let knows = channel.cursor >= replica.base();
        let first = gap.first.or_else(|| replica.first_after(channel.cursor).filter(|_| knows));
        let view = GapView {
            id: EventId { epoch, seq },
            channel: replica.name(),
            reason: gap.reason.as_str(),
            after: &gap.after,
            first: first.map(|seq| EventId { epoch, seq }),
        };
        self.dialect.write_gap(self.arena, &view);
        self.push_item(ItemKind::Gap { sub });
    }

    fn sub_event(&mut self, sub: u16, event: &Event) -> Extent {
        let is_own = event.sender().is_some_and(|sender| self.to == Some(sender));
        let extent = if is_own { Extent::Whole } else { self.event(event, 0) };
        let ends = is_end(self.dialect, event);
        self.ended |= ends;
        self.push_item(ItemKind::Event { sub, seq: event.seq, extent, ends });
        extent
    }

    fn push_item(&mut self, kind: ItemKind) {
        let end = self.arena.len() - self.from;
        let end = u32::try_from(end).expect("turns have budgets of bytes");
        self.sending.items.push(Item { end, kind });
    }

    /// Appends an event's encoding without its first `skip` bytes; of a large event, only as much
    /// as fits a send.
    fn event(&mut self, event: &Event, skip: usize) -> Extent {
        if event.data.len() < LARGE_BYTES_MIN {
            let from = self.arena.len();
            self.dialect.write_event(self.arena, &event.view(self.epoch));
            self.arena.drain(from..from + skip);
            return Extent::Whole;
        }
        let encoded = self.sending.encode_large(event, self.dialect, self.epoch);
        let room = self.until.saturating_sub(self.arena.len()).max(LARGE_BYTES_MIN);
        let end = encoded.len().min(skip + room);
        self.arena.extend_from_slice(&encoded[skip..end]);
        if end == encoded.len() { Extent::Whole } else { Extent::Part }
    }
}

impl Sending {
    /// Forgets the last batch once it is settled.
    pub fn clear(&mut self) {
        if self.items.is_empty() {
            self.large = None;
        }
        self.items.clear();
    }

    fn encode_large(&mut self, event: &Event, dialect: Dialect, epoch: Epoch) -> &[u8] {
        let known = self
            .large
            .as_ref()
            .is_some_and(|large| large.seq == event.seq && large.dialect == dialect);
        if !known {
            let mut bytes = Vec::with_capacity(event.data.len() + event.data.len() / 2);
            dialect.write_event(&mut bytes, &event.view(epoch));
            self.large = Some(Large { seq: event.seq, dialect, bytes });
        }
        self.large.as_ref().map_or(&[], |large| &large.bytes)
    }
}
