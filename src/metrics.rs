//! Counters of one worker: plain memory that only its worker writes, so that a scrape costs the
//! hot path nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::reason::{AcceptFailure, CloseReason, Refused};

/// Labels of [`WorkerMetrics::open`], by what a connection speaks.
pub const TRANSPORTS: [&str; 4] = ["http", "sse", "ws", "http2"];

/// Why a client changed its transport, as it says in `?fallback=`: a stream brought nothing, or
/// only its beginning; a WebSocket did not open; anything else.
pub const FALLBACKS: [&str; 4] = ["buffered", "silent", "refused", "other"];

/// What a client of HTTP/2 may do only so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flood {
    /// Requests reset before they are answered (CVE-2023-44487).
    RapidReset,
    /// Streams reset.
    Reset,
    /// Mistakes that make us reset a stream (CVE-2025-8671).
    MadeReset,
    /// Pings, which must be answered (CVE-2019-9512).
    Ping,
    /// Settings, which must be acknowledged (CVE-2019-9515).
    Settings,
    /// DATA frames without data.
    EmptyData,
    /// Frames for streams that are gone.
    Late,
    /// Frames that ask for nothing: acknowledgements, priorities, unknown ones.
    Ignored,
    /// Updates of windows without a need for them.
    WindowUpdate,
    /// Heads in too many pieces, or with too much in them (CVE-2024-27316).
    Head,
    /// A window that stays closed while something waits for it (CVE-2026-49975).
    ClosedWindow,
    /// Requests refused because the answers to others wait for windows (CVE-2026-49975).
    HeldAnswers,
}

impl Flood {
    /// All of them, by their place in [`WorkerMetrics::http2_floods`].
    pub const ALL: [Self; 12] = [
        Self::RapidReset,
        Self::Reset,
        Self::MadeReset,
        Self::Ping,
        Self::Settings,
        Self::EmptyData,
        Self::Late,
        Self::Ignored,
        Self::WindowUpdate,
        Self::Head,
        Self::ClosedWindow,
        Self::HeldAnswers,
    ];

    /// As operators read it, in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::RapidReset => "rapid_reset",
            Self::Reset => "reset",
            Self::MadeReset => "made_reset",
            Self::Ping => "ping",
            Self::Settings => "settings",
            Self::EmptyData => "empty_data",
            Self::Late => "late",
            Self::Ignored => "ignored",
            Self::WindowUpdate => "window_update",
            Self::Head => "head",
            Self::ClosedWindow => "closed_window",
            Self::HeldAnswers => "held_answers",
        }
    }
}

/// Error statuses that are counted apart from the others.
pub const ERROR_STATUSES: [u16; 9] = [400, 401, 403, 404, 405, 408, 413, 429, 503];

/// A number with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning thread may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts; only the owning thread may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Sets; only the owning thread may call this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The present value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long things took: counts in buckets of powers of two microseconds.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; Self::BUCKETS],
    sum_us: Counter,
}

impl Histogram {
    /// Buckets: up to 1, 2, 4, ... µs; the last one counts all above (2 s).
    pub const BUCKETS: usize = 22;

    /// Counts one duration.
    pub(crate) fn observe_us(&self, us: u64) {
        let bucket = (u64::BITS - us.saturating_sub(1).leading_zeros()) as usize;
        self.buckets[bucket.min(Self::BUCKETS - 1)].add(1);
        self.sum_us.add(us);
    }

    /// Upper bounds in seconds (although the last bucket has none) and the count of each bucket
    /// (not cumulative).
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bound = |place: usize| (1u64 << place) as f64 / 1e6;
        self.buckets.iter().enumerate().map(move |(place, n)| (bound(place), n.value()))
    }

    /// The sum of all durations, in seconds.
    pub(crate) fn sum_s(&self) -> f64 {
        self.sum_us.value() as f64 / 1e6
    }
}

