//! The values of states that the store alone has. Each has an entry here, so that a newer one can
//! take its place: it then leaves its run, as it would have left memory.

use std::iter::successors;

use hashbrown::HashTable;

use super::super::paged::{NIL, Paged};

/// What a value is charged against the memory of history, with its place in the table, which may be
/// half empty.
const VALUE_COST: u64 = size_of::<Value>() as u64 + 16;

/// A value that only the store has.
#[derive(Debug)]
pub(super) struct Value {
    /// Of its channel and event key: it stands for them, as two share one with probability 2^-64.
    pub hash: u64,
    pub seq: u64,
    pub bytes: u32,
    /// The index of the run it is in.
    pub run: u32,
    /// The value before it in that run.
    pub older: u32,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Values {
    slab: Paged<Value>,
    by_hash: HashTable<u32>,
}

impl Values {
    pub fn new() -> Self {
        Self { slab: Paged::new(), by_hash: HashTable::new() }
    }

    /// What they take in memory.
    pub fn cost(&self) -> u64 {
        self.slab.len() as u64 * VALUE_COST
    }

    pub fn find(&self, hash: u64) -> Option<u32> {
        // Where no channel is a state this costs nothing.
        if self.by_hash.is_empty() {
            return None;
        }
        self.by_hash.find(hash, |&key| self.slab[key].hash == hash).copied()
    }

    pub fn at(&self, key: u32) -> &Value {
        &self.slab[key]
    }

    /// The values of a run, from its newest on.
    pub fn from(&self, newest: u32) -> impl Iterator<Item = (u32, &Value)> {
        let at = |key: u32| self.slab.try_at(key).map(|value| (key, value));
        successors(at(newest), move |(_, value)| at(value.older))
    }

    /// Adds a value whose hash has none; returns its key.
    pub fn insert(&mut self, value: Value) -> u32 {
        let hash = value.hash;
        let key = self.slab.insert(value);
        let slab = &self.slab;
        self.by_hash.insert_unique(hash, key, |&key| slab[key].hash);
        key
    }

    /// Takes a value out of its run, whose newest is given.
    pub fn take(&mut self, key: u32, newest: &mut u32) -> Value {
        let newer = self.from(*newest).find(|(_, value)| value.older == key).map(|(key, _)| key);
        let value = self.remove(key);
        match newer {
            Some(newer) => self.slab[newer].older = value.older,
            None => *newest = value.older,
        }
        value
    }

    /// Removes all values of a run.
    pub fn remove_all(&mut self, mut newest: u32) {
        while newest != NIL {
            newest = self.remove(newest).older;
        }
    }

    fn remove(&mut self, key: u32) -> Value {
        let value = self.slab.remove(key);
        match self.by_hash.find_entry(value.hash, |&other| other == key) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => unreachable!("every value is in the table"),
        }
        value
    }

    /// Walks everything.
    pub fn check_invariants(&self) {
        assert_eq!(self.slab.len(), self.by_hash.len());
        assert!(self.slab.iter().all(|(key, value)| self.find(value.hash) == Some(key)));
    }
}

const _: () = assert!(size_of::<Value>() <= 32, "two values to a cache line");
