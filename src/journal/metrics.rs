//! The journal's metrics, written by its thread and read by a scrape.

use crate::metrics::{Counter, Histogram};

/// Written by the store's thread and the reader, read by scrapes.
#[derive(Debug, Default)]
pub struct JournalMetrics {
    /// Bytes of all segments.
    pub bytes: Counter,
    /// How many segments there are.
    pub segments: Counter,
    /// How long reading it back took at start, in microseconds.
    pub recovery_us: Counter,
    /// Pages of history that were read from it, because memory no longer had them.
    pub pages: Counter,
    /// How long group commits took.
    pub sync_time: Histogram,
}
