//! The clocks that all threads share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// How far our clock is ahead of the kernel's: events that are read back were ordered before this
/// machine was started, and their times must not be negative.
const AHEAD: Duration = Duration::from_secs(1 << 28);

/// The kernel's monotonic clock, moved by a constant, rather than the time since some start of
/// ours: so the times of all threads can be compared.
pub fn monotonic_now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    AHEAD + Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Time since 1970. Unlike the other, this clock is set now and then.
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since 1970, up to a tick of the kernel late: cheap enough for every turn.
pub fn coarse_unix_s() -> u64 {
    u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0)
}
