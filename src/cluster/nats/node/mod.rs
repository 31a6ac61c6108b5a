//! The node at work: it sends publications, takes answers and messages, and looks at the stream now and
//! then. One thread does all of it in [`Node::turn`].

mod asides;
mod older;
mod questions;
mod revocations;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::older::Older;
use self::revocations::Revocations;
use super::api::Api;
use super::auth::Credentials;
use super::codec::{self, Subjects};
use super::link::{Address, Link};
use super::message::Delivered;
use super::sending::Sending;
use super::wire::{Message, Op, write_line, write_message};
use super::{NatsError, NatsSettings};
use crate::cluster::broker::{
    Broker, BrokerError, Ends, FED_AT_ONCE, Flow, RETRY_PAUSE, Shortcut, TICK,
};
use crate::cluster::follower::{Delivery, Follower};
use crate::cluster::peers::Peers;
use crate::cluster::{Ended, LogSide, ToBroker};
use crate::log::message::{Counts, Fed};
use crate::log::store::{Answered, Stored};

/// The subscriptions to answers and to what nodes say beside the stream. Each opening of the stream
/// gets a higher number.
const ANSWERS: u64 = 1;
const ASIDES: u64 = 2;

/// What follows a node's inbox in the subject of what is said to that node alone.
const INBOX_ASIDES: &str = ".a";

/// What the subjects of a node's answers begin with; no other client has it.
fn inbox_of(node: &str) -> String {
    format!("_INBOX.{node}")
}

/// What is asked of JetStream, one thing at a time.
#[derive(Debug)]
enum Question {
    /// At a start: what is the stream's state?
    Find,
    /// At a start: there is no stream, create it.
    Create,
    /// Send its messages.
    Follow,
    /// What is its state, now that it is open? It may be another stream than the one looked at before.
    LookAtOpened,
    Look,
    /// The stream has lost events: is its generation still the one we know?
    LookAtGeneration,
    Raise,
}

#[derive(Debug)]
struct Asked {
    number: u64,
    question: Question,
    until: Duration,
}

/// Whether the stream's messages come.
#[derive(Debug)]
enum Way {
    Closed { since: Duration },
    Opening,
    Open { count: u64, heard_at: Duration },
}

/// A node on its stream.
#[derive(Debug)]
pub struct Node {
    settings: NatsSettings,
    servers: Vec<Address>,
    credentials: Option<Credentials>,
    ends: Ends,
    subjects: Subjects,
    api: Api,
    inbox: String,
    link: Option<Link>,
    /// When anything came over it.
    heard_at: Duration,
    /// What this turn sends; nothing without a connection.
    out: Vec<u8>,
    /// What is to be sent before that, and the publications that are under way.
    sending: Arc<Sending>,
    tried_at: Option<Duration>,
    /// `None` until the stream is found.
    follower: Option<Follower>,
    way: Way,
    /// The subscription of this opening.
    subscription: u64,
    asked: Option<Asked>,
    questions: u64,
    looked_at: Duration,
    /// Events that have come and are not with the log yet.
    events: VecDeque<Fed>,
    revocations: Revocations,
    older: Older,
    peers: Peers,
    /// Where to tell the broker that all events are with the log: it waits for that.
    flow_control: Option<String>,
    /// The log has no room for events for now.
    held_up: bool,
    ticked_at: Duration,
    /// The newest message of the stream when it was found.
    found_to: u64,
    refused: Option<NatsError>,
    /// The stream has lost events; a higher generation has to be written into it.
    went_back: bool,
    end: Option<Ended>,
    closing: bool,
}

