//! Presence over many nodes against a set. Nodes lag, lose what they send, die and start again; a list
//! from any of them and the events behind its cursor give who is there on all.

use std::collections::{BTreeMap, BTreeSet};

use crossbeam_channel::Receiver;
use serde_json::Value;

use super::broker::{self, far};
use super::presence::{GRACE, NAME, bench, who};
use super::*;
use crate::proto::envelope::PRESENCE_TYPE;
use crate::proto::identity::NodeId;

const LEASE: Duration = Duration::from_secs(15);
const NODES: usize = 3;
const SUBJECTS: u8 = 8;
const STEPS: usize = 3_000;

/// By node, its members.
type Members = BTreeMap<String, BTreeSet<String>>;

struct Node {
    bench: Bench,
    name: String,
    sent: Receiver<(u64, Publication)>,
    /// How much of the stream has come.
    come: usize,
    /// Who is connected, once for each connection.
    connected: Vec<String>,
    /// When each lost its last connection.
    left_at: BTreeMap<String, Duration>,
}

struct Trial {
    random: fastrand::Rng,
    stream: Vec<Publication>,
    nodes: Vec<Node>,
    now: Duration,
    started: u32,
    lists: Vec<(Members, u64)>,
}

impl Node {
    fn start(name: u32, now: Duration, stream: &[Publication]) -> Self {
        let mut bench = bench();
        bench.now = now;
        let id = NodeId(name.wrapping_mul(0x9E37_79B9));
        bench.log.be_node(id, LEASE);
        let (store, sent, _) = far();
        bench.log.move_to(Box::new(store), Epoch::from_random(1), 0, 0);
        let (connected, left_at) = (Vec::new(), BTreeMap::new());
        let mut node = Self { bench, name: id.to_string(), sent, come: 0, connected, left_at };
        node.feed(stream, usize::MAX);
        node
    }

    fn feed(&mut self, stream: &[Publication], count: usize) {
        let fed = broker::feed(stream, &mut self.come, count, self.bench.now);
        self.tell(fed);
    }

    fn tell(&mut self, told: ToLog) {
        self.bench.log.handle(told, self.bench.now, &mut self.bench.lanes);
        self.bench.log.check_invariants();
        self.bench.lanes.take(0);
    }

    /// Its connections, and those in their grace.
    fn members(&self) -> BTreeSet<String> {
        let now = self.bench.now;
        let in_grace = self.left_at.iter().filter(|(_, at)| **at + GRACE > now);
        self.connected.iter().chain(in_grace.map(|(subject, _)| subject)).cloned().collect()
    }

    /// None: it waits to be told.
    fn list(&mut self) -> Option<(Members, u64)> {
        self.bench.handle(2, Ask::ListMembers { ticket: TICKET, channel: NAME.into() });
        let Answer::Members(members) = self.bench.answer(2) else { panic!("an answer") };
        let list = members.ok()?;
        assert_eq!(list.count as usize, list.listed.len());
        let mut members = Members::new();
        for listed in list.listed {
            for (_, node) in list.nodes.iter().filter(|(bit, _)| listed.nodes & bit != 0) {
                let of_node = members.entry(node.to_string()).or_default();
                of_node.insert(listed.identity.subject.to_string());
            }
        }
        Some((members, list.head_seq))
    }

    fn members_of_all(&mut self) -> Members {
        let list = self.list();
        list.unwrap_or_else(|| panic!("it knows them: {:#?}", self.bench.log.presence.nodes)).0
    }
}

