//! The events that are kept: one budget of bytes, one chain per channel, one line per policy.
//!
//! The newest are in memory. Those there is no room for are left to the store and only listed here
//! (`runs`), so that the bounds cover both. One place in the log divides the two.
//!
//! An entry is in two linked lists. Its channel's **chain** is what pages are read from, and bounds
//! the count. Its policy's **line** has all events that age alike in log order, so the next one to
//! age is always at its old end, and the oldest event of all is the oldest of those few ends.
//! Linked lists rather than queues with dead entries: an event that leaves by count leaves at once,
//! in O(1), and nothing has to be compacted later in one long pause. A channel without history pays
//! 12 bytes for all this and no allocation.

pub(super) mod runs;
mod states;
mod values;

pub use self::runs::run_has_room;

use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashSet, HashTable};

use self::runs::{Run, Runs};
use self::states::value_hash;
use super::event::{Event, Publication};
use super::hash::SharedHasher;
use super::list::{Links, List};
use super::paged::{NIL, Paged};
use super::policy::Keeps;
use crate::proto::attributes::Attributes;

/// Events kept at one time, whatever their size: entries are addressed by `u32`.
pub const EVENTS_MAX: usize = 1 << 31;

/// What an event costs besides its bytes: itself with the counts of its `Arc`, the history's entry,
/// the shared header of its payload, and what allocators round up.
pub(crate) const EVENT_OVERHEAD_BYTES: u64 =
    (size_of::<Event>() + 16 + size_of::<Entry>() + 64) as u64;

/// What an idempotency key costs besides its bytes: its place in the table, which may be half
/// empty.
pub(crate) const KEY_OVERHEAD_BYTES: u64 = 16;

/// What an event is charged against the byte budget. Its channel's name is charged each time
/// although it is shared: that is how history pays for channels without subscribers.
pub fn event_bytes(channel: &str, data: &[u8], event_type: Option<&str>, key: Option<&str>) -> u64 {
    let text = channel.len() + event_type.map_or(0, str::len);
    let key = key.map_or(0, |key| key.len() as u64 + KEY_OVERHEAD_BYTES);
    EVENT_OVERHEAD_BYTES + (data.len() + text) as u64 + key
}

/// What an event is charged, with its attributes.
pub fn bytes_of(event: &Event) -> u64 {
    let Event { channel, data, event_type, key, attributes, .. } = event;
    event_bytes(channel, data, event_type.as_deref(), key.as_deref())
        + attributes_bytes(attributes.as_deref())
}

impl Publication {
    /// What it takes in memory, and will be charged as an event.
    pub(crate) fn held_bytes(&self) -> usize {
        publication_bytes(self) as usize
    }
}

/// What a publication will be charged as an event.
pub(super) fn publication_bytes(publication: &Publication) -> u64 {
    let Publication { channel, data, event_type, key, attributes, .. } = publication;
    event_bytes(channel, data, event_type.as_deref(), key.as_deref())
        + attributes_bytes(attributes.as_deref())
}

/// What an event is charged for its attributes.
pub(crate) fn attributes_bytes(attributes: Option<&Attributes>) -> u64 {
    attributes.map_or(0, |attributes| attributes.held_bytes() as u64)
}

/// An event that is kept in memory.
#[derive(Debug)]
struct Entry {
    event: Arc<Event>,
    /// Index of its channel.
    channel: u32,
    in_chain: Links,
    in_line: Links,
}

/// A channel's events in memory, oldest to newest.
#[derive(Debug)]
pub(super) struct Chain {
    list: List,
    len: u32,
}

impl Chain {
    pub const EMPTY: Self = Self { list: List::EMPTY, len: 0 };

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn len(&self) -> u32 {
        self.len
    }
}

/// The kept events of one policy, oldest to newest.
#[derive(Debug)]
struct Line {
    /// Of events in memory.
    list: List,
    /// Of runs, all of them older.
    runs: List,
    /// Of both.
    bytes: u64,
    /// Bytes it may hold even when the others need room.
    share: u64,
}

impl Line {
    fn empty(share: u64) -> Self {
        Self { list: List::EMPTY, runs: List::EMPTY, bytes: 0, share }
    }
}

/// All kept events.
#[derive(Debug)]
pub(super) struct History {
    entries: Paged<Entry>,
    lines: Vec<Line>,
    /// Entries with an idempotency key.
    by_key: HashTable<u32>,
    /// The newest entry of each channel and event key.
    newest_of: HashTable<u32>,
    hasher: SharedHasher,
    /// Of events in memory.
    bytes: u64,
    runs: Runs,
}

