//! The node at work: publications and their answers go over one connection, entries come over another,
//! and now and then the node looks at the stream. One thread does all of it.

mod asides;
mod looks;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::entry::{self, Entry, Fields, Says};
use super::link::{Address, Link};
use super::resp::Reply;
use super::scripts;
use super::talk::{Asked, Talk};
use super::{RedisError, RedisSettings};
use crate::cluster::broker::{Broker, BrokerError, Ends, FED_AT_ONCE, Flow, RETRY_PAUSE, TICK};
use crate::cluster::follower::{Delivery, Follower};
use crate::cluster::peers::Peers;
use crate::cluster::{Ended, Identity, LogSide, Revocation, ToBroker};
use crate::log::event::Publication;
use crate::log::message::{Counts, Fed};
use crate::log::store::{Answered, Stored};

/// How long a server holds the question for entries while there are none.
const HOLD_MS: &[u8] = b"1000";

/// Entries that are asked for at once.
const ENTRIES_AT_ONCE: &[u8] = b"512";

/// A node on its stream.
#[derive(Debug)]
pub(super) struct Node {
    settings: RedisSettings,
    servers: Vec<Address>,
    ends: Ends,
    head_key: String,
    log_key: String,
    aside_key: String,
    /// For publications and questions; `None` without a connection.
    talk: Option<Talk>,
    /// For entries, and when it was last heard.
    entries: Option<(Link, Duration)>,
    /// For what nodes say beside the stream.
    asides: Option<Link>,
    peers: Peers,
    /// The entry after which to ask for more; `None` while such a question is open.
    ask_after: Option<u64>,
    tried_at: Option<Duration>,
    looked_at: Duration,
    ticked_at: Duration,
    /// `None` until the stream is found.
    follower: Option<Follower>,
    found_to: u64,
    /// Events that have come and are not with the log yet.
    events: VecDeque<Fed>,
    revoked: Vec<Revocation>,
    held_up: bool,
    was_open: bool,
    /// Where the log's history began, and when that was.
    to_trim: VecDeque<(Duration, u64)>,
    /// The stream was trimmed up to here.
    trimmed_to: u64,
    went_back: bool,
    end: Option<Ended>,
    closing: bool,
}

impl Broker for Node {
    fn turn(&mut self, log: &mut dyn LogSide) -> Flow {
        self.wait();
        if let Err(error) = self.read(log) {
            self.lose_links(&error, log);
        }
        self.take_near(log);
        if log.now().saturating_sub(self.ticked_at) >= TICK {
            self.tick(log);
        }
        self.feed(log);
        self.ask_for_entries();
        self.heed(log);
        if let Err(error) = self.send() {
            self.lose_links(&error, log);
        }
        if self.was_open != self.is_open() && self.follower.is_some() {
            self.was_open = self.is_open();
            self.tell_turned(log);
        }
        let is_idle = self.talk.as_ref().is_none_or(|talk| talk.waits_since().is_none());
        match self.end {
            Some(ended) => Flow::End(ended),
            None if self.closing && is_idle => Flow::Closed,
            None => Flow::On,
        }
    }

    fn follower(&self) -> Option<&Follower> {
        self.follower.as_ref()
    }

    fn begun(&mut self) -> bool {
        let (is_fed, found_to) = (self.is_open() && self.events.is_empty(), self.found_to);
        is_fed && self.follower.as_mut().is_some_and(|follower| follower.has_begun(found_to))
    }

    fn node(&self) -> &str {
        self.peers.node()
    }

    fn take_refusal(&mut self) -> Option<BrokerError> {
        // A server that can't be used may be repaired while the start waits.
        None
    }
}

impl Node {
    pub fn new(settings: RedisSettings, ends: Ends) -> Result<Self, RedisError> {
        let parsed =
            |url: &String| Address::parse(url).ok_or_else(|| RedisError::Address(url.clone()));
        let servers = settings.servers.iter().map(parsed).collect::<Result<_, _>>()?;
        let peers = Peers::new(settings.node);
        Ok(Self {
            head_key: scripts::head_key(&settings.stream),
            log_key: scripts::log_key(&settings.stream),
            aside_key: scripts::aside_key(&settings.stream),
            settings,
            servers,
            ends,
            talk: None,
            entries: None,
            asides: None,
            peers,
            ask_after: None,
            tried_at: None,
            looked_at: Duration::ZERO,
            ticked_at: Duration::ZERO,
            follower: None,
            found_to: 0,
            events: VecDeque::new(),
            revoked: Vec::new(),
            held_up: false,
            was_open: false,
            to_trim: VecDeque::new(),
            trimmed_to: 0,
            went_back: false,
            end: None,
            closing: false,
        })
    }

    fn is_open(&self) -> bool {
        self.talk.is_some() && self.entries.is_some() && !self.went_back
    }

