//! Doorbells from other threads.

use pushline::ring::{Bell, Completion, Wait};

use crate::rig::{PATIENCE, Rig, SILENCE};
use crate::worlds::World;

/// Rings in a storm, and the number of storms.
const RINGS: u32 = 100;

on_all_drivers! {
    a_storm_of_rings_is_one_doorbell_a_turn_and_the_last_is_heard,
    a_turn_that_gathers_ends_in_time_with_the_little_that_came,
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
