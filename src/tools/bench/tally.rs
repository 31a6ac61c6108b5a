//! Counting deliveries: order, latency, and when they came.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::{messages::DeliveryCounts, payload::Payload};

/// Width of a slot of the timeline: fine enough to see a single fan-out.
pub(super) const SLOT_NS: u64 = 1_000_000;

/// Longest latency told apart from longer ones.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// A histogram of latencies in nanoseconds: microsecond steps, three digits.
pub(super) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3).expect("constant bounds are valid")
}

/// All deliveries of one client process.
#[derive(Debug)]
pub(super) struct Tally {
    run: u32,
    /// The counts so far.
    pub counts: DeliveryCounts,
    /// Publish to delivery.
    pub latencies: Histogram<u64>,
    /// Deliveries per slot of [`SLOT_NS`].
    pub timeline: BTreeMap<u64, u64>,
    /// When the last one came.
    pub last_delivery_ns: u64,
}

impl Tally {
    /// Nothing yet.
    pub fn new(run: u32) -> Self {
        Self {
            run,
            counts: DeliveryCounts::default(),
            latencies: latencies(),
            timeline: BTreeMap::new(),
            last_delivery_ns: 0,
        }
    }

    /// Counts the data one connection got for `channel`; `sequence` is what it remembers.
    pub fn record(&mut self, channel: u32, sequence: &mut u32, data: &[u8], now_ns: u64) {
        let mut is_event = false;
        for event in Payload::find(data) {
            is_event = true;
            self.record_event(channel, sequence, event, now_ns);
        }
        self.counts.unstamped += u64::from(!is_event);
    }

    fn record_event(&mut self, channel: u32, sequence: &mut u32, event: Payload, now_ns: u64) {
        if event.run != self.run {
            self.counts.foreign += 1;
            return;
        }
        if event.channel != channel {
            self.counts.misrouted += 1;
            return;
        }
        self.counts.received += 1;
        match event.sequence.cmp(sequence) {
            std::cmp::Ordering::Greater => *sequence = event.sequence,
            std::cmp::Ordering::Equal => self.counts.duplicated += 1,
            std::cmp::Ordering::Less => self.counts.out_of_order += 1,
        }
        self.latencies.saturating_record(now_ns.saturating_sub(event.published_ns));
        *self.timeline.entry(now_ns / SLOT_NS).or_default() += 1;
        self.last_delivery_ns = now_ns;
    }
}

/// How many of `published` events, sent to `channels` in turn, went to `channel`.
pub(super) fn events_for(channel: u32, channels: u32, published: u64) -> u64 {
    let (rounds, more) = (published / u64::from(channels), published % u64::from(channels));
    rounds + u64::from(u64::from(channel) < more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(run: u32, channel: u32, sequence: u32) -> Vec<u8> {
        let mut data = Vec::new();
        Payload { run, channel, sequence, published_ns: 1_000_000 }.write(64, &mut data);
        data
    }

    #[test]
    fn each_kind_of_wrong_delivery_is_counted_as_such() {
        let mut tally = Tally::new(7);
        let mut sequence = 0;
        for number in [1, 2, 2, 5, 3, 6] {
            tally.record(4, &mut sequence, &data(7, 4, number), 3_000_000);
        }
        tally.record(4, &mut sequence, &data(7, 5, 7), 3_000_000);
        tally.record(4, &mut sequence, &data(8, 4, 7), 3_000_000);
        tally.record(4, &mut sequence, b"hello", 3_000_000);
        let expected = DeliveryCounts {
            received: 6,
            duplicated: 1,
            out_of_order: 1,
            misrouted: 1,
            foreign: 1,
            unstamped: 1,
        };
        assert_eq!(tally.counts, expected);
        assert_eq!(sequence, 6);
    }

    #[test]
    fn latency_is_from_publish_to_delivery() {
        let mut tally = Tally::new(7);
        tally.record(0, &mut 0, &data(7, 0, 1), 3_000_000);
        assert!(tally.latencies.max().abs_diff(2_000_000) < 4_000);
        assert_eq!(tally.timeline.values().sum::<u64>(), 1);
    }

    #[test]
    fn events_in_turn_add_up() {
        for published in [0, 1, 6, 7, 8, 20] {
            let each: Vec<u64> = (0..7).map(|channel| events_for(channel, 7, published)).collect();
            assert_eq!(each.iter().sum::<u64>(), published);
            assert!(each.is_sorted_by(|a, b| a >= b));
        }
    }
}
