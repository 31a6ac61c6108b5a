//! History that only the store has, because memory has no room for it. It is listed in runs: a cache
//! line for up to [`RUN_EVENTS_MAX`] events of one channel that lie close together. Bounds apply to a
//! run as a whole, so a channel may keep somewhat more than its count, never less.
//!
//! Of the values of a state each is known by its place (`values`): a run of them loses those that a
//! newer event replaces.

use std::collections::VecDeque;
use std::iter::successors;
use std::ops::RangeInclusive;
use std::time::Duration;

use hashbrown::HashMap;

use super::super::event::Event;
use super::super::list::{Links, List};
use super::super::paged::{NIL, Paged};
use super::values::{Value, Values};

/// Most events of a run. A channel may keep as many beyond its count.
pub const RUN_EVENTS_MAX: u32 = 64;

/// Bytes beyond which a run takes no further event: a page reads about four of them.
const RUN_BYTES_MAX: u64 = 16 * 1024;

/// Most places in the log that a run covers, so that it lies in few files and its events are of similar
/// age.
const RUN_REACH: u64 = 1 << 16;

/// What a run is charged against the memory of history, including its place in its channel's queue.
pub(in super::super) const RUN_COST: u64 = size_of::<Run>() as u64 + 16;

/// Events of a channel that only the store has.
#[derive(Debug)]
pub(in super::super) struct Run {
    pub first_seq: u64,
    pub last_seq: u64,
    /// When the newest of them was ordered.
    pub newest_at: Duration,
    pub bytes: u64,
    pub events: u32,
    /// Index of its channel.
    pub channel: u32,
    pub(in super::super) in_line: Links,
    pub holds: Holds,
}

/// Which events of its channel a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Holds {
    /// All from its first to its last.
    All,
    /// Some, all of them values of a state; this is the newest.
    Values(u32),
}

const _: () = assert!(size_of::<Run>() <= 64);

impl Run {
    fn takes(&self, next: &Self) -> bool {
        matches!(self.holds, Holds::Values(_)) == matches!(next.holds, Holds::Values(_))
            && self.events + next.events <= RUN_EVENTS_MAX
            && run_has_room(self.first_seq, self.events, self.bytes, next.last_seq)
    }

    fn extend(&mut self, next: &Self) {
        self.last_seq = next.last_seq;
        // A value that was ordered again is as old as it was.
        self.newest_at = self.newest_at.max(next.newest_at);
        (self.events, self.bytes) = (self.events + next.events, self.bytes + next.bytes);
    }
}

/// Whether a run that begins at `first_seq`, with this many events and bytes, takes the event `seq`.
pub fn run_has_room(first_seq: u64, events: u32, bytes: u64, seq: u64) -> bool {
    events < RUN_EVENTS_MAX && bytes < RUN_BYTES_MAX && first_seq / RUN_REACH == seq / RUN_REACH
}

/// A channel's runs, oldest to newest.
#[derive(Debug, Default)]
struct Listed {
    keys: VecDeque<u32>,
    events: u32,
}

/// All runs.
#[derive(Debug)]
pub(in super::super) struct Runs {
    slab: Paged<Run>,
    of_channel: HashMap<u32, Listed>,
    values: Values,
    events: u64,
    bytes: u64,
    /// The newest event that was listed: everything kept that is newer is in memory.
    through: u64,
}

