//! A worker's copy of the newest part of one channel, and its readers here.
//!
//! The ring holds every event of the channel with `base < seq <= tail`. `live` subscribers have no
//! cursor of their own: they have all that was fanned out (up to `fanned_to`). While a slice is
//! being fanned out over several turns, the front part of `live` has it and the rest does not.
//! Followers (explicit subscribers) each have a cursor in their own memory.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::SlowPolicy;
use crate::limits::{REPLICA_TRIM_EVENTS, SLICE_BYTES_MAX, SLOTS_PER_WORKER_MAX};
use crate::log::ChannelName;
use crate::log::event::Event;
use crate::log::history::bytes_of;
use crate::proto::cursor::Cursor;
use crate::proto::dialect::Dialect;

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

    /// The slot.
    pub fn slot(self) -> u32 {
        self.0 & ((1 << Self::SLOT_BITS) - 1)
    }

    /// The dialect, as an index (`Dialect as usize`).
    pub fn dialect_index(self) -> usize {
        (self.0 >> Self::SLOT_BITS) as usize
    }
}

/// How much a replica keeps for slow readers, and what happens to a reader that falls out of it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Events.
    pub events_max: usize,
    /// Bytes, as history charges them.
    pub bytes_max: usize,
    /// What happens to slow readers.
    pub slow: SlowPolicy,
}

impl Bounds {
    /// These bounds with no more than a share of memory.
    pub fn share(self, bytes: usize) -> Self {
        Self { bytes_max: self.bytes_max.min(bytes), ..self }
    }

    /// Three quarters of these bounds.
    pub fn reduced(self) -> Self {
        let (events_max, bytes_max) = (self.events_max / 4 * 3, self.bytes_max / 4 * 3);
        Self { events_max, bytes_max, ..self }
    }
}

/// What a replica has only while something is under way: events, and the readers that have a
/// cursor of their own. A channel at rest has neither.
#[derive(Debug, Default)]
struct Window {
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// Ring length from which it is worth looking for the slowest follower.
    trim_at: u32,
    followers: Vec<u32>,
}

static NO_EVENTS: VecDeque<Arc<Event>> = VecDeque::new();

/// A channel as one worker knows it.
#[derive(Debug)]
pub struct Replica {
    /// The channel's name.
    pub name: Arc<ChannelName>,
    /// Its hash under the shared hasher.
    pub hash: u64,
    /// Index of its bounds among the worker's.
    pub bounds: u16,
    /// Whether the log has said `Joined` at least once; events that come before it do not count.
    pub joined: bool,
    /// Whether it is in the worker's queue for fan-out.
    pub scheduled: bool,
    /// Subscribers that were joined at the log. While there is one, the log sends us the channel's
    /// events, and further subscribers join here.
    pub log_joined: u32,
    /// Subscribers that were joined here, without the log.
    pub locally_joined: u32,
    /// Joins under way; while there are any, the replica stays.
    pub pending_joins: u32,
    /// Events up to here have left the ring, or never were in it.
    pub base: u64,
    /// Everything up to here has been seen.
    pub tail: u64,
    /// Live subscribers in the front part have everything up to here.
    pub fanned_to: u64,
    /// Live subscribers in the back part have everything up to here (the slice's start).
    slice_from: u64,
    /// How many of `live`, from the front, have the present slice.
    handed: u32,
    /// The turn in which a slice of this replica was last sent.
    pub sent_in_turn: u32,
    live: Vec<Live>,
    window: Option<Box<Window>>,
}

// A private channel costs a worker little more than this.
const _: () = assert!(size_of::<Replica>() <= 128);

/// The new place of a slot that moved because another was removed from the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The slot that moved.
    pub slot: u32,
    /// Its new index.
    pub index: u32,
}

impl Replica {
    /// A channel that is not joined yet.
    pub fn new(name: Arc<ChannelName>, hash: u64, bounds: u16) -> Self {
        Self {
            name,
            hash,
            bounds,
            joined: false,
            scheduled: false,
            log_joined: 0,
            locally_joined: 0,
            pending_joins: 0,
            base: 0,
            tail: 0,
            fanned_to: 0,
            slice_from: 0,
            handed: 0,
            sent_in_turn: 0,
            live: Vec::new(),
            window: None,
        }
    }

