//! Nodes on JetStream: one stream, which now and then goes back to an earlier end.

use std::time::Duration;

use fastrand::Rng;

use super::super::super::follower::{BEHIND_TIME_MAX, Look, StreamState};
use super::super::super::{Ended, Identity};
use super::{Message, NODES, Node, SEEDS, Witness, World, answer, run, store};

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

    /// A node that reads all of it.
    fn start(&self, now: Duration) -> Node {
        Node::start(self.identity(), &self.messages, now)
    }
}

/// How the world is bent: a canary has a node that does what it must not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bend {
    Straight,
    IgnoreRollback,
}

struct NatsWorld {
    rng: Rng,
    bend: Bend,
    now: Duration,
    stream: Stream,
    nodes: Vec<Node>,
    partitioned: [bool; NODES],
    witness: Witness,
}

impl NatsWorld {
    fn new(seed: u64, bend: Bend) -> Self {
        let stream = Stream { messages: Vec::new(), generation: 0, signs: 0 };
        let now = Duration::from_secs(1);
        let nodes = (0..NODES).map(|_| stream.start(now)).collect();
        Self {
            rng: Rng::with_seed(seed),
            bend,
            now,
            stream,
            nodes,
            partitioned: [false; NODES],
            witness: Witness::default(),
        }
    }

    fn publish(&mut self, at: usize) {
        let (ticket, key) = self.witness.next_key(&mut self.rng);
        self.nodes[at].publish(ticket, &key, self.now);
    }

    /// The broker takes what a node has sent, and the answer may be lost or come twice.
    fn broker_takes(&mut self, at: usize) {
        let Some((number, key)) = self.nodes[at].take_sent() else { return };
        let lost = self.partitioned[at] || self.rng.u32(0..8) == 0;
        let Stream { messages, signs, .. } = &mut self.stream;
        let seq = match lost && self.rng.bool() {
            true => None,
            false => Some(store(messages, &key, signs)),
        };
        let seq = seq.filter(|_| !lost);
        answer(&mut self.nodes[at], number, seq, &mut self.rng, self.now);
    }

    fn deliver(&mut self, at: usize) {
        for _ in 0..self.rng.usize(1..6) {
            if self.partitioned[at] {
                return;
            }
            let node = &mut self.nodes[at];
            if self.rng.u32(0..20) == 0 {
                node.repeat();
            }
            if let Err(ended) = node.follow(&self.stream.messages, self.now) {
                return self.end(at, ended);
            }
        }
    }

    fn reopen(&mut self, at: usize) {
        if !self.partitioned[at] {
            self.nodes[at].open();
            self.look(at);
        }
    }

    fn look(&mut self, at: usize) {
        if self.partitioned[at] {
            return;
        }
        let node = &mut self.nodes[at];
        node.tail.note(Some(self.stream.last()));
        match node.follower.look(&self.stream.state(), self.now) {
            Ok(Look::Fine) => {}
            Ok(Look::OpenAgain) => node.open(),
            Err(ended) => self.end(at, ended),
        }
    }

    fn end(&mut self, at: usize, ended: Ended) {
        self.note(at);
        let (identity, last) = (self.stream.identity(), self.stream.last());
        if self.bend == Bend::IgnoreRollback {
            return self.nodes[at].ignore_the_end(identity, last, self.now);
        }
        if ended == Ended::RolledBack && *self.nodes[at].follower.identity() == identity {
            self.stream.generation += 1;
        }
        self.restart(at);
    }

    fn restart(&mut self, at: usize) {
        self.note(at);
        self.nodes[at] = self.stream.start(self.now);
        self.note(at);
    }

    /// The stream loses its end. Every node that has seen some of it looks before the stream goes on:
    /// the time in between is what no node can know of (see `tuning/cluster.md`).
    fn roll_back(&mut self) {
        let last = self.stream.messages.len();
        let lost = self.rng.usize(0..4).min(last);
        self.stream.messages.truncate(last - lost);
        // If no node has seen what is lost, the epoch stays.
        self.witness.answered.clear();
        self.partitioned = [false; NODES];
        (0..NODES).for_each(|at| self.look(at));
        self.now += BEHIND_TIME_MAX;
        (0..NODES).for_each(|at| self.look(at));
        // What the others wrote into the stream.
        (0..NODES).for_each(|at| self.look(at));
    }

    fn note(&mut self, at: usize) {
        self.witness.note(&mut self.nodes[at], self.now);
    }
}

impl World for NatsWorld {
    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(0..50));
        let at = self.rng.usize(0..NODES);
        match self.rng.u32(0..100) {
            0..25 => self.publish(at),
            25..55 => self.deliver(at),
            55..75 => self.broker_takes(at),
            75..80 => self.nodes[at].lane.full = self.rng.bool(),
            80..84 => self.partitioned[at] = self.rng.u32(0..3) == 0,
            84..87 => self.reopen(at),
            87..97 => self.look(at),
            97..99 => self.restart(at),
            _ if self.rng.u32(0..8) == 0 => self.roll_back(),
            _ => {}
        }
        self.note(at);
        if self.rng.u32(0..100) == 0 {
            self.nodes[at].log.check_invariants();
        }
    }

    fn settle(&mut self) {
        self.partitioned = [false; NODES];
        for at in 0..NODES {
            self.nodes[at].lane.full = false;
            self.reopen(at);
            while self.nodes[at].follower.head() < self.stream.last() {
                if let Err(ended) = self.nodes[at].follow(&self.stream.messages, self.now) {
                    self.end(at, ended);
                }
            }
            self.note(at);
        }
        let identity = self.stream.identity();
        self.witness.conclude(&self.nodes, &identity, &self.stream.messages);
    }

    fn faults(&mut self) -> &mut Vec<String> {
        &mut self.witness.faults
    }
}

#[test]
fn an_id_means_one_event_and_what_was_answered_is_there_whatever_the_broker_does() {
    for seed in 0..SEEDS {
        assert_eq!(run(NatsWorld::new(seed, Bend::Straight)), Vec::<String>::new(), "seed {seed}");
    }
}

/// So that the test above is known to look.
#[test]
fn a_node_that_ignores_a_rollback_is_caught() {
    assert!((0..SEEDS).any(|seed| !run(NatsWorld::new(seed, Bend::IgnoreRollback)).is_empty()));
}
