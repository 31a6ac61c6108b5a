//! Restores a log from its store. The newest events are fed ([`ToLog::Feed`]); older ones, for which
//! memory will have no room, are listed in runs and not read.
//!
//! [`ToLog::Feed`]: super::message::ToLog::Feed

use std::time::Duration;

use hashbrown::HashMap;

use super::history::runs::{Holds, Run};
use super::list::Links;
use super::message::{FromLog, Share};
use super::policy::{Keeps, LogSettings};
use super::sequencer::{Outlet, Sequencer};

/// Events of one channel that lie close together.
#[derive(Clone, Copy, Debug)]
pub struct FedRun<'a> {
    /// Their channel's name.
    pub channel: &'a str,
    /// The first of them.
    pub first_seq: u64,
    /// The last of them.
    pub last_seq: u64,
    /// When that was ordered, on the log's clock.
    pub newest_at: Duration,
    /// How many there are.
    pub events: u32,
    /// What history charges for them.
    pub bytes: u64,
}

impl Sequencer {
    /// Lists events that only the store has. Runs come before all events that will be in memory, in the
    /// order of their first events.
    pub(crate) fn follow_run(&mut self, fed: &FedRun<'_>) {
        debug_assert_eq!(self.history.in_memory(), 0);
        let hash = self.hasher.channel(fed.channel);
        let found = self.channels.find(hash, fed.channel);
        let index = found.unwrap_or_else(|| self.create_in_room(hash, fed.channel));
        self.order.follow(fed.last_seq);
        self.order.show(fed.last_seq);
        self.counters.published += u64::from(fed.events);
        let channel = self.channels.at_mut(index);
        channel.last_seq = fed.last_seq;
        if self.settings.policies.at(channel.policy).events_max() == 0 {
            channel.evicted_to = fed.last_seq;
            self.counters.evicted_by_count += u64::from(fed.events);
            return self.free_if_idle(index);
        }
        let &FedRun { first_seq, last_seq, newest_at, events, bytes, .. } = fed;
        let (in_line, holds) = (Links::ALONE, Holds::All);
        let run =
            Run { first_seq, last_seq, newest_at, bytes, events, channel: index, in_line, holds };
        self.history.list_run(run, channel.policy);
        self.trim_to_count(index);
        self.trim_to_bytes();
    }

    /// Channels may have lost events up to here that the store knows nothing about any more. Must be
    /// called before newer events are fed.
    pub(crate) fn forget_to(&mut self, seq: u64) {
        self.tombstones.forget_to(seq);
    }

    /// What memory will have room for, if the log is fed at the time `now`.
    pub fn room(&self, now: Duration) -> Room {
        Room {
            settings: self.settings.clone(),
            now,
            bytes_left: self.settings.history_memory_bytes_max,
            events: HashMap::new(),
        }
    }
}

/// How many of the newest events fit into memory. It is shown runs from the newest to the oldest.
#[derive(Debug)]
pub struct Room {
    settings: LogSettings,
    now: Duration,
    bytes_left: u64,
    /// Events of each channel so far.
    events: HashMap<String, u32>,
}

impl Room {
    /// Whether no room is left.
    pub fn is_full(&self) -> bool {
        self.bytes_left == 0
    }

    /// Takes the next older run.
    pub fn take(&mut self, of: &FedRun<'_>) {
        let policy = self.settings.policies.of(of.channel);
        let newer = self.events.entry_ref(of.channel).or_insert(0);
        let is_gone = self.now.saturating_sub(of.newest_at) >= policy.history_age;
        if !is_gone && *newer < policy.events_max() {
            *newer = newer.saturating_add(of.events);
            self.bytes_left = self.bytes_left.saturating_sub(of.bytes);
        }
    }

    /// Whether a stream that ended at this time is still kept for late readers.
    pub(crate) fn keeps_stream(&self, ended_at: Duration) -> bool {
        self.now.saturating_sub(ended_at) < self.settings.streams.keep
    }

    /// Whether some channels are states, whose events replace older ones.
    pub(crate) fn has_states(&self) -> bool {
        self.settings.policies.all().any(|policy| policy.keeps == Keeps::Latest)
    }
}

/// An outlet for a log without subscribers.
#[derive(Debug)]
pub struct Nowhere;

impl Outlet for Nowhere {
    fn has_room(&self, _worker: u16, _share: Share, _reserved: usize) -> bool {
        true
    }

    fn send(&mut self, _worker: u16, _told: FromLog) {}
}
