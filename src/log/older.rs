//! Pages of history that only the store has. The log knows in which runs the events of a channel lie, so
//! it tells the store exactly what to read. The page is answered when the store comes back with it;
//! events that were lost meanwhile are left out then.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::carry::CARRIER;
use super::channel_name::ChannelName;
use super::event::Event;
use super::message::{Answer, NO_PLACE, Page, PageChannel, ReadChannel, Ticket};
use super::sequencer::{Outlet, Sequencer};

/// Runs that a page looks at besides one of each channel, at least and at most: enough to fill the
/// page, and some ten microseconds of the log's time.
const RUNS_AHEAD: RangeInclusive<usize> = 8..=256;

/// A page that the store is to read.
#[derive(Debug)]
pub struct OlderRead {
    /// Who asked: a worker, or the log itself.
    pub worker: u16,
    /// Returned with the page.
    pub ticket: Ticket,
    /// The channels, in the order of the request.
    pub channels: Vec<OlderChannel>,
    /// Where the page ends at the latest.
    pub through: u64,
    /// When it is full, as history charges events; it holds at least one.
    pub bytes_max: u64,
}

/// A channel that a page is read from, and where its events lie.
#[derive(Debug)]
pub struct OlderChannel {
    /// Shared with the log.
    pub name: Arc<ChannelName>,
    /// The name's hash under the shared hasher.
    pub hash: u64,
    /// Everything up to here is behind the reader.
    pub after: u64,
    /// All its events with `after < seq <= through` lie in these stretches of the log, in order.
    pub ranges: Vec<RangeInclusive<u64>>,
    /// Set by the store: events up to here may have existed, but can't be read.
    pub lost_to: u64,
}

/// What the store has read.
#[derive(Debug)]
pub struct OlderPage {
    /// What was asked, with what is lost.
    pub asked: OlderRead,
    /// In log order, with the place of their channel in the request.
    pub events: Vec<(u16, Arc<Event>)>,
    /// Everything up to here was read: what was asked, or the last event if the page got full.
    pub through: u64,
}

/// The next run of one of the channels: where its unread events begin, which channel, which run.
type Head = Reverse<(u64, u16, u32, usize)>;

impl Sequencer {
    /// What the store has to read for a page; `None` if all of it is in memory.
    pub(super) fn plan_older(
        &self,
        worker: u16,
        ticket: Ticket,
        wanted: &[ReadChannel],
        bytes_max: u64,
    ) -> Option<OlderRead> {
        if self.history.runs().is_empty() {
            return None;
        }
        let mut heads = BinaryHeap::new();
        let seek = |(index, of)| self.seek_older(index, of, &mut heads);
        let channels = (0..).zip(wanted).map(seek).collect();
        // Events kept for a stream come before all runs of their channel.
        let runs_from = heads.peek().map(|head: &Head| head.0.0)?;
        let kept_from = self.kept_from(wanted).unwrap_or(u64::MAX);
        if kept_from < runs_from {
            return None;
        }
        let through = self.history.runs().through().min(kept_from - 1);
        let mut read = OlderRead { worker, ticket, channels, through, bytes_max };
        self.pick_runs(&mut read, heads);
        Some(read)
    }

    /// The first unread event of these channels that is kept because it is of a stream.
    fn kept_from(&self, wanted: &[ReadChannel]) -> Option<u64> {
        let first = |of: &ReadChannel| {
            let channel = self.channels.find(of.hash, &of.name)?;
            let place = self.streams.first_kept_after(channel, of.after)?;
            Some(self.streams.kept(channel, place)?.seq)
        };
        wanted.iter().filter_map(first).min()
    }

    /// The first unread event of these channels that only the store has.
    pub(super) fn runs_from(&self, wanted: &[ReadChannel]) -> Option<u64> {
        if self.history.runs().is_empty() {
            return None;
        }
        let mut heads = BinaryHeap::new();
        (0..).zip(wanted).for_each(|(place, of)| drop(self.seek_older(place, of, &mut heads)));
        heads.peek().map(|head| head.0.0)
    }

