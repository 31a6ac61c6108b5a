//! A worker's copy of the newest part of one channel, and its readers here.
//!
//! The ring holds every event of the channel with `base < seq <= tail`. `live` subscribers have no
//! cursor of their own: they have all that was fanned out (up to `fanned_to`). While a slice is
//! being fanned out over several turns, the front part of `live` has it and the rest does not.
//! Followers (explicit subscribers) each have a cursor in their own memory.

mod readers;

use std::collections::VecDeque;
use std::sync::Arc;

use super::bounds::Bounds;
use super::live::Live;
use crate::limits::REPLICA_TRIM_EVENTS;
use crate::log::ChannelName;
use crate::log::event::Event;
use crate::log::history::bytes_of;
use crate::proto::cursor::Cursor;

pub use self::readers::Moved;

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
    name: Arc<ChannelName>,
    /// The name's hash under the shared hasher.
    hash: u64,
    /// Index of its bounds among the worker's.
    bounds: u16,
    /// Whether the log has said `Joined` at least once; events that come before it do not count.
    joined: bool,
    /// Whether it is in the worker's queue for fan-out.
    scheduled: bool,
    /// Subscribers that were joined at the log. While there is one, the log sends us the channel's
    /// events, and further subscribers join here.
    joined_at_log: u32,
    /// Subscribers that were joined here, without the log.
    joined_here: u32,
    /// Joins under way; while there are any, the replica stays.
    pending_joins: u32,
    /// Events up to here have left the ring, or never were in it.
    base: u64,
    /// Everything up to here has been seen.
    tail: u64,
    /// Live subscribers in the front part have everything up to here.
    fanned_to: u64,
    /// Live subscribers in the back part have everything up to here (the slice's start).
    slice_from: u64,
    /// How many of `live`, from the front, have the present slice.
    handed: u32,
    /// The turn in which a slice of this replica was last sent.
    sent_in_turn: u32,
    live: Vec<Live>,
    window: Option<Box<Window>>,
}

// A private channel costs a worker little more than this.
const _: () = assert!(size_of::<Replica>() <= 128);

impl Replica {
    /// A channel that is not joined yet.
    pub fn new(name: Arc<ChannelName>, hash: u64, bounds: u16) -> Self {
        Self {
            name,
            hash,
            bounds,
            joined: false,
            scheduled: false,
            joined_at_log: 0,
            joined_here: 0,
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

    /// The channel's name.
    pub fn name(&self) -> &Arc<ChannelName> {
        &self.name
    }

    /// The name's hash under the shared hasher.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Index of its bounds among the worker's.
    pub fn bounds(&self) -> u16 {
        self.bounds
    }

    /// Has the bounds with this index from now on.
    pub fn set_bounds(&mut self, bounds: u16) {
        self.bounds = bounds;
    }

    /// Events up to here have left the ring, or never were in it.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Everything up to here has been seen.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Live subscribers that have the present slice have everything up to here.
    pub fn fanned_to(&self) -> u64 {
        self.fanned_to
    }

    // --- joining and leaving ---

    /// Whether it has no reader and none is joining.
    pub fn is_unused(&self) -> bool {
        self.live.is_empty() && self.followers().is_empty() && self.pending_joins == 0
    }

    /// Stays until the log has answered a join that is on its way.
    pub fn hold(&mut self) {
        self.pending_joins += 1;
    }

    /// The log has joined one more subscriber of this worker, when `head` was its newest event.
    /// With the first one, the ring begins there; what is older is read from the log. `name` is the
    /// log's, in which it counts with us.
    pub fn join_at_log(&mut self, name: Arc<ChannelName>, head: u64) {
        debug_assert!(self.pending_joins > 0);
        self.name = name;
        self.pending_joins -= 1;
        self.joined_at_log += 1;
        if !self.joined {
            self.joined = true;
            self.base = head;
            self.tail = head;
            self.fanned_to = head;
            self.slice_from = head;
        }
    }

    /// One more subscriber joins here, without the log: see [`Replica::stand`].
    pub fn join_here(&mut self) {
        debug_assert!(self.joined_at_log > 0);
        self.joined_here += 1;
        self.name.enter();
    }

    /// A subscriber has left. Those that joined here are counted off first: while any subscriber is
    /// left, the log then counts at least one. Returns whether the log counts one less.
    pub fn leave(&mut self) -> bool {
        let was_at_log = self.joined_here == 0;
        if was_at_log {
            self.joined_at_log -= 1;
        } else {
            self.joined_here -= 1;
            self.name.exit();
        }
        was_at_log
    }

    /// Where a subscriber with this cursor starts, if the ring holds all it has missed: then it
    /// joins here without asking the log.
    pub fn stand(&self, cursor: Cursor, head_seen: u64) -> Option<u64> {
        if self.joined_at_log == 0 {
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
        if self.joined_at_log == 0 {
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

    /// Joins under way.
    pub fn pending_joins(&self) -> u32 {
        self.pending_joins
    }

    /// Panics if the parts contradict each other. `in_queue`: whether it is in the queue for fan-out.
    pub fn check_invariants(&self, in_queue: bool) {
        let name = &self.name[..];
        assert!(in_queue || !self.scheduled, "{name}: is in no queue");
        assert!(self.scheduled || !self.has_work(), "{name}: is not fanned out");
        assert!(!self.is_unused(), "{name} is kept for nothing");
        let counted = self.joined_at_log + self.joined_here;
        let readers = self.live.len() + self.followers().len();
        assert_eq!(counted as usize, readers, "{name}: subscribers");
        assert!(self.joined_here == 0 || self.joined_at_log > 0, "{name}: unknown to the log");
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
