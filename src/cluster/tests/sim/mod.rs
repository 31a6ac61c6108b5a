//! Several nodes, each a real log with its follower, on a simulated broker with faults. Publishers
//! retry what was not answered, with the same key; nodes stall, are cut off, and get what comes twice;
//! answers get lost or come twice; and now and then the broker loses the end of the stream.
//!
//! A witness writes down what each node showed under which id. However it went: an id never meant two
//! events, and an event that was answered in the epoch that is left is shown by every node.

mod nats;
mod redis;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;

use super::super::follower::{Delivery, Follower, Mark};
use super::super::{Ended, Identity, Near, Post, Tail, ToBroker};
use crate::log::event::{Kind, Publication};
use crate::log::message::{Answer, Ask, Counts, Fed, FromLog, Share, Ticket, ToLog};
use crate::log::policy::Keeps;
use crate::log::store::{Answered, Stored};
use crate::log::stream::StreamTimes;
use crate::log::{LogSettings, Outlet, Policies, Policy, Sequencer, SharedHasher};
use crate::proto::cursor::Cursor;

const NODES: usize = 3;
const STEPS: usize = 2_000;
const SEEDS: u64 = 60;
const CHANNEL: &str = "a";

/// Brokers, nodes, and the witness of what comes of them.
trait World {
    fn step(&mut self);
    /// All faults end: everything that was answered in the last epoch is there, on every node.
    fn settle(&mut self);
    fn faults(&mut self) -> &mut Vec<String>;
}

/// What the witness has found when all is over.
fn run(mut world: impl World) -> Vec<String> {
    for _ in 0..STEPS {
        world.step();
        if !world.faults().is_empty() {
            return std::mem::take(world.faults());
        }
    }
    world.settle();
    std::mem::take(world.faults())
}

/// A stored message.
#[derive(Clone)]
struct Message {
    key: String,
    sign: u64,
}

/// Stores it, unless it is there.
fn store(messages: &mut Vec<Message>, key: &str, signs: &mut u64) -> u64 {
    if let Some(place) = messages.iter().position(|message| message.key == key) {
        return place as u64 + 1;
    }
    *signs += 1;
    messages.push(Message { key: key.to_owned(), sign: *signs });
    messages.len() as u64
}

/// What a node tells its one worker.
#[derive(Default)]
struct Lane {
    told: Vec<FromLog>,
    full: bool,
}

impl Outlet for Lane {
    fn has_room(&self, _worker: u16, _share: Share, _reserved: usize) -> bool {
        !self.full
    }

    fn send(&mut self, _worker: u16, told: FromLog) {
        self.told.push(told);
    }
}

/// What the log has sent, in its order.
#[derive(Default)]
struct Outgoing(Mutex<VecDeque<(u64, Publication)>>);

impl Post for Outgoing {
    fn put(&self, message: ToBroker) {
        if let ToBroker::Publish(number, publication, _) = message {
            self.0.lock().expect("one thread").push_back((number, publication));
        }
    }

    fn flush(&self) {}
}

struct Node {
    log: Sequencer,
    follower: Follower,
    lane: Lane,
    outgoing: Arc<Outgoing>,
    tail: Arc<Tail>,
    /// What comes next on its subscription; none: it is closed.
    from: Option<u64>,
}

fn settings() -> LogSettings {
    let policy = Policy {
        history_count: 1_000_000,
        history_age: Duration::MAX,
        publish_rate: None,
        history_share: 0,
        keeps: Keeps::All,
        stream_bytes: 0,
        stream_compact: 0,
        presence: false,
    };
    LogSettings {
        history_bytes_max: 1 << 30,
        history_memory_bytes_max: u64::MAX,
        channels_max: 100,
        presence_grace: Duration::ZERO,
        streams: StreamTimes::default(),
        policies: Policies::uniform(policy),
    }
}

impl Node {
    /// Reads the stream to its end, as a start does.
    fn start(identity: Identity, messages: &[Message], now: Duration) -> Self {
        let (epoch, last) = (identity.epoch(), messages.len() as u64);
        let mut log = Sequencer::new(settings(), epoch, 1, SharedHasher::from_seed(1));
        let (outgoing, tail) = (Arc::<Outgoing>::default(), Arc::<Tail>::default());
        tail.note(Some(last));
        log.move_to(Box::new(Near::new(outgoing.clone(), tail.clone())), epoch, 0, 0);
        let follower = Follower::new(identity, 0, now);
        let mut lane = Lane::default();
        let channels = vec![CHANNEL.into()];
        let body = Ask::Join { ticket: Ticket(0), channels, cursor: Cursor::Now, identity: None };
        log.handle(ToLog::Worker { worker: 0, body }, now, &mut lane);
        lane.told.clear();
        let mut node = Self { log, follower, lane, outgoing, tail, from: None };
        node.open();
        while node.follower.head() < last {
            node.follow(messages, now).expect("a start has no hole");
        }
        assert!(node.follower.has_begun(0));
        node
    }

    /// The subscription begins (again).
    fn open(&mut self) {
        self.from = Some(self.follower.open());
    }

