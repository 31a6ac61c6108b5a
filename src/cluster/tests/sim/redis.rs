//! Nodes on Redis: a primary and a replica that is behind it. The replica takes over, with the old
//! primary gone or not; a primary starts again with what it had on disk; connections are lost with what
//! was under way. A server here does what [`scripts`](super::super::super::redis) has real ones do, to
//! which `tests/server/nodes/redis.rs` holds them.

use std::time::Duration;

use fastrand::Rng;

use super::super::super::follower::{Look, StreamState};
use super::super::super::{Ended, Identity};
use super::{Message, NODES, Node, SEEDS, Witness, World, answer, run, store};

/// What a server has: the stream, and the hash that says which one it is.
#[derive(Clone)]
struct Data {
    messages: Vec<Message>,
    /// Under which replication id it was looked at last.
    seen_under: u64,
    generation: u64,
}

struct Server {
    data: Data,
    /// What it has on disk.
    synced: Data,
    replication: u64,
    is_primary: bool,
}

impl Server {
    fn identity(&self) -> Identity {
        let Data { seen_under, generation, .. } = self.data;
        Identity { name: "S".into(), created: format!("first {seen_under}"), generation }
    }

    fn last(&self) -> u64 {
        self.data.messages.len() as u64
    }

    /// The script that looks.
    fn look(&mut self, bend: Bend) -> StreamState {
        if self.data.seen_under != self.replication && bend != Bend::ForgetReplication {
            self.data.seen_under = self.replication;
            self.data.generation += 1;
        }
        StreamState { identity: self.identity(), first: 1, last: self.last() }
    }

    /// The script that publishes; none: the node follows another stream.
    fn publish(&mut self, key: &str, followed: &Identity, signs: &mut u64) -> Option<u64> {
        let is_followed = self.identity() == *followed;
        is_followed.then(|| store(&mut self.data.messages, key, signs))
    }
}

/// How the world is bent: a canary has a node or a server that does what it must not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bend {
    Straight,
    /// A node goes on when the stream is another one.
    IgnoreRollback,
    /// Servers do not say that another one of them has taken over.
    ForgetReplication,
}

struct RedisWorld {
    rng: Rng,
    bend: Bend,
    now: Duration,
    servers: [Server; 2],
    /// The primary that goes on when both are.
    leader: usize,
    replications: u64,
    signs: u64,
    nodes: Vec<Node>,
    /// At which server each node is.
    connected: [Option<usize>; NODES],
    witness: Witness,
}

impl RedisWorld {
    fn new(seed: u64, bend: Bend) -> Self {
        let data = Data { messages: Vec::new(), seen_under: 0, generation: 0 };
        let server = |is_primary| Server {
            data: data.clone(),
            synced: data.clone(),
            replication: 0,
            is_primary,
        };
        let servers = [server(true), server(false)];
        let now = Duration::from_secs(1);
        let start = || Node::start(servers[0].identity(), &[], now);
        Self {
            rng: Rng::with_seed(seed),
            bend,
            now,
            nodes: (0..NODES).map(|_| start()).collect(),
            servers,
            leader: 0,
            replications: 0,
            signs: 0,
            connected: [Some(0); NODES],
            witness: Witness::default(),
        }
    }

    // --- the servers ---

    /// The replica gets all that the primary has.
    fn replicate(&mut self) {
        let follower = 1 - self.leader;
        if !self.servers[follower].is_primary {
            self.servers[follower].data = self.servers[self.leader].data.clone();
        }
    }

    fn break_a_server(&mut self) {
        match self.rng.u32(0..4) {
            0 => self.start_again(),
            1 => self.heal(),
            2 => self.fail_over(),
            _ => {
                self.fail_over();
                self.heal();
            }
        }
    }

    /// The primary, with what it had on disk.
    fn start_again(&mut self) {
        self.cut_all(self.leader);
        self.replications += 1;
        let server = &mut self.servers[self.leader];
        server.data = server.synced.clone();
        server.replication = self.replications;
    }

    /// The replica takes over. The old primary does not know, until all is healed.
    fn fail_over(&mut self) {
        self.heal();
        self.leader = 1 - self.leader;
        self.replications += 1;
        let server = &mut self.servers[self.leader];
        server.is_primary = true;
        server.replication = self.replications;
        server.synced = server.data.clone();
    }

    /// There is one primary again.
    fn heal(&mut self) {
        let other = 1 - self.leader;
        if std::mem::take(&mut self.servers[other].is_primary) {
            self.cut_all(other);
            self.replicate();
        }
    }

    fn cut_all(&mut self, server: usize) {
        for connected in &mut self.connected {
            connected.take_if(|at| *at == server);
        }
    }

    // --- the nodes ---