/// What is oldest under one or all policies: an event, or a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Oldest {
    pub seq: u64,
    /// When the newest event of it was ordered.
    pub newest_at: Duration,
    pub channel: u32,
}

/// What left history at once.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    pub last_seq: u64,
    pub events: u32,
    /// The event, if it was in memory.
    pub event: Option<Arc<Event>>,
}

impl History {
    /// An empty history, with the share of each policy.
    pub fn new(hasher: SharedHasher, shares: impl Iterator<Item = u64>) -> Self {
        Self {
            entries: Paged::new(),
            lines: shares.map(Line::empty).collect(),
            by_key: HashTable::new(),
            newest_of: HashTable::new(),
            hasher,
            bytes: 0,
            runs: Runs::new(),
        }
    }

    /// Events kept.
    pub fn events(&self) -> u64 {
        self.entries.len() as u64 + self.runs.events()
    }

    /// Those of them in memory.
    pub(crate) fn in_memory(&self) -> usize {
        self.entries.len()
    }

    /// Bytes charged for all of them.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.runs.bytes()
    }

    /// What all this takes in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.bytes + self.runs.cost()
    }

    /// What is kept in the store alone.
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Keeps the newest event of the log.
    pub fn keep(&mut self, event: Arc<Event>, channel: u32, chain: &mut Chain, policy: u8) {
        let bytes = bytes_of(&event);
        self.bytes += bytes;
        let keyed = event.key.as_ref().map(|key| self.hasher.key(event.channel_hash, key));
        let entry = Entry { event, channel, in_chain: Links::ALONE, in_line: Links::ALONE };
        let key = self.entries.insert(entry);
        chain.list.push(key, &mut self.entries, |entry| &mut entry.in_chain);
        chain.len += 1;
        let line = &mut self.lines[usize::from(policy)];
        line.list.push(key, &mut self.entries, |entry| &mut entry.in_line);
        line.bytes += bytes;
        if let Some(hash) = keyed {
            let (entries, hasher) = (&self.entries, &self.hasher);
            self.by_key.insert_unique(hash, key, |&key| key_hash(hasher, entries, key));
        }
        self.supersede(key)
    }

    /// Drops a channel's oldest event, or its oldest run.
    pub(crate) fn lose_oldest(
        &mut self,
        chain: &mut Chain,
        channel: u32,
        policy: u8,
    ) -> Option<Gone> {
        let line = &mut self.lines[usize::from(policy)];
        if let Some(run) = self.runs.lose_first(channel, &mut line.runs) {
            line.bytes -= run.bytes;
            return Some(Gone { last_seq: run.last_seq, events: run.events, event: None });
        }
        let event = self.lose(chain.list.first()?, chain, policy);
        Some(Gone { last_seq: event.seq, events: 1, event: Some(event) })
    }

    /// Drops an event of a channel that is in memory.
    pub fn lose(&mut self, key: u32, chain: &mut Chain, policy: u8) -> Arc<Event> {
        let event = self.take(key, chain, policy);
        self.lines[usize::from(policy)].bytes -= bytes_of(&event);
        event
    }

    /// Puts another event without keys in the place of one in memory.
    pub fn replace(&mut self, key: u32, event: Arc<Event>, policy: u8) {
        let bytes = bytes_of(&event);
        let replaced = std::mem::replace(&mut self.entries[key].event, event);
        let before = bytes_of(&replaced);
        let line = &mut self.lines[usize::from(policy)];
        line.bytes = line.bytes + bytes - before;
        self.bytes = self.bytes + bytes - before;
    }

    /// The oldest event in memory, which is this channel's, stays in the store alone. If the channel
    /// is a state, it can still be replaced there.
    pub(crate) fn leave_to_store(
        &mut self,
        chain: &mut Chain,
        channel: u32,
        policy: u8,
        keeps: Keeps,
    ) {
        let Some(key) = chain.list.first() else { return };
        let event = self.take(key, chain, policy);
        let value = value_hash(&self.hasher, &event).filter(|_| keeps == Keeps::Latest);
        if let Some(hash) = value {
            // It has an older one if the channel was no state for a while.
            self.lose_value(hash, policy);
        }
        let line = &mut self.lines[usize::from(policy)];
        self.runs.list(channel, &event, bytes_of(&event), value, &mut line.runs);
    }

    /// Lists events that only the store has, and that are newer than all that is kept.
    pub(crate) fn list_run(&mut self, run: Run, policy: u8) {
        let line = &mut self.lines[usize::from(policy)];
        line.bytes += run.bytes;
        self.runs.list_run(run, &mut line.runs);
    }

    /// Takes an event out of memory.
    fn take(&mut self, key: u32, chain: &mut Chain, policy: u8) -> Arc<Event> {
        if let Some(hash) = value_hash(&self.hasher, &self.entries[key].event) {
            // An older one with the same event key is not in the table.
            let newest = self.newest_of.find_entry(hash, |&other| other == key);
            drop(newest.map(|newest| newest.remove()));
        }
        if self.entries[key].event.key.is_some() {
            let hash = key_hash(&self.hasher, &self.entries, key);
            match self.by_key.find_entry(hash, |&other| other == key) {
                Ok(entry) => drop(entry.remove()),
                Err(_) => unreachable!("every keyed entry is in the table"),
            }
        }
        chain.list.unlink(key, &mut self.entries, |entry| &mut entry.in_chain);
        chain.len -= 1;
        let line = &mut self.lines[usize::from(policy)];
        line.list.unlink(key, &mut self.entries, |entry| &mut entry.in_line);
        let event = self.entries.remove(key).event;
        self.bytes -= bytes_of(&event);
        event
    }

    /// The channel whose oldest event goes first when the byte budget is exceeded: the oldest of
    /// the policies that hold more than their share, or of all if none does.
    pub(crate) fn channel_to_press(&self) -> Option<u32> {
        let over = self.oldest_of(self.lines.iter().filter(|line| line.bytes > line.share));
        Some(over.or_else(|| self.oldest_of(self.lines.iter()))?.channel)
    }

    /// What ages next under a policy.
    pub(crate) fn oldest_under(&self, policy: u8) -> Option<Oldest> {
        self.oldest_in(&self.lines[usize::from(policy)])
    }

    /// What is oldest of all: nothing before it is kept.
    pub fn oldest(&self) -> Option<Oldest> {
        self.oldest_of(self.lines.iter())
    }

    fn oldest_of<'a>(&self, lines: impl Iterator<Item = &'a Line>) -> Option<Oldest> {
        lines.filter_map(|line| self.oldest_in(line)).min_by_key(|oldest| oldest.seq)
    }

    fn oldest_in(&self, line: &Line) -> Option<Oldest> {
        if let Some(run) = line.runs.first().map(|key| self.runs.at(key)) {
            return Some(Oldest {
                seq: run.first_seq,
                newest_at: run.newest_at,
                channel: run.channel,
            });
        }
        let Entry { event, channel, .. } = &self.entries[line.list.first()?];
        Some(Oldest { seq: event.first_seq(), newest_at: event.ordered_at(), channel: *channel })
    }

    /// The channel of the oldest event in memory.
    pub(crate) fn oldest_in_memory(&self) -> Option<u32> {
        let ends = self.lines.iter().filter_map(|line| line.list.first());
        let oldest = ends.map(|key| &self.entries[key]).min_by_key(|entry| entry.event.seq)?;
        Some(oldest.channel)
    }

    /// A channel's oldest kept event.
    pub fn first(&self, chain: &Chain) -> Option<u32> {
        chain.list.first()
    }

    /// The seq of a channel's oldest kept event.
    pub fn first_seq(&self, chain: &Chain, channel: u32) -> Option<u64> {
        let in_store = self.runs.first_after(channel, 0);
        in_store.or_else(|| Some(self.entries[chain.list.first()?].event.seq))
    }

    /// Events a channel keeps.
    pub(crate) fn events_of(&self, chain: &Chain, channel: u32) -> u32 {
        self.runs.events_of(channel).saturating_add(chain.len)
    }

    /// Whether a channel keeps this many events without what would be lost next.
    pub(crate) fn can_lose(&self, chain: &Chain, channel: u32, events: u32) -> bool {
        let next = self.runs.first(channel).map_or(1, |run| run.events);
        self.events_of(chain, channel).checked_sub(next).is_some_and(|left| left >= events)
    }

    /// The oldest event a channel has in memory after this seq. `near` is an entry at which a cursor was
    /// lately, and may hold another event by now: without it, a cursor in the middle of a long
    /// history would cost a walk through half of it.
    pub(crate) fn first_after(
        &self,
        chain: &Chain,
        channel: u32,
        after: u64,
        near: u32,
    ) -> Option<u32> {
        let oldest = chain.list.first()?;
        if self.entries[oldest].event.seq > after {
            return Some(oldest);
        }
        let is_near = self.entries.try_at(near).is_some_and(|entry| entry.channel == channel);
        let mut key = if is_near { near } else { chain.list.newest };
        while self.entries[key].event.seq > after {
            key = self.entries[key].in_chain.older;
        }
        let mut newer = self.newer(key);
        while let Some(next) = newer.filter(|&next| self.entries[next].event.seq <= after) {
            newer = self.newer(next);
        }
        newer
    }

    /// The channel's next event.
    pub fn newer(&self, key: u32) -> Option<u32> {
        Some(self.entries[key].in_chain.newer).filter(|&newer| newer != NIL)
    }

    /// An event that is kept.
    pub fn event(&self, key: u32) -> &Arc<Event> {
        &self.entries[key].event
    }

    /// The seq of the kept event that has this idempotency key in the channel.
    pub(crate) fn seq_by_key(&self, channel: u32, channel_hash: u64, key: &str) -> Option<u64> {
        let same = |&other: &u32| {
            let entry = &self.entries[other];
            entry.channel == channel && entry.event.key.as_deref() == Some(key)
        };
        let found = self.by_key.find(self.hasher.key(channel_hash, key), same)?;
        Some(self.entries[*found].event.seq)
    }

    /// Lines up all events again after the policies changed. This sorts them by log order.
    pub(crate) fn line_up(
        &mut self,
        shares: impl Iterator<Item = u64>,
        policy_of: impl Fn(u32) -> u8,
    ) {
        let mut keys: Vec<(u64, u32)> =
            self.entries.iter().map(|(key, entry)| (entry.event.seq, key)).collect();
        keys.sort_unstable();
        self.lines = shares.map(Line::empty).collect();
        for key in self.runs.by_age() {
            let Run { channel, bytes, .. } = *self.runs.at(key);
            let line = &mut self.lines[usize::from(policy_of(channel))];
            line.bytes += bytes;
            self.runs.line_up(key, &mut line.runs);
        }
        for (_, key) in keys {
            let policy = policy_of(self.entries[key].channel);
            let line = &mut self.lines[usize::from(policy)];
            line.bytes += bytes_of(&self.entries[key].event);
            line.list.push(key, &mut self.entries, |entry| &mut entry.in_line);
        }
    }

    /// Walks everything. `channels` are all chains, with their channel's index and policy.
    pub fn check_invariants<'a>(&self, channels: impl Iterator<Item = (u32, &'a Chain, u8)>) {
        let events = || self.entries.iter().map(|(_, entry)| &entry.event);
        assert_eq!(self.bytes, events().map(|event| bytes_of(event)).sum::<u64>());
        assert_eq!(self.by_key.len(), events().filter(|event| event.key.is_some()).count());
        let keyed = events().filter_map(|event| Some((event.channel_hash, event.event_key()?)));
        assert_eq!(self.newest_of.len(), keyed.collect::<HashSet<_>>().len());
        let mut lined_up = 0;
        for line in &self.lines {
            let keys = self.walk(&line.list, |entry| entry.in_line);
            lined_up += keys.len();
            assert!(keys.iter().all(|&key| self.entries[key].event.seq > self.runs.through()));
        }
        assert_eq!(self.bytes(), self.lines.iter().map(|line| line.bytes).sum::<u64>());
        self.runs.check_invariants(self.lines.iter().map(|line| line.runs));
        assert_eq!(lined_up, self.entries.len());
        let mut chained = 0;
        for (channel, chain, policy) in channels {
            let keys = self.walk(&chain.list, |entry| entry.in_chain);
            assert_eq!(keys.len(), chain.len as usize);
            assert!(keys.iter().all(|&key| self.entries[key].channel == channel));
            assert!(usize::from(policy) < self.lines.len());
            chained += keys.len();
        }
        assert_eq!(chained, self.entries.len());
    }

    /// A list's keys. Asserts that it is in log order and that its links agree both ways.
    fn walk(&self, list: &List, links: impl Fn(&Entry) -> Links) -> Vec<u32> {
        let (mut keys, mut seq, mut older, mut key) = (Vec::new(), 0, NIL, list.oldest);
        while key != NIL {
            let entry = &self.entries[key];
            assert!(entry.event.seq > seq);
            assert_eq!(links(entry).older, older);
            keys.push(key);
            (seq, older, key) = (entry.event.seq, key, links(entry).newer);
        }
        assert_eq!(list.newest, older);
        keys
    }
}

fn key_hash(hasher: &SharedHasher, entries: &Paged<Entry>, key: u32) -> u64 {
    let event = &entries[key].event;
    hasher.key(event.channel_hash, event.key.as_deref().unwrap_or_default())
}

const _: () = assert!(EVENTS_MAX < NIL as usize);
const _: () = assert!(size_of::<Entry>() <= 32, "two entries to a cache line");
