//! What a node does about all that a broker does to it: [`sim`] has several nodes, each a real log with
//! its follower, on a simulated stream with faults.

mod sim;

use std::time::Duration;

use super::follower::{BEHIND_TIME_MAX, Delivery, Follower, LOOK_PAUSE, Look, Mark, StreamState};
use super::{Ended, Identity};

fn identity(generation: u64) -> Identity {
    Identity { name: "S".into(), created: "2026-01-01T00:00:00.000000001Z".into(), generation }
}

fn state(first: u64, last: u64) -> StreamState {
    StreamState { identity: identity(0), first, last }
}

fn mark(seq: u64) -> Mark {
    Mark { seq, sign: 1000 + seq }
}

/// Has come to the end of a stream of this many messages.
fn follower_at(last: u64) -> Follower {
    let mut follower = Follower::new(identity(0), 0, Duration::ZERO);
    assert_eq!(follower.open(), 1);
    for seq in 1..=last {
        assert_eq!(follower.deliver(mark(seq), Duration::ZERO), Delivery::Take);
    }
    assert!(follower.has_begun(0));
    follower
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn all_nodes_have_the_same_epoch_and_another_stream_has_another() {
    assert_eq!(identity(0).epoch(), identity(0).epoch());
    assert_ne!(identity(0).epoch(), identity(1).epoch());
    let other = Identity { created: "2026-01-01T00:00:00.000000002Z".into(), ..identity(0) };
    assert_ne!(identity(0).epoch(), other.epoch());
    let other = Identity { name: "T".into(), ..identity(0) };
    assert_ne!(identity(0).epoch(), other.epoch());
}

#[test]
fn an_opening_begins_with_what_came_last_and_goes_on_behind_it() {
    let mut follower = follower_at(3);
    assert_eq!(follower.open(), 3);
    assert_eq!(follower.deliver(mark(3), s(1)), Delivery::Skip);
    assert_eq!(follower.deliver(mark(4), s(1)), Delivery::Take);
    assert_eq!(follower.deliver(mark(4), s(1)), Delivery::Skip);
    // What came last may be gone by age.
    assert_eq!(follower.open(), 4);
    assert_eq!(follower.deliver(mark(5), s(1)), Delivery::Take);
}

#[test]
fn another_message_where_the_last_one_was_ends_the_log() {
    let mut follower = follower_at(3);
    follower.open();
    let other = Mark { sign: 7, ..mark(3) };
    assert_eq!(follower.deliver(other, s(1)), Delivery::End(Ended::RolledBack));
}

#[test]
fn a_place_that_is_left_out_was_missed_unless_the_log_begins_there() {
    let mut follower = follower_at(3);
    assert_eq!(follower.deliver(mark(5), s(1)), Delivery::End(Ended::Missed));
    let mut beginner = Follower::new(identity(0), 10, Duration::ZERO);
    assert_eq!(beginner.open(), 11);
    assert_eq!(beginner.deliver(mark(14), s(1)), Delivery::Take);
    assert_eq!(beginner.began_behind(), 13);
    assert_eq!(beginner.deliver(mark(16), s(1)), Delivery::End(Ended::Missed));
}

#[test]
fn a_stream_that_ends_too_early_for_long_went_back_and_one_that_catches_up_is_looked_into() {
    let mut follower = follower_at(3);
    assert_eq!(follower.look(&state(1, 2), s(1)), Ok(Look::Fine));
    assert_eq!(follower.look(&state(1, 4), s(2)), Ok(Look::OpenAgain));
    assert_eq!(follower.look(&state(1, 4), s(3)), Ok(Look::Fine));
    assert_eq!(follower.look(&state(1, 2), s(4)), Ok(Look::Fine));
    let late = s(4) + BEHIND_TIME_MAX;
    assert_eq!(follower.look(&state(1, 2), late), Err(Ended::RolledBack));
}

#[test]
fn another_stream_or_generation_ends_the_log() {
    let mut follower = follower_at(3);
    let of = |identity| StreamState { identity, first: 1, last: 9 };
    assert_eq!(follower.look(&of(identity(1)), s(1)), Err(Ended::NewGeneration));
    let other = Identity { created: "later".into(), ..identity(0) };
    assert_eq!(follower.look(&of(other), s(1)), Err(Ended::Recreated));
}

#[test]
fn what_the_stream_has_let_go_of_is_missed_if_it_does_not_come() {
    let mut follower = follower_at(3);
    assert_eq!(follower.look(&state(4, 3), s(1)), Ok(Look::Fine), "a purge takes nothing we lack");
    assert_eq!(follower.look(&state(6, 9), s(2)), Ok(Look::Fine), "it may be on its way");
    assert_eq!(follower.deliver(mark(4), s(2)), Delivery::Take);
    assert_eq!(follower.look(&state(6, 9), s(3)), Ok(Look::Fine));
    assert_eq!(follower.look(&state(6, 9), s(4)), Err(Ended::Missed));
}

#[test]
fn a_node_is_behind_while_what_was_heard_of_has_not_come() {
    let mut follower = follower_at(3);
    assert_eq!(follower.look(&state(1, 5), s(1)), Ok(Look::Fine));
    assert_eq!(follower.look(&state(1, 9), s(4)), Ok(Look::Fine));
    assert_eq!(follower.lag(s(4)), s(4) - LOOK_PAUSE);
    follower.deliver(mark(4), s(5));
    follower.deliver(mark(5), s(5));
    assert_eq!(follower.lag(s(5)), Duration::ZERO);
}
