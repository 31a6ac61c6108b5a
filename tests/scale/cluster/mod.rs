//! Three nodes on three brokers, and everything dies in turn. Clients come back to another node each
//! time, with nothing but their cursor; publishers repeat what was not answered at another node, with
//! the same key. In the end every client has had every event, in order, and none twice.

mod figures;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::common::nats::Nats;
use crate::common::program::{Program, free_ports};
use crate::common::{PATIENCE, await_that, fetch, request, seq_of};
use crate::herd::{Herd, Return};
use crate::member::{Kind, Member};
use crate::number;
use crate::publisher::{Truth, channel_name, payload};

const NODES: usize = 3;
const CHANNELS: usize = 10;
const STREAM: &str = "PUSHLINE";
/// Of each channel.
const PUBLISH_PAUSE: Duration = Duration::from_millis(200);
const EVENT_BYTES: usize = 100;
const RETURN_PAUSE: Duration = Duration::from_millis(100);
/// Until every client is there and has everything.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(60);

#[test]
fn nodes_and_brokers_die_and_no_client_misses_anything_or_sees_it_twice() {
    nodes_and_brokers_die(30, Duration::from_secs(1));
}

#[test]
#[ignore = "takes minutes: scripts/cluster"]
fn cluster() {
    let clients = number("PUSHLINE_CLUSTER_CLIENTS", 3000) as usize;
    let stop_s = number("PUSHLINE_CLUSTER_STOP_S", 30);
    nodes_and_brokers_die(clients, Duration::from_secs(stop_s));
}

fn nodes_and_brokers_die(clients: usize, stop_time: Duration) {
    let Some(brokers) = Nats::several(3) else { return };
    let mut world = World::start(brokers, clients);
    println!(
        "| what dies | events | reconnects | s until all have everything |\n|---|--:|--:|--:|"
    );
    world.after("a node, kill -9", |world| {
        world.nodes[0].kill();
        world.live(stop_time / 10);
        world.nodes[0].begin();
    });
    world.after("the stream's leader, kill -9", |world| {
        let leader = world.leader();
        world.brokers[leader].kill();
        world.live(stop_time / 10);
        world.brokers[leader].begin();
    });
    world.after("a broker, stopped", |world| {
        let leader = world.leader();
        world.brokers[leader].stop();
        world.live(stop_time);
        world.brokers[leader].begin();
    });
    world.after("a broker, frozen", |world| {
        let leader = world.leader();
        world.brokers[leader].signal(Signal::STOP);
        world.live(stop_time);
        world.brokers[leader].signal(Signal::CONT);
    });
    for place in 0..3 {
        world.after("a broker, started again", |world| {
            world.brokers[place].stop();
            world.brokers[place].begin();
        });
        world.after("a node, started again", |world| {
            world.nodes[place].stop();
            world.nodes[place].begin();
        });
    }
    world.end();
}

/// A node, which comes back at its address.
struct Node {
    addr: SocketAddr,
    options: Vec<String>,
    program: Option<Program>,
}

impl Node {
    /// At these brokers, with a stream that has this many replicas.
    fn new(port: u16, brokers: &[Nats], replicas: usize) -> Self {
        let urls: Vec<String> = brokers.iter().map(Nats::url).collect();
        let options = ["--cluster-nats", &urls.join(","), "--cluster-replicas"];
        let replicas = replicas.to_string();
        let history = ["--history-count", "1000000", "--workers", "1", "--drain", "1s"];
        let options = [&options[..], &[&replicas], &history].concat();
        let mut node = Self {
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            options: options.into_iter().map(str::to_owned).collect(),
            program: None,
        };
        node.begin();
        node
    }

    fn begin(&mut self) {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        self.program = Some(Program::start(self.addr.port(), &options));
        await_that("the node follows", || {
            fetch(self.admin(), "GET", "/readyz", &[], None).status == 200
        });
    }

    fn program(&self) -> &Program {
        self.program.as_ref().expect("it runs")
    }

    fn kill(&mut self) {
        self.program = None;
    }

    fn stop(&mut self) {
        let program = self.program.take().expect("it runs");
        program.signal(Signal::TERM);
        let (code, log) = program.wait(PATIENCE);
        assert_eq!(code, Some(0), "{log:?}");
    }

    fn admin(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.addr.port() + 1))
    }
}

fn nodes_on(brokers: &[Nats], count: usize) -> Vec<Node> {
    let port = free_ports(2 * count as u16);
    (0..count).map(|n| Node::new(port + 2 * n as u16, brokers, brokers.len())).collect()
}

struct World {
    brokers: Vec<Nats>,
    nodes: Vec<Node>,
    herd: Herd,
    orders: Arc<Orders>,
    publishers: Vec<JoinHandle<()>>,
}

impl World {
    fn start(brokers: Vec<Nats>, clients: usize) -> Self {
        let nodes = nodes_on(&brokers, NODES);
        let addrs: Vec<SocketAddr> = nodes.iter().map(|node| node.addr).collect();
        let truth = Truth::new(CHANNELS);
        let kinds = [Kind::Sse, Kind::WsEnvelope];
        let member = |n: usize| Member::new(kinds[n / CHANNELS % 2], n % CHANNELS);
        let members = (0..clients).map(member).collect();
        let mut herd = Herd::among(addrs.clone(), members, truth.clone());
        herd.gather(200, SETTLE_TIME_MAX);
        herd.back = Return::After(RETURN_PAUSE);
        let orders = Arc::<Orders>::default();
        let publishers = (0..CHANNELS)
            .map(|channel| {
                let (addrs, truth, orders) = (addrs.clone(), truth.clone(), orders.clone());
                std::thread::spawn(move || publish_on(channel, &addrs, &truth, &orders))
            })
            .collect();
        let mut world = Self { brokers, nodes, herd, orders, publishers };
        world.live(2 * PUBLISH_PAUSE);
        world.settle();
        world
    }