/// What a worker counts.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Connections accepted.
    pub accepts: Counter,
    /// Times accepting had to pause, by their place in `AcceptFailure::ALL`.
    pub accept_failures: [Counter; AcceptFailure::ALL.len()],
    /// Connections open now, by [`TRANSPORTS`].
    pub open: [Counter; TRANSPORTS.len()],
    /// Connections ended, by `CloseReason::index`.
    pub closes: [Counter; CloseReason::LABELS.len()],
    /// Connections refused, by their place in `Refused::ALL`.
    pub refused: [Counter; Refused::ALL.len()],
    /// HTTP/2 streams opened.
    pub http2_streams: Counter,
    /// HTTP/2 streams ended, by `CloseReason::index`.
    pub http2_stream_closes: [Counter; CloseReason::LABELS.len()],
    /// Connections and streams of HTTP/2 ended for too much of something, by [`Flood::ALL`].
    pub http2_floods: [Counter; Flood::ALL.len()],
    /// Requests answered.
    pub requests: Counter,
    /// Requests answered with an error, by [`ERROR_STATUSES`]; the last counts all others.
    pub request_errors: [Counter; ERROR_STATUSES.len() + 1],
    /// Clients that reconnected by their other transport, by [`FALLBACKS`].
    pub client_fallbacks: [Counter; FALLBACKS.len()],
    /// Events this worker's connections published.
    pub published: Counter,
    /// Publishes that the log refused.
    pub publish_refusals: Counter,
    /// Events subscribers' sockets took.
    pub deliveries: Counter,
    /// Sends to live subscribers.
    pub sends_live: Counter,
    /// Sends to all other connections: explicit subscribers, answers, control frames.
    pub sends_explicit: Counter,
    /// Sends that a socket took only in part.
    pub sends_short: Counter,
    /// Bytes sockets took.
    pub bytes_out: Counter,
    /// Bytes received, without what TLS adds.
    pub bytes_in: Counter,
    /// Joins with a cursor.
    pub replays: Counter,
    /// Gaps told, by reason: evicted, epoch, overrun.
    pub gaps_evicted: Counter,
    /// See `gaps_evicted`.
    pub gaps_epoch: Counter,
    /// See `gaps_evicted`.
    pub gaps_overrun: Counter,
    /// Connections cut as slow.
    pub slow_disconnects: Counter,
    /// Subscribers that are live now.
    pub live: Counter,
    /// Subscriptions (of live and explicit subscribers) now.
    pub subscriptions: Counter,
    /// Channels with a replica here.
    pub channels: Counter,
    /// Payload bytes held for readers that are behind, including what is under way to all.
    pub replica_bytes: Counter,
    /// Heartbeats sent.
    pub heartbeats: Counter,
    /// Log lines dropped because their lane was full.
    pub lines_dropped: Counter,
    /// Turns taken.
    pub turns: Counter,
    /// Time of the last turn on the worker's clock, in milliseconds.
    pub turned_at_ms: Counter,
    /// Events and answers that waited in the lane when the turn began.
    pub lane_depth: Counter,
    /// How long turns took, without the sleep.
    pub turn_time: Histogram,
    /// From the ordering of a slice's oldest event to its hand-out to the last live subscriber.
    pub delivery_lag: Histogram,
    /// From the driver: see `ring::DriverStats`.
    pub ring_sq_full: Counter,
    /// See `ring::DriverStats`.
    pub ring_cq_overflows: Counter,
    /// See `ring::DriverStats`.
    pub ring_no_buffers: Counter,
    /// See `ring::DriverStats`.
    pub ring_stale: Counter,
    /// See `ring::DriverStats`.
    pub ring_enters: Counter,
    /// Connections with TLS 1.3, handshakes included.
    pub tls13: Counter,
    /// Connections with TLS 1.2.
    pub tls12: Counter,
    /// Connections whose handshakes wait for others.
    pub tls_waiting: Counter,
    /// Handshakes with a signature.
    pub handshakes_full: Counter,
    /// Handshakes that resumed a session.
    pub handshakes_resumed: Counter,
    /// Handshakes that ended without a session, for a reason of either side.
    pub handshakes_failed: Counter,
}

impl WorkerMetrics {
    /// Counts a connection that is refused.
    pub(crate) fn add_refused(&self, refused: Refused) {
        self.refused[refused as usize].add(1);
    }

    /// Counts an HTTP/2 connection or stream that ends for too much of this.
    pub(crate) fn add_http2_flood(&self, flood: Flood) {
        self.http2_floods[flood as usize].add(1);
    }

    /// Counts a request answered with this error status.
    pub(crate) fn add_request_error(&self, status: u16) {
        let place = ERROR_STATUSES.iter().position(|known| *known == status);
        self.request_errors[place.unwrap_or(ERROR_STATUSES.len())].add(1);
    }

    /// Counts a client that says why it changed its transport.
    pub(crate) fn add_client_fallback(&self, reason: &[u8]) {
        let place = FALLBACKS.iter().position(|known| known.as_bytes() == reason);
        self.client_fallbacks[place.unwrap_or(FALLBACKS.len() - 1)].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_by_kind_is_at_the_place_of_its_kind() {
        let places = Flood::ALL.map(|flood| flood as usize);
        assert!(places.into_iter().eq(0..Flood::ALL.len()));
        let places = Refused::ALL.map(|refused| refused as usize);
        assert!(places.into_iter().eq(0..Refused::ALL.len()));
        let places = AcceptFailure::ALL.map(|failure| failure as usize);
        assert!(places.into_iter().eq(0..AcceptFailure::ALL.len()));
    }

    #[test]
    fn a_duration_lands_in_the_first_bucket_that_bounds_it() {
        let histogram = Histogram::default();
        for us in [0, 1, 2, 3, 4, 5, 1_000_000, u64::MAX / 2] {
            histogram.observe_us(us);
        }
        let counts: Vec<u64> = histogram.buckets().map(|(_, n)| n).collect();
        assert_eq!(counts[..4], [2, 1, 2, 1]);
        assert_eq!(counts[20], 1);
        assert_eq!(counts[21], 1);
    }
}