    /// Whether it has no reader and none is joining.
    pub fn is_unused(&self) -> bool {
        self.live.is_empty() && self.followers().is_empty() && self.pending_joins == 0
    }

    /// The log has joined one more subscriber of this worker, when `head` was its newest event.
    /// With the first one, the ring begins there; what is older is read from the log.
    pub fn joined(&mut self, head: u64) {
        debug_assert!(self.pending_joins > 0);
        self.pending_joins -= 1;
        if !self.joined {
            self.joined = true;
            self.base = head;
            self.tail = head;
            self.fanned_to = head;
            self.slice_from = head;
        }
    }

    /// Where a subscriber with this cursor starts, if the ring holds all it has missed: then it
    /// joins here without asking the log.
    pub fn stand(&self, cursor: Cursor, head_seen: u64) -> Option<u64> {
        if self.log_joined == 0 {
            return None;
        }
        match cursor {
            Cursor::Now => Some(self.tail),
            Cursor::After(seq) if seq >= self.base && seq <= head_seen => Some(seq),
            Cursor::After(_) | Cursor::Earliest | Cursor::Stream(_) | Cursor::Foreign => None,
        }
    }

    /// A join failed. If the last subscriber left while it was under way, the log has sent us
    /// nothing since, and the ring kept for this join may have a hole: the next join starts over.
    pub fn join_refused(&mut self) {
        debug_assert!(self.pending_joins > 0);
        self.pending_joins -= 1;
        if self.log_joined == 0 {
            debug_assert!(self.live.is_empty() && self.followers().is_empty());
            self.joined = false;
            self.window = None;
            (self.base, self.tail, self.fanned_to, self.slice_from) = (0, 0, 0, 0);
        }
    }

    /// Takes an event of the channel. Events before the first join do not count.
    pub fn push(&mut self, event: Arc<Event>) {
        if !self.joined || event.seq <= self.tail {
            return;
        }
        self.tail = event.seq;
        let window = self.window();
        window.ring_bytes += charge(&event);
        window.ring.push_back(event);
    }

    fn window(&mut self) -> &mut Window {
        self.window.get_or_insert_with(|| {
            Box::new(Window { trim_at: REPLICA_TRIM_EVENTS as u32, ..Window::default() })
        })
    }

    fn close_window_if_empty(&mut self) {
        self.window.take_if(|window| window.ring.is_empty() && window.followers.is_empty());
    }

    fn ring(&self) -> &VecDeque<Arc<Event>> {
        self.window.as_ref().map_or(&NO_EVENTS, |window| &window.ring)
    }

    /// Bytes the ring holds.
    pub fn ring_bytes(&self) -> usize {
        self.window.as_ref().map_or(0, |window| window.ring_bytes)
    }

    /// How many events the ring holds after the cursor.
    pub fn behind(&self, cursor: u64) -> usize {
        self.ring().len() - self.ring().partition_point(|event| event.seq <= cursor)
    }

    /// Events after the cursor, up to and including `until`.
    pub fn after(&self, cursor: u64, until: u64) -> impl Iterator<Item = &Arc<Event>> {
        let ring = self.ring();
        let start = ring.partition_point(|event| event.seq <= cursor);
        ring.range(start..).take_while(move |event| event.seq <= until)
    }

    /// The newest event of the ring; 0 if there is none.
    pub fn newest(&self) -> u64 {
        self.ring().back().map_or(0, |event| event.seq)
    }

    /// Place in the ring of the oldest event after the cursor.
    pub fn place_after(&self, cursor: u64) -> usize {
        self.ring().partition_point(|event| event.seq <= cursor)
    }

    /// The event at this place of the ring.
    pub fn at(&self, place: usize) -> Option<&Arc<Event>> {
        self.ring().get(place)
    }

    /// The oldest event kept after the cursor.
    pub fn first_after(&self, cursor: u64) -> Option<u64> {
        self.after(cursor, u64::MAX).next().map(|event| event.seq)
    }

