//! Token streams over many nodes against what their producers said. Producers come and go on every
//! node, take over from each other, are cancelled and die with their node; what nodes send gets lost,
//! and so do the answers. However it went, all nodes have the same events, a stream is its tokens one
//! behind the other, what was answered is in it, and every stream ends.

use std::collections::BTreeSet;

use crossbeam_channel::Receiver;

use super::broker::{self, far};
use super::*;
use crate::log::event::Event;
use crate::log::message::StreamAt;
use crate::proto::attributes::Attributes;
use crate::proto::identity::NodeId;
use crate::proto::stream::{End, Mark, Part};

const LEASE: Duration = Duration::from_secs(15);
const GRACE: Duration = Duration::from_secs(5);
const NODES: usize = 3;
const STEPS: usize = 6_000;
const NAME: &str = "chat";
/// The worker of all producers, and that of all others.
const PRODUCERS: u16 = 0;
const OTHERS: u16 = 1;

struct Node {
    bench: Bench,
    name: u32,
    sent: Receiver<(u64, Publication)>,
    /// How much of the broker's stream has come.
    come: usize,
}

/// A connection that produces the channel's stream.
struct Producer {
    node: u32,
    ticket: u32,
    id: String,
    /// 0: the log has not said.
    attempt: u64,
    next: u64,
    /// How many tokens the log has not answered, or something else of it; none: nothing.
    asked: Option<u64>,
}

struct Trial {
    random: fastrand::Rng,
    stream: Vec<Publication>,
    nodes: Vec<Node>,
    now: Duration,
    started: u32,
    tickets: u32,
    /// A node that has not seen all.
    late: u32,
    producers: Vec<Producer>,
    /// Tokens that were answered, by stream and number.
    answered: BTreeSet<(String, u64)>,
}

fn policy() -> Policy {
    Policy { history_count: 100_000, history_age: Duration::MAX, stream_bytes: 1 << 20, ..PLENTY }
}

fn part(id: &str, part: Part, attempt: u64, data: &str) -> Publication {
    let attributes = Attributes::of_stream(Mark { id: id.into(), part, at: attempt });
    Publication { data: Bytes::from(data.to_owned()), attributes, ..text(NAME) }
}

/// What a stream's token of this number says.
fn word(id: &str, number: u64) -> String {
    format!("{id}:{number}")
}

impl Node {
    /// One that finds the broker's stream from behind this place on.
    fn start(name: u32, now: Duration, stream: &[Publication], behind: usize) -> Self {
        let mut settings = settings(1 << 26, Policies::uniform(policy()));
        settings.streams = StreamTimes { grace: GRACE, keep: Duration::from_secs(1) };
        let mut bench = Bench::new(settings);
        bench.now = now;
        bench.log.be_node(NodeId(name.wrapping_mul(0x9E37_79B9)), LEASE);
        let (store, sent, _) = far();
        let place = behind as u64;
        bench.log.move_to(Box::new(store), Epoch::from_random(1), place, place);
        let mut node = Self { bench, name, sent, come: behind };
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
    }

    fn publish(&mut self, worker: u16, ticket: u32, publications: Vec<Publication>) {
        let (ticket, share, counts) = (Ticket(ticket), Share::Whole, Counts::Here);
        self.bench.handle(worker, Ask::Publish { ticket, share, counts, publications });
    }

    fn stream(&mut self) -> Option<StreamAt> {
        self.bench.describe(NAME).stream
    }

