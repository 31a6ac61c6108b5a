//! The log over a journal on a simulated disk: published to, killed, left without power, started
//! again. What was answered or seen must still be there, with the same content.

mod live;
mod world;

use self::world::World;
use crate::journal::recover::JournalError;
use crate::journal::sim::DiskTamper;
use crate::journal::writer::Durability;

const SEEDS: u64 = 400;
const LIVES: u64 = 6;

/// A machine's lives; panics if one of them finds less than earlier ones promised.
fn run(seed: u64, tamper: Option<DiskTamper>) {
    let mut world = World::new(seed, tamper);
    for _ in 0..LIVES {
        let mut life = world.start();
        world.check_keys(&mut life);
        let has_stopped = world.live(&mut life);
        world.end(life, has_stopped);
    }
    world.start();
}

#[test]
fn what_was_answered_or_seen_is_there_whatever_happens_to_process_and_machine() {
    let seed = std::env::var("PUSHLINE_SIM_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = std::env::var("PUSHLINE_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let from = seed.unwrap_or(0);
    let count = seeds.unwrap_or(if seed.is_some() { 1 } else { SEEDS });
    for seed in from..from + count {
        let failed = std::panic::catch_unwind(|| run(seed, None));
        assert!(failed.is_ok(), "PUSHLINE_SIM_SEED={seed} finds it again");
    }
}

#[test]
fn rules_broken_on_purpose_are_found_out() {
    for tamper in [DiskTamper::AcknowledgeBeforeSync, DiskTamper::ForgetNames] {
        let is_found = |seed| std::panic::catch_unwind(|| run(seed, Some(tamper))).is_err();
        assert!((0..50).any(is_found), "{tamper:?}");
    }
}

/// Whichever bit changes in a closed journal, either everything is there, or the start is refused
/// and names the place; and once the loss is accepted, every client is told.
#[test]
fn a_flipped_bit_is_never_a_silent_loss() {
    let mut refused = 0;
    for seed in 0..300 {
        let mut world = World::new(seed, None);
        (world.durability, world.is_troubled) = (Durability::Sync, false);
        let mut life = world.start();
        world.live(&mut life);
        world.close(&mut life);
        drop(life);
        assert!(world.disk.flip_bit());
        match world.recover(false) {
            Ok((recovered, records)) => world.check(&recovered, &records),
            Err(JournalError::Corrupt { .. }) => {
                refused += 1;
                let (recovered, records) = world.recover(true).expect("the loss is accepted");
                assert!(recovered.lossy);
                world.check(&recovered, &records);
                assert!(!world.recover(false).expect("it is whole again").0.lossy);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 50, "{refused}");
}
