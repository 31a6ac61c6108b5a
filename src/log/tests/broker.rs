//! The log over a broker that gives the order. First one that does what the test says; then one that
//! is simulated, with all that brokers do to their clients, under several nodes at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;
use crate::log::ahead::{AHEAD_MAX, AHEAD_TIME_MAX};
use crate::log::event::Event;
use crate::log::message::{Answer, Counts, Fed};
use crate::log::older::OlderRead;
use crate::log::sent::SENT_MAX;
use crate::log::store::{Answered, Store, Stored, Taken};

/// Sends to a test.
#[derive(Debug)]
pub(super) struct Far {
    to_broker: Sender<(u64, Publication)>,
    newest: Arc<AtomicU64>,
}

impl Store for Far {
    fn append(&mut self, _event: &Arc<Event>) -> Taken {
        unreachable!("the order is given elsewhere")
    }

    fn give_up(&mut self) {}

    fn read_older(&mut self, _read: OlderRead) {
        unreachable!("all of history is in memory")
    }

    fn is_elsewhere(&self) -> bool {
        true
    }

    fn send(&mut self, number: u64, publication: Publication, _counts: Counts) {
        self.to_broker.send((number, publication)).expect("the test listens");
    }

    fn newest(&self) -> Option<u64> {
        Some(self.newest.load(Ordering::Relaxed))
    }
}

/// A store, what it sends, and what it takes for the newest event.
pub(super) fn far() -> (Far, Receiver<(u64, Publication)>, Arc<AtomicU64>) {
    let (to_broker, sent) = unbounded();
    let newest = Arc::<AtomicU64>::default();
    (Far { to_broker, newest: newest.clone() }, sent, newest)
}

/// What a node has sent arrives in the broker's stream, or does not; and its answers do, or do not.
pub(super) fn take_in(
    stream: &mut Vec<Publication>,
    sent: &Receiver<(u64, Publication)>,
    loss: f64,
    random: &mut fastrand::Rng,
) -> ToLog {
    let mut answers = Vec::new();
    for (number, publication) in sent.try_iter() {
        let is_stored = random.f64() >= loss;
        stream.extend(is_stored.then_some(publication));
        let is_answered = is_stored && random.f64() >= loss;
        let seq = is_answered.then_some(stream.len() as u64);
        answers.push(Answered::new(number, seq));
    }
    ToLog::Store(Stored::Answered(answers))
}

/// What comes next to a node, of which `come` has come already: at most this many.
pub(super) fn feed(
    stream: &[Publication],
    come: &mut usize,
    count: usize,
    ordered_at: Duration,
) -> ToLog {
    let end = stream.len().min(come.saturating_add(count));
    let fed = |(at, publication): (usize, &Publication)| Fed {
        seq: (*come + at) as u64 + 1,
        publication: publication.clone(),
        ordered_at,
    };
    let events = stream[*come..end].iter().enumerate().map(fed).collect();
    *come = end;
    ToLog::Feed(events)
}

/// A log, and what it sends.
struct Node {
    bench: Bench,
    sent: Receiver<(u64, Publication)>,
    newest: Arc<AtomicU64>,
}

impl Node {
    fn new() -> Self {
        let (far, sent, newest) = far();
        let mut bench = Bench::uniform(PLENTY);
        bench.log.move_to(Box::new(far), Epoch::from_random(1), 0, 0);
        Self { bench, sent, newest }
    }

    fn ask(&mut self, request: ToLog) {
        let Bench { log, lanes, now, .. } = &mut self.bench;
        log.handle(request, *now, lanes);
        log.check_invariants();
    }

    fn publish(&mut self, publications: Vec<Publication>) {
        let body = Ask::Publish {
            ticket: TICKET,
            share: Share::Whole,
            counts: Counts::Here,
            publications,
        };
        self.bench.handle(0, body);
    }

    fn feed(&mut self, events: &[(u64, &str)]) {
        let fed = |&(seq, name): &(u64, &str)| Fed {
            seq,
            publication: text(name),
            ordered_at: Duration::ZERO,
        };
        self.ask(ToLog::Feed(events.iter().map(fed).collect()));
    }

