//! Two figures of nodes: how long an event takes from one to another, and how many events one takes.

use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::{EVENT_BYTES, Node, STREAM, nodes_on};
use crate::common::nats::{Nats, NatsConn};
use crate::common::program::free_ports;
use crate::common::{Conn, Sse, await_that, fetch, metric, request};
use crate::publisher::payload;
use crate::{number, percentile_ms};

/// After five seconds a node refuses what the broker has not answered.
const ANSWER_TIME_MAX: Timespec = Timespec { tv_sec: 8, tv_nsec: 0 };

/// How long an event takes from one node to a subscriber of another, beside what the broker itself
/// needs from a publisher to a consumer, by turns. Both ways begin at one server and end at another,
/// and the broker sends both from the same one.
#[test]
#[ignore = "a figure: scripts/cluster"]
fn delivery() {
    let rounds = number("PUSHLINE_CLUSTER_ROUNDS", 2000) as usize;
    let Some(brokers) = Nats::several(3) else { return };
    let port = free_ports(4);
    let nodes = [0, 1].map(|n| Node::new(port + 2 * n as u16, &brokers[n..=n], brokers.len()));
    let mut ours = NodeToNode::between(&nodes);
    let mut theirs = Beside::between(&brokers, &sender_to(&nodes[1], &brokers[1]));
    let data = payload(0, EVENT_BYTES);
    // Servers that have just started may not know yet where all subjects lead.
    await_that("publishes are taken", || ours.is_taken(&data));
    let (mut our_us, mut their_us) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        our_us.extend(ours.round_us(&data));
        their_us.push(theirs.round_us(&data));
    }
    our_us.sort_unstable();
    their_us.sort_unstable();
    let row = |sorted: &[u64]| [0.5, 0.99].map(|share| percentile_ms(sorted, share));
    let ([our_p50, our_p99], [their_p50, their_p99]) = (row(&our_us), row(&their_us));
    println!(
        "| one event, R3 | p50 ms | p99 ms |\n|---|--:|--:|\n\
         | from node to node | {our_p50:.3} | {our_p99:.3} |\n\
         | the broker alone | {their_p50:.3} | {their_p99:.3} |\n\
         | ratio | {:.2} | {:.2} |",
        our_p50 / their_p50,
        our_p99 / their_p99
    );
    // Once, unless messages got lost between the brokers.
    let openings = metric(nodes[1].admin(), "pushline_cluster_openings_total");
    let refused = rounds - our_us.len();
    println!(
        "{refused} publishes were refused; the subscriber's node opened the stream {openings} times"
    );
}

/// A publisher at one node and a subscriber at another.
struct NodeToNode {
    post: Conn,
    stream: Sse,
}

impl NodeToNode {
    fn between([from, to]: &[Node; 2]) -> Self {
        Self { post: Conn::open(from.addr), stream: Sse::open(to.addr, "channel=c0") }
    }

    fn publish(&mut self, data: &str) {
        self.post.send(request("POST", "/channels/c0", &[], Some(data.as_bytes())));
    }

    /// Whether the broker takes one; then it has come, too.
    fn is_taken(&mut self, data: &str) -> bool {
        self.publish(data);
        let taken = self.post.response().status == 200;
        if taken {
            self.stream.event();
        }
        taken
    }

    /// None: the publish was refused, as when it got lost between the brokers. One that is taken comes.
    fn round_us(&mut self, data: &str) -> Option<u64> {
        let began = Instant::now();
        self.publish(data);
        if self.is_silent() {
            let status = self.post.response().status;
            assert_ne!(status, 200, "an event that was taken has not come");
            return None;
        }
        self.stream.event();
        let took = began.elapsed();
        assert_eq!(self.post.response().status, 200);
        Some(took.as_micros() as u64)
    }

    /// Whether nothing comes for longer than a publish may go without an answer.
    fn is_silent(&self) -> bool {
        let mut waits = [PollFd::new(&self.stream.conn.stream, PollFlags::IN)];
        poll(&mut waits, Some(&ANSWER_TIME_MAX)).is_ok_and(|ready| ready == 0)
    }
}

/// A publisher at one server, and a consumer of the stream at another.
struct Beside {
    publisher: NatsConn,
    consumer: NatsConn,
}

