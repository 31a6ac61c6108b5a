//! A state keeps the newest event of each event key, whether it is in memory or only in the store.

use std::iter::successors;
use std::sync::Arc;

use hashbrown::hash_table::Entry as Slot;

use super::super::event::Event;
use super::super::hash::SharedHasher;
use super::super::paged::Paged;
use super::runs::{Holds, Run};
use super::{Chain, Entry, History};

impl History {
    /// Makes the entry the newest with its event key.
    pub(super) fn supersede(&mut self, key: u32) {
        let Self { entries, hasher, newest_of, .. } = self;
        let of = &entries[key];
        let Some(hash) = value_hash(hasher, &of.event) else { return };
        let same = |&other: &u32| is_same_value(entries, other, of.channel, &of.event);
        let hash_of = |&key: &u32| value_hash(hasher, &entries[key].event).unwrap_or_default();
        match newest_of.entry(hash, same, hash_of) {
            Slot::Occupied(mut slot) => *slot.get_mut() = key,
            Slot::Vacant(slot) => drop(slot.insert(key)),
        }
    }

    /// Drops what this event replaces: the newest with its event key, wherever it is.
    pub fn make_way(&mut self, event: &Event, channel: u32, chain: &mut Chain, policy: u8) {
        let Some(hash) = value_hash(&self.hasher, event) else { return };
        let same = |&other: &u32| is_same_value(&self.entries, other, channel, event);
        if let Some(&replaced) = self.newest_of.find(hash, same) {
            self.lose(replaced, chain, policy);
        }
        self.lose_value(hash, policy);
    }

    pub(super) fn lose_value(&mut self, hash: u64, policy: u8) {
        let line = &mut self.lines[usize::from(policy)];
        line.bytes -= self.runs.lose_value(hash, &mut line.runs).unwrap_or(0);
    }

    /// Drops a value that only the store has, if this is it. A newer one is in memory: it came while
    /// the channel was no state.
    pub fn lose_replaced(&mut self, event: &Event, policy: u8) {
        let Some(hash) = value_hash(&self.hasher, event) else { return };
        if self.runs.value(hash) == Some(event.seq) {
            self.lose_value(hash, policy);
        }
    }

    /// Stands for the channel and the event key of an event that has one.
    pub fn value_hash(&self, event: &Event) -> Option<u64> {
        value_hash(&self.hasher, event)
    }

    /// Runs of values under a policy that begin before a place, the oldest first.
    pub fn value_runs_before(&self, policy: u8, before: u64) -> impl Iterator<Item = &Run> {
        let of_line = self.runs.from(self.lines[usize::from(policy)].runs.oldest);
        let runs = of_line.take_while(move |run| run.first_seq < before);
        runs.filter(|run| matches!(run.holds, Holds::Values(_)))
    }

    /// The oldest values under a policy that are in memory and lie before a place, at most `count_max`.
    pub fn values_before(&self, policy: u8, before: u64, count_max: usize) -> Vec<Arc<Event>> {
        let oldest = self.lines[usize::from(policy)].list.oldest;
        let at = |key: u32| self.entries.try_at(key);
        let entries = successors(at(oldest), |entry| at(entry.in_line.newer));
        let entries = entries.take_while(|entry| entry.event.seq < before);
        // Others are from a time when their channel was no state.
        let values = entries.filter(|entry| self.is_newest(&entry.event, entry.channel));
        values.map(|entry| Arc::clone(&entry.event)).take(count_max).collect()
    }

    /// Whether no newer event has replaced this one, which has an event key.
    pub fn is_newest(&self, event: &Event, channel: u32) -> bool {
        let Some(hash) = value_hash(&self.hasher, event) else { return false };
        let same = |&other: &u32| is_same_value(&self.entries, other, channel, event);
        let in_memory = self.newest_of.find(hash, same).map(|key| self.entries[*key].event.seq);
        in_memory.or_else(|| self.runs.value(hash)) == Some(event.seq)
    }
}

/// Stands for the channel and the event key of an event that has one.
pub(super) fn value_hash(hasher: &SharedHasher, event: &Event) -> Option<u64> {
    Some(hasher.key(event.channel_hash, event.event_key()?))
}

fn is_same_value(entries: &Paged<Entry>, key: u32, channel: u32, event: &Event) -> bool {
    let entry = &entries[key];
    entry.channel == channel && entry.event.event_key() == event.event_key()
}
