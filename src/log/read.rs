//! Reading: pages of history in log order, for subscribers that are not live. What is not in memory
//! is read by the store ([`older`](super::older)).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use super::history::bytes_of;
use super::message::{Page, PageChannel, ReadChannel};
use super::sequencer::Sequencer;

/// The next event of a channel being merged: its seq, the channel's index, its entry.
type Head = Reverse<(u64, u16, u32)>;

impl Sequencer {
    /// The oldest events in memory after the cursors of these channels, merged in log order, until they
    /// are charged `bytes_max` or more.
    pub(super) fn read_memory(&self, wanted: &[ReadChannel], bytes_max: u64) -> Page {
        let mut heads = BinaryHeap::with_capacity(wanted.len());
        let seek = |(index, of)| self.seek(index, of, &mut heads);
        let channels = (0..).zip(wanted).map(seek).collect();
        let mut page = Page { events: Vec::new(), through: self.head_seq, is_last: true, channels };
        let mut bytes = 0;
        while let Some((seq, index, key)) = self.take_first(&mut heads) {
            let event = self.history.event(key);
            bytes += bytes_of(event);
            page.events.push((index, Arc::clone(event)));
            page.channels[usize::from(index)].place = key;
            if bytes >= bytes_max && !heads.is_empty() {
                (page.through, page.is_last) = (seq, false);
                break;
            }
        }
        page
    }

    /// Takes the oldest event of all; the next one of its channel takes its place.
    fn take_first(&self, heads: &mut BinaryHeap<Head>) -> Option<(u64, u16, u32)> {
        let mut first = heads.peek_mut()?;
        let Reverse((seq, index, key)) = *first;
        match self.history.newer(key) {
            Some(newer) => *first = Reverse((self.history.event(newer).seq, index, newer)),
            None => drop(PeekMut::pop(first)),
        }
        Some((seq, index, key))
    }

    /// Finds where reading a channel begins.
    fn seek(&self, index: u16, of: &ReadChannel, heads: &mut BinaryHeap<Head>) -> PageChannel {
        let Some(found) = self.channels.find(of.hash, &of.name) else {
            return PageChannel {
                after: of.after,
                first: None,
                place: of.place,
                unreadable: false,
            };
        };
        let channel = self.channels.at(found);
        let after = of.after.max(channel.evicted_to);
        let key = self.history.first_after(&channel.chain, found, after, of.place);
        let first = key.map(|key| self.history.event(key).seq);
        heads.extend(key.zip(first).map(|(key, seq)| Reverse((seq, index, key))));
        PageChannel { after, first, place: key.unwrap_or(of.place), unreadable: false }
    }
}
