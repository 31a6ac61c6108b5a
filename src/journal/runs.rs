//! The list of a complete segment's events, which is all that a start needs of a segment for which
//! memory has no room: their channels, in runs as the log lists them. It is a file beside the segment.
//! If it is missing or damaged, the segment itself is read, and the list is written again.
//!
//! Numbers are little-endian:
//!
//! | bytes | what |
//! |--:|---|
//! | 8 | magic |
//! | 8 | the journal |
//! | 8 | the segment's first seq, as in its name |
//! | 8 | its length in bytes |
//! | 8 | its last seq |
//! | 8 | how many events it has |
//! | 8, 8, 8 | [`StreamsSeen`] |
//! | 4 | 1: some of its events have an event key |
//! | 4, 4 | how many channels, and how many runs |
//! | 2, n | each channel's name, with its length |
//! | 4, 4, 8, 8, 8, 8 | each run, by its first seq: its channel's place, then what [`Run`] has |
//! | 4 | CRC32C of all that |

use crc32c::crc32c;
use hashbrown::HashMap;

use super::disk::{Disk, DiskFile, read_all, read_some, write_all};
use super::record::{Record, SEGMENT_HEAD_BYTES, SegmentHead};
use super::writer::SEGMENT_SUFFIX;
use crate::log::event::Event;
use crate::log::history::{self, run_has_room};
use crate::log::stream::{Mark, Part};

/// The suffix of its name.
pub(super) const RUNS_SUFFIX: &str = ".runs";

const MAGIC: &[u8; 8] = b"PUSHRUN1";

/// Most runs of a segment. With more, its events are so scattered that it may as well be read.
const RUNS_MAX: usize = 1 << 16;

/// Events of one channel that lie close together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The place of its channel among the segment's.
    pub channel: u32,
    /// How many there are.
    pub events: u32,
    /// The first of them.
    pub first_seq: u64,
    /// The last of them.
    pub last_seq: u64,
    /// When that was ordered, in milliseconds of Unix time.
    pub newest_ms: u64,
    /// What history charges for them.
    pub bytes: u64,
}

/// The token streams in a segment. A stream that is open, or has ended lately, must be read from its
/// first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamsSeen {
    /// The first event of streams that were open when the segment was complete; [`u64::MAX`] if there
    /// were none.
    pub open_from: u64,
    /// The first event of streams that ended in the segment.
    pub ended_from: u64,
    /// When the last of these ended, in milliseconds of Unix time.
    pub ended_ms: u64,
}

/// What the `.runs` file of a complete segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRuns {
    /// The journal it belongs to.
    pub journal: u64,
    /// As in its name.
    pub first_seq: u64,
    /// The length that the segment's file must still have.
    pub segment_bytes: u64,
    /// The seq of its newest event.
    pub last_seq: u64,
    /// How many events it has.
    pub events: u64,
    /// The token streams in it.
    pub streams: StreamsSeen,
    /// Whether it has events of a state channel, which a newer segment may have replaced.
    pub has_event_keys: bool,
    /// The names of its channels.
    pub channels: Vec<Box<str>>,
    /// By their first seq.
    pub runs: Vec<Run>,
}

impl SegmentRuns {
    /// The bytes of its file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let StreamsSeen { open_from, ended_from, ended_ms } = self.streams;
        let of_segment =
            [self.journal, self.first_seq, self.segment_bytes, self.last_seq, self.events];
        for number in of_segment.into_iter().chain([open_from, ended_from, ended_ms]) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let counts = [usize::from(self.has_event_keys), self.channels.len(), self.runs.len()];
        // There are at most as many channels as runs, and those are bounded.
        counts.iter().for_each(|count| out.extend_from_slice(&(*count as u32).to_le_bytes()));
        for name in &self.channels {
            // Names are much shorter.
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
        }
        for run in &self.runs {
            out.extend_from_slice(&run.channel.to_le_bytes());
            out.extend_from_slice(&run.events.to_le_bytes());
            for number in [run.first_seq, run.last_seq, run.newest_ms, run.bytes] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        let checksum = crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// `None` if the bytes are not whole.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (bytes, checksum) = bytes.split_last_chunk()?;
        if crc32c(bytes) != u32::from_le_bytes(*checksum) || !bytes.starts_with(MAGIC) {
            return None;
        }
        let mut rest = Rest(bytes.get(MAGIC.len()..)?);
        let [journal, first_seq, segment_bytes, last_seq, events] = rest.numbers()?;
        let [open_from, ended_from, ended_ms] = rest.numbers()?;
        let [has_event_keys, channels, runs] = [rest.u32()?, rest.u32()?, rest.u32()?];
        Some(Self {
            journal,
            first_seq,
            segment_bytes,
            last_seq,
            events,
            streams: StreamsSeen { open_from, ended_from, ended_ms },
            has_event_keys: has_event_keys != 0,
            channels: (0..channels).map(|_| rest.name()).collect::<Option<_>>()?,
            runs: (0..runs).map(|_| rest.run(channels)).collect::<Option<_>>()?,
        })
    }

