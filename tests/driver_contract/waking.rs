//! Doorbells: of other threads, and of the workers themselves.

use std::sync::mpsc;

use pushline::ring::{Bell, Completion, Wait};

use crate::rig::{PATIENCE, Rig, SILENCE};
use crate::sleeper::Sleeper;
use crate::worlds::World;

/// Rings in a storm, and the number of storms.
const RINGS: u32 = 100;

on_all_drivers! {
    a_ring_from_another_thread_ends_the_sleep,
    a_worker_rings_its_neighbour_with_its_batch,
    a_storm_of_rings_is_one_doorbell_a_turn_and_the_last_is_heard,
    a_turn_that_gathers_ends_in_time_with_the_little_that_came,
}

fn a_ring_from_another_thread_ends_the_sleep<W: World>() {
    let mut rig = Rig::<W>::new();
    let (mut bell, worker) = (rig.world.bell(), Sleeper::this_thread());
    let (go, told_to) = mpsc::channel();
    let ringer = std::thread::spawn(move || {
        for () in told_to {
            if W::sleeps() {
                worker.await_sleep();
            }
            bell.ring(0);
            bell.flush();
        }
    });
    for _ in 0..RINGS {
        go.send(()).expect("it rings");
        assert_eq!(rig.next(), Completion::Doorbell);
        assert_eq!(rig.heard, []);
    }
    drop(go);
    ringer.join().expect("it rang");
    rig.expect_silence();
}

fn a_worker_rings_its_neighbour_with_its_batch<W: World>() {
    let [mut ours, mut theirs] = Rig::<W>::neighbours();
    for _ in 0..RINGS {
        ours.batch.rings.push(1);
        assert_eq!(ours.turn(&[]), []);
        assert!(ours.batch.rings.is_empty());
        assert_eq!(theirs.next(), Completion::Doorbell);
        theirs.batch.rings.push(0);
        assert_eq!(theirs.turn(&[]), []);
        assert_eq!(ours.next(), Completion::Doorbell);
    }
    ours.expect_silence();
    theirs.expect_silence();
}

fn a_storm_of_rings_is_one_doorbell_a_turn_and_the_last_is_heard<W: World>() {
    let mut rig = Rig::<W>::new();
    let mut bell = rig.world.bell();
    for _ in 0..RINGS {
        for _ in 0..RINGS {
            bell.ring(0);
            bell.flush();
        }
        let heard = rig.turn_with(Wait::AtMost(PATIENCE));
        assert_eq!(heard, [Completion::Doorbell]);
    }
    // A ring may have come after the last turn's look; then it is reported, too.
    let heard = rig.turn(&[]);
    assert!(heard.iter().all(|heard| *heard == Completion::Doorbell), "{heard:?}");
    rig.expect_silence();
}

fn a_turn_that_gathers_ends_in_time_with_the_little_that_came<W: World>() {
    let mut rig = Rig::<W>::new();
    assert_eq!(rig.turn_with(Wait::Gather(SILENCE)), []);
    let mut bell = rig.world.bell();
    bell.ring(0);
    bell.flush();
    assert_eq!(rig.turn_with(Wait::Gather(SILENCE)), [Completion::Doorbell]);
}
