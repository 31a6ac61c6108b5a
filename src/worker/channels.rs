//! The worker's replicas by index and by name, and how connections enter and leave them.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use super::core::Core;
use super::reading::Reading;
use super::replica::{Bounds, Live, Moved, Replica};
use super::slot::{Flags, NONE};
use super::work::{Sub, Work};
use crate::config::{Settings, SlowPolicy};
use crate::limits::TICK;
use crate::log::ChannelName;
use crate::log::message::LeaveChannel;
use crate::reason::CloseReason;

/// All replicas of a worker.
#[derive(Debug, Default)]
pub struct Channels {
    replicas: Slab<Replica>,
    by_name: HashTable<u32>,
    held_bytes: usize,
}

impl Channels {
    /// The replica of this name.
    pub fn find(&self, name: &str, hash: u64) -> Option<u32> {
        let same = |index: &u32| **self.replicas[*index as usize].name == *name;
        self.by_name.find(hash, same).copied()
    }

    /// Adds a replica; there is none of its name.
    pub fn insert(&mut self, replica: Replica) -> u32 {
        debug_assert!(self.find(&replica.name, replica.hash).is_none());
        let hash = replica.hash;
        let index = self.replicas.insert(replica) as u32;
        let Self { replicas, by_name, .. } = self;
        by_name.insert_unique(hash, index, |index| replicas[*index as usize].hash);
        index
    }

    /// The replica at this index, if there is one.
    pub fn at(&mut self, index: u32) -> Option<&mut Replica> {
        self.replicas.get_mut(index as usize)
    }

    /// Forgets a replica nobody uses.
    pub fn remove(&mut self, index: u32) {
        let replica = self.replicas.remove(index as usize);
        debug_assert!(replica.is_unused());
        self.held_bytes -= replica.ring_bytes();
        let found = self.by_name.find_entry(replica.hash, |at| *at == index);
        if let Ok(entry) = found {
            entry.remove();
        }
    }

    /// Changes what a replica holds; changed in another way, it would be counted wrongly.
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

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.replicas.iter_mut().map(|(_, replica)| replica)
    }

    /// All of them with their indices.
    pub fn entries(&self) -> impl Iterator<Item = (u32, &Replica)> {
        self.replicas.iter().map(|(index, replica)| (index as u32, replica))
    }

    /// All of them.
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

impl Core {
    /// From now on these hold. A replica that is now too large shrinks with its next event.
    pub(super) fn apply_settings(&mut self, settings: Arc<Settings>) {
        for replica in self.channels.iter_mut() {
            replica.bounds = settings.channel_index(&replica.name) as u16;
        }
        self.sweep.set_period(settings.heartbeat);
        self.setup.settings = settings;
    }

    /// The replica of this name, made if there is none.
    pub(super) fn find_or_make_replica(&mut self, name: &str) -> u32 {
        let hash = self.setup.hasher.channel(name);
        if let Some(index) = self.channels.find(name, hash) {
            return index;
        }
        let bounds = self.setup.settings.channel_index(name) as u16;
        self.channels.insert(Replica::new(Arc::new(ChannelName::new(name)), hash, bounds))
    }

    // --- live and explicit ---