    /// Whether the cursor means the same as that of live subscribers that have the present slice:
    /// no event lies between the two.
    pub fn is_live_cursor(&self, cursor: u64) -> bool {
        cursor >= self.fanned_to && self.after(self.fanned_to, cursor).next().is_none()
    }

    // --- live subscribers ---

    /// How many subscribers are live.
    pub fn live_len(&self) -> usize {
        self.live.len()
    }

    /// The subscriber at this index: slot and dialect.
    pub fn live_slot(&self, index: u32) -> Option<(u32, usize)> {
        self.live.get(index as usize).map(|live| (live.slot(), live.dialect_index()))
    }

    /// Adds a subscriber that has everything up to `fanned_to`; returns its index, and which one
    /// moved to make room.
    pub fn add_live(&mut self, subscriber: Live) -> (u32, Option<Moved>) {
        let end = self.live.len();
        let place = self.handed as usize;
        self.live.push(subscriber);
        self.live.swap(place, end);
        self.handed += 1;
        let moved = (place != end).then(|| self.live_at(end));
        (place as u32, moved)
    }

    /// The cursor of the live subscriber at this index.
    pub fn live_cursor(&self, index: u32) -> u64 {
        if index < self.handed { self.fanned_to } else { self.slice_from }
    }

    /// Removes the live subscriber at this index; up to two others move.
    pub fn remove_live(&mut self, index: u32) -> [Option<Moved>; 2] {
        let mut hole = index as usize;
        let mut moves = [None, None];
        if index < self.handed {
            self.handed -= 1;
            let last_handed = self.handed as usize;
            if last_handed != hole {
                self.live[hole] = self.live[last_handed];
                moves[0] = Some(self.live_at(hole));
            }
            hole = last_handed;
        }
        self.live.swap_remove(hole);
        if hole < self.live.len() {
            moves[1] = Some(self.live_at(hole));
        }
        shrink_if_sparse(&mut self.live);
        moves
    }

    fn live_at(&self, index: usize) -> Moved {
        Moved { slot: self.live[index].slot(), index: index as u32 }
    }

    /// Whether some live subscribers have not been sent the present slice yet.
    pub fn slice_unfinished(&self) -> bool {
        (self.handed as usize) < self.live.len()
    }

    /// Whether there is something to fan out.
    pub fn has_work(&self) -> bool {
        self.slice_unfinished() || self.fanned_to < self.tail
    }

    /// Begins the next slice if the last one is finished: as many events as fit a send, at least
    /// one. Afterwards `slice()` are its events.
    pub fn begin_slice(&mut self) {
        debug_assert!(!self.slice_unfinished());
        self.slice_from = self.fanned_to;
        let mut bytes = 0;
        let mut end = self.fanned_to;
        for event in self.after(self.fanned_to, u64::MAX) {
            bytes += event.data.len();
            if end != self.slice_from && bytes > SLICE_BYTES_MAX {
                break;
            }
            end = event.seq;
        }
        if end == self.slice_from || end == self.last_seq() {
            end = self.tail;
        }
        self.fanned_to = end;
        self.handed = if self.slice().next().is_some() { 0 } else { self.live.len() as u32 };
    }

    fn last_seq(&self) -> u64 {
        self.ring().back().map_or(self.base, |event| event.seq)
    }

    /// Where the present slice begins: the cursor of live subscribers that do not have it.
    pub fn slice_start(&self) -> u64 {
        self.slice_from
    }

    /// Whether the live subscriber at this index has been sent the present slice.
    pub fn is_handed(&self, index: u32) -> bool {
        index < self.handed
    }

    /// The events of the present slice.
    pub fn slice(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.after(self.slice_from, self.fanned_to)
    }

    /// Hands the present slice to at most `budget` live subscribers, and returns them.
    pub fn hand_out(&mut self, budget: usize) -> &[Live] {
        let from = self.handed as usize;
        let to = (from + budget).min(self.live.len());
        self.handed = to as u32;
        &self.live[from..to]
    }

    // --- followers ---

