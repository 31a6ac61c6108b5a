//! Pages of history that memory has no room for, read from the stream by direct get: a batch of each
//! channel's messages, from whichever server answers. One that knows no batches (before 2.11) is asked
//! for one message after the other. One page is read at a time, in the order they were asked for; while
//! the broker is away they wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::super::api::{self, StreamInfo};
use super::super::codec;
use super::super::wire::{Headers, write_message};
use super::Node;
use crate::cluster::LogSide;
use crate::log::event::Event;
use crate::log::history::bytes_of;
use crate::log::older::{OlderPage, OlderRead};

/// A page that takes longer than this is asked for again.
const PAGE_TIME_MAX: Duration = Duration::from_secs(3);

/// Most messages of a channel in one batch: a page of small events.
const BATCH_MAX: u64 = 1024;

/// The header that says how many messages are behind those of a batch.
const PENDING: &str = "Nats-Num-Pending";

/// Messages of a channel for a page, where each takes a round trip to the broker.
const SINGLES_MAX: usize = 64;

/// The page that is being read, and those that wait.
#[derive(Debug, Default)]
pub(super) struct Older {
    waiting: VecDeque<OlderRead>,
    reading: Option<Reading>,
    /// Counts attempts: an answer to an earlier one is too late.
    attempts: u64,
    done: Vec<OlderPage>,
}

#[derive(Debug)]
struct Reading {
    asked: OlderRead,
    until: Duration,
    channels: Vec<Part>,
    /// All of it has come, and the stream's state has been asked for.
    is_looked_at: bool,
}

/// The messages of one channel that have come.
#[derive(Debug, Default)]
struct Part {
    events: Vec<Arc<Event>>,
    bytes: u64,
    /// Everything up to here has come; `None`: more is on its way.
    through: Option<u64>,
}

impl Part {
    fn push(&mut self, event: Event) {
        self.bytes += bytes_of(&event);
        self.events.push(Arc::new(event));
    }
}

impl Reading {
    fn is_all_there(&self) -> bool {
        self.channels.iter().all(|part| part.through.is_some())
    }

    /// The page: up to where all channels have come, in log order, until it is full.
    fn into_page(self, first: u64) -> OlderPage {
        let Self { mut asked, channels, .. } = self;
        let ends = channels.iter().filter_map(|part| part.through);
        let mut through = ends.min().unwrap_or(asked.through).min(asked.through);
        for of in &mut asked.channels {
            let is_cut = of.ranges.first().is_some_and(|range| *range.start() < first);
            if is_cut {
                of.lost_to = (first - 1).min(through);
            }
        }
        let all = (0..)
            .zip(channels)
            .flat_map(|(place, part)| part.events.into_iter().map(move |event| (place, event)));
        let mut events: Vec<(u16, Arc<Event>)> =
            all.filter(|(_, event)| event.seq <= through).collect();
        events.sort_unstable_by_key(|(_, event)| event.seq);
        let mut bytes = 0;
        let full = events.iter().position(|(_, event)| {
            bytes += bytes_of(event);
            bytes >= asked.bytes_max
        });
        if let Some(last) = full {
            through = events[last].1.seq;
            events.truncate(last + 1);
        }
        OlderPage { asked, events, through }
    }
}

impl Older {
    /// A page is wanted.
    pub fn push(&mut self, read: OlderRead) {
        self.waiting.push_back(read);
    }

    /// The connection is lost: the page is asked for again over the next one.
    pub fn give_up(&mut self) {
        if let Some(Reading { asked, .. }) = self.reading.take() {
            self.waiting.push_front(asked);
        }
    }
}

impl Node {
    /// Asks for the next page, or again for one that is late. Hands out pages that are complete.
    pub(super) fn tend_older(&mut self, log: &mut dyn LogSide) {
        let now = log.now();
        if self.older.reading.as_ref().is_some_and(|reading| reading.until <= now) {
            self.older.give_up();
        }
        if self.is_open()
            && self.older.reading.is_none()
            && let Some(read) = self.older.waiting.pop_front()
        {
            self.ask_older(read, now);
        }
        for page in self.older.done.drain(..) {
            self.held_up = log.hand_out(page);
        }
    }

