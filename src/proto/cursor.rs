//! Event ids and cursors: a number in the log's order, and the epoch it belongs to.
//!
//! On the wire an id is `<epoch>-<seq>`. A client sends back the last id it saw: that is its
//! cursor.

use std::fmt;

use super::stream::{Begin, OrElse};

/// Length of an epoch on the wire.
pub const EPOCH_LEN: usize = 8;

/// Random text chosen when the log began: ids of another epoch are not ours.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; EPOCH_LEN]);

impl Epoch {
    /// From 40 random bits, as lower-case base-32 text.
    pub fn from_random(bits: u64) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let mut text = [0; EPOCH_LEN];
        for (place, byte) in text.iter_mut().enumerate() {
            *byte = ALPHABET[(bits >> (place * 5)) as usize & 31];
        }
        Self(text)
    }

    /// As printed.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("")
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Place of an event in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// Its number in that epoch's order; the first event has 1.
    pub seq: u64,
}

impl EventId {
    /// Appends `<epoch>-<seq>`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.0);
        out.push(b'-');
        out.extend_from_slice(itoa::Buffer::new().format(self.seq).as_bytes());
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// Where a subscriber starts reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// No cursor given: only what is published from now on.
    Now,
    /// `earliest`: all that history holds, after a gap if the beginning of the channel is gone.
    Earliest,
    /// `stream`, `stream:7`: the channel's stream from its beginning, or from after its token number 7.
    Stream(Begin),
    /// After this event of the present epoch (which may be ahead of the head, or evicted).
    After(u64),
    /// Text that is not an id of this epoch: a gap with reason `epoch`.
    Foreign,
}

impl Cursor {
    /// Reads what a client sent. Never fails: what is not one of our ids is [`Cursor::Foreign`],
    /// because a 400 would stop a browser's EventSource for good. Empty text counts as no cursor
    /// (WHATWG HTML: an empty last event id means none).
    pub fn parse(text: &[u8], epoch: Epoch) -> Self {
        match text {
            b"" => Self::Now,
            b"earliest" => Self::Earliest,
            _ => match parse_seq(text, epoch) {
                Some(seq) => Self::After(seq),
                None => parse_stream(text).map_or(Self::Foreign, Self::Stream),
            },
        }
    }
}

/// `stream` or `stream:7`.
fn parse_stream(text: &[u8]) -> Option<Begin> {
    let after = match text.strip_prefix(b"stream")? {
        b"" => None,
        number => Some(std::str::from_utf8(number.strip_prefix(b":")?).ok()?.parse().ok()?),
    };
    Some(Begin { after, or_else: OrElse::Now })
}

fn parse_seq(text: &[u8], epoch: Epoch) -> Option<u64> {
    let digits = text.strip_prefix(epoch.0.as_slice())?.strip_prefix(b"-")?;
    let canonical = digits == b"0" || digits.first().is_some_and(|d| (b'1'..=b'9').contains(d));
    if !canonical {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH_BITS: u64 = 0x12_3456_789a;

    #[test]
    fn an_id_survives_the_round_trip() {
        let epoch = Epoch::from_random(EPOCH_BITS);
        for seq in [0, 1, 9, 10, u64::MAX] {
            let mut wire = Vec::new();
            EventId { epoch, seq }.write(&mut wire);
            assert!(wire.len() <= EPOCH_LEN + 1 + 20, "an epoch, a dash and the digits of a u64");
            assert_eq!(Cursor::parse(&wire, epoch), Cursor::After(seq));
        }
    }

    #[test]
    fn what_is_no_id_of_ours_is_foreign_and_never_an_error() {
        let epoch = Epoch::from_random(EPOCH_BITS);
        let other = Epoch::from_random(EPOCH_BITS + 1);
        let ours = |rest: &str| format!("{epoch}-{rest}").into_bytes();
        for text in [
            ours(""),
            ours("01"),
            ours("+1"),
            ours("-1"),
            ours("1 "),
            ours("18446744073709551616"),
            format!("{other}-1").into_bytes(),
            b"42".to_vec(),
            b"-".to_vec(),
            vec![0xff; 300],
        ] {
            assert_eq!(Cursor::parse(&text, epoch), Cursor::Foreign, "{text:?}");
        }
    }

    #[test]
    fn a_stream_is_read_from_its_beginning_or_from_behind_a_token() {
        let parse = |text: &str| Cursor::parse(text.as_bytes(), Epoch::from_random(EPOCH_BITS));
        let begin = |after| Cursor::Stream(Begin { after, or_else: OrElse::Now });
        assert_eq!(parse("stream"), begin(None));
        assert_eq!(parse("stream:7"), begin(Some(7)));
        for text in ["stream:", "stream:x", "stream7", "streams"] {
            assert_eq!(parse(text), Cursor::Foreign, "{text}");
        }
    }

    #[test]
    fn empty_is_now_and_earliest_is_earliest() {
        let epoch = Epoch::from_random(EPOCH_BITS);
        assert_eq!(Cursor::parse(b"", epoch), Cursor::Now);
        assert_eq!(Cursor::parse(b"earliest", epoch), Cursor::Earliest);
    }
}
