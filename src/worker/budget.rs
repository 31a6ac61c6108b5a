//! What a turn may spend on one kind of work, in time.
//!
//! A turn is one moment to the core: it reads no clock within it, and a simulation has to repeat it
//! exactly. So time is not measured but estimated: every step has a price. The prices are what the
//! steps took on one core of 3 GHz; a machine half as fast has turns twice as long.

use std::time::Duration;

/// One send: the system call's share and TCP's.
pub const SEND_NS: u64 = 4_000;
/// One event merged, encoded and taken account of.
pub const EVENT_NS: u64 = 250;
/// One page of history asked for and read.
pub const PAGE_NS: u64 = 20_000;
/// One channel of a connection looked at.
pub const CHANNEL_NS: u64 = 10;

/// Bytes encoded, and copied by the kernel.
pub fn encode_ns(bytes: usize) -> u64 {
    bytes as u64 / 2
}

/// Bytes copied by the kernel once more.
pub fn copy_ns(bytes: usize) -> u64 {
    bytes as u64 / 4
}

/// What is left to spend.
#[derive(Debug)]
pub struct Budget {
    left_ns: u64,
}

impl Budget {
    pub fn new(time: Duration) -> Self {
        Self { left_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Pays for a step. The last one may cost more than is left.
    pub fn spend(&mut self, price_ns: u64) {
        self.left_ns = self.left_ns.saturating_sub(price_ns);
    }

    pub fn is_spent(&self) -> bool {
        self.left_ns == 0
    }
}