    /// Clients and publishers go on.
    fn live(&mut self, time: Duration) {
        self.herd.live(time, |_| false);
    }

    /// Something dies under load; afterwards every client gets to the end.
    fn after(&mut self, what: &str, dies: impl FnOnce(&mut Self)) {
        let (events, ended) = (self.events(), self.herd.ended_us.len());
        let beginning = PUBLISH_PAUSE.mul_f64(fastrand::f64() * 3.0);
        self.live(beginning);
        dies(self);
        let began = Instant::now();
        self.live(2 * PUBLISH_PAUSE);
        self.settle();
        println!(
            "| {what} | {} | {} | {:.1} |",
            self.events() - events,
            self.herd.ended_us.len() - ended,
            began.elapsed().as_secs_f64()
        );
    }

    /// No more is published, until every client is there and has everything.
    fn settle(&mut self) {
        self.orders.pause.store(true, Ordering::SeqCst);
        let (orders, publishers) = (self.orders.clone(), self.publishers.len());
        let all_have_everything = |herd: &mut Herd| {
            let has_all = |one: &Member| {
                one.is_open() && one.received == herd.truth.count(one.channel) as u64
            };
            orders.paused.load(Ordering::SeqCst) == publishers && herd.members.iter().all(has_all)
        };
        let settled = self.herd.live(SETTLE_TIME_MAX, all_have_everything);
        if !settled {
            self.tell_unsettled();
        }
        self.orders.pause.store(false, Ordering::SeqCst);
        await_that("all publish again", || self.orders.paused.load(Ordering::SeqCst) == 0);
    }

    fn tell_unsettled(&self) -> ! {
        let truth = &self.herd.truth;
        let lacks = |one: &&Member| one.received != truth.count(one.channel) as u64;
        let one = self.herd.members.iter().find(lacks);
        panic!(
            "{} of {} clients are there, {} lack something, {} of {CHANNELS} publishers are done; one \
             of {:?}: {one:?}",
            self.herd.open(),
            self.herd.members.len(),
            self.herd.members.iter().filter(lacks).count(),
            self.orders.paused.load(Ordering::SeqCst),
            one.map(|one| truth.count(one.channel)),
        )
    }

    fn events(&self) -> usize {
        (0..CHANNELS).map(|channel| self.herd.truth.count(channel)).sum()
    }

    fn leader(&self) -> usize {
        let mut leader = None;
        await_that("the stream has a leader", || {
            let name = self.brokers[fastrand::usize(..self.brokers.len())].leader(STREAM);
            leader = self.brokers.iter().position(|broker| Some(&broker.name) == name.as_ref());
            leader.is_some()
        });
        leader.expect("it has one")
    }

    fn end(self) {
        self.orders.over.store(true, Ordering::SeqCst);
        self.publishers.into_iter().for_each(|publisher| publisher.join().expect("it ends"));
        let told = self.herd.members.iter().map(|one| u64::from(one.told.gaps) + one.lost);
        assert_eq!(told.sum::<u64>(), 0, "no client is told of a gap");
    }
}

/// What publishers are to do.
#[derive(Default)]
struct Orders {
    pause: AtomicBool,
    paused: AtomicUsize,
    over: AtomicBool,
}

impl Orders {
    fn obey(&self) {
        if !self.pause.load(Ordering::SeqCst) {
            return;
        }
        self.paused.fetch_add(1, Ordering::SeqCst);
        while self.pause.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.paused.fetch_sub(1, Ordering::SeqCst);
    }
}

fn publish_on(channel: usize, addrs: &[SocketAddr], truth: &Truth, orders: &Orders) {
    for place in 0.. {
        std::thread::sleep(PUBLISH_PAUSE);
        orders.obey();
        if orders.over.load(Ordering::SeqCst) {
            return;
        }
        let data = payload(place, EVENT_BYTES);
        let mut tries = addrs.iter().cycle().skip(channel + place);
        let seq = tries.find_map(|&addr| {
            let seq = try_publish(addr, channel, place, &data).ok().flatten();
            if seq.is_none() {
                std::thread::sleep(Duration::from_millis(20));
            }
            seq
        });
        truth.push(channel, seq.expect("it goes on for ever"));
    }
}

/// The place it got; none: it was refused.
fn try_publish(
    addr: SocketAddr,
    channel: usize,
    place: usize,
    data: &str,
) -> std::io::Result<Option<u64>> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let key = place.to_string();
    let headers = [("Idempotency-Key", key.as_str()), ("Connection", "close")];
    let target = format!("/channels/{}", channel_name(channel));
    stream.write_all(&request("POST", &target, &headers, Some(data.as_bytes())))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let json: Option<Value> = serde_json::from_str(body).ok();
    Ok(json.and_then(|json| json["id"].as_str().map(seq_of)))
}
