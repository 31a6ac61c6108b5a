//! Subscribers whose cursor is behind what their replicas hold: they read the log page by page, in
//! its order over all their channels, until a page reaches the present. From there on the replicas
//! have what comes next: the lane is FIFO, so when the last page arrives nothing newer has.

use std::collections::VecDeque;
use std::sync::Arc;

use super::channels::Channels;
use super::core::Core;
use super::pending::Pending;
use super::work::{Gap, Sub, Work};
use crate::config::SlowPolicy;
use crate::limits::PAGE_BYTES_MAX;
use crate::log::event::Event;
use crate::log::message::{
    GapReason, NO_PLACE, Page, PageChannel, ReadChannel, RequestBody, Ticket,
};
use crate::proto::cursor::EventId;
use crate::reason::CloseReason;
use crate::ring::Token;

/// Where a subscriber with cursors of its own gets its next events from.
#[derive(Debug, Default)]
pub enum Reading {
    /// From its replicas, or from a page yet to be asked for if they do not reach back so far.
    #[default]
    Replicas,
    /// From a page the log was asked for under this ticket.
    Asked(Ticket),
    /// From this page.
    Page(Box<Unread>),
}

/// What is left of a page.
#[derive(Debug)]
pub struct Unread {
    /// With the place of their channel among the connection's, in log order.
    pub events: VecDeque<(u16, Arc<Event>)>,
    /// Everything up to here was sent.
    position: u64,
    through: u64,
    is_last: bool,
}

impl Work {
    /// Whether a page has to be asked for.
    pub fn needs_page(&self, channels: &Channels) -> bool {
        let is_behind = |sub: &Sub| sub.cursor < channels[sub.replica].base;
        matches!(self.reading, Reading::Replicas) && self.subs.iter().any(is_behind)
    }

    /// From which seq on the replica of `sub` has to hold events for it.
    pub fn needed_from(&self, sub: &Sub, base: u64) -> Option<u64> {
        match &self.reading {
            Reading::Replicas => Some(sub.cursor).filter(|&cursor| cursor >= base),
            Reading::Page(page) if page.is_last => Some(page.through),
            Reading::Page(_) | Reading::Asked(_) => None,
        }
    }

    /// The next event of the page was sent, or a part of it; it is returned.
    pub fn take_from_page(&mut self, seq: u64) -> Option<Arc<Event>> {
        let Reading::Page(page) = &mut self.reading else { return None };
        let (_, event) = page.events.pop_front()?;
        debug_assert_eq!(event.seq, seq);
        page.position = if page.events.is_empty() { page.through } else { seq };
        if page.events.is_empty() {
            self.end_reading();
        }
        Some(event)
    }

    /// What is left of the page is forgotten: it can be read again.
    pub fn end_reading(&mut self) {
        if let Reading::Page(page) = std::mem::take(&mut self.reading) {
            let position = page.position;
            self.subs.iter_mut().for_each(|sub| sub.cursor = sub.cursor.max(position));
        }
    }

    /// The connection's channels change: a page of those it had is of no use.
    pub fn read_anew(&mut self) {
        self.end_reading();
        self.places.clear();
    }
}

impl Core {
    /// Asks the log for the connection's next page.
    pub(super) fn ask_page(&mut self, index: u32, work: &mut Work) {
        let floor = self.complete_to(index, work);
        let channels = work.subs.iter().enumerate().map(|(at, sub)| {
            let replica = &self.channels[sub.replica];
            let place = work.places.get(at).copied().unwrap_or(NO_PLACE);
            let (name, hash) = (replica.name.clone(), replica.hash);
            ReadChannel { name, hash, after: sub.cursor.max(floor), place }
        });
        let channels = channels.collect();
        let token = self.token(index);
        let ticket = self.wait_for(Pending::Read { token });
        work.reading = Reading::Asked(ticket);
        self.ask(RequestBody::Read { ticket, channels, bytes_max: PAGE_BYTES_MAX });
    }

    /// The page is here, if its reader still waits for it.
    pub(super) fn page(&mut self, token: Token, ticket: Ticket, page: Page) {
        if !self.is_current(token) {
            return;
        }
        let index = token.slot;
        let Some(mut work) = self.slots[index as usize].work.take() else { return };
        let waits = matches!(work.reading, Reading::Asked(asked) if asked == ticket);
        let overrun = waits && self.begin_page(index, &mut work, page);
        self.slots[index as usize].work = Some(work);
        if overrun {
            self.disconnect(index, CloseReason::SlowConsumer);
        } else if waits {
            self.go_on(index);
        }
    }

    /// Whether the connection is to end, because history has lost what it was too slow for.
    fn begin_page(&mut self, index: u32, work: &mut Work, page: Page) -> bool {
        let floor = self.complete_to(index, work);
        let mut overrun = false;
        for (sub, of) in work.subs.iter_mut().zip(&page.channels) {
            let lost = self.note_loss(sub, of, floor);
            let bounds = usize::from(self.channels[sub.replica].bounds);
            let slow = self.setup.settings.channel_at(bounds).slow;
            overrun |= lost && slow == SlowPolicy::Disconnect;
        }
        work.places.clear();
        work.places.extend(page.channels.iter().map(|of| of.place));
        let Page { events, through, is_last, .. } = page;
        let position = if events.is_empty() { through } else { 0 };
        let unread = Unread { events: events.into(), position, through, is_last };
        let is_empty = unread.events.is_empty();
        work.reading = Reading::Page(Box::new(unread));
        if is_empty {
            work.end_reading();
        }
        overrun
    }

    /// Notes what history no longer has of a channel; whether it is more than was known.
    fn note_loss(&self, sub: &mut Sub, of: &PageChannel, floor: u64) -> bool {
        let seq = sub.cursor.max(floor);
        sub.cursor = of.after;
        let lost = of.after > seq && sub.gap.is_none();
        if lost {
            let after = EventId { epoch: self.setup.epoch, seq }.to_string().into();
            sub.gap = Some(Box::new(Gap { reason: GapReason::Overrun, after, first: None }));
            self.metrics.gaps_overrun.add(1);
        }
        if let Some(gap) = &mut sub.gap {
            gap.first = of.first;
        }
        lost
    }
}