impl Runs {
    pub fn new() -> Self {
        let (slab, of_channel, values) = (Paged::new(), HashMap::new(), Values::new());
        Self { slab, of_channel, values, events: 0, bytes: 0, through: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the list itself takes in memory.
    pub fn cost(&self) -> u64 {
        self.slab.len() as u64 * RUN_COST + self.values.cost()
    }

    /// Everything kept that is newer is in memory.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// A run and those behind it in its line.
    pub fn from(&self, key: u32) -> impl Iterator<Item = &Run> {
        successors(self.slab.try_at(key), |run| self.slab.try_at(run.in_line.newer))
    }

    pub fn at(&self, key: u32) -> &Run {
        &self.slab[key]
    }

    /// Events of a channel.
    pub fn events_of(&self, channel: u32) -> u32 {
        self.listed(channel).map_or(0, |listed| listed.events)
    }

    /// A channel's oldest run.
    pub fn first(&self, channel: u32) -> Option<&Run> {
        self.nth(channel, 0)
    }

    /// A channel's run by its number: the oldest is 0.
    pub fn nth(&self, channel: u32, number: usize) -> Option<&Run> {
        Some(&self.slab[*self.listed(channel)?.keys.get(number)?])
    }

    /// The number of a channel's oldest run with an event after `after`.
    pub fn number_after(&self, channel: u32, after: u64) -> Option<usize> {
        let keys = &self.listed(channel)?.keys;
        let number = keys.partition_point(|key| self.slab[*key].last_seq <= after);
        (number < keys.len()).then_some(number)
    }

    /// A channel's oldest event behind `after`; where a run has all of its stretch, it may be the
    /// next place in the log.
    pub fn first_after(&self, channel: u32, after: u64) -> Option<u64> {
        let from = self.number_after(channel, after)?;
        let mut runs = (from..).map_while(|number| self.nth(channel, number));
        runs.find_map(|run| self.places_of(run, after + 1).first().map(|of| *of.start()))
    }

    /// Where in the log a run's events are, from a place on.
    pub fn places_of(&self, run: &Run, from: u64) -> Vec<RangeInclusive<u64>> {
        match run.holds {
            Holds::All if run.last_seq < from => Vec::new(),
            Holds::All => vec![run.first_seq.max(from)..=run.last_seq],
            Holds::Values(newest) => {
                let values = self.values.from(newest).map(|(_, value)| value.seq);
                let mut places: Vec<_> =
                    values.take_while(|seq| *seq >= from).map(|seq| seq..=seq).collect();
                places.reverse();
                places
            }
        }
    }

    /// Lists an event, which is newer than all listed before. `value`: the hash of its channel and
    /// event key, which no other value has.
    pub fn list(
        &mut self,
        channel: u32,
        event: &Event,
        bytes: u64,
        value: Option<u64>,
        line: &mut List,
    ) {
        let run = Run {
            first_seq: event.first_seq(),
            last_seq: event.seq,
            newest_at: event.ordered_at(),
            bytes,
            events: 1,
            channel,
            in_line: Links::ALONE,
            holds: value.map_or(Holds::All, |_| Holds::Values(NIL)),
        };
        let run = self.list_run(run, line);
        if let (Some(hash), Holds::Values(newest)) = (value, &mut self.slab[run].holds) {
            // Much less than 4 GiB, as its publication was.
            let bytes = bytes as u32;
            *newest =
                self.values.insert(Value { hash, seq: event.seq, bytes, run, older: *newest });
        }
    }

    /// The place of the value that the store alone has under a hash.
    pub fn value(&self, hash: u64) -> Option<u64> {
        self.values.find(hash).map(|key| self.values.at(key).seq)
    }

    /// Lets go of the value that another replaces. Returns the bytes it was charged.
    pub fn lose_value(&mut self, hash: u64, line: &mut List) -> Option<u64> {
        let value = self.values.find(hash)?;
        let key = self.values.at(value).run;
        let run = &mut self.slab[key];
        let Holds::Values(newest) = &mut run.holds else { return None };
        let bytes = u64::from(self.values.take(value, newest).bytes);
        (run.events, run.bytes) = (run.events - 1, run.bytes - bytes);
        (self.events, self.bytes) = (self.events - 1, self.bytes - bytes);
        let is_empty = run.events == 0;
        if let Some(listed) = self.of_channel.get_mut(&run.channel) {
            listed.events -= 1;
        }
        if is_empty {
            self.remove(key, line);
        }
        Some(bytes)
    }

    /// Lists events that begin after the beginning of all runs, and are newer than those of their
    /// channel. If they do not fit its last run, they become a run of their own. Returns the key
    /// of their run.
    pub fn list_run(&mut self, run: Run, line: &mut List) -> u32 {
        self.events += u64::from(run.events);
        self.bytes += run.bytes;
        self.through = self.through.max(run.last_seq);
        let listed = self.of_channel.entry(run.channel).or_default();
        listed.events += run.events;
        if let Some(&key) = listed.keys.back()
            && self.slab[key].takes(&run)
        {
            self.slab[key].extend(&run);
            return key;
        }
        let key = self.slab.insert(run);
        listed.keys.push_back(key);
        line.push(key, &mut self.slab, |run| &mut run.in_line);
        key
    }

    /// Drops a channel's oldest run.
    pub fn lose_first(&mut self, channel: u32, line: &mut List) -> Option<Run> {
        if self.is_empty() {
            return None;
        }
        let key = *self.of_channel.get(&channel)?.keys.front()?;
        Some(self.remove(key, line))
    }

    /// Takes a run out, and all that it has.
    fn remove(&mut self, key: u32, line: &mut List) -> Run {
        line.unlink(key, &mut self.slab, |run| &mut run.in_line);
        let run = self.slab.remove(key);
        if let Some(listed) = self.of_channel.get_mut(&run.channel) {
            let is_older =
                |other: &u32| *other != key && self.slab[*other].first_seq < run.first_seq;
            let place = listed.keys.partition_point(is_older);
            listed.keys.remove(place);
            listed.events -= run.events;
            if listed.keys.is_empty() {
                self.of_channel.remove(&run.channel);
            }
        }
        if let Holds::Values(newest) = run.holds {
            self.values.remove_all(newest);
        }
        (self.events, self.bytes) = (self.events - u64::from(run.events), self.bytes - run.bytes);
        run
    }

    /// Puts a run into a line again; to be called in the order of their age.
    pub fn line_up(&mut self, key: u32, line: &mut List) {
        line.push(key, &mut self.slab, |run| &mut run.in_line);
    }

    /// All runs with their keys, in the order of their age.
    pub fn by_age(&self) -> Vec<u32> {
        let mut keys: Vec<(u64, u32)> =
            self.slab.iter().map(|(key, run)| (run.first_seq, key)).collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    fn listed(&self, channel: u32) -> Option<&Listed> {
        // If all of history is in memory this costs nothing.
        if self.is_empty() { None } else { self.of_channel.get(&channel) }
    }

    /// Walks everything.
    pub fn check_invariants(&self, lines: impl Iterator<Item = List>) {
        let all = || self.slab.iter().map(|(_, run)| run);
        assert_eq!(self.events, all().map(|run| u64::from(run.events)).sum::<u64>());
        assert_eq!(self.bytes, all().map(|run| run.bytes).sum::<u64>());
        assert!(all().all(|run| run.first_seq <= run.last_seq && run.last_seq <= self.through));
        self.check_values();
        let mut lined_up = 0;
        for line in lines {
            let mut next = line.first();
            while let Some(key) = next {
                lined_up += 1;
                let newer = self.slab[key].in_line.newer;
                next = self.slab.try_at(newer).map(|_| newer);
                assert!(next.is_none_or(|next| self.at(next).first_seq > self.at(key).first_seq));
            }
        }
        assert_eq!(lined_up, self.slab.len());
        let mut listed = 0;
        for (&channel, of) in &self.of_channel {
            let runs: Vec<&Run> = of.keys.iter().map(|key| self.at(*key)).collect();
            assert!(runs.is_sorted_by(|older, newer| older.last_seq < newer.first_seq));
            assert!(!runs.is_empty() && runs.iter().all(|run| run.channel == channel));
            assert_eq!(of.events, runs.iter().map(|run| run.events).sum::<u32>());
            listed += runs.len();
        }
        assert_eq!(listed, self.slab.len());
    }

    fn check_values(&self) {
        self.values.check_invariants();
        for (key, run) in self.slab.iter() {
            let Holds::Values(newest) = run.holds else { continue };
            let values: Vec<&Value> = self.values.from(newest).map(|(_, value)| value).collect();
            assert!(values.is_sorted_by(|newer, older| newer.seq > older.seq));
            assert!(values.iter().all(|value| value.run == key && value.seq >= run.first_seq));
            assert_eq!(values.len(), run.events as usize);
            assert_eq!(values.iter().map(|value| u64::from(value.bytes)).sum::<u64>(), run.bytes);
        }
    }
}
