//! The order of events, what a publisher is answered, and what refuses it.

use super::*;

#[test]
fn one_total_order_and_each_interested_worker_hears_of_an_event_once() {
    let mut bench = Bench::uniform(PLENTY);
    for (worker, name) in [(0, "a"), (0, "a"), (1, "a"), (1, "b")] {
        bench.join(worker, name, Cursor::Now);
    }
    assert_eq!([bench.publish("a"), bench.publish("b"), bench.publish("a")], [1, 2, 3]);
    assert_eq!(event_seqs(&bench.lanes.take(0)), [1, 3]);
    assert_eq!(event_seqs(&bench.lanes.take(1)), [1, 2, 3]);
    assert!(bench.lanes.take(2).is_empty());
    bench.leave(0, "a");
    assert_eq!(bench.publish("a"), 4);
    assert_eq!(event_seqs(&bench.lanes.take(0)), [4]);
    bench.leave(0, "a");
    bench.publish("a");
    assert!(bench.lanes.take(0).is_empty());
}

#[test]
fn a_publisher_gets_its_own_event_before_its_answer() {
    let mut bench = Bench::uniform(PLENTY);
    bench.join(0, "a", Cursor::Now);
    let publications = vec![text("a"), text("b"), text("a")];
    let (ticket, share) = (TICKET, Share::Whole);
    bench.handle(0, Ask::Publish { ticket, share, counts: Counts::Here, publications });
    let sent = bench.lanes.take(0);
    let outcome = match &sent[..] {
        [
            FromLog::Event(first),
            FromLog::Event(second),
            FromLog::Answer { answer: Answer::Published { outcome, .. }, .. },
        ] => {
            assert_eq!((first.seq, second.seq), (1, 3));
            outcome.clone()
        }
        other => panic!("{other:?}"),
    };
    let expected = Published {
        accepted: 3,
        first_seq: 1,
        last_seq: 3,
        subscribers: 1,
        elsewhere: None,
        refusal: None,
        stream: None,
    };
    assert_eq!(outcome, expected);
}

#[test]
fn the_list_of_a_request_comes_back_empty_with_its_memory() {
    let mut bench = Bench::uniform(PLENTY);
    let publications = vec![text("a"), text("b"), text("c")];
    let memory = publications.as_ptr();
    let (ticket, share, counts) = (TICKET, Share::Whole, Counts::Here);
    bench.handle(0, Ask::Publish { ticket, share, counts, publications });
    let Answer::Published { outcome, unaccepted } = bench.answer(0) else {
        panic!("not published")
    };
    assert_eq!((outcome.accepted, unaccepted.len(), unaccepted.as_ptr()), (3, 0, memory));
}

#[test]
fn a_full_lane_refuses_and_what_was_ordered_before_stays() {
    let mut bench = Bench::uniform(PLENTY);
    bench.join(1, "a", Cursor::Now);
    bench.join(2, "a", Cursor::Now);
    bench.lanes.full = vec![2];
    let outcome = bench.publish_all(0, vec![text("b"), text("a"), text("b")]);
    let refusal = Some(Refusal::Busy);
    assert_eq!(
        outcome,
        Published {
            accepted: 1,
            first_seq: 1,
            last_seq: 1,
            subscribers: 0,
            elsewhere: None,
            refusal,
            stream: None
        }
    );
    assert!(bench.lanes.take(1).is_empty(), "nothing is half published");
    assert_eq!(bench.describe("a").last_seq, None);
    bench.lanes.full.clear();
    assert_eq!(bench.publish("a"), 2);
}

#[test]
fn a_repeated_key_answers_the_first_seq_while_history_holds_it() {
    let mut bench = Bench::uniform(Policy { history_count: 2, ..PLENTY });
    bench.join(1, "a", Cursor::Now);
    let outcome = bench.publish_all(0, vec![keyed("a", "k"), keyed("b", "k"), keyed("a", "k")]);
    let expected = Published {
        accepted: 3,
        first_seq: 1,
        last_seq: 1,
        subscribers: 1,
        elsewhere: None,
        refusal: None,
        stream: None,
    };
    assert_eq!(outcome, expected);
    assert_eq!(bench.log.stats().head_seq, 2, "another channel's key is another key");
    assert_eq!(event_seqs(&bench.lanes.take(1)), [1]);
    bench.publish("a");
    assert_eq!(bench.publish_all(0, vec![keyed("a", "k")]).last_seq, 1);
    bench.publish("a");
    assert_eq!(bench.publish_all(0, vec![keyed("a", "k")]).last_seq, 5, "it left with its event");
}

#[test]
fn a_channel_over_its_rate_is_refused_even_without_history_or_subscribers() {
    let unkept = Policy { history_count: 0, publish_rate: Some(2), ..PLENTY };
    let mut bench = Bench::uniform(unkept);
    let four = || (0..4).map(|_| text("a")).collect();
    let outcome = bench.publish_all(0, four());
    assert_eq!((outcome.accepted, outcome.refusal), (2, Some(Refusal::Rate)));
    assert_eq!(bench.log.stats().channels, 0);
    assert_eq!(bench.publish_all(0, four()).accepted, 0);
    bench.now = Duration::from_millis(500);
    assert_eq!(bench.publish_all(0, four()).accepted, 1);
    assert_eq!(bench.publish_all(0, vec![text("b")]).accepted, 1);
}

/// A publisher of many events at once leaves room in a worker's lane for one that sends a single
/// one.
#[test]
fn a_lane_is_not_filled_by_one_kind_of_publisher() {
    let mut bench = Bench::uniform(PLENTY);
    bench.join(1, "a", Cursor::Now);
    bench.lanes.places = 8;
    let many = || (0..20).map(|_| text("a")).collect::<Vec<_>>();
    for (share, accepted) in [(Share::Half, 4), (Share::ThreeQuarters, 2), (Share::Whole, 2)] {
        let outcome = bench.publish_within(share, 0, many());
        assert_eq!((outcome.accepted, outcome.refusal), (accepted, Some(Refusal::Busy)));
    }
}