impl Broker for Node {
    fn turn(&mut self, log: &mut dyn LogSide) -> Flow {
        self.wait();
        let was_open = self.is_open();
        if let Err(error) = self.read(log) {
            self.lose_link(&error, log);
        }
        self.take_near(log);
        if log.now().saturating_sub(self.ticked_at) >= TICK {
            self.tick(log);
        }
        self.feed(log);
        self.tend_older(log);
        self.heed(log);
        if let Err(error) = self.send() {
            self.lose_link(&error, log);
        }
        if was_open != self.is_open() && self.follower.is_some() {
            self.tell_turned(log);
        }
        match self.end {
            Some(ended) => Flow::End(ended),
            None if self.closing && self.sending.lock().unanswered.is_empty() => Flow::Closed,
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

    fn shortcut(&self) -> Option<Arc<dyn Shortcut>> {
        Some(self.sending.clone())
    }

    fn take_refusal(&mut self) -> Option<BrokerError> {
        self.refused.take().map(BrokerError::Nats)
    }
}

/// The servers, in the order in which this node tries them: each has its share of the nodes.
fn servers_of(settings: &NatsSettings) -> Result<Vec<Address>, NatsError> {
    let parsed = |url: &String| Address::parse(url).ok_or_else(|| NatsError::Address(url.clone()));
    let mut servers: Vec<Address> =
        settings.servers.iter().map(parsed).collect::<Result<_, _>>()?;
    let first = settings.node.checked_rem(servers.len() as u64).unwrap_or_default();
    servers.rotate_left(first as usize);
    Ok(servers)
}

impl Node {
    pub fn new(settings: NatsSettings, ends: Ends) -> Result<Self, NatsError> {
        let servers = servers_of(&settings)?;
        let credentials = settings.credentials.as_deref().map(Credentials::read).transpose();
        let credentials = credentials.map_err(NatsError::Credentials)?;
        let peers = Peers::new(settings.node);
        let subjects = Subjects::new(&settings.stream);
        let inbox = inbox_of(peers.node());
        let sending = Sending::new(subjects.clone(), inbox.clone(), ends.metrics.clone());
        Ok(Self {
            subjects,
            api: Api::new(&settings.stream),
            settings,
            servers,
            credentials,
            ends,
            inbox,
            link: None,
            heard_at: Duration::ZERO,
            out: Vec::new(),
            sending: Arc::new(sending),
            tried_at: None,
            follower: None,
            way: Way::Closed { since: Duration::ZERO },
            subscription: ASIDES,
            asked: None,
            questions: 0,
            looked_at: Duration::ZERO,
            events: VecDeque::new(),
            revocations: Revocations::default(),
            older: Older::default(),
            peers,
            flow_control: None,
            held_up: false,
            ticked_at: Duration::ZERO,
            found_to: 0,
            refused: None,
            went_back: false,
            end: None,
            closing: false,
        })
    }

    fn wait(&mut self) {
        let Some(link) = &self.link else {
            return self.ends.bell.wait(&[], RETRY_PAUSE);
        };
        self.ends.bell.announce();
        let sending = self.sending.lock();
        let (has_news, has_more) = (sending.has_news(&self.ends.near), !sending.out.is_empty());
        drop(sending);
        let time = if has_news || link.may_hold_more() { Duration::ZERO } else { TICK };
        self.ends.bell.wait(&[link.waits(has_more)], time);
    }

    /// What the socket takes, in the order in which it was to be sent.
    fn send(&mut self) -> io::Result<()> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let mut sending = self.sending.lock();
        sending.out.append(&mut self.out);
        link.pipe().send(&mut sending.out)
    }

    // --- the connection ---

    fn connect(&mut self, log: &mut dyn LogSide) {
        self.tried_at = Some(log.now());
        for address in &self.servers {
            match Link::connect(address, self.credentials.as_ref(), self.settings.tls.as_ref()) {
                Ok(link) if !link.info().is_recent() => {
                    let version = &link.info().version;
                    tracing::warn!(server = %address, %version, "this NATS is older than 2.10");
                }
                Ok(link) => {
                    let version = &link.info().version;
                    tracing::info!(server = %address, %version, "connected to NATS");
                    return self.begin(link, log.now());
                }
                Err(error) => tracing::warn!(server = %address, %error, "NATS can't be reached"),
            }
        }
    }

    /// Over a new connection.
    fn begin(&mut self, mut link: Link, now: Duration) {
        let max_payload = link.info().max_payload;
        if max_payload < self.settings.event_bytes_max {
            let cure = "raise its max_payload, or lower max_event_bytes";
            tracing::warn!(max_payload, "this NATS refuses larger events: {cure}");
        }
        self.sending.lock().open(link.pipe().second_end(), max_payload);
        self.out.clear();
        write_line(&mut self.out, format_args!("SUB {}.> {ANSWERS}", self.inbox));
        write_line(&mut self.out, format_args!("SUB {} {ASIDES}", self.subjects.asides));
        self.link = Some(link);
        self.heard_at = now;
        self.way = Way::Closed { since: Duration::ZERO };
    }

    fn lose_link(&mut self, error: &io::Error, log: &mut dyn LogSide) {
        tracing::warn!("the connection to NATS is lost: {error}");
        self.link = None;
        self.out.clear();
        self.asked = None;
        self.servers.rotate_left(1);
        self.close_way(log.now());
        // Their answers went to the connection that is lost.
        let mut sending = self.sending.lock();
        sending.close();
        let lost = sending.unanswered.give_up();
        drop(sending);
        self.answer(lost, log);
        self.revocations.give_up();
        self.older.give_up();
    }

    fn read(&mut self, log: &mut dyn LogSide) -> io::Result<()> {
        let Some(mut link) = self.link.take() else { return Ok(()) };
        let read = self.read_from(&mut link, log);
        self.link = Some(link);
        read
    }

    fn read_from(&mut self, link: &mut Link, log: &mut dyn LogSide) -> io::Result<()> {
        let now = log.now();
        if link.pipe().fill()? {
            self.heard_at = now;
        }
        let mut answers = Vec::new();
        let mut take = |op: Op<'_>| {
            match op {
                Op::Ping => write_line(&mut self.out, format_args!("PONG")),
                Op::Error(why) => return Err(io::Error::other(why.to_owned())),
                Op::Message(message) => self.take_message(&message, now, &mut answers),
                Op::Info(_) | Op::Pong | Op::Ok => {}
            }
            Ok(())
        };
        while let Some(taken) = link.next_op(&mut take)? {
            taken?;
        }
        self.answer(answers, log);
        Ok(())
    }

