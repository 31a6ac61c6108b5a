//! The clock all threads share.

use std::time::Duration;

/// The kernel's monotonic clock itself, and not the time since some start of ours: so the times of
/// all threads compare.
pub fn monotonic_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