    fn wait(&self) {
        let Some(talk) = &self.talk else {
            return self.ends.bell.wait(&[], RETRY_PAUSE);
        };
        self.ends.bell.announce();
        let mut sockets = vec![talk.link.waits()];
        sockets.extend(self.entries.as_ref().map(|(link, _)| link.waits()));
        sockets.extend(self.asides.as_ref().map(Link::waits));
        let has_more = talk.link.may_hold_more()
            || self.entries.as_ref().is_some_and(|(link, _)| link.may_hold_more());
        let time = match self.ends.near.is_empty() && !has_more {
            true => TICK,
            false => Duration::ZERO,
        };
        self.ends.bell.wait(&sockets, time);
    }

    // --- connections ---

    fn connect(&mut self, now: Duration) {
        self.tried_at = Some(now);
        // The server in use is always the first in the list.
        for _ in 0..self.servers.len() {
            let address = &self.servers[0];
            match Talk::connect(address, self.settings.tls.as_ref()) {
                Ok(talk) => {
                    let version = &talk.server.version;
                    tracing::info!(server = %address, %version, "connected to Redis");
                    for danger in talk.server.dangers() {
                        tracing::warn!(server = %address, "{danger}");
                    }
                    return self.begin(talk, now);
                }
                Err(error) => tracing::warn!(server = %address, %error, "Redis can't be used"),
            }
            self.servers.rotate_left(1);
        }
    }

    /// The connection for entries, at the server that was found to be the primary.
    fn open_entries(&mut self, now: Duration) -> io::Result<()> {
        let (Some(address), Some(follower)) = (self.servers.first(), &mut self.follower) else {
            return Ok(());
        };
        let link = Link::connect(address, self.settings.tls.as_ref())?;
        link.never_block()?;
        self.ends.metrics.openings.add(1);
        self.ask_after = Some(follower.open().saturating_sub(1));
        self.entries = Some((link, now));
        self.open_asides()
    }

    fn lose_links(&mut self, error: &io::Error, log: &mut dyn LogSide) {
        tracing::warn!("the connection to Redis is lost: {error}");
        (self.entries, self.asides) = (None, None);
        self.ends.tail.note(None);
        self.servers.rotate_left(1);
        let asked = self.talk.take().into_iter().flat_map(Talk::into_asked);
        let lost = asked.filter_map(|asked| match asked {
            Asked::Publish(number) => Some(Answered::new(number, None)),
            _ => None,
        });
        let lost = lost.collect();
        self.answer(lost, log);
    }

    fn send(&mut self) -> io::Result<()> {
        if let Some(talk) = &mut self.talk {
            talk.link.send()?;
        }
        let entries = self.entries.as_mut().map(|(link, _)| link);
        entries.into_iter().chain(&mut self.asides).try_for_each(Link::send)
    }

    fn read(&mut self, log: &mut dyn LogSide) -> io::Result<()> {
        let now = log.now();
        if let Some(mut talk) = self.talk.take() {
            let mut answers = Vec::new();
            let read = self.read_answers(&mut talk, now, &mut answers);
            self.talk = Some(talk);
            self.answer(answers, log);
            read?;
        }
        if let Some((mut link, heard_at)) = self.entries.take() {
            let heard_at = if link.fill()? { now } else { heard_at };
            while let Some(read) = link.next_reply(|reply| self.take_entries(reply, now))? {
                read?;
            }
            self.entries = Some((link, heard_at));
        }
        self.read_asides()
    }

    fn read_answers(
        &mut self,
        talk: &mut Talk,
        now: Duration,
        answers: &mut Vec<Answered>,
    ) -> io::Result<()> {
        talk.link.fill()?;
        let mut next = Vec::new();
        while let Some(read) = talk.next(|asked, since, reply| {
            self.take_answer(asked, now.saturating_sub(since), reply, answers)
        })? {
            next.extend(read?);
        }
        for step in next {
            self.take_step(talk, step, now)?;
        }
        Ok(())
    }

    // --- publications ---

    fn take_near(&mut self, log: &mut dyn LogSide) {
        let now = log.now();
        let mut lost = Vec::new();
        while let Ok(message) = self.ends.near.try_recv() {
            match message {
                ToBroker::Publish(number, publication, counts) => {
                    if counts == Counts::Everywhere {
                        let asked = self.peers.count(number, &publication.channel, now);
                        asked.iter().for_each(|aside| self.say(aside, now));
                    }
                    if !self.publish(number, &publication, now) {
                        lost.push(Answered::new(number, None));
                    }
                }
                // If it can't be sent, dropping `tell` says at once that it failed.
                ToBroker::Revoke(revocation, tell) => {
                    if let Ok(json) = serde_json::to_vec(&revocation) {
                        self.add(Asked::Revoke(tell), None, &vec![("r", json)], now);
                    }
                }
                ToBroker::Ask(node, question, tell) => {
                    let asked = self.peers.ask(node, question, tell, now);
                    asked.iter().for_each(|aside| self.say(aside, now));
                }
                ToBroker::Say(aside) => self.say(&aside, now),
                ToBroker::ReadOlder(_) => unreachable!("all of a node's history is in memory"),
                ToBroker::Close => self.closing = true,
            }
        }
        self.answer(lost, log);
    }

