//! A worker's replicas by index and by name.

use std::ops::{Index, IndexMut};

use hashbrown::HashTable;
use slab::Slab;

use super::replica::Replica;

/// All replicas of a worker.
#[derive(Debug, Default)]
pub struct Channels {
    replicas: Slab<Replica>,
    by_name: HashTable<u32>,
    held_bytes: usize,
}

impl Channels {
    /// The replica of this name.
    pub fn find(&self, hash: u64, name: &str) -> Option<u32> {
        let same = |index: &u32| ***self.replicas[*index as usize].name() == *name;
        self.by_name.find(hash, same).copied()
    }

    /// Adds a replica; no other may have its name.
    pub fn insert(&mut self, replica: Replica) -> u32 {
        debug_assert!(self.find(replica.hash(), replica.name()).is_none());
        let hash = replica.hash();
        let index = self.replicas.insert(replica) as u32;
        let Self { replicas, by_name, .. } = self;
        by_name.insert_unique(hash, index, |index| replicas[*index as usize].hash());
        index
    }

    /// The replica at this index, if there is one.
    pub fn at(&mut self, index: u32) -> Option<&mut Replica> {
        self.replicas.get_mut(index as usize)
    }

    /// Forgets a replica without subscribers.
    pub fn remove(&mut self, index: u32) {
        let replica = self.replicas.remove(index as usize);
        debug_assert!(replica.is_unused());
        self.held_bytes -= replica.ring_bytes();
        let found = self.by_name.find_entry(replica.hash(), |at| *at == index);
        if let Ok(entry) = found {
            entry.remove();
        }
    }

    /// Changes what a replica holds, and counts the difference: no other way of changing it does.
    pub fn change(&mut self, index: u32, change: impl FnOnce(&mut Replica)) {
        let replica = &mut self.replicas[index as usize];
        self.held_bytes -= replica.ring_bytes();
        change(replica);
        self.held_bytes += replica.ring_bytes();
    }

    /// Bytes all of them hold.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.replicas.iter_mut().map(|(_, replica)| replica)
    }

    /// All replicas with their indices.
    pub fn entries(&self) -> impl Iterator<Item = (u32, &Replica)> {
        self.replicas.iter().map(|(index, replica)| (index as u32, replica))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().map(|(_, replica)| replica)
    }
}

impl Index<u32> for Channels {
    type Output = Replica;

    fn index(&self, index: u32) -> &Replica {
        &self.replicas[index as usize]
    }
}

impl IndexMut<u32> for Channels {
    fn index_mut(&mut self, index: u32) -> &mut Replica {
        &mut self.replicas[index as usize]
    }
}
