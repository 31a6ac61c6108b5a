//! What an event of a benchmark contains: run, channel, sequence, publish time, padding.
//!
//! A server may deliver the event as it is, inside an envelope of its own, or several at once. So
//! the facts begin with a mark that can be searched for, and are written in letters, digits and
//! dashes, which no URL, form, template or JSON string needs to escape.

use std::io::Write;

/// Where the facts begin.
const MARK: &[u8] = b"pushline-bench-";

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
        out.extend_from_slice(MARK);
        let Self { run, channel, sequence, published_ns } = self;
        write!(out, "{run}-{channel}-{sequence}-{published_ns}-").expect("memory takes all");
        if out.len() < size_bytes {
            out.resize(size_bytes, b'x');
        }
    }

    /// All events in what a server sent.
    pub fn find(data: &[u8]) -> impl Iterator<Item = Self> {
        memchr::memmem::find_iter(data, MARK).filter_map(|at| Self::read(&data[at + MARK.len()..]))
    }

    /// Reads what follows a mark; `None` if that is not an event of a benchmark.
    fn read(data: &[u8]) -> Option<Self> {
        let mut rest = data;
        let run = u32::try_from(number(&mut rest)?).ok()?;
        let channel = u32::try_from(number(&mut rest)?).ok()?;
        let sequence = u32::try_from(number(&mut rest)?).ok()?;
        let published_ns = number(&mut rest)?;
        Some(Self { run, channel, sequence, published_ns })
    }
}

/// Takes digits and the following dash off the front.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let end = rest.iter().position(|byte| *byte == b'-')?;
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

    fn found(data: &[u8]) -> Vec<Payload> {
        Payload::find(data).collect()
    }

    #[test]
    fn an_event_survives_the_way_and_has_its_size() {
        let mut data = Vec::new();
        for size_bytes in [80, 1000] {
            EVENT.write(size_bytes, &mut data);
            assert_eq!(data.len(), size_bytes);
            assert_eq!(found(&data), [EVENT]);
        }
        EVENT.write(1, &mut data);
        assert_eq!(found(&data), [EVENT], "never cut below its facts");
    }

    #[test]
    fn events_are_found_in_any_envelope_and_several_at_once() {
        let mut data = Vec::new();
        EVENT.write(64, &mut data);
        let data = String::from_utf8(data).expect("text");
        for envelope in [
            format!("{{\"channel\":\"bench-0\",\"pub\":{{\"data\":\"{data}\"}}}}"),
            format!("id=7&data={data}&type=x"),
        ] {
            assert_eq!(found(envelope.as_bytes()), [EVENT], "{envelope}");
        }
        assert_eq!(found(format!("[\"{data}\",\"{data}\"]").as_bytes()), [EVENT, EVENT]);
    }

    #[test]
    fn other_data_is_not_taken_for_an_event() {
        let mark = std::str::from_utf8(MARK).expect("text");
        let long = format!("{mark}1-1-1-99999999999999999999-x");
        for data in
            ["", "hello", "1-2-3-4-", &format!("{mark}1-2-3-4"), &format!("{mark}1--3-4-"), &long]
        {
            assert_eq!(found(data.as_bytes()), [], "{data}");
        }
    }
}
