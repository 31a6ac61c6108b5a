//! What is kept of streams beside history: events that history has dropped, until the stream is
//! forgotten, and the tokens of streams that have ended, until they are merged.

use std::sync::Arc;

use super::Streams;
use crate::log::event::Event;
use crate::log::history::bytes_of;
use crate::log::message::KeptOfStream;

impl Streams {
    // --- events that history drops ---

    /// History drops an event. If it is of a stream it is kept, within `bytes_max` for the stream and
    /// `all_max` for all. Returns how many events were cut for that.
    pub fn keep(&mut self, channel: u32, event: &Arc<Event>, bytes_max: u64, all_max: u64) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let stream = self.by_channel.get_mut(&channel);
        let Some(of) = stream.filter(|of| of.first_seq <= event.seq) else { return 0 };
        let bytes = bytes_of(event);
        of.kept.push_back(Arc::clone(event));
        of.kept_bytes += bytes;
        self.kept_bytes += bytes;
        self.kept_events += 1;
        let mut cut = 0;
        while of.kept_bytes > bytes_max || self.kept_bytes > all_max {
            let Some(first) = of.kept.pop_front() else { break };
            let bytes = bytes_of(&first);
            of.kept_bytes -= bytes;
            self.kept_bytes -= bytes;
            of.cut_to = first.seq;
            cut += 1;
        }
        of.cut += cut;
        self.kept_events -= cut;
        cut
    }

    /// History has lost events up to here that were not in memory, and so can't be kept. Returns how
    /// many events of a stream are cut by that.
    pub fn cut(&mut self, channel: u32, last_seq: u64) -> u64 {
        let stream = self.by_channel.get_mut(&channel);
        let Some(of) = stream.filter(|of| of.first_seq <= last_seq) else { return 0 };
        self.kept_bytes -= std::mem::take(&mut of.kept_bytes);
        of.cut_to = last_seq;
        let kept = std::mem::take(&mut of.kept).len() as u64;
        self.kept_events -= kept;
        of.cut += kept + 1;
        kept + 1
    }

    /// What is kept of a channel's stream, and what was lost of it.
    pub fn kept_of(&self, channel: u32) -> KeptOfStream {
        let Some(of) = self.by_channel.get(&channel) else { return KeptOfStream::default() };
        KeptOfStream { events: of.kept.len() as u32, bytes: of.kept_bytes, cut: of.cut }
    }

    /// Up to where a channel has lost events, if history has lost those up to `evicted_to`.
    #[inline]
    pub fn lost_to(&self, channel: u32, evicted_to: u64) -> u64 {
        if self.is_empty() {
            return evicted_to;
        }
        match self.by_channel.get(&channel) {
            Some(of) if of.first_seq <= evicted_to => of.cut_to.max(of.first_seq - 1),
            _ => evicted_to,
        }
    }

    /// The place of the first event after `after` among those kept of a channel's stream.
    pub fn first_kept_after(&self, channel: u32, after: u64) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let kept = &self.by_channel.get(&channel)?.kept;
        let place = kept.partition_point(|event| event.seq <= after);
        (place < kept.len()).then_some(place as u32)
    }

    /// An event kept of a channel's stream.
    pub fn kept(&self, channel: u32, place: u32) -> Option<&Arc<Event>> {
        self.by_channel.get(&channel)?.kept.get(place as usize)
    }

    /// The oldest event kept of any stream.
    pub fn oldest_seq(&self) -> Option<u64> {
        self.by_channel
            .values()
            .filter_map(|of| of.kept.front())
            .map(|event| event.first_seq())
            .min()
    }

    // --- streams that have ended ---

    /// The channel's stream has ended: marks it to be merged.
    pub fn merge_later(&mut self, channel: u32) {
        if let Some(of) = self.by_channel.get(&channel).filter(|of| of.tokens > 1) {
            self.to_merge.push_back((channel, of.first_token));
        }
    }

    /// The channel whose stream is merged next, and the event at which to go on.
    pub fn next_to_merge(&mut self) -> Option<(u32, u64)> {
        while let Some((channel, from)) = self.to_merge.front().copied() {
            if self.by_channel.get(&channel).is_some_and(|of| of.ended.is_some()) {
                return Some((channel, from));
            }
            self.to_merge.pop_front();
        }
        None
    }

    /// The stream that was merged goes on at this event; `None`: it is done.
    pub fn merge_from(&mut self, channel: u32, from: Option<u64>) {
        self.to_merge.pop_front();
        self.to_merge.extend(from.map(|from| (channel, from)));
    }

    /// The last event of a channel's stream.
    pub fn last_seq(&self, channel: u32) -> Option<u64> {
        self.by_channel.get(&channel).map(|of| of.last_seq)
    }

    /// Replaces an event that is kept.
    pub fn replace_kept(&mut self, channel: u32, place: u32, event: Arc<Event>) {
        let Some(of) = self.by_channel.get_mut(&channel) else { return };
        let bytes = bytes_of(&event);
        let replaced = std::mem::replace(&mut of.kept[place as usize], event);
        let before = bytes_of(&replaced);
        of.kept_bytes = of.kept_bytes + bytes - before;
        self.kept_bytes = self.kept_bytes + bytes - before;
    }

    /// Drops kept events, which have been merged into another one.
    pub fn drop_kept(&mut self, channel: u32, first: u32, count: usize) {
        let Some(of) = self.by_channel.get_mut(&channel) else { return };
        let first = first as usize;
        let bytes: u64 = of.kept.drain(first..first + count).map(|event| bytes_of(&event)).sum();
        of.kept_bytes -= bytes;
        self.kept_bytes -= bytes;
        self.kept_events -= count as u64;
    }
}
