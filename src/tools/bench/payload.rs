//! What an event of a benchmark says: run, channel, sequence, publish time, padding.
//!
//! Plain text in the alphabet that no transport, template or JSON string needs to escape.

use std::io::Write;

/// The facts in one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payload {
    /// Tells this run's events from those an earlier run left in the server's history.
    pub run: u32,
    /// Index of the channel.
    pub channel: u32,
    /// Counts the events of that channel from 1.
    pub sequence: u32,
    /// When it was published, on the monotonic clock.
    pub published_ns: u64,
}

impl Payload {
    /// Writes the event's data into `out`, padded to `size_bytes`.
    pub fn write(&self, size_bytes: usize, out: &mut Vec<u8>) {
        out.clear();
        let Self { run, channel, sequence, published_ns } = self;
        write!(out, "{run} {channel} {sequence} {published_ns} ").expect("memory takes all");
        if out.len() < size_bytes {
            out.resize(size_bytes, b'x');
        }
    }

    /// Reads it back; `None` if this is not an event of a benchmark.
    pub fn read(data: &[u8]) -> Option<Self> {
        let mut rest = data;
        let run = u32::try_from(number(&mut rest)?).ok()?;
        let channel = u32::try_from(number(&mut rest)?).ok()?;
        let sequence = u32::try_from(number(&mut rest)?).ok()?;
        let published_ns = number(&mut rest)?;
        Some(Self { run, channel, sequence, published_ns })
    }
}

/// Takes digits and the space behind them off the front.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let end = rest.iter().position(|byte| *byte == b' ')?;
    let (digits, tail) = rest.split_at(end);
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    *rest = &tail[1..];
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: Payload =
        Payload { run: u32::MAX, channel: 999_999, sequence: 20, published_ns: 86_400_000_000_000 };

    #[test]
    fn an_event_survives_the_way_and_has_its_size() {
        let mut data = Vec::new();
        for size_bytes in [64, 1000] {
            EVENT.write(size_bytes, &mut data);
            assert_eq!(data.len(), size_bytes);
            assert_eq!(Payload::read(&data), Some(EVENT));
        }
        EVENT.write(1, &mut data);
        assert_eq!(Payload::read(&data), Some(EVENT), "never cut below its facts");
    }

    #[test]
    fn other_data_is_not_taken_for_an_event() {
        let long = "1 1 1 99999999999999999999 x";
        for data in ["", "hello", "1 2 3", "1 2 3 4", "1  3 4 ", "-1 2 3 4 ", long] {
            assert_eq!(Payload::read(data.as_bytes()), None, "{data}");
        }
    }
}
