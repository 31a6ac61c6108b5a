//! A state that several threads work on, none of them waiting for another.
//!
//! A thread puts work into a lane and calls [`combine`], which fences and tries the lock. With the
//! lock it does all the work in the lane, unlocks, fences, and looks again; without it, it leaves
//! the work to the thread that has the lock. Whichever of the two fences comes second sees what was
//! written before the first: either this thread finds the lock free, or the other one's next look
//! finds the work. So work is never left in the lane without a thread that will do it.
//!
//! A unit test checks this file with loom's types in place of `super::sync`.

use super::sync::{Mutex, MutexGuard, Ordering, TryLockError, fence};

/// Whether there may be work left that no other thread is sure to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "work that is left waits until this thread comes back"]
pub enum Left {
    /// No: this thread may sleep.
    Nothing,
    /// Yes, because its budget is spent: it must come back without sleeping.
    Work,
}

/// Does the work in a lane under the lock, unless another thread has it. `act` either does all of
/// it and returns [`Left::Nothing`], or stops when it has done enough and returns [`Left::Work`].
pub fn combine<S>(
    state: &Mutex<S>,
    lane_is_empty: impl Fn() -> bool,
    mut act: impl FnMut(&mut S) -> Left,
) -> Left {
    loop {
        fence(Ordering::SeqCst);
        if lane_is_empty() {
            return Left::Nothing;
        }
        let Some(mut state) = try_lock(state) else { return Left::Nothing };
        if act(&mut state) == Left::Work {
            return Left::Work;
        }
    }
}

fn try_lock<S>(state: &Mutex<S>) -> Option<MutexGuard<'_, S>> {
    match state.try_lock() {
        Ok(state) => Some(state),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Poisoned(_)) => abort(),
    }
}

/// Ends the process: a thread panicked while changing the state, which may be half done and must
/// not be served.
pub(super) fn abort() -> ! {
    tracing::error!("a thread panicked while it held the log: the process ends");
    std::process::abort()
}
