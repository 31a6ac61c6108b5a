//! Counters of a node. The broker's thread writes them; a scrape reads them.

use crate::metrics::{Counter, Histogram};

/// What a node counts about its stream and its broker.
#[derive(Debug, Default)]
pub struct ClusterMetrics {
    /// 1 while this node follows the stream.
    pub up: Counter,
    /// Messages of the stream that had not come at the last look.
    pub behind_events: Counter,
    /// For how long this node has lacked messages, in milliseconds.
    pub behind_ms: Counter,
    /// When this node lost the stream, on the log's clock in milliseconds; 0 while it follows it.
    pub away_since_ms: Counter,
    /// Messages that came.
    pub received: Counter,
    /// Publications that were sent.
    pub sent: Counter,
    /// Publications that were refused, or not answered in time.
    pub unanswered: Counter,
    /// How often the stream was opened.
    pub openings: Counter,
    /// Time from sending a publication to the broker's answer.
    pub answer_time: Histogram,
}
