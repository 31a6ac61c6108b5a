//! Lanes, sleepers and hands, on real threads and under loom.

mod hands;
mod interleavings;

use super::*;

#[test]
fn a_sender_rings_a_sleeper_once_and_never_one_that_is_awake() {
    let flag = SleepFlag::default();
    assert!(!flag.needs_ring());
    flag.announce();
    assert!(flag.needs_ring());
    assert!(!flag.needs_ring());
    flag.announce();
    flag.wake();
    assert!(!flag.needs_ring());
}

/// Two threads, many rounds: after every message either the receiver saw it before blocking,
/// or a bell was rung. The "ring" is a channel, so a lost wake-up would hang (and fail) here.
#[test]
fn no_wake_up_is_lost_between_announce_and_block() {
    const ROUNDS: u32 = 200_000;
    let flag = Arc::new(SleepFlag::default());
    let (put, lane) = bounded::<u32>(16);
    let (ring, bell) = bounded::<()>(1);
    let sender_flag = flag.clone();
    let sender = std::thread::spawn(move || {
        for round in 0..ROUNDS {
            put.send(round).expect("the receiver lives");
            if sender_flag.needs_ring() {
                ring.send(()).expect("the receiver lives");
            }
        }
    });
    let mut seen = 0;
    while seen < ROUNDS {
        while let Ok(round) = lane.try_recv() {
            assert_eq!(round, seen);
            seen += 1;
        }
        if seen == ROUNDS {
            break;
        }
        flag.announce();
        if lane.is_empty() {
            bell.recv_timeout(std::time::Duration::from_secs(60)).expect("a wake-up was lost");
        } else if !flag.0.swap(false, Ordering::Relaxed) {
            bell.recv().expect("the sender that cleared the flag rings");
        }
    }
    sender.join().expect("the sender finishes");
}