    /// Gives a live subscriber a cursor of its own. Its work is returned to be filled in.
    pub(super) fn make_explicit(&mut self, index: u32, cursor: u64) -> &mut Work {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.flags.has(Flags::LIVE));
        slot.flags.clear(Flags::LIVE);
        let (replica, live_index) = (slot.replica, slot.live_index);
        slot.replica = NONE;
        slot.live_index = NONE;
        let moves = self.channels[replica].remove_live(live_index);
        self.note_live_moves(moves);
        let follower = self.channels[replica].add_follower(index);
        self.metrics.live.sub(1);
        let work = self.work(index);
        debug_assert!(work.subs.is_empty());
        work.subs.push(Sub { replica, index: follower, cursor, gap: None });
        work.position = cursor;
        work
    }

    /// Where a live subscriber stands.
    pub(super) fn live_cursor(&self, index: u32) -> u64 {
        let slot = &self.slots[index as usize];
        self.channels[slot.replica].live_cursor(slot.live_index)
    }

    /// Nothing to send: a subscriber of one channel that has caught up becomes live, and work that
    /// holds nothing goes back to the pool.
    pub(super) fn relax(&mut self, index: u32) {
        if self.say_farewell_if_due(index) {
            return;
        }
        let slot = &self.slots[index as usize];
        let Some(work) = &slot.work else { return };
        let stays = slot.is_subscriber() && work.farewell.is_none();
        if stays && !work.has_output() && work.subs.len() == 1 {
            let sub = &work.subs[0];
            let replica = &self.channels[sub.replica];
            let follows = matches!(work.reading, Reading::Replicas) && sub.cursor >= replica.base;
            if follows && sub.gap.is_none() && replica.is_live_cursor(sub.cursor) {
                self.make_live(index);
            }
        }
        self.finish_if_done(index);
        self.free_idle_work(index);
    }

    fn make_live(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(sub) = slot.work.as_mut().and_then(|work| work.subs.pop()) else { return };
        let moved = self.channels[sub.replica].remove_follower(sub.index);
        self.note_follower_move(sub.replica, moved);
        let slot = &mut self.slots[index as usize];
        let live = Live::new(index, slot.variant);
        let (place, moved) = self.channels[sub.replica].add_live(live);
        slot.flags.set(Flags::LIVE);
        slot.replica = sub.replica;
        slot.live_index = place;
        self.note_live_moves([moved, None]);
        self.metrics.live.add(1);
        self.trim(sub.replica);
    }

    fn note_live_moves(&mut self, moves: [Option<Moved>; 2]) {
        for moved in moves.into_iter().flatten() {
            self.slots[moved.slot as usize].live_index = moved.index;
        }
    }

    fn note_follower_move(&mut self, replica: u32, moved: Option<Moved>) {
        let Some(moved) = moved else { return };
        let work = self.slots[moved.slot as usize].work.as_mut();
        let sub = work.and_then(|work| work.subs.iter_mut().find(|sub| sub.replica == replica));
        debug_assert!(sub.is_some(), "a follower has a subscription");
        if let Some(sub) = sub {
            sub.index = moved.index;
        }
    }

    // --- leaving ---

    /// Takes the connection out of all its channels.
    pub(super) fn leave_all(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.flags.has(Flags::LIVE) {
            slot.flags.clear(Flags::LIVE);
            let (replica, live_index) = (slot.replica, slot.live_index);
            slot.replica = NONE;
            let moves = self.channels[replica].remove_live(live_index);
            self.note_live_moves(moves);
            self.metrics.live.sub(1);
            self.metrics.subscriptions.sub(1);
            self.left(replica);
        }
        if let Some(work) = &mut self.slots[index as usize].work {
            work.read_anew();
        }
        while let Some(sub) =
            self.slots[index as usize].work.as_mut().and_then(|work| work.subs.pop())
        {
            self.drop_sub(sub);
        }
    }

    /// A subscription that was taken out of its connection ends.
    pub(super) fn drop_sub(&mut self, sub: Sub) {
        let moved = self.channels[sub.replica].remove_follower(sub.index);
        self.note_follower_move(sub.replica, moved);
        self.metrics.subscriptions.sub(1);
        self.left(sub.replica);
    }

    /// One subscriber of ours left. Those who joined here go first, so that while there is anyone
    /// the log counts one; it hears of the others at the end of the turn.
    pub(super) fn left(&mut self, replica: u32) {
        let of = &mut self.channels[replica];
        if of.locally_joined > 0 {
            of.locally_joined -= 1;
            of.name.exit();
            return self.forget_if_unused(replica);
        }
        of.log_joined -= 1;
        let name = of.name.clone();
        match self.leaves.last_mut() {
            Some(last) if Arc::ptr_eq(&last.name, &name) => last.subscribers += 1,
            _ => self.leaves.push(LeaveChannel { name, subscribers: 1 }),
        }
        self.forget_if_unused(replica);
    }

    pub(super) fn forget_if_unused(&mut self, replica: u32) {
        if self.channels[replica].is_unused() {
            self.channels.remove(replica);
        } else {
            self.trim(replica);
        }
    }

    // --- keeping replicas short ---

    /// Lets go of events everyone has.
    pub(super) fn trim(&mut self, index: u32) {
        let replica = &self.channels[index];
        if !replica.wants_trim() {
            return;
        }
        let needed = replica.followers().iter().filter_map(|&slot| self.needed_from(slot, index));
        let slowest = needed.min().unwrap_or(u64::MAX);
        self.channels.change(index, |replica| replica.trim(slowest));
    }

    /// From where on a follower has to find events in the replica.
    fn needed_from(&self, slot: u32, replica: u32) -> Option<u64> {
        let work = self.slots[slot as usize].work.as_ref()?;
        let sub = work.subs.iter().find(|sub| sub.replica == replica)?;
        work.needed_from(sub, self.channels[replica].base)
    }

    /// The same of one that has no page to read first.
    fn followed_from(&self, slot: u32, replica: u32) -> Option<u64> {
        let work = self.slots[slot as usize].work.as_ref()?;
        let follows = matches!(work.reading, Reading::Replicas);
        self.needed_from(slot, replica).filter(|_| follows)
    }

    /// Keeps a replica within its bounds; who falls out of it is a slow consumer.
    pub(super) fn shed(&mut self, index: u32) {
        let bounds = self.bounds(self.channels[index].bounds);
        self.shed_to(index, bounds);
    }

    /// All replicas together hold more than they may: each is brought down to an equal share, so
    /// that those whose readers keep up give nothing. Looked at once a tick, as this walks all of
    /// them.
    pub(super) fn relieve(&mut self) {
        let bytes_max = self.setup.settings.replicas_bytes_max();
        if self.channels.held_bytes() <= bytes_max || self.now < self.relieve_at {
            return;
        }
        self.relieve_at = self.now + TICK;
        let entries = self.channels.entries();
        let holding = entries.filter(|(_, replica)| replica.ring_bytes() > 0);
        let holding: Vec<u32> = holding.map(|(index, _)| index).collect();
        let share = bytes_max / holding.len().max(1);
        for index in holding {
            // The last readers of this one may just have been disconnected from another.
            let Some(replica) = self.channels.at(index) else { continue };
            let bounds = replica.bounds;
            self.shed_to(index, self.bounds(bounds).share(share));
        }
    }

    fn shed_to(&mut self, index: u32, bounds: Bounds) {
        if !self.channels[index].is_over(&bounds) {
            return;
        }
        self.trim(index);
        if !self.channels[index].is_over(&bounds) {
            return;
        }
        if bounds.slow == SlowPolicy::Skip {
            self.channels.change(index, |replica| replica.shed(&bounds));
            return;
        }
        let followers = self.channels[index].followers().iter();
        let cursors = followers.filter_map(|&slot| Some((slot, self.followed_from(slot, index)?)));
        let cursors: Vec<(u32, u64)> = cursors.collect();
        // So that looking for who fell behind is not paid per event.
        self.channels.change(index, |replica| replica.shed(&bounds.reduced()));
        let base = self.channels[index].base;
        for (slot, _) in cursors.into_iter().filter(|(_, cursor)| *cursor < base) {
            self.disconnect(slot, CloseReason::SlowConsumer);
        }
    }

    fn bounds(&self, index: u16) -> Bounds {
        let settings = &self.setup.settings;
        let of = settings.channel_at(usize::from(index));
        Bounds {
            events_max: of.replica_events_max(),
            bytes_max: settings.replica_bytes,
            slow: of.slow,
        }
    }
}
