//! Connections of all workers together, so that a limit holds for the server and not for each of
//! its workers. Besides the subscriber counts of channels, this is the only memory workers share.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::log::SharedHasher;

/// Counters an address may fall on. A connection holds two of them, and the lower one counts, so
/// two addresses are taken for one only if they collide in both rows: one pair in four thousand
/// million.
const ROW: usize = 1 << 16;

/// How many connections are open, and how many of each address.
#[derive(Debug)]
pub struct ConnectionCount {
    open: AtomicU64,
    max: AtomicU64,
    /// Two rows of counts by address; empty if no limit asks for them.
    by_address: Box<[AtomicU32]>,
}

/// Whether connections are counted by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByAddress {
    /// They are.
    Counted,
    /// They are not.
    Ignored,
}

impl ConnectionCount {
    /// No connections yet.
    pub fn new(max: u64, by_address: ByAddress) -> Self {
        let counters = match by_address {
            ByAddress::Counted => 2 * ROW,
            ByAddress::Ignored => 0,
        };
        let by_address = (0..counters).map(|_| AtomicU32::new(0)).collect();
        Self { open: AtomicU64::new(0), max: AtomicU64::new(max), by_address }
    }

    /// Counts one more if there is room for it.
    pub fn enter(&self) -> bool {
        let entered = self.open.fetch_add(1, Ordering::Relaxed) < self.max();
        if !entered {
            self.leave();
        }
        entered
    }

    /// Counts one less.
    pub fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there is no room for another.
    pub fn is_full(&self) -> bool {
        self.open() >= self.max()
    }

    /// How many there may be.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Sets how many there may be from now on; those that are open stay.
    pub fn limit(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts one more from an address; returns where it is counted, and the count there.
    pub fn enter_from(&self, address: IpAddr, hasher: &SharedHasher) -> (u32, u32) {
        let place = hasher.address(address) as u32;
        let [one, other] = self.counters(place).map(|counter| {
            counter.map_or(0, |counter| counter.fetch_add(1, Ordering::Relaxed) + 1)
        });
        (place, one.min(other))
    }

    /// Counts one less where `enter_from` counted one.
    pub fn leave_from(&self, place: u32) {
        for counter in self.counters(place).into_iter().flatten() {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn counters(&self, place: u32) -> [Option<&AtomicU32>; 2] {
        let (one, other) = (place as usize % ROW, ROW + place as usize / ROW);
        [self.by_address.get(one), self.by_address.get(other)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_who_was_refused_does_not_count() {
        let connection_count = ConnectionCount::new(2, ByAddress::Ignored);
        assert_eq!(
            [connection_count.enter(), connection_count.enter(), connection_count.enter()],
            [true, true, false]
        );
        assert_eq!(connection_count.open(), 2);
        connection_count.leave();
        assert!(connection_count.enter());
    }

    #[test]
    fn connections_are_counted_by_address() {
        let connection_count = ConnectionCount::new(9, ByAddress::Counted);
        let hasher = SharedHasher::from_seed(1);
        let address = |last| IpAddr::from([127, 0, 0, last]);
        let (place, count) = connection_count.enter_from(address(1), &hasher);
        assert_eq!(count, 1);
        assert_eq!(connection_count.enter_from(address(1), &hasher), (place, 2));
        assert_eq!(connection_count.enter_from(address(2), &hasher).1, 1);
        connection_count.leave_from(place);
        assert_eq!(connection_count.enter_from(address(1), &hasher).1, 2);
    }
}
