//! The log over a store that commits only when told to.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::log::event::Event;
use crate::log::message::{Answer, Counts, Fed};
use crate::log::older::OlderRead;
use crate::log::store::{Store, Stored, Taken};

#[derive(Debug)]
pub(super) struct Slow;

impl Store for Slow {
    fn append(&mut self, _event: &Arc<Event>) -> Taken {
        Taken::Later
    }

    fn give_up(&mut self) {}

    fn read_older(&mut self, _read: OlderRead) {
        panic!("all of history is in memory");
    }
}

fn slow_bench() -> Bench {
    bench_over(Box::new(Slow))
}

pub(super) fn bench_over(store: Box<dyn Store>) -> Bench {
    let settings = settings(1 << 20, Policies::uniform(PLENTY));
    let hasher = SharedHasher::from_seed(1);
    let mut log = Sequencer::new(settings, Epoch::from_random(1), 3, hasher);
    log.move_to(store, Epoch::from_random(1), 0, 0);
    Bench { log, shelf: Shelf::default(), lanes: Lanes::new(3), now: Duration::ZERO }
}

impl Bench {
    pub(super) fn ask_publish(&mut self, worker: u16, publications: Vec<Publication>) {
        let (ticket, share) = (TICKET, Share::Whole);
        self.handle(worker, Ask::Publish { ticket, share, counts: Counts::Here, publications });
    }

    pub(super) fn store_says(&mut self, stored: Stored) {
        self.log.handle(ToLog::Store(stored), self.now, &mut self.lanes);
        self.log.check_invariants();
    }

    pub(super) fn commit(&mut self, through: u64) {
        self.store_says(Stored::Committed { through, count: 1 });
    }

    /// What is in a worker's lane: the seq of each event, and `accepted` of each answer.
    pub(super) fn heard(&mut self, worker: u16) -> Vec<(char, u64)> {
        let tell = |told| match told {
            FromLog::Event(event) => ('e', event.seq),
            FromLog::Answer { answer: Answer::Published { outcome, .. }, .. } => {
                ('a', u64::from(outcome.accepted))
            }
            other => panic!("unexpected: {other:?}"),
        };
        self.lanes.take(worker).into_iter().map(tell).collect()
    }
}

#[test]
fn an_event_is_seen_and_answered_when_it_is_committed_and_not_before() {
    let mut bench = slow_bench();
    bench.join(1, "a", Cursor::Now);
    bench.ask_publish(0, vec![text("a"), text("b"), text("a")]);
    assert_eq!((bench.heard(0), bench.heard(1)), (vec![], vec![]));
    assert_eq!(bench.join(2, "a", Cursor::Earliest), (0, None, vec![]), "not in history either");
    assert_eq!(bench.describe("b").events, 0);
    assert_eq!(bench.log.stats().head_seq, 0);
    bench.commit(2);
    assert_eq!((bench.heard(0), bench.heard(1)), (vec![], vec![('e', 1)]));
    bench.commit(3);
    assert_eq!((bench.heard(0), bench.heard(1)), (vec![('a', 3)], vec![('e', 3)]));
    assert_eq!(bench.log.stats().head_seq, 3);
}

#[test]
fn answers_come_in_the_order_of_their_publishes() {
    let mut bench = slow_bench();
    bench.ask_publish(0, vec![text("a")]);
    bench.ask_publish(0, vec![text("a"), text("a")]);
    bench.commit(2);
    assert_eq!(bench.heard(0), [('a', 1)]);
    bench.commit(3);
    assert_eq!(bench.heard(0), [('a', 2)]);
}

#[test]
fn a_repeated_key_waits_for_its_first_event() {
    let mut bench = slow_bench();
    bench.ask_publish(0, vec![keyed("a", "k")]);
    bench.ask_publish(1, vec![keyed("a", "k")]);
    assert_eq!(bench.heard(1), []);
    bench.commit(1);
    for worker in [0, 1] {
        let Answer::Published { outcome, .. } = bench.answer(worker) else { panic!("an answer") };
        assert_eq!((outcome.accepted, outcome.last_seq), (1, 1));
    }
    assert_eq!(bench.log.stats().counters.repeated, 1);
}

