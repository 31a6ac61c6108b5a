//! Whether a thread sleeps.

use std::fs;
use std::time::Instant;

use crate::rig::PATIENCE;

/// A thread of this process.
#[derive(Clone, Debug)]
pub struct Sleeper {
    stat: String,
}

impl Sleeper {
    pub fn this_thread() -> Self {
        Self { stat: format!("/proc/self/task/{}/stat", rustix::thread::gettid()) }
    }

    /// Waits until the kernel says that the thread sleeps; what else it might wait for is up to the
    /// caller.
    pub fn await_sleep(&self) {
        let start = Instant::now();
        while !self.is_asleep() {
            assert!(start.elapsed() < PATIENCE, "it does not sleep");
            std::thread::yield_now();
        }
    }

    fn is_asleep(&self) -> bool {
        let stat = fs::read_to_string(&self.stat).expect("the thread lives");
        // The state follows the program's name, which may have spaces.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
    }
}