    /// Now and then the last one comes again.
    fn repeat(&mut self) {
        self.from = self.from.map(|from| from.saturating_sub(1).max(1));
    }

    /// The next message of the subscription.
    fn follow(&mut self, messages: &[Message], now: Duration) -> Result<(), Ended> {
        let Some(seq) = self.from else { return Ok(()) };
        let Some(message) = messages.get(seq as usize - 1) else { return Ok(()) };
        self.from = Some(seq + 1);
        match self.follower.deliver(Mark { seq, sign: message.sign }, now) {
            Delivery::Take => {
                let publication = publication(&message.key);
                let fed = vec![Fed { seq, publication, ordered_at: now }];
                self.log.handle(ToLog::Feed(fed), now, &mut self.lane);
            }
            Delivery::Skip => {}
            Delivery::End(ended) => return Err(ended),
        }
        Ok(())
    }

    /// Goes on as if nothing had happened: what a canary does when its log ends.
    fn ignore_the_end(&mut self, identity: Identity, last: u64, now: Duration) {
        let head = self.follower.head().min(last);
        self.follower = Follower::new(identity, head, now);
        self.open();
    }

    fn tell(&mut self, stored: Stored, now: Duration) {
        self.log.handle(ToLog::Store(stored), now, &mut self.lane);
    }

    fn publish(&mut self, ticket: usize, key: &str, now: Duration) {
        let ticket = Ticket(ticket as u32);
        let publications = vec![publication(key)];
        let body = Ask::Publish { ticket, share: Share::Whole, counts: Counts::Here, publications };
        self.log.handle(ToLog::Worker { worker: 0, body }, now, &mut self.lane);
    }

    /// What it has sent next.
    fn take_sent(&self) -> Option<(u64, String)> {
        let (number, publication) = self.outgoing.0.lock().expect("one thread").pop_front()?;
        Some((number, publication.key.expect("all have one").to_string()))
    }
}

fn publication(key: &str) -> Publication {
    Publication {
        channel: CHANNEL.into(),
        kind: Kind::Text,
        data: Bytes::copy_from_slice(key.as_bytes()),
        event_type: None,
        key: Some(key.into()),
        attributes: None,
    }
}

/// Writes down what nodes show and answer.
#[derive(Default)]
struct Witness {
    /// By id, what was shown under it.
    shown: BTreeMap<(String, u64), String>,
    /// The key of each publication, by its ticket.
    tickets: Vec<String>,
    /// In which epoch which keys were answered.
    answered: Vec<(String, String)>,
    faults: Vec<String>,
}

impl Witness {
    /// A key to publish with, and its ticket. Some try again what they tried before.
    fn next_key(&mut self, rng: &mut Rng) -> (usize, String) {
        let known = self.tickets.len();
        let key = match rng.u32(0..4) == 0 && known > 0 {
            true => self.tickets[rng.usize(known.saturating_sub(20)..known)].clone(),
            false => format!("key {known}"),
        };
        self.tickets.push(key.clone());
        (known, key)
    }

    fn note(&mut self, node: &mut Node, now: Duration) {
        let epoch = node.log.epoch().to_string();
        node.log.tend(now, &mut node.lane);
        for told in std::mem::take(&mut node.lane.told) {
            match told {
                FromLog::Event(event) => {
                    let key = event.key.as_deref().unwrap_or_default();
                    self.note_shown(&epoch, event.seq, key);
                }
                FromLog::Answer { ticket, answer: Answer::Published { outcome, .. } }
                    if outcome.refusal.is_none() =>
                {
                    let key = self.tickets[ticket.0 as usize].clone();
                    self.answered.push((epoch.clone(), key));
                }
                _ => {}
            }
        }
    }

    fn note_shown(&mut self, epoch: &str, seq: u64, key: &str) {
        let id = (epoch.to_owned(), seq);
        let before = self.shown.entry(id).or_insert_with(|| key.to_owned());
        if *before != key {
            self.faults.push(format!("{epoch}-{seq} is {before} and {key}"));
        }
    }

    /// All faults have ended, and this is the stream.
    fn conclude(&mut self, nodes: &[Node], identity: &Identity, messages: &[Message]) {
        let (epoch, last) = (identity.epoch(), messages.len() as u64);
        for (at, node) in nodes.iter().enumerate() {
            if node.log.epoch() != epoch || node.log.stats().head_seq != last {
                self.faults.push(format!("node {at} is not at the end of the log"));
            }
        }
        let kept: Vec<&str> = messages.iter().map(|message| message.key.as_str()).collect();
        let epoch = epoch.to_string();
        for (of, key) in &self.answered {
            if *of == epoch && !kept.contains(&key.as_str()) {
                self.faults.push(format!("{key} was answered and is lost"));
            }
        }
    }
}

/// The broker has taken what a node sent, or not; the answer may come twice.
fn answer(node: &mut Node, number: u64, seq: Option<u64>, rng: &mut Rng, now: Duration) {
    for _ in 0..rng.usize(1..3) {
        node.tell(Stored::Answered(vec![Answered::new(number, seq)]), now);
    }
}