impl Trial {
    fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let (stream, now, lists) = (Vec::new(), Duration::from_secs(1), Vec::new());
        let mut trial = Self { random, stream, nodes: Vec::new(), now, started: 0, lists };
        (0..NODES).for_each(|_| trial.start_node());
        trial
    }

    fn start_node(&mut self) {
        self.started += 1;
        self.nodes.push(Node::start(self.started, self.now, &self.stream));
    }

    fn step(&mut self) {
        let place = self.random.usize(..self.nodes.len());
        match self.random.u16(..1_000) {
            0..300 => self.join(place),
            300..600 => self.leave(place),
            600..700 => {
                let time = Duration::from_millis(self.random.u64(..3_000));
                self.pass(time);
            }
            700..750 => {
                let list = self.nodes[place].list();
                self.lists.extend(list);
            }
            750..755 => {
                // What it sent last may be on its way.
                self.deliver(place, 0.5);
                self.nodes.swap_remove(place);
                self.start_node();
            }
            755..900 => self.deliver(place, 0.1),
            _ => {
                let count = self.random.usize(1..40);
                self.nodes[place].feed(&self.stream, count);
            }
        }
    }

    fn join(&mut self, place: usize) {
        let subject = format!("s{}", self.random.u8(..SUBJECTS));
        let node = &mut self.nodes[place];
        assert!(node.bench.join_as(0, NAME, Some(who(&subject))));
        node.left_at.remove(&subject);
        node.connected.push(subject);
    }

    fn leave(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if node.connected.is_empty() {
            return;
        }
        let subject = node.connected.swap_remove(self.random.usize(..node.connected.len()));
        node.bench.leave_as(0, NAME, Some(who(&subject)));
        if !node.connected.contains(&subject) {
            node.left_at.insert(subject, node.bench.now);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for node in &mut self.nodes {
            node.bench.now = self.now;
            node.bench.tend();
        }
    }

    /// What a node has sent arrives, or does not; and its answers do, or do not.
    fn deliver(&mut self, place: usize, loss: f64) {
        let node = &mut self.nodes[place];
        let answers = broker::take_in(&mut self.stream, &node.sent, loss, &mut self.random);
        node.tell(answers);
    }

    /// Nothing is lost any more, until nothing happens any more.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.pass(Duration::from_millis(500));
            for place in 0..self.nodes.len() {
                self.deliver(place, 0.0);
            }
            for node in &mut self.nodes {
                node.feed(&self.stream, usize::MAX);
            }
        }
    }

    fn truth(&self) -> Members {
        let of = self.nodes.iter().map(|node| (node.name.clone(), node.members()));
        of.filter(|(_, members)| !members.is_empty()).collect()
    }
}

/// What a client does with the events behind its cursor.
fn follow(members: &mut Members, stream: &[Publication], from: u64) {
    for publication in &stream[from as usize..] {
        if publication.event_type.as_deref() != Some(PRESENCE_TYPE) {
            continue;
        }
        let data: Value = serde_json::from_slice(&publication.data).expect("JSON");
        let of_node = members.entry(data["node"].as_str().expect("a node").to_owned()).or_default();
        super::presence::apply(of_node, &data);
    }
    members.retain(|_, of| !of.is_empty());
}

#[test]
fn a_list_from_any_node_and_what_is_told_after_it_give_who_is_there_on_all() {
    for seed in 0..6 {
        let mut trial = Trial::new(seed);
        (0..STEPS).for_each(|_| trial.step());
        trial.settle();
        let truth = trial.truth();
        let (lists, events) = (trial.lists.len(), trial.stream.len());
        assert!(lists > 20 && events > 100 && trial.started > 5, "{lists} lists, {events} events");
        for node in &mut trial.nodes {
            assert_eq!(node.members_of_all(), truth, "seed {seed}, at {}", node.name);
        }
        for (mut list, cursor) in trial.lists {
            follow(&mut list, &trial.stream, cursor);
            assert_eq!(list, truth, "seed {seed}, from {cursor}");
        }
    }
}

#[test]
fn a_node_that_dies_keeps_its_members_for_its_lease_and_one_that_was_only_slow_has_them_back() {
    let mut trial = Trial::new(1);
    trial.settle();
    let (here, slow) = (0, 1);
    trial.nodes[slow].bench.join_as(0, NAME, Some(who("jane")));
    trial.nodes[slow].connected.push("jane".to_owned());
    trial.settle();
    let truth = trial.truth();
    assert_eq!(trial.nodes[here].members_of_all(), truth);
    // Nothing comes from it.
    let mut lasted = Duration::ZERO;
    while trial.nodes[here].members_of_all() == truth {
        trial.pass(Duration::from_secs(1));
        lasted += Duration::from_secs(1);
        for place in [here, 2] {
            trial.deliver(place, 0.0);
            trial.nodes[place].feed(&trial.stream, usize::MAX);
        }
    }
    assert!((LEASE..LEASE * 2).contains(&lasted), "{lasted:?}");
    assert!(trial.nodes[here].members_of_all().is_empty());
    trial.settle();
    assert_eq!(trial.nodes[here].members_of_all(), truth);
}
