//! Where the store's thread runs. A publish that waits for its commit goes through two threads, and
//! waking one on another core takes longer than both have to do. So the store's thread runs on the
//! core of the thread that publishes, while it has little to write and one thread publishes most; and
//! wherever there is room otherwise.

use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::journal::keeper::Sent;

/// Events of a group that are quickly written: with more of them both threads have work at a time.
const FEW_EVENTS: usize = 16;

/// The core has other work if the thread is woken later than this.
const LATE: Duration = Duration::from_micros(500);

/// How long the thread then stays away from it.
const AWAY: Duration = Duration::from_millis(100);

/// Where the thread may run, and does.
#[derive(Debug)]
pub(super) struct StoreCore {
    /// None: this cannot be asked here, and nothing is changed.
    allowed: Option<CpuSet>,
    choice: Choice,
}

/// Which core was chosen, and why.
#[derive(Debug, Default)]
struct Choice {
    /// None: any.
    core: Option<usize>,
    published_last: Option<usize>,
    away_until: Option<Instant>,
}

impl StoreCore {
    /// Of the thread that calls this.
    pub fn of_this_thread() -> Self {
        Self { allowed: sched_getaffinity(None).ok(), choice: Choice::default() }
    }

    /// A group of this many events was committed, of which the first was sent like this. `woken_after`:
    /// the thread slept until then.
    pub fn follow(&mut self, sent: Sent, woken_after: Option<Duration>, events: usize) {
        let Some(allowed) = &self.allowed else { return };
        let core = self.choice.next(sent.core, woken_after, events, Instant::now());
        let core = core.filter(|core| allowed.is_set(*core));
        if core != self.choice.core {
            self.choice.core = core;
            let mut only = CpuSet::new();
            core.into_iter().for_each(|core| only.set(core));
            // Without the permission it runs where it did.
            let _ = sched_setaffinity(None, if core.is_some() { &only } else { allowed });
        }
    }
}

impl Choice {
    /// The core to run on next.
    fn next(
        &mut self,
        publisher: usize,
        woken_after: Option<Duration>,
        events: usize,
        now: Instant,
    ) -> Option<usize> {
        let is_steady = self.published_last.replace(publisher) == Some(publisher);
        if self.core.is_some() && woken_after.is_some_and(|after| after > LATE) {
            self.away_until = Some(now + AWAY);
        }
        let is_away = self.away_until.is_some_and(|until| now < until);
        match events > FEW_EVENTS || is_away {
            true => None,
            false if is_steady => Some(publisher),
            false => self.core,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Option<Duration> = Some(Duration::from_micros(10));

    fn on(core: Option<usize>) -> Choice {
        Choice { core, published_last: core, away_until: None }
    }

    #[test]
    fn it_follows_a_thread_that_publishes_twice_and_goes_anywhere_for_many_events() {
        let now = Instant::now();
        let mut choice = on(None);
        assert_eq!(choice.next(3, SOON, 1, now), None);
        assert_eq!(choice.next(3, SOON, 1, now), Some(3));
        assert_eq!(on(Some(3)).next(1, SOON, 1, now), Some(3));
        assert_eq!(on(Some(3)).next(3, SOON, FEW_EVENTS + 1, now), None);
    }

    #[test]
    fn it_leaves_a_core_where_it_is_woken_late_for_a_while() {
        let now = Instant::now();
        let mut choice = on(Some(3));
        assert_eq!(choice.next(3, Some(LATE * 2), 1, now), None);
        choice.core = None;
        assert_eq!(choice.next(3, SOON, 1, now + AWAY / 2), None);
        assert_eq!(choice.next(3, SOON, 1, now + AWAY), Some(3));
        // It was at work: that it came late says nothing about the core.
        assert_eq!(on(Some(3)).next(3, None, 1, now), Some(3));
    }
}