    fn take_message(&mut self, message: &Message<'_>, now: Duration, answers: &mut Vec<Answered>) {
        if message.subscription == ANSWERS {
            let Some(kind) = message.subject.strip_prefix(&self.inbox) else { return };
            if let Some(number) = kind.strip_prefix(".p.").and_then(|text| text.parse().ok()) {
                let answered = self.sending.lock().unanswered.answer(number, message.payload, now);
                if let Some((answered, took)) = answered {
                    self.ends.metrics.answer_time.observe_us(took.as_micros() as u64);
                    answers.push(answered);
                }
            } else if let Some(number) = kind.strip_prefix(".q.").and_then(|t| t.parse().ok()) {
                self.take_answer(number, message.payload, now);
            } else if let Some(number) = kind.strip_prefix(".r.").and_then(|t| t.parse().ok()) {
                self.revocations.answer(number, message.payload);
            } else if let Some(part) = kind.strip_prefix(".o.") {
                self.take_older(part, message.headers, message.payload);
            } else if kind == INBOX_ASIDES {
                self.peers.note(message.payload);
            }
        } else if message.subscription == ASIDES {
            self.peers.note(message.payload);
        } else if message.subscription == self.subscription {
            self.take_delivered(message, now);
        }
    }

    // --- publications ---

    fn take_near(&mut self, log: &mut dyn LogSide) {
        let (now, sending) = (log.now(), self.sending.clone());
        let mut lost = Vec::new();
        let mut sending = sending.lock();
        while let Some(message) = sending.next(&self.ends.near) {
            match (message, &self.link) {
                (ToBroker::Publish(number, publication, counts), Some(_)) => {
                    if counts == Counts::Everywhere {
                        let asked = self.peers.count(number, &publication.channel, now);
                        asked.iter().for_each(|aside| self.say(aside));
                    }
                    if !sending.publish(number, &publication, now) {
                        lost.push(Answered::new(number, None));
                    }
                }
                (ToBroker::Publish(number, ..), None) => lost.push(Answered::new(number, None)),
                (ToBroker::ReadOlder(read), _) => self.older.push(read),
                (ToBroker::Revoke(revocation, tell), _) => self.send_revocation(&revocation, tell),
                (ToBroker::Ask(node, question, tell), _) => {
                    let asked = self.peers.ask(node, question, tell, now);
                    asked.iter().for_each(|aside| self.say(aside));
                }
                (ToBroker::Say(aside), _) => self.say(&aside),
                (ToBroker::Close, _) => self.closing = true,
            }
        }
        drop(sending);
        self.answer(lost, log);
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

    // --- the stream's messages ---

    fn take_delivered(&mut self, message: &Message<'_>, now: Duration) {
        match Delivered::of(message) {
            Delivered::Message { mark, count: arrived, stored_at } => {
                let (Way::Open { count, heard_at }, Some(follower)) =
                    (&mut self.way, &mut self.follower)
                else {
                    return;
                };
                *heard_at = now;
                *count += 1;
                if *count != arrived {
                    return self.close_way(now);
                }
                match follower.deliver(mark, now) {
                    Delivery::Take => self.take_event(message, mark.seq, stored_at),
                    Delivery::Skip => {}
                    Delivery::End(ended) => self.end_log(ended, now),
                }
            }
            Delivered::FlowControl(reply) => {
                self.note_heard(now);
                self.flow_control = Some(reply);
            }
            Delivered::Heartbeat { sent, awaited } => {
                self.note_heard(now);
                self.flow_control = awaited.or(self.flow_control.take());
                self.compare_count(sent, now);
            }
            Delivered::Other => self.close_way(now),
        }
    }

    fn take_event(&mut self, message: &Message<'_>, seq: u64, stored_at: Duration) {
        self.ends.metrics.received.add(1);
        if message.subject == self.subjects.revoked {
            return self.revocations.came(message.payload);
        }
        let ordered_at = stored_at.saturating_sub(self.settings.clock_began);
        let Message { subject, headers, payload, .. } = *message;
        let read = codec::publication(&self.subjects, subject, headers, payload);
        self.events.extend(read.map(|publication| Fed { seq, publication, ordered_at }));
    }

    fn note_heard(&mut self, now: Duration) {
        if let Way::Open { heard_at, .. } = &mut self.way {
            *heard_at = now;
        }
    }

    /// Servers pass messages on to each other without asking whether they arrive. The next message
    /// shows that one got lost; where there is no next one, a heartbeat does.
    fn compare_count(&mut self, sent: Option<u64>, now: Duration) {
        if let (Way::Open { count, .. }, Some(sent)) = (&self.way, sent)
            && *count < sent
        {
            tracing::warn!(
                lost = sent - count,
                "messages of the stream got lost: it is opened again"
            );
            self.close_way(now);
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
        self.revocations.apply(log);
        if !self.events.is_empty() {
            return;
        }
        if let Some(reply) = self.flow_control.take().filter(|_| self.link.is_some()) {
            write_message(&mut self.out, &reply, None, &[], b"");
        }
    }
}