    /// The channel's events behind this place, as any reader gets them; behind a later one if a
    /// reader is told of a gap up to there.
    fn events(&mut self, behind: u64) -> (u64, Vec<(u64, Option<Mark>, Bytes)>) {
        let what = |event: &Event| (event.seq, event.mark().cloned(), event.data.clone());
        let hash = self.bench.log.hasher.channel(NAME);
        let name = ChannelName::new(NAME).into();
        let wanted = ReadChannel { name, hash, after: behind, place: NO_PLACE };
        let page = self.bench.read(OTHERS, vec![wanted], u64::MAX);
        assert!(page.is_last);
        let events = page.events.iter().map(|(_, event)| what(event));
        (page.channels[0].after, events.collect())
    }
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut trial = Self {
            random: fastrand::Rng::with_seed(seed),
            stream: Vec::new(),
            nodes: Vec::new(),
            now: Duration::from_secs(1),
            started: 0,
            tickets: 0,
            late: 0,
            producers: Vec::new(),
            answered: BTreeSet::new(),
        };
        (0..NODES).for_each(|_| trial.start_node(0));
        trial
    }

    fn start_node(&mut self, behind: usize) {
        self.started += 1;
        self.nodes.push(Node::start(self.started, self.now, &self.stream, behind));
    }

    fn step(&mut self) {
        let place = self.random.usize(..self.nodes.len());
        match self.random.u16(..1_000) {
            // It cannot know that there is one already.
            0..25 if self.late == self.nodes[place].name => {}
            0..25 => self.open(place, None),
            25..40 => self.resume(place),
            40..400 => self.append(),
            400..410 => self.end(),
            410..425 => self.leave(),
            425..430 => self.cancel(place),
            430..500 => {
                let time = Duration::from_millis(self.random.u64(..1_500));
                self.pass(time);
            }
            500..503 => {
                // What it sent last may be on its way.
                self.deliver(place, 0.5);
                let died = self.nodes.swap_remove(place).name;
                self.producers.retain(|of| of.node != died);
                self.start_node(0);
            }
            503..750 => self.deliver(place, 0.01),
            _ => {
                let count = self.random.usize(1..40);
                self.nodes[place].feed(&self.stream, count);
                self.hear(place);
            }
        }
    }

    fn open(&mut self, place: usize, id: Option<String>) {
        self.tickets += 1;
        let (ticket, node) = (self.tickets, self.nodes[place].name);
        let id = id.unwrap_or_else(|| format!("m{ticket}"));
        self.nodes[place].publish(PRODUCERS, ticket, vec![part(&id, Part::Open, 0, "")]);
        self.producers.push(Producer { node, ticket, id, attempt: 0, next: 0, asked: Some(0) });
        self.hear(place);
    }

    /// A producer that was cut, or is not known to be there still, goes on at any node.
    fn resume(&mut self, place: usize) {
        let stream = self.nodes[place].stream().filter(|at| at.ended.is_none());
        if let Some(at) = stream {
            self.open(place, Some(at.id.to_string()));
        }
    }

    /// One of the producers that the log has answered.
    fn any_producer(&mut self) -> Option<usize> {
        let idle = (0..self.producers.len()).filter(|&at| self.producers[at].asked.is_none());
        let idle: Vec<usize> = idle.collect();
        (!idle.is_empty()).then(|| idle[self.random.usize(..idle.len())])
    }

    fn say(&mut self, producer: usize, count: u64, end: Option<End>) {
        let of = &mut self.producers[producer];
        let token = |number| part(&of.id, Part::Token, of.attempt, &word(&of.id, number));
        let tokens = (of.next..of.next + count).map(token);
        let end = end.map(|end| part(&of.id, Part::End(end), of.attempt, ""));
        let publications = tokens.chain(end).collect();
        of.asked = Some(count);
        let (node, ticket) = (of.node, of.ticket);
        let place = self.place_of(node);
        self.nodes[place].publish(PRODUCERS, ticket, publications);
        self.hear(place);
    }

    fn place_of(&self, node: u32) -> usize {
        self.nodes.iter().position(|of| of.name == node).expect("its producers end with it")
    }

    fn append(&mut self) {
        if let Some(producer) = self.any_producer() {
            let count = self.random.u64(1..6);
            self.say(producer, count, None);
        }
    }

    fn end(&mut self) {
        if let Some(producer) = self.any_producer() {
            let count = self.random.u64(..3);
            self.say(producer, count, Some(End::Done));
        }
    }

    /// A producer's connection is cut, whatever it waits for.
    fn leave(&mut self) {
        if self.producers.is_empty() {
            return;
        }
        let left = self.producers.swap_remove(self.random.usize(..self.producers.len()));
        let place = self.place_of(left.node);
        let (id, attempt) = (left.id.into(), left.attempt);
        self.nodes[place]
            .bench
            .handle(PRODUCERS, Ask::StreamLost { channel: NAME.into(), id, attempt });
    }

    fn cancel(&mut self, place: usize) {
        let cancelled = part("", Part::End(End::Cancelled), 0, "");
        self.nodes[place].publish(OTHERS, 0, vec![cancelled]);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for place in 0..self.nodes.len() {
            let Bench { log, lanes, now, .. } = &mut self.nodes[place].bench;
            *now = self.now;
            log.tend(*now, lanes);
            self.hear(place);
        }
    }

    /// What a node has sent arrives, or does not; and its answers do, or do not.
    fn deliver(&mut self, place: usize, loss: f64) {
        let node = &mut self.nodes[place];
        let answers = broker::take_in(&mut self.stream, &node.sent, loss, &mut self.random);
        node.tell(answers);
        self.hear(place);
    }

    /// The workers of a node take what the log tells them.
    fn hear(&mut self, place: usize) {
        self.nodes[place].bench.lanes.take(OTHERS);
        let node = self.nodes[place].name;
        for told in self.nodes[place].bench.lanes.take(PRODUCERS) {
            match told {
                FromLog::Answer { ticket, answer: Answer::Published { outcome, .. } } => {
                    self.answer(ticket.0, &outcome)
                }
                FromLog::StreamEnded { at, .. } => {
                    let is_its = |of: &Producer| {
                        of.node == node && *of.id == *at.id && of.attempt == at.attempt
                    };
                    self.producers.retain(|of| !is_its(of));
                }
                _ => {}
            }
        }
    }

    fn answer(&mut self, ticket: u32, outcome: &Published) {
        let Some(place) = self.producers.iter().position(|of| of.ticket == ticket) else { return };
        let of = &mut self.producers[place];
        let at = outcome.stream.as_ref().filter(|_| outcome.refusal.is_none());
        let Some(at) = at.filter(|at| at.ended.is_none() || at.ended == Some(End::Done)) else {
            return self.stop(place);
        };
        if of.attempt == 0 {
            (of.attempt, of.next) = (at.attempt, at.tokens);
        }
        if *at.id != *of.id || at.attempt != of.attempt {
            return self.stop(place);
        }
        let count = of.asked.take().expect("it was asked for");
        self.answered.extend((of.next..of.next + count).map(|number| (of.id.clone(), number)));
        of.next += count;
        if at.ended.is_some() {
            self.producers.swap_remove(place);
        }
    }

    /// A producer that is refused leaves its stream.
    fn stop(&mut self, place: usize) {
        let Producer { node, id, attempt, .. } = self.producers.swap_remove(place);
        let place = self.place_of(node);
        let (channel, id) = (NAME.into(), id.into());
        self.nodes[place].bench.handle(PRODUCERS, Ask::StreamLost { channel, id, attempt });
    }

    /// Nothing is lost any more, until nothing happens any more.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.pass(Duration::from_millis(500));
            while let Some(producer) = self.any_producer() {
                self.say(producer, 1, Some(End::Done));
            }
            for place in 0..self.nodes.len() {
                self.deliver(place, 0.0);
            }
            for place in 0..self.nodes.len() {
                self.nodes[place].feed(&self.stream, usize::MAX);
                self.hear(place);
            }
        }
    }

    /// All that came of it, as a node has it that knows all: each token is the next one of its stream.
    fn check(&mut self, place: usize) -> usize {
        let (after, events) = self.nodes[place].events(0);
        assert_eq!(after, 0, "nothing is lost");
        let (mut open, mut said, mut ends) = (None::<Mark>, BTreeSet::new(), 0);
        for (seq, mark, data) in &events {
            let mark = mark.as_ref().expect("a part of a stream");
            match (mark.part, &mut open) {
                (Part::Open, none @ None) => *none = Some(mark.clone()),
                (Part::Token, Some(of)) if of.id == mark.id => {
                    assert_eq!(of.at, mark.at, "the next one, at {seq}");
                    assert_eq!(*data, word(&mark.id, mark.at));
                    said.insert((mark.id.to_string(), mark.at));
                    of.at += 1;
                }
                (Part::End(_), of @ Some(_)) => {
                    let of = of.take().expect("one");
                    assert_eq!((&of.id, of.at), (&mark.id, mark.at));
                    ends += 1;
                }
                _ => panic!("{mark:?} at {seq} behind {open:?}"),
            }
        }
        assert_eq!(open, None, "every stream ends");
        let lost: Vec<_> = self.answered.difference(&said).collect();
        assert!(lost.is_empty(), "answered and lost: {lost:?}");
        ends
    }
}