    fn seek_older(
        &self,
        place: u16,
        of: &ReadChannel,
        heads: &mut BinaryHeap<Head>,
    ) -> OlderChannel {
        let found = self.channels.find(of.hash, &of.name);
        let after = of.after.max(found.map_or(0, |found| self.lost_to(found)));
        if let Some(channel) = found
            && let Some(number) = self.history.runs().number_after(channel, after)
        {
            heads.extend(self.head_at(place, channel, number, after));
        }
        let (name, hash) = (of.name.clone(), of.hash);
        OlderChannel { name, hash, after, ranges: Vec::new(), lost_to: 0 }
    }

    fn head_at(&self, place: u16, channel: u32, number: usize, after: u64) -> Option<Head> {
        let run = self.history.runs().nth(channel, number)?;
        Some(Reverse((run.first_seq.max(after + 1), place, channel, number)))
    }

    /// Picks runs in the order of their beginnings until a page is sure to be full; it ends before
    /// the first that was not picked.
    fn pick_runs(&self, read: &mut OlderRead, mut heads: BinaryHeap<Head>) {
        let (at_least, at_most) = RUNS_AHEAD.into_inner();
        let (at_least, at_most) = (heads.len() + at_least, heads.len() + at_most);
        let (mut count, mut bytes) = (0, 0);
        while let Some(Reverse((from, place, channel, number))) = heads.pop() {
            if count >= at_most || (count >= at_least && bytes >= read.bytes_max) {
                read.through = from - 1;
                break;
            }
            let Some(run) = self.history.runs().nth(channel, number) else { continue };
            (count, bytes) = (count + 1, bytes + run.bytes);
            let places = self.history.runs().places_of(run, from);
            read.channels[usize::from(place)].ranges.extend(places);
            heads.extend(self.head_at(place, channel, number + 1, 0));
        }
        let through = read.through;
        for of in &mut read.channels {
            of.ranges.retain(|range| *range.start() <= through);
            for range in &mut of.ranges {
                *range = *range.start()..=through.min(*range.end());
            }
        }
    }

    /// Answers a page with what the store has read, without what was lost meanwhile.
    pub(super) fn answer_older(&mut self, page: OlderPage, outlet: &mut impl Outlet) {
        if page.asked.worker == CARRIER {
            return self.carry_page(page);
        }
        let OlderPage { asked: OlderRead { worker, ticket, channels, .. }, mut events, through } =
            page;
        let has_states = channels.iter().any(|of| self.is_state(of.hash, &of.name));
        let mut channels: Vec<PageChannel> =
            channels.iter().map(|of| self.older_channel(of, through)).collect();
        events.retain(|(place, event)| event.seq > channels[usize::from(*place)].after);
        for (place, event) in events.iter().rev() {
            channels[usize::from(*place)].first = Some(event.seq);
        }
        let is_last = through >= self.order.head();
        let page = Page { events, through, is_last, has_states, channels };
        outlet.answer(worker, ticket, Answer::Page(page));
    }

    fn older_channel(&self, of: &OlderChannel, through: u64) -> PageChannel {
        let found = self.channels.find(of.hash, &of.name);
        let after = of.after.max(found.map_or(0, |found| self.lost_to(found)));
        let unreadable = of.lost_to > after;
        let first = found.and_then(|found| self.first_behind(found, through.max(after)));
        PageChannel { after: after.max(of.lost_to), first, place: NO_PLACE, unreadable }
    }

    /// The first event that a channel keeps after a place.
    fn first_behind(&self, channel: u32, after: u64) -> Option<u64> {
        self.history.runs().first_after(channel, after).or_else(|| {
            let chain = &self.channels.at(channel).chain;
            let key = self.history.first_after(chain, channel, after, NO_PLACE)?;
            Some(self.history.event(key).seq)
        })
    }
}
