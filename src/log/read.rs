//! Reading: pages of history in log order, for subscribers that are not live. Events that are not in
//! memory are read by the store ([`older`](super::older)).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use super::channel_name::ChannelName;
use super::event::Event;
use super::history::bytes_of;
use super::join::stand;
use super::message::{Answer, NO_PLACE, Page, PageChannel, ReadChannel, Ticket};
use super::policy::Keeps;
use super::sequencer::{Outlet, Sequencer};
use crate::proto::cursor::Cursor;

/// The next event of a channel being merged: its seq, the channel's index, its place.
type Head = Reverse<(u64, u16, Place)>;

/// Where an event is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Beside history, of the stream of the channel at this index.
    OfStream(u32, u32),
    /// In history's entry.
    History(u32),
}

impl Sequencer {
    /// Answers with a page from memory, or has the store read it.
    pub(super) fn read(
        &mut self,
        worker: u16,
        ticket: Ticket,
        channels: &[ReadChannel],
        bytes_max: u64,
        outlet: &mut impl Outlet,
    ) {
        match self.plan_older(worker, ticket, channels, bytes_max) {
            Some(read) => self.store.read_older(read),
            None => {
                let page = self.read_memory(channels, bytes_max);
                outlet.answer(worker, ticket, Answer::Page(page));
            }
        }
    }

    /// The oldest events in memory after the cursors of these channels, merged in log order, until they
    /// are charged `bytes_max` or more.
    pub(super) fn read_memory(&self, wanted: &[ReadChannel], bytes_max: u64) -> Page {
        let mut heads = BinaryHeap::with_capacity(wanted.len());
        let seek = |(index, of)| self.seek(index, of, &mut heads);
        let channels = (0..).zip(wanted).map(seek).collect();
        let mut page = Page {
            events: Vec::new(),
            through: self.order.head(),
            is_last: true,
            has_states: wanted.iter().any(|of| self.is_state(of.hash, &of.name)),
            channels,
        };
        let mut bytes = 0;
        // Events that only the store has come before those in memory.
        let runs_from = self.runs_from(wanted).unwrap_or(u64::MAX);
        while let Some((seq, index, place)) = self.take_first(&mut heads) {
            if seq > runs_from {
                (page.through, page.is_last) = (runs_from - 1, false);
                break;
            }
            let event = self.event_at(place).behind(page.channels[usize::from(index)].after);
            bytes += bytes_of(&event);
            page.events.push((index, event));
            if let Place::History(key) = place {
                page.channels[usize::from(index)].place = key;
            }
            if bytes >= bytes_max && !heads.is_empty() {
                (page.through, page.is_last) = (seq, false);
                break;
            }
        }
        page
    }

    pub(super) fn is_state(&self, hash: u64, name: &str) -> bool {
        let found = self.channels.find(hash, name);
        let policy = |index| self.settings.policies.at(self.channels.at(index).policy);
        found.is_some_and(|index| policy(index).keeps == Keeps::Latest)
    }

    /// Where a reader begins that does not join the channel, which need not exist.
    pub(super) fn list_from(&self, name: &str, cursor: Cursor) -> ReadChannel {
        let hash = self.hasher.channel(name);
        let found = self.channels.find(hash, name);
        let stone = || self.tombstones.find(hash).map(|stone| stone.last_seq);
        let lost_to = match found {
            Some(index) => self.lost_to(index),
            None => stone().unwrap_or(self.tombstones.forgotten_to()),
        };
        // A reader of a stream that is not there reads what comes from now on.
        let after = match self.resolve(found, cursor).unwrap_or(Cursor::Now) {
            // Another node has shown it already; it has not come here yet.
            Cursor::After(seq) if self.store.is_elsewhere() => seq.max(lost_to),
            cursor => stand(cursor, self.order.head(), lost_to).0,
        };
        ReadChannel { name: Arc::new(ChannelName::new(name)), hash, after, place: NO_PLACE }
    }

    /// Takes the oldest event of all; the next one of its channel takes its place.
    fn take_first(&self, heads: &mut BinaryHeap<Head>) -> Option<(u64, u16, Place)> {
        let mut first = heads.peek_mut()?;
        let Reverse((seq, index, place)) = *first;
        match self.newer(place) {
            Some(newer) => *first = Reverse((self.event_at(newer).seq, index, newer)),
            None => drop(PeekMut::pop(first)),
        }
        Some((seq, index, place))
    }

    pub(super) fn event_at(&self, place: Place) -> &Arc<Event> {
        match place {
            Place::History(key) => self.history.event(key),
            Place::OfStream(channel, at) => {
                self.streams.kept(channel, at).expect("a place is of the present log")
            }
        }
    }

    /// The channel's next event. Those kept of a stream come before those in history.
    pub(super) fn newer(&self, place: Place) -> Option<Place> {
        match place {
            Place::History(key) => self.history.newer(key).map(Place::History),
            Place::OfStream(channel, at) => match self.streams.kept(channel, at + 1) {
                Some(_) => Some(Place::OfStream(channel, at + 1)),
                None => self.history.first(&self.channels.at(channel).chain).map(Place::History),
            },
        }
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
        let after = of.after.max(self.lost_to(found));
        let chain = &self.channels.at(found).chain;
        let in_history =
            || self.history.first_after(chain, found, after, of.place).map(Place::History);
        let of_stream = self.streams.first_kept_after(found, after);
        let place = of_stream.map(|at| Place::OfStream(found, at)).or_else(in_history);
        let first = place.map(|place| self.event_at(place).seq);
        heads.extend(place.zip(first).map(|(place, seq)| Reverse((seq, index, place))));
        let place = if let Some(Place::History(key)) = place { key } else { of.place };
        PageChannel { after, first, place, unreadable: false }
    }
}