    /// Returns whether it was sent.
    fn publish(&mut self, number: u64, publication: &Publication, now: Duration) -> bool {
        let key = publication.key.as_ref();
        let key =
            key.map(|key| scripts::known_key(&self.settings.stream, &publication.channel, key));
        self.ends.metrics.sent.add(1);
        self.add(Asked::Publish(number), key.as_deref(), &entry::fields(publication), now)
    }

    fn add(&mut self, asked: Asked, key: Option<&str>, fields: &Fields, now: Duration) -> bool {
        let (Some(talk), Some(follower)) = (&mut self.talk, &self.follower) else { return false };
        let Identity { created, generation, .. } = follower.identity();
        let generation = generation.to_string();
        let keys = [Some(&*self.head_key), Some(&*self.log_key), key];
        let count = keys.iter().flatten().count().to_string();
        let mut words: Vec<&[u8]> = vec![count.as_bytes()];
        words.extend(keys.iter().flatten().map(|key| key.as_bytes()));
        words.extend([created.as_bytes(), generation.as_bytes(), scripts::KEYS_MS.as_bytes()]);
        words.extend(fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_slice()]));
        talk.ask_publish(asked, &words, now);
        true
    }

    fn answer(&mut self, answers: Vec<Answered>, log: &mut dyn LogSide) {
        let counted = answers.into_iter().filter_map(|answered| self.peers.answered(answered));
        let answers: Vec<Answered> = counted.collect();
        let lost = answers.iter().filter(|answered| answered.seq.is_none()).count();
        self.ends.metrics.unanswered.add(lost as u64);
        if !answers.is_empty() {
            self.held_up = log.tell(Stored::Answered(answers));
        }
    }

    // --- entries ---

    /// Asks for the next entries once all earlier ones are with the log.
    fn ask_for_entries(&mut self) {
        if !self.events.is_empty() {
            return;
        }
        let Some((link, _)) = &mut self.entries else { return };
        let Some(after) = self.ask_after.take() else { return };
        let after = format!("{after}-0");
        let count: [&[u8]; 5] = [b"XREAD", b"COUNT", ENTRIES_AT_ONCE, b"BLOCK", HOLD_MS];
        let of: [&[u8]; 3] = [b"STREAMS", self.log_key.as_bytes(), after.as_bytes()];
        link.write(&[&count[..], &of].concat());
    }

    /// Takes the answer to XREAD: for each stream its name and its entries, or nothing.
    fn take_entries(&mut self, reply: &Reply<'_>, now: Duration) -> io::Result<()> {
        if let Reply::Error(why) = reply {
            return Err(io::Error::other((*why).to_owned()));
        }
        let of_stream = reply.list().first().and_then(|stream| stream.list().get(1));
        for entry in of_stream.map_or(&[][..], Reply::list) {
            match Entry::read(entry) {
                Some(entry) => self.take_entry(entry, now),
                None => tracing::warn!("an entry of the stream was not written by a node: skipped"),
            }
        }
        self.ask_after = self.follower.as_ref().map(Follower::head);
        Ok(())
    }

    fn take_entry(&mut self, entry: Entry, now: Duration) {
        let Some(follower) = &mut self.follower else { return };
        let Entry { mark, stored_at, says } = entry;
        match follower.deliver(mark, now) {
            Delivery::Take => {
                self.ends.metrics.received.add(1);
                let ordered_at = stored_at.saturating_sub(self.settings.clock_began);
                match says {
                    Some(Says::Event(publication)) => {
                        self.events.push_back(Fed { seq: mark.seq, publication, ordered_at });
                    }
                    Some(Says::Revoked(revocation)) => self.revoked.push(revocation),
                    None => {}
                }
            }
            Delivery::Skip => {}
            Delivery::End(Ended::RolledBack) => self.went_back = true,
            Delivery::End(ended) => self.end = Some(ended),
        }
    }

    /// Gives the log the events that have come, as far as it has room.
    fn feed(&mut self, log: &mut dyn LogSide) {
        if self.held_up {
            self.held_up = log.feed(Vec::new());
        }
        while !self.held_up && !self.events.is_empty() {
            let count = self.events.len().min(FED_AT_ONCE);
            self.held_up = log.feed(self.events.drain(..count).collect());
        }
        if !self.revoked.is_empty() && log.revoke(&self.revoked) {
            self.revoked.clear();
        }
    }

    /// Tells the log whether this node follows the stream.
    fn tell_turned(&mut self, log: &mut dyn LogSide) {
        let is_up = self.is_open();
        self.ends.note_turned(is_up, log.now());
        self.held_up = log.tell(if is_up { Stored::Up } else { Stored::Down });
    }
}
