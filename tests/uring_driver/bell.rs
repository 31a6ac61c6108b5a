//! Doorbells, both kinds: a ring from another thread ends the sleep, and rings do not pile up.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use pushline::ring::uring::UringSettings;
use pushline::ring::{Bell, BellTarget, Completion, Doorbells, Driver, Ringer, Wait};

use crate::{Rig, settings};

const BOTH_KINDS: [Doorbells; 2] = [Doorbells::MsgRing, Doorbells::EventFd];
const RINGS: u32 = 300;

fn rig(doorbells: Doorbells) -> Rig {
    Rig::new(&UringSettings { doorbells, ..settings() })
}

/// Workers that sleep until rung and report it, `RINGS` times each.
fn sleepers(
    doorbells: Doorbells,
    count: u16,
    woken: &mpsc::Sender<u16>,
) -> Vec<(BellTarget, std::thread::JoinHandle<()>)> {
    let start = |worker| {
        let (send_target, target) = mpsc::channel();
        let woken = woken.clone();
        let thread = std::thread::spawn(move || {
            let mut rig = rig(doorbells);
            send_target.send(rig.target.clone()).unwrap();
            for _ in 0..RINGS {
                while rig.turn(&[], Wait::Forever).is_empty() {}
                assert_eq!(rig.heard, [Completion::Doorbell]);
                rig.heard.clear();
                woken.send(worker).unwrap();
            }
        });
        (target.recv().unwrap(), thread)
    };
    (0..count).map(start).collect()
}

#[test]
fn a_ring_from_another_thread_wakes_every_sleeping_worker() {
    const WORKERS: u16 = 3;
    for doorbells in BOTH_KINDS {
        let (send_woken, woken) = mpsc::channel();
        let (targets, threads): (Vec<_>, Vec<_>) =
            sleepers(doorbells, WORKERS, &send_woken).into_iter().unzip();
        let mut bell = Ringer::new(targets).unwrap();
        for _ in 0..RINGS {
            for worker in 0..WORKERS {
                bell.ring(worker);
                bell.ring(worker);
            }
            bell.flush();
            let mut who: Vec<u16> = (0..WORKERS).map(|_| woken.recv().unwrap()).collect();
            who.sort_unstable();
            assert_eq!(who, [0, 1, 2], "{doorbells:?}");
        }
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn rings_before_a_turn_are_told_once_and_do_not_ring_later() {
    for doorbells in BOTH_KINDS {
        let mut rig = rig(doorbells);
        let mut bell = Ringer::new(vec![rig.target.clone()]).unwrap();
        for _ in 0..5 {
            for _ in 0..3 {
                bell.ring(0);
                bell.flush();
            }
            assert_eq!(rig.turn(&[], Wait::Forever), [Completion::Doorbell], "{doorbells:?}");
            assert_eq!(rig.turn(&[], Wait::No), [], "{doorbells:?}");
        }
    }
}

/// Worker 0 rings from its own batch: no further system call, and the workers it rings wake up.
#[test]
fn a_worker_rings_others_in_its_own_batch() {
    const SLEEPERS: u16 = 2;
    for doorbells in BOTH_KINDS {
        let (send_woken, woken) = mpsc::channel();
        let mut ringer = rig(doorbells);
        let (targets, threads): (Vec<_>, Vec<_>) =
            sleepers(doorbells, SLEEPERS, &send_woken).into_iter().unzip();
        let targets: Vec<_> = std::iter::once(ringer.target.clone()).chain(targets).collect();
        ringer.driver.set_bells(targets.into());
        for _ in 0..RINGS {
            ringer.batch.rings.extend([1, 2]);
            assert_eq!(ringer.turn(&[], Wait::No), [], "{doorbells:?}");
            assert!(ringer.batch.rings.is_empty());
            let mut who = [woken.recv().unwrap(), woken.recv().unwrap()];
            who.sort_unstable();
            assert_eq!(who, [0, 1], "{doorbells:?}");
        }
        for thread in threads {
            thread.join().unwrap();
        }
        // They have ended by now: that is not a failure of the turn, and is not tried again.
        ringer.batch.rings.extend([1, 2]);
        for _ in 0..3 {
            assert_eq!(ringer.turn(&[], Wait::No), [], "{doorbells:?}");
        }
    }
}

#[test]
fn ringing_a_worker_that_has_ended_is_harmless() {
    for doorbells in BOTH_KINDS {
        let gone = std::thread::spawn(move || rig(doorbells).target).join().unwrap();
        let mut alive = rig(doorbells);
        let mut bell = Ringer::new(vec![gone, alive.target.clone()]).unwrap();
        bell.ring(0);
        bell.ring(1);
        bell.flush();
        assert_eq!(alive.turn(&[], Wait::Forever), [Completion::Doorbell]);
    }
}

#[test]
fn a_turn_without_anything_to_tell_lasts_as_long_as_it_may() {
    let mut rig = rig(Doorbells::MsgRing);
    let time = Duration::from_millis(30);
    let (start, before) = (Instant::now(), rig.driver.now());
    assert_eq!(rig.turn(&[], Wait::AtMost(time)), []);
    assert!(start.elapsed() >= time && rig.driver.now() - before >= time);
}