    fn answer(&mut self, answers: &[(u64, Option<u64>)]) {
        let answered = |&(number, seq)| Answered::new(number, seq);
        let answers = answers.iter().map(answered).collect();
        self.ask(ToLog::Store(Stored::Answered(answers)));
    }

    /// Numbers of what was sent since.
    fn numbers(&self) -> Vec<u64> {
        self.sent.try_iter().map(|(number, _)| number).collect()
    }

    fn outcome(&mut self) -> Published {
        let Answer::Published { outcome, .. } = self.bench.answer(0) else { panic!("an answer") };
        outcome
    }

    fn ask_join(&mut self, worker: u16, cursor: Cursor) {
        let channels = vec!["a".into()];
        self.bench.handle(worker, Ask::Join { ticket: TICKET, channels, cursor, identity: None });
    }
}

#[test]
fn a_publish_is_answered_when_the_broker_has_and_seen_when_it_comes_back() {
    let mut node = Node::new();
    node.bench.join(1, "a", Cursor::Now);
    node.publish(vec![text("a"), text("b")]);
    assert_eq!(node.numbers(), [1, 2]);
    assert_eq!(node.bench.log.stats().head_seq, 0);
    node.answer(&[(1, Some(41)), (2, Some(43))]);
    let outcome = node.outcome();
    assert_eq!((outcome.accepted, outcome.first_seq, outcome.last_seq), (2, 41, 43));
    assert_eq!(node.bench.heard(1), []);
    node.feed(&[(41, "a"), (42, "of another node"), (43, "b")]);
    assert_eq!(node.bench.heard(1), [('e', 41)]);
    assert_eq!(node.bench.log.stats().head_seq, 43);
}

#[test]
fn answers_that_are_lost_doubled_or_out_of_order_answer_each_publish_once() {
    let mut node = Node::new();
    node.publish(vec![text("a"), text("a"), text("a")]);
    node.publish(vec![text("a")]);
    node.answer(&[(4, Some(9)), (4, Some(9)), (77, Some(1)), (0, None)]);
    assert_eq!(node.outcome().last_seq, 9);
    node.answer(&[(3, Some(3)), (1, Some(1))]);
    assert!(node.bench.lanes.take(0).is_empty());
    node.answer(&[(2, None), (2, Some(2))]);
    let outcome = node.outcome();
    assert_eq!((outcome.accepted, outcome.last_seq), (1, 1), "only what is before the lost one");
    assert_eq!(outcome.refusal, Some(Refusal::Store));
    assert!(node.bench.lanes.take(0).is_empty());
}

#[test]
fn a_key_that_has_come_back_is_answered_from_history_and_not_sent() {
    let mut node = Node::new();
    let keyed = Fed { seq: 5, publication: keyed("a", "k"), ordered_at: Duration::ZERO };
    node.ask(ToLog::Feed(vec![keyed]));
    node.publish(vec![super::keyed("a", "k")]);
    assert_eq!((node.outcome().last_seq, node.numbers()), (5, vec![]));
    node.publish(vec![super::keyed("a", "k"), text("a")]);
    let sent = node.numbers();
    node.answer(&[(sent[0], Some(6))]);
    assert_eq!((node.outcome().accepted, sent.len()), (2, 1));
}

#[test]
fn publishes_are_refused_while_the_broker_is_away_and_streams_live_on() {
    let mut node = Node::new();
    node.bench.join(1, "a", Cursor::Now);
    node.ask(ToLog::Store(Stored::Down));
    node.publish(vec![text("a")]);
    assert_eq!((node.outcome().refusal, node.numbers()), (Some(Refusal::Store), vec![]));
    node.feed(&[(1, "a")]);
    assert_eq!(node.bench.heard(1), [('e', 1)]);
    node.ask(ToLog::Store(Stored::Up));
    node.publish(vec![text("a")]);
    assert_eq!(node.numbers().len(), 1);
}

