//! What is counted of the way to the broker. Written by its thread, read by a scrape.

use crate::metrics::{Counter, Histogram};

/// The counters of a node.
#[derive(Debug, Default)]
pub struct ClusterMetrics {
    /// 1 while this node follows the stream.
    pub up: Counter,
    /// Messages of the stream that have not come, when it was last looked at.
    pub behind_events: Counter,
    /// For how long this node has not had all there was, in milliseconds.
    pub behind_ms: Counter,
    /// When this node began to be away from the stream, on the log's clock in milliseconds; 0: it is
    /// not.
    pub away_since_ms: Counter,
    /// Messages that came.
    pub received: Counter,
    /// Publications that were sent.
    pub sent: Counter,
    /// Those of them that were not answered in time, or refused.
    pub unanswered: Counter,
    /// How often the stream was opened.
    pub openings: Counter,
    /// From a publication's leaving to the broker's answer.
    pub answer_time: Histogram,
}