    fn publish(&mut self, at: usize) {
        let (ticket, key) = self.witness.next_key(&mut self.rng);
        self.nodes[at].publish(ticket, &key, self.now);
    }

    /// The node's server takes what it has sent; with the connection the answer is lost.
    fn server_takes(&mut self, at: usize) {
        let Some((number, key)) = self.nodes[at].take_sent() else { return };
        let lost = self.rng.u32(0..8) == 0;
        let server = self.connected[at].filter(|_| !lost || self.rng.bool());
        let seq = server.and_then(|server| {
            let followed = self.nodes[at].follower.identity();
            self.servers[server].publish(&key, followed, &mut self.signs)
        });
        if lost {
            self.connected[at] = None;
        }
        let seq = seq.filter(|_| !lost);
        answer(&mut self.nodes[at], number, seq, &mut self.rng, self.now);
    }

    fn deliver(&mut self, at: usize) {
        for _ in 0..self.rng.usize(1..6) {
            let Some(server) = self.connected[at] else { return };
            if let Err(ended) = self.nodes[at].follow(&self.servers[server].data.messages, self.now)
            {
                return self.end(at, ended);
            }
        }
    }

    /// To a primary, at which the first thing is a look.
    fn connect(&mut self, at: usize) {
        let wished = self.rng.usize(0..2);
        let is_primary = self.servers[wished].is_primary;
        self.connected[at] = Some(if is_primary { wished } else { self.leader });
        self.nodes[at].open();
        self.look(at);
    }

    fn look(&mut self, at: usize) {
        let Some(server) = self.connected[at] else { return };
        let state = self.servers[server].look(self.bend);
        let node = &mut self.nodes[at];
        node.tail.note(Some(state.last));
        match node.follower.look(&state, self.now) {
            Ok(Look::Fine) => {}
            Ok(Look::OpenAgain) => node.open(),
            Err(ended) => self.end(at, ended),
        }
    }

    fn end(&mut self, at: usize, ended: Ended) {
        self.note(at);
        let Some(server) = self.connected[at] else { return };
        let server = &mut self.servers[server];
        let (identity, last) = (server.identity(), server.last());
        if self.bend == Bend::IgnoreRollback {
            return self.nodes[at].ignore_the_end(identity, last, self.now);
        }
        if ended == Ended::RolledBack && *self.nodes[at].follower.identity() == identity {
            server.data.generation += 1;
        }
        self.restart(at);
    }

    fn restart(&mut self, at: usize) {
        self.note(at);
        let server = *self.connected[at].get_or_insert(self.leader);
        let StreamState { identity, .. } = self.servers[server].look(self.bend);
        self.nodes[at] = Node::start(identity, &self.servers[server].data.messages, self.now);
        self.note(at);
    }

    fn note(&mut self, at: usize) {
        self.witness.note(&mut self.nodes[at], self.now);
    }
}

impl World for RedisWorld {
    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(0..50));
        let at = self.rng.usize(0..NODES);
        match self.rng.u32(0..100) {
            0..25 => self.publish(at),
            25..50 => self.deliver(at),
            50..70 => self.server_takes(at),
            70..75 => self.nodes[at].lane.full = self.rng.bool(),
            75..78 => self.connected[at] = None,
            78..84 => self.connect(at),
            84..92 => self.look(at),
            92..94 => self.restart(at),
            94..97 => self.replicate(),
            97..99 => self.servers[self.leader].synced = self.servers[self.leader].data.clone(),
            _ if self.rng.u32(0..4) == 0 => self.break_a_server(),
            _ => {}
        }
        self.note(at);
    }

    fn settle(&mut self) {
        self.heal();
        for at in 0..NODES {
            self.nodes[at].lane.full = false;
            self.connect(at);
            while self.nodes[at].follower.head() < self.servers[self.leader].last() {
                self.deliver(at);
            }
            self.note(at);
        }
        let server = &self.servers[self.leader];
        self.witness.conclude(&self.nodes, &server.identity(), &server.data.messages);
    }

    fn faults(&mut self) -> &mut Vec<String> {
        &mut self.witness.faults
    }
}

#[test]
fn an_id_means_one_event_whichever_server_takes_over_with_whatever_it_has() {
    for seed in 0..SEEDS {
        assert_eq!(run(RedisWorld::new(seed, Bend::Straight)), Vec::<String>::new(), "seed {seed}");
    }
}

/// So that the test above is known to look.
#[test]
fn a_node_that_goes_on_after_a_failover_is_caught() {
    assert!((0..SEEDS).any(|seed| !run(RedisWorld::new(seed, Bend::IgnoreRollback)).is_empty()));
}

#[test]
fn a_server_that_does_not_say_that_it_took_over_is_caught() {
    assert!((0..SEEDS).any(|seed| !run(RedisWorld::new(seed, Bend::ForgetReplication)).is_empty()));
}