    /// Slots with a cursor of their own.
    pub fn followers(&self) -> &[u32] {
        self.window.as_ref().map_or(&[], |window| &window.followers)
    }

    /// Adds an explicit subscriber; returns its index.
    pub fn add_follower(&mut self, slot: u32) -> u32 {
        let followers = &mut self.window().followers;
        followers.push(slot);
        (followers.len() - 1) as u32
    }

    /// Removes the follower at this index; another one may move there.
    pub fn remove_follower(&mut self, index: u32) -> Option<Moved> {
        let followers = &mut self.window().followers;
        followers.swap_remove(index as usize);
        let moved = followers.get(index as usize).map(|&slot| Moved { slot, index });
        shrink_if_sparse(followers);
        self.close_window_if_empty();
        moved
    }

    // --- keeping the ring short ---

    /// Whether it is worth looking for the slowest follower.
    pub fn wants_trim(&self) -> bool {
        self.window.as_ref().is_some_and(|window| {
            let Window { ring, followers, trim_at, .. } = &**window;
            let worth_it = followers.is_empty() || ring.len() >= *trim_at as usize;
            !ring.is_empty() && worth_it
        })
    }

    /// Drops what all live subscribers and all followers have; `slowest` is the oldest cursor of a
    /// follower. The present slice stays: its sends may still turn out short.
    pub fn trim(&mut self, slowest: u64) {
        self.drop_to(slowest.min(self.slice_from));
        if let Some(window) = &mut self.window {
            window.trim_at = (window.ring.len() * 2).max(REPLICA_TRIM_EVENTS) as u32;
        }
    }

    /// Moves live subscribers to the end of the last slice, once its sends are known to be taken.
    pub fn settle_slice(&mut self) {
        if !self.slice_unfinished() {
            self.slice_from = self.fanned_to;
        }
    }

    /// Whether the ring exceeds its bounds with events that no live subscriber needs.
    pub fn is_over(&self, bounds: &Bounds) -> bool {
        let Bounds { events_max, bytes_max, .. } = *bounds;
        self.window.as_ref().is_some_and(|window| {
            let Window { ring, ring_bytes, .. } = &**window;
            (ring.len() > events_max || *ring_bytes > bytes_max)
                && ring.front().is_some_and(|event| event.seq <= self.slice_from)
        })
    }

    /// Drops the oldest events until the ring is within its bounds, but none that live subscribers
    /// need. Followers further behind notice by `base`, and read the log.
    pub fn shed(&mut self, bounds: &Bounds) {
        while self.is_over(bounds) {
            self.drop_front();
        }
    }

    fn drop_to(&mut self, seq: u64) {
        while self.ring().front().is_some_and(|event| event.seq <= seq) {
            self.drop_front();
        }
        self.base = self.base.max(seq);
        self.close_window_if_empty();
    }

    fn drop_front(&mut self) {
        let Some(window) = &mut self.window else { return };
        if let Some(event) = window.ring.pop_front() {
            self.base = self.base.max(event.seq);
            window.ring_bytes -= charge(&event);
        }
    }

    /// Panics if the parts contradict each other.
    pub fn check_invariants(&self) {
        assert!(self.base <= self.slice_from || self.ring().is_empty() || !self.joined);
        assert!(self.slice_from <= self.fanned_to && self.fanned_to <= self.tail);
        assert!(self.handed as usize <= self.live.len());
        let ring = self.ring();
        assert!(ring.iter().zip(ring.iter().skip(1)).all(|(a, b)| a.seq < b.seq));
        assert!(ring.iter().all(|event| event.seq > self.base && event.seq <= self.tail));
        assert_eq!(self.ring_bytes(), ring.iter().map(|event| charge(event)).sum::<usize>());
    }
}

/// What an event in a ring is charged: its full cost, as if it were held nowhere else.
fn charge(event: &Event) -> usize {
    usize::try_from(bytes_of(event)).unwrap_or(usize::MAX)
}

/// Gives back the memory of a channel that was once large.
fn shrink_if_sparse<T>(list: &mut Vec<T>) {
    if list.capacity() > 64 && list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}