#[test]
fn a_stream_is_the_same_on_all_nodes_and_has_what_its_producers_were_answered() {
    for seed in 0..5 {
        let mut trial = Trial::new(seed);
        (0..STEPS).for_each(|_| trial.step());
        trial.settle();
        let ends = trial.check(0);
        assert!(ends > 10 && trial.answered.len() > 60, "{ends}, {}", trial.answered.len());
        let events = trial.nodes[0].events(0);
        for node in &mut trial.nodes {
            assert_eq!(node.events(0), events, "seed {seed}, at {}", node.name);
            assert_eq!(node.bench.log.stats().streams, 0);
        }
    }
}

/// The broker has let go of the beginning of a stream.
#[test]
fn a_node_that_starts_in_the_middle_of_a_stream_has_the_rest_of_it_or_tells_of_a_gap() {
    let (mut gaps, mut whole) = (0, 0);
    for seed in 0..30 {
        let mut trial = Trial::new(seed);
        (0..200).for_each(|_| trial.step());
        let behind = trial.random.usize(..=trial.stream.len());
        trial.start_node(behind);
        trial.late = trial.started;
        let late = trial.late;
        (0..200).for_each(|_| {
            trial.append();
            trial.step();
        });
        trial.settle();
        let first = trial.nodes.iter().position(|of| of.name != late).expect("there are more");
        trial.check(first);
        let Some(place) = trial.nodes.iter().position(|of| of.name == late) else { continue };
        let (after, events) = trial.nodes[place].events(behind as u64);
        assert_eq!(events, trial.nodes[first].events(after).1, "seed {seed}, behind {behind}");
        // What was on its way then may be unclear to it, and nothing else.
        gaps += usize::from(after > behind as u64);
        whole += usize::from(!events.is_empty());
    }
    assert!(whole > 20 && gaps < whole, "{gaps} gaps, {whole} whole");
}

#[test]
fn the_streams_of_a_node_that_dies_end_after_its_lease_and_not_before() {
    let mut trial = Trial::new(1);
    trial.open(0, None);
    for _ in 0..3 {
        trial.deliver(0, 0.0);
        trial.nodes.iter_mut().for_each(|node| node.feed(&trial.stream, usize::MAX));
        trial.hear(0);
        trial.append();
    }
    let here = 1;
    trial.nodes.remove(0);
    trial.producers.clear();
    let mut lasted = Duration::ZERO;
    while trial.nodes[here].stream().expect("it is kept").ended.is_none() {
        trial.pass(Duration::from_secs(1));
        lasted += Duration::from_secs(1);
        for place in 0..2 {
            trial.deliver(place, 0.0);
            trial.nodes[place].feed(&trial.stream, usize::MAX);
        }
    }
    assert!((LEASE..LEASE * 2).contains(&lasted), "{lasted:?}");
    assert_eq!(trial.nodes[here].stream().expect("one").ended, Some(End::Lost));
}
