//! What a process does: it publishes, stores, reads, and is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::publish;
use super::world::{CHANNELS, Life, World, content, is_ephemeral};
use crate::journal::reader::ToReader;
use crate::log::event::{Kind, Publication};
use crate::log::message::{Answer, Ask, FromLog, NO_PLACE, Page, ReadChannel, Ticket, ToLog};
use crate::log::store::Stored;
use crate::log::{ChannelName, SharedHasher};
use crate::proto::attributes::Attributes;

impl World {
    /// Whether the process has stopped in the middle of something.
    pub fn live(&mut self, life: &mut Life) -> bool {
        let mut has_stopped = false;
        for _ in 0..self.rng.usize(0..60) {
            match self.rng.u8(..14) {
                0..6 => self.publish(life),
                6..10 => has_stopped = self.store_works(life),
                10 => {
                    self.now += Duration::from_secs(1);
                    life.log.tend(self.now, &mut life.outlet);
                }
                11 => {
                    let after = self.rng.u64(..=life.log.stats().head_seq);
                    self.ask_page(life, after);
                }
                12 => self.reader_works(life),
                _ if self.is_troubled => self.trouble(),
                _ => {}
            }
            if has_stopped {
                return true;
            }
            self.listen(life);
            life.log.check_invariants();
        }
        false
    }

    /// Everything that is kept, page by page, wherever it is: as it was told, and none is missing.
    pub fn read_all(&mut self, life: &mut Life) {
        let (mut through, mut count) = (0, 0);
        while through < life.log.stats().head_seq {
            self.ask_page(life, through);
            self.reader_works(life);
            let Some(FromLog::Answer { answer: Answer::Page(page), .. }) = life.outlet.0.pop()
            else {
                panic!("a page")
            };
            assert!(page.through > through);
            through = page.through;
            count += self.check_page(&page);
        }
        assert_eq!(count, life.log.stats().events);
    }

    fn ask_page(&mut self, life: &mut Life, after: u64) {
        let hasher = SharedHasher::from_seed(1);
        let channel = |name: &str| ReadChannel {
            name: Arc::new(ChannelName::new(name)),
            hash: hasher.channel(name),
            after,
            place: NO_PLACE,
        };
        let channels = CHANNELS.into_iter().map(channel).collect();
        let body = Ask::Read { ticket: Ticket(0), channels, bytes_max: self.rng.u64(0..5_000) };
        life.log.handle(ToLog::Worker { worker: 0, body }, self.now, &mut life.outlet);
    }

    fn reader_works(&mut self, life: &mut Life) {
        for message in life.ends.reader.try_iter() {
            let ToReader::Read(asked) = message else { panic!("it goes on") };
            let page = life.reader.read(asked);
            life.log.handle(ToLog::Older(page), self.now, &mut life.outlet);
        }
    }

    fn check_page(&self, page: &Page) -> u64 {
        assert!(page.channels.iter().all(|of| !of.unreadable));
        assert!(page.events.is_sorted_by_key(|(_, event)| event.seq));
        for (_, event) in &page.events {
            let found = content(&event.data, event.attributes.as_deref());
            assert_eq!(self.truth.get(&event.seq), Some(&found));
        }
        page.events.len() as u64
    }

    fn trouble(&mut self) {
        match self.rng.u8(..6) {
            0 => self.disk.limit(self.disk.used() + self.rng.u64(0..2000)),
            1 => self.disk.fail_in(Some(self.rng.u32(0..3))),
            _ => self.disk.limit(u64::MAX),
        }
    }

    fn publish(&mut self, life: &mut Life) {
        self.published += 1;
        let key = (self.rng.u8(..3) == 0).then(|| format!("k{}", self.rng.u8(..20)));
        let size = self.rng.usize(0..300);
        let attributes = self.some_attributes();
        let mut publication = Publication {
            channel: CHANNELS[self.rng.usize(..CHANNELS.len())].into(),
            kind: Kind::Text,
            data: Bytes::from(format!("{}{}", self.published, "x".repeat(size))),
            event_type: None,
            key: key.map(Into::into),
            attributes,
        };
        if is_ephemeral(&publication) {
            publication.key = None;
        }
        let ticket = Ticket(self.published as u32);
        life.asked.insert(ticket.0, publication.clone());
        life.log.handle(publish(ticket, publication), self.now, &mut life.outlet);
    }

