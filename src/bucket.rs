//! A bound on how often something may happen: one rule for connections, publishes of a connection
//! and of a channel, and failed checks.

use std::time::Duration;

const SECOND_NANOS: u64 = 1_000_000_000;

/// A token bucket that holds one second's worth, in one number: the moment at which it is full
/// again. Each use postpones that moment by one interval; the bucket is empty when it is a second
/// away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at_ns: u64,
}

impl Bucket {
    /// Takes a token if there is one. A rate of 0 gives none.
    pub fn take(&mut self, per_second: u32, now: Duration) -> bool {
        let Some(interval) = SECOND_NANOS.checked_div(u64::from(per_second)) else { return false };
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let full_at = self.full_at_ns.max(now);
        if full_at - now > SECOND_NANOS - interval {
            return false;
        }
        self.full_at_ns = full_at.saturating_add(interval);
        true
    }

    /// Whether there is no token left.
    pub fn is_empty(self, per_second: u32, now: Duration) -> bool {
        !Self { ..self }.take(per_second, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_one_seconds_worth_at_once_and_then_its_rate() {
        let mut bucket = Bucket::default();
        let at = |ms| Duration::from_secs(100) + Duration::from_millis(ms);
        let taken = (0..20).filter(|_| bucket.take(10, at(0))).count();
        assert_eq!(taken, 10);
        assert!(bucket.is_empty(10, at(99)) && !bucket.take(10, at(99)));
        assert!(bucket.take(10, at(100)));
        assert!(!bucket.take(10, at(100)));
    }

    #[test]
    fn a_rate_of_zero_gives_none() {
        assert!(!Bucket::default().take(0, Duration::from_secs(1)));
    }
}
