//! The clock all threads share.

use std::time::Duration;

/// How far our clock is ahead of the kernel's: events that are read back were ordered before this
/// machine was started, and their times must not be negative.
const AHEAD: Duration = Duration::from_secs(1 << 28);

/// The kernel's monotonic clock, moved by a constant, rather than the time since some start of
/// ours: so the times of all threads can be compared.
pub fn monotonic_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    AHEAD + Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