#[test]
fn what_may_be_on_its_way_is_bounded() {
    let mut node = Node::new();
    node.publish(vec![text("a"); SENT_MAX + 1]);
    let sent = node.numbers();
    assert_eq!(sent.len(), SENT_MAX);
    let answers: Vec<_> = sent.iter().map(|&number| (number, Some(number))).collect();
    node.answer(&answers);
    let outcome = node.outcome();
    assert_eq!(outcome.accepted as usize, SENT_MAX);
    assert_eq!(outcome.refusal, Some(Refusal::Busy));
    node.publish(vec![text("a")]);
    assert_eq!(node.numbers().len(), 1);
}

/// A client that comes from a node that is a little further.
#[test]
fn a_cursor_ahead_of_this_node_waits_until_it_has_come_there() {
    let mut node = Node::new();
    node.feed(&[(1, "a"), (2, "a")]);
    node.ask_join(1, Cursor::After(4));
    assert!(node.bench.lanes.take(1).is_empty());
    node.feed(&[(3, "a"), (4, "a"), (5, "a")]);
    let told = node.bench.lanes.take(1);
    let [FromLog::Answer { answer: Answer::Joined { head_seq: 5, channels }, .. }] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((channels[0].after, channels[0].gap), (4, None));
}

#[test]
fn a_cursor_that_stays_ahead_is_a_gap_where_no_such_event_is_and_refused_where_one_may_be() {
    let mut node = Node::new();
    for (newest, refused) in [(3, false), (4, true)] {
        node.newest.store(newest, Ordering::Relaxed);
        node.ask_join(1, Cursor::After(4));
        node.bench.now += AHEAD_TIME_MAX;
        let now = node.bench.now;
        node.bench.log.handle(ToLog::Feed(vec![]), now, &mut node.bench.lanes);
        node.bench.log.tend(now, &mut node.bench.lanes);
        match node.bench.answer(1) {
            Answer::Joined { channels, .. } if !refused => {
                assert_eq!(channels[0].gap, Some(GapReason::Epoch));
            }
            Answer::JoinRefused(Refusal::Behind) if refused => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn joins_that_wait_are_bounded() {
    let mut node = Node::new();
    for _ in 0..=AHEAD_MAX {
        node.ask_join(1, Cursor::After(9));
    }
    assert!(matches!(node.bench.answer(1), Answer::JoinRefused(Refusal::Behind)));
    assert!(node.bench.lanes.take(1).is_empty());
    node.feed(&[(9, "b")]);
    assert_eq!(node.bench.lanes.take(1).len(), AHEAD_MAX);
}

#[test]
fn what_is_fed_waits_for_room_in_a_lane_and_is_dropped_nowhere() {
    let mut node = Node::new();
    node.bench.join(1, "a", Cursor::Now);
    node.bench.join(2, "b", Cursor::Now);
    node.bench.lanes.full = vec![1];
    node.feed(&[(1, "b"), (2, "a"), (3, "b")]);
    assert_eq!((node.bench.heard(1), node.bench.heard(2)), (vec![], vec![('e', 1)]));
    assert!(node.bench.log.is_held_up());
    node.feed(&[(3, "b"), (4, "a")]);
    node.bench.lanes.full.clear();
    node.bench.log.tend(node.bench.now, &mut node.bench.lanes);
    assert_eq!(node.bench.heard(1), [('e', 2), ('e', 4)]);
    assert_eq!(node.bench.heard(2), [('e', 3)], "an event that comes twice is taken once");
}

#[test]
fn channels_that_other_nodes_make_push_out_those_with_the_oldest_events() {
    let mut settings = settings(1 << 20, Policies::uniform(PLENTY));
    settings.channels_max = 2;
    let mut node = Node::new();
    node.bench.log.apply(settings);
    node.bench.join(1, "a", Cursor::Now);
    node.feed(&[(1, "b"), (2, "c"), (3, "d")]);
    assert_eq!(node.bench.log.stats().channels, 2);
    assert_eq!(node.bench.describe("d").events, 1);
}
