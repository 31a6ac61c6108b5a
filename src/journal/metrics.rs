//! What is counted of the journal. Written by its thread, read by a scrape.

use crate::metrics::{Counter, Histogram};

/// The journal's counters.
#[derive(Debug, Default)]
pub struct JournalMetrics {
    /// Bytes of all segments.
    pub bytes: Counter,
    /// How many segments there are.
    pub segments: Counter,
    /// What reading it back took at start, in microseconds.
    pub recovery_us: Counter,
    /// What a group commit took.
    pub sync_time: Histogram,
}