impl Beside {
    /// The broker chooses which server sends a consumer's messages: until it is this one.
    fn between(brokers: &[Nats], sender: &str) -> Self {
        let mut consumer = brokers[1].connect();
        consumer.subscribe("beside");
        let wanted = format!(
            "{{\"stream_name\":\"{STREAM}\",\"config\":{{\"deliver_subject\":\"beside\",\
             \"deliver_policy\":\"new\",\"ack_policy\":\"none\",\"mem_storage\":true,\
             \"filter_subject\":\"{STREAM}.ev.beside\",\"num_replicas\":1}}}}"
        );
        let mut asker = brokers[1].connect();
        let create = format!("$JS.API.CONSUMER.CREATE.{STREAM}");
        await_that("the same server sends", || {
            let Some(created) = asked(&mut asker, &create, &wanted) else { return false };
            let is_it = created["cluster"]["leader"] == sender;
            if !is_it {
                let name = created["name"].as_str().expect("a name");
                asked(&mut asker, &format!("$JS.API.CONSUMER.DELETE.{STREAM}.{name}"), "");
            }
            is_it
        });
        Self { publisher: brokers[0].connect(), consumer }
    }

    fn round_us(&mut self, data: &str) -> u64 {
        let began = Instant::now();
        self.publisher.publish(&format!("{STREAM}.ev.beside"), "", data);
        self.consumer.message().expect("it comes");
        began.elapsed().as_micros() as u64
    }
}

/// What JetStream answers; none: nothing, in time.
fn asked(conn: &mut NatsConn, subject: &str, payload: &str) -> Option<Value> {
    let answer = conn.ask(subject, payload).ok()?;
    Some(serde_json::from_str(&answer).expect("JSON"))
}

/// The server that sends the stream to this node.
fn sender_to(node: &Node, broker: &Nats) -> String {
    let nodes = fetch(node.admin(), "GET", "/v1/nodes", &[], None).json();
    let name = nodes["nodes"][0]["node"].as_str().expect("a name").to_owned();
    let mut conn = broker.connect();
    let mut sender = None;
    await_that("the node's consumer is known", || {
        let list = format!("$JS.API.CONSUMER.LIST.{STREAM}");
        let listed = asked(&mut conn, &list, "").unwrap_or_default();
        let consumers = listed["consumers"].as_array().cloned().unwrap_or_default();
        let is_its = |of: &&Value| {
            of["config"]["deliver_subject"].as_str().is_some_and(|to| to.contains(&name))
        };
        let found = consumers.iter().find(is_its);
        sender = found.and_then(|of| of["cluster"]["leader"].as_str()).map(str::to_owned);
        sender.is_some()
    });
    sender.expect("it is known")
}

/// What a node can take from the stream: one that starts, and one that runs, both on one core.
#[test]
#[ignore = "a figure: scripts/cluster"]
fn ingest() {
    const BYTES: usize = 64;
    let events = number("PUSHLINE_CLUSTER_EVENTS", 300_000);
    let Some(mut brokers) = Nats::several(1) else { return };
    let mut node = nodes_on(&brokers, 1).pop().expect("one");
    let row = |what: &str, events: u64, cpu_s: f64, wall_s: f64| {
        println!("| {what} | {:.0} | {:.0} |", events as f64 / cpu_s, events as f64 / wall_s);
    };
    println!(
        "| {BYTES} B, one core | events a second of its CPU | events a second |\n|---|--:|--:|"
    );
    let (cpu, began) = (node.program().cpu_s(), Instant::now());
    fill(&mut brokers[0], events, BYTES);
    await_that("all has come", || {
        metric(node.admin(), "pushline_cluster_events_received_total") >= events
    });
    row("as it comes", events, node.program().cpu_s() - cpu, began.elapsed().as_secs_f64());
    node.stop();
    let began = Instant::now();
    node.begin();
    row("at a start", events, node.program().cpu_s(), began.elapsed().as_secs_f64());
    assert_eq!(metric(node.admin(), "pushline_head_seq"), events);
}

/// Publishes to a hundred channels, with some hundred on their way.
fn fill(broker: &mut Nats, events: u64, bytes: usize) {
    const AT_ONCE: u64 = 500;
    let mut conn = broker.connect();
    conn.subscribe("filled");
    let data = "x".repeat(bytes);
    let mut behind = 0;
    for n in 0..events {
        conn.publish(&format!("{STREAM}.ev.c{}", n % 100), "filled", &data);
        behind += 1;
        if behind == 2 * AT_ONCE || n + 1 == events {
            let answered = if n + 1 == events { behind } else { AT_ONCE };
            (0..answered).for_each(|_| drop(conn.message().expect("it is stored")));
            behind -= answered;
        }
    }
}
