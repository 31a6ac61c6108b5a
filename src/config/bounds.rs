//! Bounds of values.

use std::time::Duration;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const TENTH: Duration = Duration::from_millis(100);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// More connections than any host has memory for.
pub(super) const CONNECTIONS_MAX: u64 = 1_000_000_000;