    /// The name of a run's channel.
    pub fn channel_of(&self, run: &Run) -> &str {
        &self.channels[run.channel as usize]
    }

    /// Writes it beside its segment. If that fails, the segment will be read.
    pub(super) fn write<D: Disk>(&self, disk: &D, segment: &str) {
        let name = runs_name(segment);
        let written =
            disk.create(&name).and_then(|mut file| write_all(&mut file, &self.encode(), 0));
        if written.is_err() {
            Self::remove(disk, segment);
        }
    }

    /// Reads the list of a segment, with the segment's head. `None` if it is missing or damaged, or does
    /// not fit the segment as it is now.
    pub(super) fn read<D: Disk>(disk: &D, segment: &str) -> Option<(Self, SegmentHead)> {
        let file = disk.open_to_read(&runs_name(segment)).ok()?;
        let runs = Self::decode(&read_all(&file).ok()?)?;
        let segment = disk.open_to_read(segment).ok()?;
        let mut head = [0; SEGMENT_HEAD_BYTES];
        read_some(&segment, &mut head, 0).ok()?;
        let head = SegmentHead::decode(&head)?;
        let is_its = (head.journal, head.first_seq) == (runs.journal, runs.first_seq)
            && segment.length().ok()? == runs.segment_bytes;
        is_its.then_some((runs, head))
    }

    /// Removes the list of a segment that is gone or has changed.
    pub(super) fn remove<D: Disk>(disk: &D, segment: &str) {
        // If it stays, it does no harm: it fits no other segment.
        let _ = disk.remove(&runs_name(segment));
    }
}

/// The name of the file beside a segment.
pub(super) fn runs_name(segment: &str) -> String {
    format!("{}{RUNS_SUFFIX}", segment.strip_suffix(SEGMENT_SUFFIX).unwrap_or(segment))
}

/// The bytes that are not decoded yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn numbers<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = u64::from_le_bytes(self.chunk()?);
        }
        Some(numbers)
    }

    fn name(&mut self) -> Option<Box<str>> {
        let length = usize::from(u16::from_le_bytes(self.chunk()?));
        let (name, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(name).ok().map(Into::into)
    }

    fn run(&mut self, channels: u32) -> Option<Run> {
        let [channel, events] = [self.u32()?, self.u32()?];
        let [first_seq, last_seq, newest_ms, bytes] = self.numbers()?;
        let is_one = channel < channels && events > 0 && first_seq <= last_seq;
        is_one.then_some(Run { channel, events, first_seq, last_seq, newest_ms, bytes })
    }
}

/// An event, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted<'a> {
    pub seq: u64,
    pub unix_ms: u64,
    pub channel: &'a str,
    pub bytes: u64,
    pub has_event_key: bool,
    pub mark: Option<&'a Mark>,
}

impl<'a> Noted<'a> {
    pub fn event(event: &'a Event, unix_ms: u64) -> Self {
        Self {
            seq: event.seq,
            unix_ms,
            channel: &event.channel,
            bytes: history::bytes_of(event),
            has_event_key: event.event_key().is_some(),
            mark: event.mark(),
        }
    }

    pub fn record(record: &'a Record) -> Self {
        let of = &record.publication;
        let attributes = of.attributes.as_deref();
        let (event_type, key) = (of.event_type.as_deref(), of.key.as_deref());
        Self {
            seq: record.seq,
            unix_ms: record.unix_ms,
            channel: &of.channel,
            bytes: history::event_bytes(&of.channel, &of.data, event_type, key)
                + history::attributes_bytes(attributes),
            has_event_key: attributes.is_some_and(|of| of.event_key.is_some()),
            mark: attributes.and_then(|of| of.stream.as_ref()),
        }
    }
}

/// A segment that is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub journal: u64,
    pub first_seq: u64,
    pub segment_bytes: u64,
}

/// Streams that are open at some place of the log: the first event of each, by its channel.
#[derive(Debug, Default)]
pub(super) struct OpenStreams {
    by_channel: HashMap<Box<str>, u64>,
    /// Events that were noted were not written after all: any may be open.
    is_unsure: bool,
}

impl OpenStreams {
    fn first(&self) -> u64 {
        let first = self.by_channel.values().copied().min();
        if self.is_unsure { 0 } else { first.unwrap_or(u64::MAX) }
    }

