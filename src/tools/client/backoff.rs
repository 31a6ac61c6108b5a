//! How long to wait before another attempt: exponential, with full jitter, so that the clients of a
//! server that was away do not reconnect in waves. No I/O.

use std::time::Duration;

/// The base until a server says `retry:`.
pub const BASE: Duration = Duration::from_secs(1);

/// Longest pause, whatever the base.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The pauses of one client.
#[derive(Debug)]
pub struct Backoff {
    base: Duration,
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// No failure yet.
    pub fn new(random: fastrand::Rng) -> Self {
        Self { base: BASE, failures: 0, random }
    }

    /// The server said how long to wait.
    pub fn set_base(&mut self, base: Duration) {
        self.base = base.min(PAUSE_MAX);
    }

    /// Resets it after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after another failure: anything from nothing to the base, which doubles with each
    /// failure, but not shorter than `at_least` (`Retry-After`).
    pub fn pause(&mut self, at_least: Option<Duration>) -> Duration {
        let doubled = self.base.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        let jittered = doubled.mul_f64(self.random.f64());
        jittered.max(at_least.unwrap_or_default().min(PAUSE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest_of(tries: u32, failures: u32, base: Duration) -> Duration {
        let pauses = (0..tries).map(|seed| {
            let mut backoff = Backoff::new(fastrand::Rng::with_seed(seed.into()));
            backoff.set_base(base);
            let pauses = std::iter::repeat_with(|| backoff.pause(None));
            pauses.take(failures as usize + 1).last().unwrap_or_default()
        });
        pauses.max().expect("some tries")
    }

    #[test]
    fn pauses_are_anything_up_to_a_bound_that_doubles() {
        let base = Duration::from_millis(100);
        for (failures, bound_ms) in [(0, 100), (1, 200), (3, 800), (10, 30_000), (99, 30_000)] {
            let bound = Duration::from_millis(bound_ms);
            let longest = longest_of(2000, failures, base);
            assert!(longest <= bound && longest > bound * 9 / 10, "{failures}: {longest:?}");
        }
    }

    #[test]
    fn success_begins_anew_and_the_server_may_ask_for_more() {
        let mut backoff = Backoff::new(fastrand::Rng::with_seed(1));
        for _ in 0..9 {
            backoff.pause(None);
        }
        backoff.reset();
        assert!(backoff.pause(None) <= BASE);
        let asked = Duration::from_secs(20);
        assert!(backoff.pause(Some(asked)) >= asked);
        assert!(backoff.pause(Some(Duration::MAX)) <= PAUSE_MAX);
    }
}