    fn ask_older(&mut self, asked: OlderRead, now: Duration) {
        self.older.attempts += 1;
        let mut channels = Vec::with_capacity(asked.channels.len());
        for (place, of) in asked.channels.iter().enumerate() {
            let mut part = Part::default();
            match of.ranges.first() {
                Some(range) => self.ask_next(&of.name, place, *range.start(), asked.bytes_max),
                None => part.through = Some(asked.through),
            }
            channels.push(part);
        }
        let reading = Reading { asked, until: now + PAGE_TIME_MAX, channels, is_looked_at: false };
        self.older.reading = Some(reading);
        self.look_behind_older();
    }

    /// What a channel has from this place on, for the part of the page that has this place in it.
    fn ask_next(&mut self, channel: &str, place: usize, from: u64, bytes_max: u64) {
        let subject = self.subjects.of_channel(channel);
        let (what, body) = self.api.batch_of(&subject, from, BATCH_MAX, bytes_max);
        let reply = format!("{}.o.{}.{place}", self.inbox, self.older.attempts);
        write_message(&mut self.out, &what, Some(&reply), &[], body.as_bytes());
    }

    /// A message of a page, or what ends one of its parts. `part` is `<attempt>.<place>`.
    pub(super) fn take_older(&mut self, part: &str, headers: Option<Headers<'_>>, payload: &[u8]) {
        let Some((attempt, place)) = part.split_once('.') else { return };
        if attempt.parse() != Ok(self.older.attempts) {
            return;
        }
        if place == "s" {
            return self.finish_older(payload);
        }
        let Some((place, headers)) = place.parse().ok().zip(headers) else { return };
        match (headers.status(), headers.get("Nats-Sequence").map(str::parse)) {
            (Some(status), _) => self.end_part(place, status, headers),
            (None, Some(Ok(seq))) => self.take_part(place, seq, headers, payload),
            (None, _) => {}
        }
        self.look_behind_older();
    }

    /// The end of a batch, or there is nothing. What follows the last message may be left for the next
    /// page.
    fn end_part(&mut self, place: usize, status: u16, headers: Headers<'_>) {
        let Some(reading) = &mut self.older.reading else { return };
        let Some(part) = reading.channels.get_mut(place) else { return };
        let more = headers.get(PENDING).is_some_and(|count| count != "0");
        let last = part.events.last().map(|event| event.seq);
        part.through = match (status, last) {
            (204, Some(last)) if more => Some(last),
            (204 | 404, _) => Some(reading.asked.through),
            // Not now: the page is asked for again.
            _ => part.through,
        };
    }

    fn take_part(&mut self, place: usize, seq: u64, headers: Headers<'_>, payload: &[u8]) {
        let Some(reading) = &mut self.older.reading else { return };
        let Some(of) = reading.asked.channels.get(place) else { return };
        let Some(part) = reading.channels.get_mut(place) else { return };
        let stored_at = headers.get("Nats-Time-Stamp").and_then(codec::time);
        let ordered_at = stored_at.unwrap_or_default().saturating_sub(self.settings.clock_began);
        let subject = headers.get("Nats-Subject").unwrap_or_default();
        let read = codec::publication(&self.subjects, subject, Some(headers), payload);
        if let Some(publication) = read {
            part.push(Event::new(seq, of.name.clone(), of.hash, ordered_at, publication));
        }
        // Each message of a batch says how many are behind it, and the batch has an end of its own.
        if headers.get(PENDING).is_some() {
            return;
        }
        let (through, bytes_max) = (reading.asked.through, reading.asked.bytes_max);
        if seq >= through || part.events.len() >= SINGLES_MAX || part.bytes >= bytes_max {
            part.through = Some(seq.min(through));
        } else {
            let channel = of.name.clone();
            self.ask_next(&channel, place, seq + 1, bytes_max);
        }
    }

    /// Once all has come, asks what the stream has dropped since.
    fn look_behind_older(&mut self) {
        let Some(reading) = &mut self.older.reading else { return };
        if reading.is_all_there() && !reading.is_looked_at {
            reading.is_looked_at = true;
            let (subject, body) = self.api.info();
            let reply = format!("{}.o.{}.s", self.inbox, self.older.attempts);
            write_message(&mut self.out, &subject, Some(&reply), &[], body.as_bytes());
        }
    }

    fn finish_older(&mut self, payload: &[u8]) {
        let Ok(info) = api::answer::<StreamInfo>(payload) else { return };
        let Some(reading) = self.older.reading.take() else { return };
        let first = info.state(&self.settings.stream).first;
        self.ends.tail.note_first(first);
        self.older.done.push(reading.into_page(first));
    }
}
