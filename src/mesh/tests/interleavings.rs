//! `combine.rs` itself, on loom's types: all interleavings of its threads, and all values that a
//! load without a fence might see.

mod sync {
    pub(super) use loom::sync::atomic::{Ordering, fence};
    pub(super) use loom::sync::{Mutex, MutexGuard};
    pub(super) use std::sync::TryLockError;
}

#[path = "../combine.rs"]
#[expect(clippy::duplicate_mod, reason = "the same file, on other types")]
mod combine;

use combine::{Left, combine};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use sync::Mutex;

/// A lane with a place for each thread. It imposes no order: only the fences do.
type Lane = [AtomicBool; 2];

/// Counts the work it does. With a budget of one it must be called again as long as it says so.
fn work(lane: &Lane, done: &Mutex<u32>, budget: u32) {
    let is_empty = || lane.iter().all(|place| !place.load(Ordering::Relaxed));
    let run = || {
        let mut budget = budget;
        combine(done, is_empty, |done| {
            for place in lane {
                if budget == 0 {
                    return Left::Work;
                }
                let taken = place.load(Ordering::Relaxed) && place.swap(false, Ordering::Relaxed);
                *done += u32::from(taken);
                budget -= u32::from(taken);
            }
            Left::Nothing
        })
    };
    while run() == Left::Work {}
}

fn check(budget: u32) {
    loom::model(move || {
        let lane = Arc::new(Lane::default());
        let done = Arc::new(Mutex::new(0));
        let threads = [0, 1].map(|place| {
            let (lane, done) = (lane.clone(), done.clone());
            loom::thread::spawn(move || {
                lane[place].store(true, Ordering::Relaxed);
                work(&lane, &done, budget);
            })
        });
        for thread in threads {
            thread.join().expect("it ends");
        }
        assert_eq!(*done.lock().expect("it is sound"), 2, "work was left behind");
    });
}

#[test]
fn leaves_no_work_behind() {
    check(2);
}

#[test]
fn leaves_no_work_behind_when_a_budget_ends() {
    check(1);
}
