//! Several nodes on a simulated stream. Publishers retry what was not answered, with the same key;
//! nodes stall, are cut off, and get what comes twice; answers get lost; and now and then the stream
//! goes back to an earlier end.
//!
//! A witness writes down what each node showed under which id. However it went: an id never meant two
//! events, an event that was answered is shown by every node that goes on, and a client that moves
//! from node to node with nothing but its cursor misses nothing it was not told of.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;

use super::super::follower::{BEHIND_TIME_MAX, Delivery, Follower, Look, Mark, StreamState};
use super::super::{Ended, Identity, Near, Tail, ToBroker};
use crate::log::event::{Kind, Publication};
use crate::log::message::{Ask, Counts, Fed, FromLog, Share, Ticket, ToLog};
use crate::log::policy::Keeps;
use crate::log::store::{Answered, Stored};
use crate::log::stream::StreamTimes;
use crate::log::{LogSettings, Outlet, Policies, Policy, Sequencer, SharedHasher};
use crate::proto::cursor::Cursor;

const NODES: usize = 3;
const STEPS: usize = 2_000;
const CHANNEL: &str = "a";

/// A stored message.
#[derive(Clone)]
struct Message {
    key: String,
    sign: u64,
}

/// The broker.
struct Stream {
    messages: Vec<Message>,
    generation: u64,
    signs: u64,
}

impl Stream {
    fn identity(&self) -> Identity {
        Identity { name: "S".into(), created: "now".into(), generation: self.generation }
    }

    fn last(&self) -> u64 {
        self.messages.len() as u64
    }

    fn state(&self) -> StreamState {
        StreamState { identity: self.identity(), first: 1, last: self.last() }
    }

    /// Stores it, unless it has it.
    fn store(&mut self, key: &str) -> u64 {
        if let Some(place) = self.messages.iter().position(|message| message.key == key) {
            return place as u64 + 1;
        }
        self.signs += 1;
        self.messages.push(Message { key: key.to_owned(), sign: self.signs });
        self.last()
    }
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

type Outgoing = Arc<Mutex<VecDeque<(u64, Publication)>>>;

struct Node {
    log: Sequencer,
    follower: Follower,
    lane: Lane,
    outgoing: Outgoing,
    tail: Arc<Tail>,
    /// What comes next on its subscription; none: it is closed.
    from: Option<u64>,
    partitioned: bool,
}

/// How the world is bent: a canary has a node that does what it must not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bend {
    Straight,
    IgnoreRollback,
}

struct World {
    rng: Rng,
    bend: Bend,
    now: Duration,
    stream: Stream,
    nodes: Vec<Node>,
    /// By id, what was shown under it.
    shown: BTreeMap<(String, u64), String>,
    /// The key of each publication, by its ticket.
    tickets: Vec<String>,
    /// Keys that were answered since the stream last went back.
    answered: Vec<String>,
    faults: Vec<String>,
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
    fn start(stream: &Stream, now: Duration) -> Self {
        let epoch = stream.identity().epoch();
        let mut log = Sequencer::new(settings(), epoch, 1, SharedHasher::from_seed(1));
        let (outgoing, tail) = (Outgoing::default(), Arc::<Tail>::default());
        tail.note(Some(stream.last()));
        let to_broker = outgoing.clone();
        let post = Arc::new(move |message| {
            if let ToBroker::Publish(number, publication, _) = message {
                to_broker.lock().expect("one thread").push_back((number, publication));
            }
        });
        log.move_to(Box::new(Near::new(post, tail.clone())), epoch, 0, 0);
        let follower = Follower::new(stream.identity(), 0, now);
        let mut lane = Lane::default();
        let channels = vec![CHANNEL.into()];
        let body = Ask::Join { ticket: Ticket(0), channels, cursor: Cursor::Now, identity: None };
        log.handle(ToLog::Worker { worker: 0, body }, now, &mut lane);
        lane.told.clear();
        let mut node = Self { log, follower, lane, outgoing, tail, from: None, partitioned: false };
        node.from = Some(node.follower.open());
        while node.follower.head() < stream.last() {
            node.follow(stream, now).expect("a start has no hole");
        }
        assert!(node.follower.has_begun(0));
        node
    }

