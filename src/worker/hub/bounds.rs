//! What replicas may hold for slow readers, each on its own and all together.

use super::Hub;
use super::reading::Reading;
use crate::config::SlowPolicy;
use crate::limits::TICK;

/// How much a replica keeps for slow readers, and what happens to a reader that falls out of it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most events in the ring.
    pub events_max: usize,
    /// Most bytes of them, as history charges them.
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

impl Hub {
    /// Drops events that every subscriber has.
    pub(super) fn trim(&mut self, index: u32) {
        let replica = &self.channels[index];
        if !replica.wants_trim() {
            return;
        }
        let needed = replica.followers().iter().filter_map(|&slot| self.needed_from(slot, index));
        let slowest = needed.min().unwrap_or(u64::MAX);
        self.channels.change(index, |replica| replica.trim(slowest));
    }

    /// The `seq` after which a follower must find events in the replica, if it relies on it.
    fn needed_from(&self, slot: u32, replica: u32) -> Option<u64> {
        let explicit = self.explicit(slot)?;
        let sub = explicit.subs.iter().find(|sub| sub.replica == replica)?;
        explicit.needed_from(sub, self.channels[replica].base())
    }

    /// The same, but `None` for a follower that has to read a page first.
    fn followed_from(&self, slot: u32, replica: u32) -> Option<u64> {
        let follows = matches!(self.explicit(slot)?.reading, Reading::Replicas);
        self.needed_from(slot, replica).filter(|_| follows)
    }

    /// Keeps a replica within its bounds; a reader that falls out of it is a slow consumer.
    pub(super) fn shed(&mut self, index: u32) {
        let bounds = self.bounds(self.channels[index].bounds());
        self.shed_to(index, bounds);
    }

    /// Relieves memory if all replicas together hold more than they may: each is cut to an equal
    /// share, so that replicas whose readers keep up lose nothing. Done at most once a tick, as it
    /// walks all of them.
    pub fn relieve(&mut self) {
        let bytes_max = self.settings.replicas_bytes_max();
        if self.channels.held_bytes() <= bytes_max || self.now < self.relieve_at {
            return;
        }
        self.relieve_at = self.now + TICK;
        let entries = self.channels.entries();
        let holding = entries.filter(|(_, replica)| replica.ring_bytes() > 0);
        let holding: Vec<(u32, u16)> =
            holding.map(|(index, replica)| (index, replica.bounds())).collect();
        let share = bytes_max / holding.len().max(1);
        for (index, bounds) in holding {
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
        // Cut further than needed, so that slow readers are not searched for at every event.
        self.channels.change(index, |replica| replica.shed(&bounds.reduced()));
        let base = self.channels[index].base();
        let behind = cursors.into_iter().filter(|(_, cursor)| *cursor < base);
        self.too_slow.extend(behind.map(|(slot, _)| slot));
    }

    /// The next subscriber that was too slow for a channel that disconnects such readers.
    pub fn next_too_slow(&mut self) -> Option<u32> {
        self.too_slow.pop()
    }

    fn bounds(&self, index: u16) -> Bounds {
        let of = self.settings.channel_at(usize::from(index));
        Bounds {
            events_max: of.replica_events_max(),
            bytes_max: self.settings.replica_bytes,
            slow: of.slow,
        }
    }
}
