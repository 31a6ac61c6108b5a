//! What the log says of itself, and whether it contradicts itself. Nothing here changes it.

use hashbrown::{HashMap, HashSet};

use super::channel::{Channel, Facts};
use super::history::runs::RUN_EVENTS_MAX;
use super::message::Description;
use super::sequencer::Sequencer;
use super::stats::{ChannelPage, LogStats};

/// Indices one call of [`Sequencer::channels`] looks at: after a million channels were freed a page
/// may be short, but not late.
pub const LISTED_PER_CALL: u32 = 10_000;

impl Sequencer {
    /// The log's present figures.
    pub fn stats(&self) -> LogStats {
        LogStats {
            head_seq: self.order.head(),
            events: self.history.events(),
            bytes: self.history.bytes(),
            bytes_max: self.settings.history_bytes_max,
            channels: self.channels.len() as u64,
            tombstones: self.tombstones.len() as u64,
            streams: self.streams.open(),
            stream_events: self.streams.kept_events(),
            stream_bytes: self.streams.kept_bytes(),
            members: self.presence.count(),
            store_is_down: !self.store_is_up,
            forgotten_to: self.tombstones.forgotten_to(),
            counters: self.counters,
        }
    }

    /// Up to `limit` channels from index `from` on (0 for the first page, then
    /// [`ChannelPage::next`]). Channels created or freed meanwhile may be missed; any other is
    /// listed exactly once.
    pub fn channels(&self, from: u32, limit: usize) -> ChannelPage {
        let end = self.channels.index_end();
        let stop = end.min(from.saturating_add(LISTED_PER_CALL));
        let mut page = ChannelPage::default();
        for index in from..stop {
            let Some(channel) = self.channels.try_at(index) else { continue };
            if page.channels.len() >= limit {
                page.next = Some(index);
                return page;
            }
            page.channels.push((channel.name.clone(), self.description_of(index, channel)));
        }
        page.next = (stop < end).then_some(stop);
        page
    }

    /// Subscribers of a channel, all workers together.
    pub fn subscribers(&self, name: &str) -> u32 {
        let found = self.channels.find(self.hasher.channel(name), name);
        found.map_or(0, |index| self.channels.at(index).subscribers())
    }

    pub(super) fn describe(&self, name: &str) -> Description {
        let hash = self.hasher.channel(name);
        if let Some(index) = self.channels.find(hash, name) {
            let of = self.description_of(index, self.channels.at(index));
            let kept = self.streams.kept(index, 0).map(|first| first.seq);
            let events = of.events + of.kept.events;
            return Description { first_seq: kept.or(of.first_seq), events, ..of };
        }
        let last_seq = self.tombstones.find(hash).map(|stone| stone.last_seq);
        Description { last_seq, ..Description::default() }
    }

    fn description_of(&self, index: u32, channel: &Channel) -> Description {
        Description {
            last_seq: (channel.last_seq > 0).then_some(channel.last_seq),
            first_seq: self.history.first_seq(&channel.chain, index),
            events: self.history.events_of(&channel.chain, index),
            subscribers: channel.subscribers(),
            stream: self.streams.at(index),
            kept: self.streams.kept_of(index),
        }
    }

    /// Panics if the log contradicts itself. Walks everything.
    pub fn check_invariants(&self) {
        self.channels.check_invariants(
            |index, channel| self.history.events_of(&channel.chain, index) > 0,
            |index| self.streams.has(index),
        );
        self.tombstones.check_invariants(self.order.head());
        self.streams.check_invariants(|channel| self.channels.try_at(channel).is_some());
        let chains = self.channels.iter().map(|(index, c)| (index, &c.chain, c.policy));
        self.history.check_invariants(chains);
        assert!(self.history.bytes() <= self.settings.history_bytes_max);
        assert!(self.history.memory_bytes() <= self.settings.history_memory_bytes_max);
        for (index, channel) in self.channels.iter() {
            let policy = self.settings.policies.at(channel.policy);
            assert_eq!(channel.policy, self.settings.policies.index_of(&channel.name));
            assert!(channel.chain.len() <= policy.events_max());
            let events = self.history.events_of(&channel.chain, index);
            assert!(events < policy.events_max().saturating_add(RUN_EVENTS_MAX));
            assert!(
                channel.last_seq <= self.order.head() && channel.evicted_to <= self.order.head()
            );
            let first = self.history.first_seq(&channel.chain, index);
            assert!(first.is_none_or(|seq| channel.evicted_to < seq && seq <= channel.last_seq));
            assert!(self.tombstones.find(channel.hash).is_none(), "the living have none");
        }
        self.check_pending();
    }

    fn check_pending(&self) {
        self.order.check_invariants();
        let mut waiting = HashMap::<u32, u16>::new();
        self.pending.check_invariants(|channel| *waiting.entry(channel).or_default() += 1);
        for (index, channel) in self.channels.iter() {
            assert_eq!(channel.pending, waiting.remove(&index).unwrap_or(0));
        }
        assert!(waiting.is_empty(), "a channel with events that wait is not freed");
        let mut of_presence = HashSet::new();
        self.presence.check_invariants(|channel| assert!(of_presence.insert(channel)));
        for (index, channel) in self.channels.iter() {
            assert_eq!(channel.facts.contains(Facts::HAS_MEMBERS), of_presence.remove(&index));
        }
        assert!(of_presence.is_empty(), "a channel with members is not freed");
    }
}
