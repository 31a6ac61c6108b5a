//! What a turn may spend on one kind of work, in time.
//!
//! A turn is one moment to the core: it reads no clock within it, and a simulation must be able to
//! repeat it exactly. So time is not measured but estimated: every step has a price. The prices
//! were measured on one core of 3 GHz; on a machine half as fast, turns take twice as long.

use std::time::Duration;

/// One send: its share of the system call, and TCP.
pub const SEND_NS: u64 = 4_000;
/// One frame of a stream that shares its connection's send with others.
pub const STREAM_NS: u64 = 100;
/// Merging, encoding and accounting for one event.
pub const EVENT_NS: u64 = 250;
/// Asking for and reading one page of history.
pub const PAGE_NS: u64 = 20_000;
/// Looking at one channel of a connection.
pub const CHANNEL_NS: u64 = 10;

/// The price of encoding bytes and of the kernel's copy of them.
pub fn encode_ns(bytes: usize) -> u64 {
    bytes as u64 / 2
}

/// The price of one more copy by the kernel.
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

    /// Pays for a step; the last one may overdraw.
    pub fn spend(&mut self, price_ns: u64) {
        self.left_ns = self.left_ns.saturating_sub(price_ns);
    }

    pub fn is_spent(&self) -> bool {
        self.left_ns == 0
    }
}
