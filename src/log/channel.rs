//! Channels: found by name, addressed by a small index.

use std::sync::Arc;

use bitflags::bitflags;
use hashbrown::HashTable;

use super::channel_name::ChannelName;
use super::history::Chain;
use super::interest::Interest;
use super::older::OlderChannel;
use super::paged::Paged;
use crate::bucket::Bucket;

/// What the log knows about a channel. A million private channels are a million of these, so only
/// what all of them need is in here.
#[derive(Debug)]
pub(super) struct Channel {
    pub name: Arc<ChannelName>,
    /// The name's hash: the table needs it whenever it grows, without touching the name.
    pub hash: u64,
    /// The highest seq of this channel that history no longer holds (or may have held).
    pub evicted_to: u64,
    /// The newest event ordered here; 0 if none is known.
    pub last_seq: u64,
    /// State of the publish rate, see `Policy::admit`.
    pub rate: Bucket,
    pub interest: Interest,
    pub chain: Chain,
    /// Events ordered here that are not committed yet.
    pub pending: u16,
    pub facts: Facts,
    /// Index of its policy.
    pub policy: u8,
}

const _: () = assert!(size_of::<Channel>() <= 72, "a private channel is mostly this");

bitflags! {
    /// Facts about a channel.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Facts: u8 {
        /// It has members, or announces that some have left.
        const HAS_MEMBERS = 1 << 0;
        /// This process announces its members: what an earlier process announced has been taken back,
        /// or will be.
        const TELLS_PRESENCE = 1 << 1;
    }
}

impl Channel {
    /// Whether nothing reads it and nothing of it is in memory: unless the store has events of it,
    /// what is left to remember fits a tombstone.
    pub fn is_idle(&self) -> bool {
        let has_members = self.facts.contains(Facts::HAS_MEMBERS);
        self.interest.is_none() && self.chain.is_empty() && self.pending == 0 && !has_members
    }

    /// It is about to be read from its beginning, where only the store has it.
    pub fn older(&self) -> OlderChannel {
        let (name, hash) = (self.name.clone(), self.hash);
        OlderChannel { name, hash, after: 0, ranges: Vec::new(), lost_to: 0 }
    }

    /// Subscribers of all workers together.
    pub fn subscribers(&self) -> u32 {
        self.interest.subscribers().saturating_add(self.name.local())
    }

    /// `is_held`: it has a stream.
    pub fn check_invariants(&self, keeps_events: bool, is_held: bool) {
        self.interest.check_invariants();
        assert!(keeps_events || is_held || !self.is_idle(), "an idle channel is freed at once");
        assert_eq!(keeps_events, self.last_seq > self.evicted_to);
    }
}

#[derive(Debug)]
pub(super) struct Channels {
    slab: Paged<Channel>,
    by_name: HashTable<u32>,
}

impl Channels {
    pub fn new() -> Self {
        Self { slab: Paged::new(), by_name: HashTable::new() }
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    #[inline]
    pub fn find(&self, hash: u64, name: &str) -> Option<u32> {
        let same = |&index: &u32| {
            let channel = &self.slab[index];
            channel.hash == hash && **channel.name == *name
        };
        self.by_name.find(hash, same).copied()
    }

    /// Adds a channel that is not in the table yet.
    pub fn insert(&mut self, channel: Channel) -> u32 {
        debug_assert!(self.find(channel.hash, &channel.name).is_none());
        let hash = channel.hash;
        let index = self.slab.insert(channel);
        let slab = &self.slab;
        self.by_name.insert_unique(hash, index, |&index| slab[index].hash);
        index
    }

    pub fn remove(&mut self, index: u32) -> Channel {
        let channel = self.slab.remove(index);
        match self.by_name.find_entry(channel.hash, |&other| other == index) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => unreachable!("every channel is in the table"),
        }
        channel
    }

    #[inline]
    pub fn at(&self, index: u32) -> &Channel {
        &self.slab[index]
    }

    #[inline]
    pub fn at_mut(&mut self, index: u32) -> &mut Channel {
        &mut self.slab[index]
    }

    /// The channel at an index, if there is one.
    pub fn try_at(&self, index: u32) -> Option<&Channel> {
        self.slab.try_at(index)
    }

    /// One past the highest index that may be in use.
    pub fn index_end(&self) -> u32 {
        self.slab.index_end()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Channel)> {
        self.slab.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Channel)> {
        self.slab.iter_mut()
    }

    pub fn check_invariants(
        &self,
        keeps_events: impl Fn(u32, &Channel) -> bool,
        is_held: impl Fn(u32) -> bool,
    ) {
        assert_eq!(self.by_name.len(), self.slab.len());
        for (index, channel) in self.iter() {
            channel.check_invariants(keeps_events(index, channel), is_held(index));
            assert_eq!(self.find(channel.hash, &channel.name), Some(index));
        }
    }
}
