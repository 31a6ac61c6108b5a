//! Subscribers whose cursor is older than what their replicas hold: they read the log page by page,
//! in log order over all their channels, until a page reaches the present. From there on the
//! replicas have what comes next: the lane is FIFO, so when the last page arrives nothing newer
//! has.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Hub;
use super::channels::Channels;
use super::subscriber::{Explicit, Gap, Sub, Subscriber};
use crate::config::SlowPolicy;
use crate::log::event::Event;
use crate::log::message::{GapReason, NO_PLACE, Page, PageChannel, ReadChannel, Ticket};
use crate::proto::cursor::EventId;

/// Where a subscriber with cursors of its own gets its next events from.
#[derive(Debug, Default)]
pub enum Reading {
    /// From its replicas, or, if they do not reach back far enough, from a page it has yet to ask
    /// for.
    #[default]
    Replicas,
    /// From the next page, even if its replicas reach back to where the last one ended.
    Log,
    /// From the page it asked the log for under this ticket.
    Asked(Ticket),
    /// From this page.
    Page(Box<Unread>),
}

/// What is left of a page.
#[derive(Debug)]
pub struct Unread {
    /// Events in log order, each with the number of its channel among the subscriber's.
    pub events: VecDeque<(u16, Arc<Event>)>,
    /// Everything up to here was sent.
    position: u64,
    through: u64,
    is_last: bool,
    has_states: bool,
}

/// What a page means for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Nothing: the reader no longer waits for it.
    Late,
    /// There is something to send.
    Read,
    /// The reader was too slow, history has lost events, and the channel disconnects such readers.
    TooSlow,
}

impl Explicit {
    /// Whether it has to ask for a page.
    pub fn needs_page(&self, channels: &Channels) -> bool {
        let is_behind = |sub: &Sub| sub.cursor < channels[sub.replica].base();
        match self.reading {
            Reading::Replicas => self.subs.iter().any(is_behind),
            Reading::Log => true,
            Reading::Asked(_) | Reading::Page(_) => false,
        }
    }

    /// The `seq` after which the replica of `sub` must hold events for it, if it relies on it.
    pub fn needed_from(&self, sub: &Sub, base: u64) -> Option<u64> {
        match &self.reading {
            Reading::Replicas => Some(sub.cursor).filter(|&cursor| cursor >= base),
            Reading::Page(page) if page.is_last => Some(page.through),
            Reading::Log | Reading::Page(_) | Reading::Asked(_) => None,
        }
    }

    /// Takes the page's next event, which was sent whole or in part.
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

    /// Drops what is left of the page: it can be read again.
    pub fn end_reading(&mut self) {
        let Reading::Page(page) = &self.reading else { return };
        let position = page.position;
        let is_at_head = page.is_last && page.events.is_empty();
        self.reading = match page.has_states && !is_at_head {
            true => Reading::Log,
            false => Reading::Replicas,
        };
        self.subs.iter_mut().for_each(|sub| sub.cursor = sub.cursor.max(position));
    }

    /// Reads again from its cursors, because its channels change: a page of the old ones is of no
    /// use.
    pub fn read_anew(&mut self) {
        self.end_reading();
        if let Reading::Asked(_) = self.reading {
            self.reading = Reading::Log;
        }
        self.places.clear();
    }
}

impl Hub {
    /// Whether the subscriber has to ask for a page of history before it can be sent more.
    pub fn needs_page(&self, index: u32) -> bool {
        self.explicit(index).is_some_and(|explicit| explicit.needs_page(&self.channels))
    }

    /// Begins to wait for the next page; returns which channels to read from where.
    pub fn begin_reading(&mut self, index: u32, ticket: Ticket) -> Vec<ReadChannel> {
        let Self { subscribers, channels, .. } = self;
        let Some(Subscriber::Explicit(dialect, explicit)) = subscribers.get_mut(index) else {
            return Vec::new();
        };
        explicit.reading = Reading::Asked(ticket);
        let floor = explicit.complete_to(*dialect);
        let of_sub = |(at, sub): (usize, &Sub)| {
            let replica = &channels[sub.replica];
            let place = explicit.places.get(at).copied().unwrap_or(NO_PLACE);
            let (name, hash) = (replica.name().clone(), replica.hash());
            ReadChannel { name, hash, after: sub.cursor.max(floor), place }
        };
        explicit.subs.iter().enumerate().map(of_sub).collect()
    }

