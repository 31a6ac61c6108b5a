//! What is left of freed channels: enough that a returning cursor is never told "nothing was lost"
//! when something was.

use hashbrown::HashTable;

use super::list::{Links, List};
use super::paged::Paged;
use crate::bucket::Bucket;

/// Freed channels remembered one by one: a quarter of a million that went quiet, in about 13 MB.
/// Beyond that, a subscriber that returns or asks for `earliest` may be told of a gap where there
/// is none.
pub(crate) const TOMBSTONES_MAX: usize = 1 << 18;

/// A freed channel. It is known by its keyed 64-bit hash alone: two names collide with probability
/// 2^-64.
#[derive(Debug)]
pub(super) struct Tombstone {
    hash: u64,
    /// Its newest event. All its events are gone, so this is its `evicted_to` as well.
    pub last_seq: u64,
    /// State of its publish rate, so that the rate applies to a channel without subscribers, too.
    pub rate: Bucket,
    links: Links,
}

/// Tombstones in order of burial; the oldest falls out first.
#[derive(Debug)]
pub(super) struct Tombstones {
    slab: Paged<Tombstone>,
    by_hash: HashTable<u32>,
    order: List,
    count_max: usize,
    forgotten_to: u64,
}

impl Tombstones {
    pub fn new(count_max: usize) -> Self {
        Self {
            slab: Paged::new(),
            by_hash: HashTable::new(),
            order: List::EMPTY,
            count_max,
            forgotten_to: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Every channel without a tombstone may have lost events up to here.
    pub fn forgotten_to(&self) -> u64 {
        self.forgotten_to
    }

    /// Forgets all about events up to here.
    pub(crate) fn forget_to(&mut self, seq: u64) {
        self.forgotten_to = self.forgotten_to.max(seq);
    }

    pub fn find(&self, hash: u64) -> Option<&Tombstone> {
        let key = self.by_hash.find(hash, |&key| self.slab[key].hash == hash)?;
        Some(&self.slab[*key])
    }

    /// Remembers a channel that had events and was freed.
    pub(crate) fn bury(&mut self, hash: u64, last_seq: u64, rate: Bucket) {
        let earlier = self.unearth(hash);
        let last_seq = earlier.map_or(last_seq, |stone| stone.last_seq.max(last_seq));
        if self.len() >= self.count_max {
            self.forget_oldest();
        }
        if self.count_max == 0 {
            self.forgotten_to = self.forgotten_to.max(last_seq);
            return;
        }
        let stone = Tombstone { hash, last_seq, rate, links: Links::ALONE };
        let key = self.slab.insert(stone);
        self.order.push(key, &mut self.slab, |stone| &mut stone.links);
        let slab = &self.slab;
        self.by_hash.insert_unique(hash, key, |&key| slab[key].hash);
    }

    /// Takes a channel's tombstone because the channel lives again.
    pub(crate) fn unearth(&mut self, hash: u64) -> Option<Tombstone> {
        let slab = &self.slab;
        let entry = self.by_hash.find_entry(hash, |&key| slab[key].hash == hash).ok()?;
        let (key, _) = entry.remove();
        self.order.unlink(key, &mut self.slab, |stone| &mut stone.links);
        Some(self.slab.remove(key))
    }

    pub fn check_invariants(&self, head_seq: u64) {
        assert!(self.len() <= self.count_max);
        assert_eq!(self.len(), self.by_hash.len());
        assert!(self.forgotten_to <= head_seq);
        for (_, stone) in self.slab.iter() {
            assert!(stone.last_seq > 0 && stone.last_seq <= head_seq);
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.first() else { return };
        let hash = self.slab[oldest].hash;
        if let Some(stone) = self.unearth(hash) {
            self.forgotten_to = self.forgotten_to.max(stone.last_seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_out_raises_the_bound_for_all_unknown_channels() {
        let mut stones = Tombstones::new(2);
        for (hash, last_seq) in [(1, 10), (2, 20), (3, 30)] {
            stones.bury(hash, last_seq, Bucket::default());
            stones.check_invariants(30);
        }
        assert_eq!(stones.forgotten_to(), 10);
        assert!(stones.find(1).is_none());
        assert_eq!(stones.find(2).map(|stone| stone.last_seq), Some(20));
    }

    #[test]
    fn burying_again_renews_the_place_in_line() {
        let mut stones = Tombstones::new(2);
        for (hash, last_seq) in [(1, 10), (2, 20), (1, 30), (3, 40)] {
            stones.bury(hash, last_seq, Bucket::default());
            stones.check_invariants(40);
        }
        assert_eq!(stones.forgotten_to(), 20);
        assert_eq!(stones.unearth(1).map(|stone| stone.last_seq), Some(30));
        assert_eq!(stones.len(), 1);
    }
}