    fn some_attributes(&mut self) -> Option<Box<Attributes>> {
        let rng = &mut self.rng;
        let mut text = |of: &str| rng.bool().then(|| format!("{of}{}", rng.u8(..9)).into());
        let (publisher, event_key) = (text("jane"), text("price"));
        let (tombstone, ephemeral) = (rng.bool(), rng.u8(..4) == 0);
        Attributes { publisher, event_key, tombstone, ephemeral, ..Attributes::default() }.boxed()
    }

    /// Whether the process stops meanwhile.
    fn store_works(&mut self, life: &mut Life) -> bool {
        if self.is_troubled && self.rng.u8(..40) == 0 {
            self.disk.stop_in(self.rng.u32(..6));
        }
        let mut reports = Vec::new();
        let count = self.rng.usize(0..20);
        for message in life.ends.keeper.try_iter().take(count) {
            life.keeper.take(message, &mut |stored| reports.push(stored));
        }
        life.keeper.work(&mut |stored| reports.push(stored));
        if self.disk.has_stopped() {
            return true;
        }
        self.report(life, reports);
        false
    }

    pub fn report(&mut self, life: &mut Life, reports: Vec<Stored>) {
        for stored in reports {
            life.log.handle(ToLog::Store(stored), self.now, &mut life.outlet);
        }
    }

    /// Records what clients are told.
    pub fn listen(&mut self, life: &mut Life) {
        for told in life.outlet.0.drain(..) {
            match told {
                FromLog::Answer { answer: Answer::Page(page), .. } => drop(self.check_page(&page)),
                FromLog::Event(event) if !event.is_kept() => self.note_ephemeral(event.seq),
                FromLog::Event(event) => {
                    self.note(event.seq, content(&event.data, event.attributes.as_deref()));
                }
                FromLog::Answer { ticket, answer: Answer::Published { outcome, .. } }
                    if outcome.accepted == 1 =>
                {
                    let asked = &life.asked[&ticket.0];
                    match &asked.key {
                        // A repeat has the content of the first time.
                        Some(key) => {
                            let key = format!("{}/{key}", asked.channel);
                            self.keys.insert(key, outcome.last_seq);
                        }
                        None if is_ephemeral(asked) => self.note_ephemeral(outcome.last_seq),
                        None => self.note(
                            outcome.last_seq,
                            content(&asked.data, asked.attributes.as_deref()),
                        ),
                    }
                }
                _ => {}
            }
        }
    }

    /// Its place is never given to another event.
    fn note_ephemeral(&mut self, seq: u64) {
        assert!(!self.truth.contains_key(&seq), "{seq} was given twice");
        self.ephemeral_to = self.ephemeral_to.max(seq);
    }

    fn note(&mut self, seq: u64, content: Vec<u8>) {
        let known = self.truth.entry(seq).or_insert_with(|| content.clone());
        assert_eq!(*known, content, "{seq} was given twice");
    }

    /// A key that was answered must be answered again while history has its event.
    pub fn check_keys(&mut self, life: &mut Life) {
        for (name, seq) in self.keys.clone() {
            let (channel, key) = name.split_once('/').expect("as it was made");
            let first = life.log.channels(0, 100).channels.into_iter();
            let kept = first.filter(|(name, _)| name[..] == *channel);
            if !life.keeps_keys
                || !kept.filter_map(|(_, of)| of.first_seq).any(|first| first <= seq)
            {
                continue;
            }
            let before = life.log.stats().counters.repeated;
            let publication = Publication {
                channel: channel.into(),
                kind: Kind::Text,
                data: Bytes::from_static(b"again"),
                event_type: None,
                key: Some(key.into()),
                attributes: None,
            };
            life.log.handle(publish(Ticket(0), publication), self.now, &mut life.outlet);
            assert_eq!(life.log.stats().counters.repeated, before + 1, "{name} at {seq}");
        }
        life.outlet.0.clear();
    }
}