    /// Returns where the stream began that this ends.
    fn note(&mut self, channel: &str, mark: &Mark, seq: u64) -> Option<u64> {
        match mark.part {
            Part::Open => {
                self.by_channel.insert(channel.into(), seq);
                None
            }
            Part::Token => None,
            Part::End(_) => self.by_channel.remove(channel),
        }
    }

    /// Some of what was noted lately is lost.
    pub fn doubt(&mut self) {
        self.is_unsure = true;
    }
}

/// Gathers the runs of a segment as its events come.
#[derive(Debug)]
pub(super) struct Gathered {
    runs: Vec<Run>,
    /// Each channel's place and its newest run.
    places: HashMap<String, (u32, usize)>,
    events: u64,
    last_seq: u64,
    has_event_keys: bool,
    ended_from: u64,
    ended_ms: u64,
    /// Not all events were noted.
    is_partial: bool,
}

impl Gathered {
    pub fn new() -> Self {
        Self {
            runs: Vec::new(),
            places: HashMap::new(),
            events: 0,
            last_seq: 0,
            has_event_keys: false,
            ended_from: u64::MAX,
            ended_ms: 0,
            is_partial: false,
        }
    }

    /// Notes the next event of the segment.
    pub fn note(&mut self, of: Noted<'_>, open: &mut OpenStreams) {
        if let Some(began) = of.mark.and_then(|mark| open.note(of.channel, mark, of.seq)) {
            self.ended_from = self.ended_from.min(began);
            self.ended_ms = of.unix_ms;
        }
        if self.is_partial {
            return;
        }
        (self.events, self.last_seq) = (self.events + 1, of.seq);
        self.has_event_keys |= of.has_event_key;
        let next = (self.places.len() as u32, self.runs.len());
        let (channel, newest) = self.places.entry_ref(of.channel).or_insert(next);
        let newest_run = self.runs.get_mut(*newest);
        if let Some(run) =
            newest_run.filter(|run| run_has_room(run.first_seq, run.events, run.bytes, of.seq))
        {
            (run.last_seq, run.newest_ms) = (of.seq, of.unix_ms);
            (run.events, run.bytes) = (run.events + 1, run.bytes + of.bytes);
            return;
        }
        *newest = self.runs.len();
        self.runs.push(Run {
            channel: *channel,
            events: 1,
            first_seq: of.seq,
            last_seq: of.seq,
            newest_ms: of.unix_ms,
            bytes: of.bytes,
        });
        if self.runs.len() > RUNS_MAX {
            self.give_up();
        }
    }

    /// The segment will not have what was noted.
    pub fn give_up(&mut self) {
        self.is_partial = true;
        (self.runs, self.places) = (Vec::new(), HashMap::new());
    }

    /// The segment is complete: writes what was gathered beside it.
    pub fn write<D: Disk>(self, disk: &D, segment: &str, of: Segment, open: &OpenStreams) {
        match self.finish(of, open) {
            Some(runs) => runs.write(disk, segment),
            None => SegmentRuns::remove(disk, segment),
        }
    }

    fn finish(self, of: Segment, open: &OpenStreams) -> Option<SegmentRuns> {
        if self.is_partial || self.events == 0 {
            return None;
        }
        let Segment { journal, first_seq, segment_bytes } = of;
        let mut channels = vec![Box::default(); self.places.len()];
        for (name, (place, _)) in self.places {
            channels[place as usize] = name.into();
        }
        Some(SegmentRuns {
            journal,
            first_seq,
            segment_bytes,
            last_seq: self.last_seq,
            events: self.events,
            streams: StreamsSeen {
                open_from: open.first(),
                ended_from: self.ended_from,
                ended_ms: self.ended_ms,
            },
            has_event_keys: self.has_event_keys,
            channels,
            runs: self.runs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_or_not_at_all() {
        let run = |channel, first_seq| Run {
            channel,
            events: 3,
            first_seq,
            last_seq: first_seq + 9,
            newest_ms: 77,
            bytes: 600,
        };
        let runs = SegmentRuns {
            journal: 1,
            first_seq: 2,
            segment_bytes: 3,
            last_seq: 4,
            events: 5,
            streams: StreamsSeen { open_from: u64::MAX, ended_from: 6, ended_ms: 7 },
            has_event_keys: true,
            channels: vec!["news".into(), "é".into()],
            runs: vec![run(1, 2), run(0, 3)],
        };
        let mut bytes = runs.encode();
        assert_eq!(SegmentRuns::decode(&bytes), Some(runs));
        for length in 0..bytes.len() {
            assert_eq!(SegmentRuns::decode(&bytes[..length]), None);
        }
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_eq!(SegmentRuns::decode(&bytes), None, "byte {at}");
            bytes[at] ^= 1;
        }
    }
}