    /// Forgets what is left of a page: a subscriber that waits for its socket holds none.
    pub fn end_reading(&mut self, index: u32) {
        if let Some((_, explicit)) = self.explicit_mut(index) {
            explicit.end_reading();
        }
    }

    /// Takes the page that was asked for under this ticket.
    pub fn page(&mut self, index: u32, ticket: Ticket, page: Page) -> Arrived {
        let Self { subscribers, channels, settings, metrics, epoch, .. } = self;
        let Some(Subscriber::Explicit(dialect, explicit)) = subscribers.get_mut(index) else {
            return Arrived::Late;
        };
        if !matches!(explicit.reading, Reading::Asked(asked) if asked == ticket) {
            return Arrived::Late;
        }
        let floor = explicit.complete_to(*dialect);
        let mut arrived = Arrived::Read;
        for (sub, of) in explicit.subs.iter_mut().zip(&page.channels) {
            let seq = sub.cursor.max(floor);
            if !sub.note_loss(of, EventId { epoch: *epoch, seq }) {
                continue;
            }
            if of.unreadable {
                metrics.gaps_evicted.add(1);
                continue;
            }
            metrics.gaps_overrun.add(1);
            let replica = &channels[sub.replica];
            let slow = settings.channel_at(usize::from(replica.bounds())).slow;
            // A replica may hold what history has lost. A reader it would still serve was not too
            // slow: cut, it would come back to the same place, and be cut again.
            if slow == SlowPolicy::Disconnect && seq < replica.base() {
                arrived = Arrived::TooSlow;
            }
        }
        explicit.begin_page(page);
        arrived
    }
}

impl Explicit {
    fn begin_page(&mut self, page: Page) {
        self.places.clear();
        self.places.extend(page.channels.iter().map(|of| of.place));
        let Page { events, through, is_last, has_states, .. } = page;
        let position = if events.is_empty() { through } else { 0 };
        let unread = Unread { events: events.into(), position, through, is_last, has_states };
        let is_empty = unread.events.is_empty();
        self.reading = Reading::Page(Box::new(unread));
        if is_empty {
            self.end_reading();
        }
    }
}

impl Sub {
    /// Notes what history has lost of the channel after `seen`; returns whether this is the first
    /// loss to be told.
    fn note_loss(&mut self, of: &PageChannel, seen: EventId) -> bool {
        self.cursor = of.after;
        let lost = of.after > seen.seq && self.gap.is_none();
        if lost {
            let after = seen.to_string().into();
            let reason = if of.unreadable { GapReason::Evicted } else { GapReason::Overrun };
            self.gap = Some(Box::new(Gap { reason, after, first: None }));
        }
        if let Some(gap) = &mut self.gap {
            gap.first = of.first;
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_to_the_end(is_last: bool, has_states: bool) -> Explicit {
        let mut explicit = Explicit::default();
        let (events, channels) = (Vec::new(), Vec::new());
        explicit.begin_page(Page { events, through: 5, is_last, has_states, channels });
        explicit
    }

    #[test]
    fn a_reader_of_a_state_reads_the_log_up_to_its_head() {
        let channels = Channels::default();
        assert!(read_to_the_end(false, true).needs_page(&channels));
        assert!(!read_to_the_end(true, true).needs_page(&channels));
        assert!(!read_to_the_end(false, false).needs_page(&channels), "replicas have the rest");
    }

    #[test]
    fn a_page_that_was_asked_for_in_vain_is_asked_for_again() {
        let mut explicit = Explicit { reading: Reading::Asked(Ticket(1)), ..Explicit::default() };
        explicit.read_anew();
        assert!(explicit.needs_page(&Channels::default()));
    }
}