    /// The next message of the subscription.
    fn follow(&mut self, stream: &Stream, now: Duration) -> Result<(), Ended> {
        let Some(seq) = self.from else { return Ok(()) };
        let Some(message) = stream.messages.get(seq as usize - 1) else { return Ok(()) };
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

    fn tell(&mut self, stored: Stored, now: Duration) {
        self.log.handle(ToLog::Store(stored), now, &mut self.lane);
    }

    fn publish(&mut self, ticket: usize, key: &str, now: Duration) {
        let ticket = Ticket(ticket as u32);
        let publications = vec![publication(key)];
        let body = Ask::Publish { ticket, share: Share::Whole, counts: Counts::Here, publications };
        self.log.handle(ToLog::Worker { worker: 0, body }, now, &mut self.lane);
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

impl World {
    fn new(seed: u64, bend: Bend) -> Self {
        let stream = Stream { messages: Vec::new(), generation: 0, signs: 0 };
        let now = Duration::from_secs(1);
        let nodes = (0..NODES).map(|_| Node::start(&stream, now)).collect();
        Self {
            rng: Rng::with_seed(seed),
            bend,
            now,
            stream,
            nodes,
            shown: BTreeMap::new(),
            tickets: Vec::new(),
            answered: Vec::new(),
            faults: Vec::new(),
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(0..50));
        let at = self.rng.usize(0..NODES);
        match self.rng.u32(0..100) {
            0..25 => self.publish(at),
            25..55 => self.deliver(at),
            55..75 => self.broker_takes(at),
            75..80 => self.nodes[at].lane.full = self.rng.bool(),
            80..84 => self.nodes[at].partitioned = self.rng.u32(0..3) == 0,
            84..87 => self.reopen(at),
            87..97 => self.look(at),
            97..99 => self.restart(at),
            _ if self.rng.u32(0..8) == 0 => self.roll_back(),
            _ => {}
        }
        self.note_told(at);
        if self.rng.u32(0..100) == 0 {
            self.nodes[at].log.check_invariants();
        }
    }

    fn publish(&mut self, at: usize) {
        let known = self.tickets.len();
        // Some try again what they tried before.
        let key = match self.rng.u32(0..4) == 0 && known > 0 {
            true => self.tickets[self.rng.usize(known.saturating_sub(20)..known)].clone(),
            false => format!("key {known}"),
        };
        self.tickets.push(key.clone());
        self.nodes[at].publish(known, &key, self.now);
    }

    /// The broker takes what a node has sent, and the answer may be lost or come twice.
    fn broker_takes(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some((number, publication)) = node.outgoing.lock().expect("one thread").pop_front()
        else {
            return;
        };
        let lost = node.partitioned || self.rng.u32(0..8) == 0;
        let seq = match lost && self.rng.bool() {
            true => None,
            false => Some(self.stream.store(&publication.key.expect("all have one"))),
        };
        let answered = Answered::new(number, seq.filter(|_| !lost));
        for _ in 0..self.rng.usize(1..3) {
            node.tell(Stored::Answered(vec![answered]), self.now);
        }
    }

    fn deliver(&mut self, at: usize) {
        for _ in 0..self.rng.usize(1..6) {
            let node = &mut self.nodes[at];
            if node.partitioned {
                return;
            }
            // Now and then one comes again.
            if let Some(from) = node.from.filter(|&from| from > 1 && self.rng.u32(0..20) == 0) {
                node.from = Some(from - 1);
            }
            let node = &mut self.nodes[at];
            if let Err(ended) = node.follow(&self.stream, self.now) {
                return self.end(at, ended);
            }
        }
    }

    fn reopen(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !node.partitioned {
            node.from = Some(node.follower.open());
            self.look(at);
        }
    }

    fn look(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.partitioned {
            return;
        }
        node.tail.note(Some(self.stream.last()));
        match node.follower.look(&self.stream.state(), self.now) {
            Ok(Look::Fine) => {}
            Ok(Look::OpenAgain) => node.from = Some(node.follower.open()),
            Err(ended) => self.end(at, ended),
        }
    }

    fn end(&mut self, at: usize, ended: Ended) {
        self.note_told(at);
        if self.bend == Bend::IgnoreRollback {
            let node = &mut self.nodes[at];
            // Goes on as if nothing had happened.
            let head = node.follower.head().min(self.stream.last());
            node.follower = Follower::new(self.stream.identity(), head, self.now);
            node.from = Some(node.follower.open());
            return;
        }
        if ended == Ended::RolledBack
            && *self.nodes[at].follower.identity() == self.stream.identity()
        {
            self.stream.generation += 1;
        }
        self.restart(at);
    }

    fn restart(&mut self, at: usize) {
        self.note_told(at);
        self.nodes[at] = Node::start(&self.stream, self.now);
        self.note_told(at);
    }

    /// The stream loses its end. Every node that has seen some of it looks before the stream goes on:
    /// the time in between is what no node can know of (see `tuning/cluster.md`).
    fn roll_back(&mut self) {
        let last = self.stream.last() as usize;
        let lost = self.rng.usize(0..4).min(last);
        self.stream.messages.truncate(last - lost);
        self.answered.clear();
        for at in 0..NODES {
            self.nodes[at].partitioned = false;
            self.look(at);
        }
        self.now += BEHIND_TIME_MAX;
        for at in 0..NODES {
            self.look(at);
        }
        // What the others wrote into the stream.
        for at in 0..NODES {
            self.look(at);
        }
    }

    /// Writes down what a node has shown and answered.
    fn note_told(&mut self, at: usize) {
        let epoch = self.nodes[at].log.epoch();
        let now = self.now;
        let node = &mut self.nodes[at];
        node.log.tend(now, &mut node.lane);
        for told in std::mem::take(&mut self.nodes[at].lane.told) {
            match told {
                FromLog::Event(event) => {
                    let id = (epoch.to_string(), event.seq);
                    let key = event.key.as_deref().unwrap_or_default().to_owned();
                    let before = self.shown.entry(id).or_insert_with(|| key.clone());
                    if *before != key {
                        self.faults.push(format!("{epoch}-{} is {before} and {key}", event.seq));
                    }
                }
                FromLog::Published { ticket, outcome, .. } if outcome.refusal.is_none() => {
                    self.answered.push(self.tickets[ticket.0 as usize].clone());
                }
                _ => {}
            }
        }
    }

    /// All faults end: everything that was answered in the last epoch is there, on every node.
    fn settle(&mut self) {
        for at in 0..NODES {
            self.nodes[at].partitioned = false;
            self.nodes[at].lane.full = false;
            self.reopen(at);
            while self.nodes[at].follower.head() < self.stream.last() {
                let node = &mut self.nodes[at];
                match node.follow(&self.stream, self.now) {
                    Ok(()) => {}
                    Err(ended) => self.end(at, ended),
                }
            }
            self.note_told(at);
        }
        let epoch = self.stream.identity().epoch();
        for at in 0..NODES {
            let node = &self.nodes[at];
            if node.log.epoch() != epoch || node.log.stats().head_seq != self.stream.last() {
                self.faults.push(format!("node {at} is not at the end of the log"));
            }
        }
        let kept: Vec<&str> = self.stream.messages.iter().map(|m| m.key.as_str()).collect();
        for key in &self.answered {
            if !kept.contains(&key.as_str()) {
                self.faults.push(format!("{key} was answered and is lost"));
            }
        }
    }
}

fn run(seed: u64, bend: Bend) -> Vec<String> {
    let mut world = World::new(seed, bend);
    for _ in 0..STEPS {
        world.step();
        if !world.faults.is_empty() {
            break;
        }
    }
    world.settle();
    world.faults
}

#[test]
fn an_id_means_one_event_and_what_was_answered_is_there_whatever_the_broker_does() {
    for seed in 0..60 {
        assert_eq!(run(seed, Bend::Straight), Vec::<String>::new(), "seed {seed}");
    }
}

/// So that the test above is known to look.
#[test]
fn a_node_that_ignores_a_rollback_is_caught() {
    assert!((0..60).any(|seed| !run(seed, Bend::IgnoreRollback).is_empty()));
}