#[test]
fn what_the_store_loses_is_refused_and_its_seq_is_not_given_again() {
    let mut bench = slow_bench();
    bench.join(2, "a", Cursor::Now);
    bench.ask_publish(0, vec![keyed("a", "k")]);
    bench.commit(1);
    assert_eq!(bench.heard(0), [('a', 1)]);
    bench.ask_publish(0, vec![keyed("a", "k"), text("a"), text("new"), text("a")]);
    bench.commit(2);
    bench.store_says(Stored::Down);
    let Answer::Published { outcome, .. } = bench.answer(0) else { panic!("an answer") };
    assert_eq!((outcome.accepted, outcome.first_seq, outcome.last_seq), (2, 1, 2));
    assert_eq!(outcome.refusal, Some(Refusal::Store));
    assert_eq!(bench.publish_all(0, vec![text("a")]).refusal, Some(Refusal::Store));
    assert_eq!(bench.heard(2), [('e', 1), ('e', 2)], "streams live on");
    assert_eq!(bench.log.stats().channels, 1, "a channel whose only event was lost is freed");
    bench.store_says(Stored::Up);
    bench.ask_publish(0, vec![text("a")]);
    bench.commit(5);
    assert_eq!(bench.heard(2), [('e', 5)]);
}

#[test]
fn events_that_wait_have_places_in_the_lanes() {
    let mut bench = slow_bench();
    bench.lanes.places = 2;
    bench.join(1, "a", Cursor::Now);
    bench.ask_publish(0, vec![text("a"), text("a"), text("a")]);
    bench.ask_publish(0, vec![text("b")]);
    bench.commit(3);
    let FromLog::Answer { answer: Answer::Published { outcome, .. }, .. } =
        bench.lanes.queues[0].remove(0)
    else {
        panic!()
    };
    assert_eq!((outcome.accepted, outcome.refusal), (2, Some(Refusal::Busy)));
    assert_eq!(bench.heard(0), [('a', 1)]);
    assert_eq!(bench.heard(1), [('e', 1), ('e', 2)]);
}

/// The worker joined after the events were ordered, so no place was kept for them.
#[test]
fn a_full_lane_holds_up_what_is_committed_until_it_has_room() {
    let mut bench = slow_bench();
    bench.ask_publish(0, vec![text("a"), text("b")]);
    bench.join(1, "a", Cursor::Now);
    bench.lanes.full = vec![1];
    bench.commit(2);
    assert_eq!((bench.heard(0), bench.heard(1)), (vec![], vec![]));
    bench.lanes.full.clear();
    bench.log.tend(bench.now, &mut bench.lanes);
    assert_eq!((bench.heard(0), bench.heard(1)), (vec![('a', 2)], vec![('e', 1)]));
}

#[test]
fn events_that_are_fed_keep_their_places_and_all_that_follows_from_them() {
    let mut bench = Bench::uniform(Policy { history_count: 2, ..PLENTY });
    bench.join(1, "a", Cursor::Now);
    let fed = |seq, publication| Fed { seq, publication, ordered_at: Duration::ZERO };
    let events =
        vec![fed(3, text("a")), fed(7, keyed("a", "k")), fed(8, text("b")), fed(12, text("a"))];
    bench.log.handle(ToLog::Feed(events), Duration::ZERO, &mut bench.lanes);
    bench.log.check_invariants();
    assert_eq!(bench.heard(1), [('e', 3), ('e', 7), ('e', 12)]);
    assert_eq!(bench.join(2, "a", Cursor::After(2)), (3, Some(GapReason::Evicted), vec![7, 12]));
    assert_eq!(bench.join(2, "b", Cursor::After(2)), (2, None, vec![8]), "a hole is no gap");
    assert_eq!(bench.publish_all(0, vec![keyed("a", "k")]).last_seq, 7);
    assert_eq!(bench.publish("b"), 13);
}

/// Otherwise the first event of many would be synced alone, and the others wait for it.
#[test]
fn what_a_request_publishes_is_one_group_to_the_journal() {
    let (near, ends) = crate::journal::lanes();
    let mut bench = bench_over(Box::new(near));
    bench.ask_publish(0, vec![text("a"), text("b"), text("a")]);
    assert_eq!(ends.keeper.len(), 1);
    bench.ask_publish(1, vec![text("a")]);
    assert_eq!(ends.keeper.len(), 2);
}
