//! What history keeps, and what it knows of what it has lost.

use super::*;

#[test]
fn channels_whose_history_is_overdue_make_room_for_new_ones() {
    let mut bench =
        Bench::new(LogSettings { channels_max: 1, ..settings(1 << 20, Policies::uniform(PLENTY)) });
    bench.publish("a");
    assert_eq!(bench.publish_all(0, vec![text("b")]).refusal, Some(Refusal::Channels));
    bench.now = AGE;
    bench.publish("b");
    bench.now = 2 * AGE;
    bench.join(0, "c", Cursor::Now);
}

#[test]
fn the_byte_budget_lets_the_oldest_event_of_the_log_go_first() {
    let one = event_bytes("a", b"data", None, None);
    let policies = rules(&[("a", Policy { history_age: 2 * AGE, ..PLENTY })]);
    let mut bench = Bench::new(settings(3 * one, policies));
    for name in ["a", "b", "b", "a", "b"] {
        bench.publish(name);
    }
    assert_eq!(bench.describe("a").first_seq, Some(4));
    assert_eq!(bench.describe("b").first_seq, Some(3));
    assert_eq!(bench.log.stats().counters.evicted_by_bytes, 2);
    let huge = Publication { data: vec![b'x'; 3 * one as usize].into(), ..text("c") };
    assert_eq!(bench.publish_all(0, vec![huge]).refusal, Some(Refusal::Memory));
    assert_eq!(bench.log.stats().events, 3, "a refused event evicts nothing");
}

#[test]
fn history_ages_by_its_policy_and_says_when_next() {
    let policies = rules(&[("quick", Policy { history_age: AGE / 2, ..PLENTY })]);
    let mut bench = Bench::new(settings(1 << 20, policies));
    assert_eq!(bench.expire_at(Duration::ZERO), None);
    bench.publish("slow");
    bench.now = AGE / 4;
    bench.publish("quick");
    assert_eq!(bench.expire_at(AGE / 2), Some(AGE / 2 + AGE / 4));
    assert_eq!(bench.expire_at(AGE / 2 + AGE / 4), Some(AGE));
    assert_eq!(bench.log.stats().events, 1);
    assert_eq!(bench.expire_at(AGE), None);
    assert_eq!(bench.log.stats().channels, 0);
    assert_eq!(bench.log.stats().counters.evicted_by_age, 2);
}

#[test]
fn what_is_never_kept_counts_as_lost() {
    let mut bench = Bench::uniform(Policy { history_count: 0, ..PLENTY });
    bench.join(1, "a", Cursor::Now);
    bench.publish("a");
    assert_eq!(bench.join(0, "a", Cursor::After(0)), (1, Some(GapReason::Evicted), vec![]));
    assert_eq!(bench.join(0, "a", Cursor::After(1)), (1, None, vec![]));
}

#[test]
fn a_freed_channel_still_knows_what_it_lost() {
    let mut bench = Bench::uniform(Policy { history_count: 0, ..PLENTY });
    bench.log.limit_tombstones(2);
    for name in ["a", "b"] {
        bench.publish(name);
    }
    assert_eq!(bench.log.stats().channels, 0);
    let gone = Description { last_seq: Some(1), ..Description::default() };
    assert_eq!(bench.describe("a"), gone);
    assert_eq!(bench.describe("z").last_seq, None);
    assert_eq!(bench.log.stats().channels, 0, "describing creates nothing");
    assert_eq!(bench.join(0, "a", Cursor::After(0)), (1, Some(GapReason::Evicted), vec![]));
    assert_eq!(bench.join(0, "z", Cursor::After(0)), (0, None, vec![]));
    bench.publish("c");
    bench.publish("d");
    // "b" fell out of the tombstones, so an unknown channel may have lost as much as "b" did.
    assert_eq!(bench.log.stats().forgotten_to, 2);
    assert_eq!(bench.join(0, "b", Cursor::After(1)), (2, Some(GapReason::Evicted), vec![]));
    assert_eq!(bench.join(0, "y", Cursor::After(2)), (2, None, vec![]));
}

#[test]
fn a_reload_moves_events_under_their_new_policies() {
    let mut bench = Bench::uniform(PLENTY);
    for name in ["a", "b", "a", "b", "a", "c"] {
        bench.publish(name);
    }
    let policies = rules(&[
        ("a", Policy { history_count: 2, history_age: AGE / 2, ..PLENTY }),
        ("c", Policy { history_count: 0, ..PLENTY }),
    ]);
    let bytes = 3 * event_bytes("a", b"data", None, None);
    bench.log.apply(settings(bytes, policies));
    bench.log.check_invariants();
    assert_eq!(bench.describe("a").first_seq, Some(3));
    assert_eq!(bench.describe("b").first_seq, Some(4));
    assert_eq!(bench.describe("c").events, 0);
    assert_eq!(bench.expire_at(AGE / 2), Some(AGE));
    assert_eq!((bench.describe("a").events, bench.describe("b").events), (0, 1));
}

/// A publisher of one pattern of channels can evict another pattern's history, but only what that
/// holds beyond its share.
#[test]
fn a_rule_keeps_its_share_when_others_press() {
    let of_users = Policy { history_share: 4_000, ..PLENTY };
    let mut bench = Bench::new(settings(8_000, rules(&[("user:*", of_users)])));
    let kept = |bench: &mut Bench, name: &str| bench.describe(name).events;
    for _ in 0..100 {
        bench.publish("user:1");
    }
    let alone = kept(&mut bench, "user:1");
    for n in 0..100 {
        bench.publish(&format!("x:{n}"));
    }
    let pressed = kept(&mut bench, "user:1");
    assert!((1..alone).contains(&pressed), "{pressed} of {alone}");
    let of_one = event_bytes("user:1", &text("user:1").data, None, None);
    let bytes = u64::from(pressed) * of_one;
    assert!((4_000 - of_one..=4_000).contains(&bytes), "{bytes}");
}
