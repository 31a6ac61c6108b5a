//! What an operator sees of a worker's connections, and how one is cut.
//!
//! A worker answers with what a few hundred slots hold and where to look on: nothing is kept
//! between two looks, and no look takes longer than a small fan-out.

use std::net::IpAddr;
use std::sync::Arc;

use super::core::Core;
use super::slot::{Phase, Slot};
use crate::auth::Grant;
use crate::log::ChannelName;
use crate::reason::CloseReason;
use crate::ring::Token;

/// Slots one look goes over: some 50 µs, and the worker does nothing else meanwhile.
pub const SLOTS_PER_LOOK: u32 = 256;

/// Channels of one connection that are named; the others are only counted.
pub const CHANNELS_NAMED_MAX: usize = 16;

/// What a look found.
#[derive(Debug)]
pub struct Glance {
    /// In the order of their slots.
    pub connections: Vec<Seen>,
    /// Where the next look begins; `None` after the last slot.
    pub next: Option<u32>,
}

/// One connection as it was then.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which.
    pub token: Token,
    /// What it is.
    pub phase: Phase,
    /// Seconds since it was accepted.
    pub age_s: u32,
    /// Whose it is, if addresses are known.
    pub client: Option<IpAddr>,
    /// Its channels, [`CHANNELS_NAMED_MAX`] at most.
    pub channels: Vec<Arc<ChannelName>>,
    /// How many channels it has.
    pub channel_count: usize,
    /// Whether it is live: has no cursor of its own, because all there is has been sent to it.
    pub live: bool,
    /// Events its worker holds that were not sent to it yet, all its channels together.
    pub behind: usize,
    /// What it may do, and who it is; none while it is anonymous on an open server.
    pub grant: Option<Arc<Grant>>,
}

impl Core {
    /// Looks at connections from this slot on; shows `limit` at most, of all or of one subject.
    pub(super) fn look(&self, from: u32, limit: usize, subject: Option<&str>) -> Glance {
        let end = self.slots.len() as u32;
        let stop = end.min(from.saturating_add(SLOTS_PER_LOOK));
        let mut connections = Vec::new();
        for index in from..stop {
            if connections.len() >= limit {
                return Glance { connections, next: Some(index) };
            }
            let slot = &self.slots[index as usize];
            let of_slot = slot.grant.as_ref().and_then(|grant| grant.subject());
            if slot.phase != Phase::Free && (subject.is_none() || of_slot == subject) {
                connections.push(self.see(index, slot));
            }
        }
        Glance { connections, next: (stop < end).then_some(stop) }
    }

    fn see(&self, index: u32, slot: &Slot) -> Seen {
        let mut seen = Seen {
            token: self.token(index),
            phase: slot.phase,
            age_s: (self.now.as_secs() as u32).wrapping_sub(slot.opened_s),
            client: self.client(index),
            channels: Vec::new(),
            channel_count: 0,
            live: slot.is_live(),
            behind: 0,
            grant: slot.grant.clone(),
        };
        let live = slot.is_live().then(|| (slot.replica, self.live_cursor(index)));
        let subs = slot.work.iter().flat_map(|work| &work.subs);
        for (replica, cursor) in live.into_iter().chain(subs.map(|sub| (sub.replica, sub.cursor))) {
            let replica = &self.channels[replica];
            seen.channel_count += 1;
            seen.behind += replica.behind(cursor);
            if seen.channels.len() < CHANNELS_NAMED_MAX {
                seen.channels.push(replica.name.clone());
            }
        }
        seen
    }

    /// Ends a connection; whether it was there. One that is ending already is as good as gone.
    pub(super) fn cut(&mut self, token: Token) -> bool {
        if !self.is_current(token) || self.slots[token.slot as usize].ending.is_some() {
            return false;
        }
        self.disconnect(token.slot, CloseReason::Operator);
        true
    }
}
