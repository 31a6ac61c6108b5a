//! Reading events that memory no longer holds, on a thread of its own: a page waits for the disk,
//! and no worker, no commit and no one at the log's lock waits with it.
//!
//! An index tells where in a segment a channel's events are. It is made when the segment is first
//! read from, and those last used are kept.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crc32c::crc32c;

use super::disk::{Disk, DiskFile, read_some};
use super::record::{
    Read, Record, SEGMENT_HEAD_BYTES, SegmentHead, peek_record, read_record, record_length,
};
use super::writer::{SEGMENT_SUFFIX, segment_name};
use crate::limits::{EVENT_BYTES_MAX, INDEX_BYTES_MAX};
use crate::log::event::Event;
use crate::log::history::bytes_of;
use crate::log::older::{OlderPage, OlderRead};

/// Bytes read of a segment at once to index it.
const SCANNED_AT_ONCE: usize = 256 * 1024;

/// Bytes read at once to get an event: those of a busy channel lie close together.
const WINDOW_BYTES: usize = 16 * 1024;

/// A record can't be longer than this.
const RECORD_BYTES_MAX: usize = EVENT_BYTES_MAX + 5 * u16::MAX as usize;

/// What the near end sends.
#[derive(Debug)]
pub enum ToReader {
    /// A page is wanted.
    Read(OlderRead),
    /// The log has closed; the reader's thread ends.
    End,
}

/// Reads pages of events that history has on disk only.
#[derive(Debug)]
pub struct Reader<D: Disk> {
    disk: D,
    /// Unix time minus the log's clock.
    clock_began: Duration,
    /// The first seq of each segment, in order.
    segments: Vec<u64>,
    /// The segments that were read from, the one used last at the end.
    indexed: Vec<Indexed<D::File>>,
    window: Window,
}

/// A piece of a segment.
#[derive(Debug, Default)]
struct Window {
    segment: u64,
    at: u64,
    bytes: Vec<u8>,
}

/// A segment with an index of its events.
#[derive(Debug)]
struct Indexed<F> {
    first_seq: u64,
    file: F,
    seed: u32,
    /// By channel, then in log order.
    places: Vec<Place>,
    /// How far the index goes, in the file and in the log.
    scanned_to: u64,
    through: u64,
}

/// Where an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// CRC32C of its channel's name. If two channels have the same, the record decides.
    channel: u32,
    /// Relative to the first event of the segment.
    seq: u32,
    /// In units of eight bytes.
    at: u32,
}

/// Something that belongs into the page.
#[derive(Clone, Copy, Debug)]
struct Due {
    seq: u64,
    /// The place of its channel in the request.
    place: u16,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// An event, at a byte of a segment.
    At(u64, u64),
    /// Events up to here may be missing.
    Lost(u64),
}

impl<D: Disk> Reader<D> {
    /// Reads the journal on this disk.
    pub fn new(disk: D, clock_began: Duration) -> Self {
        Self {
            disk,
            clock_began,
            segments: Vec::new(),
            indexed: Vec::new(),
            window: Window::default(),
        }
    }

    /// Reads a page. An event that can't be read ends a page that has others, so that these are handed
    /// out first.
    pub fn read(&mut self, mut asked: OlderRead) -> OlderPage {
        let (mut events, mut bytes, mut through) = (Vec::new(), 0, asked.through);
        for Due { seq, place, what } in self.all_due(&asked) {
            let of = &mut asked.channels[usize::from(place)];
            let lost_to = match what {
                What::At(segment, at) => match self.record(segment, at) {
                    Ok(record) if *record.publication.channel != **of.name => continue,
                    Ok(record) => {
                        let event = self.event(record, of.name.clone(), of.hash);
                        bytes += bytes_of(&event);
                        events.push((place, event));
                        if bytes >= asked.bytes_max {
                            through = seq;
                            break;
                        }
                        continue;
                    }
                    Err(error) => {
                        tracing::error!(
                            segment,
                            at,
                            "an event of the journal can't be read: {error}"
                        );
                        seq
                    }
                },
                What::Lost(to) => to,
            };
            if !events.is_empty() {
                through = seq - 1;
                break;
            }
            of.lost_to = of.lost_to.max(lost_to);
        }
        OlderPage { asked, events, through }
    }

    /// Everything that was asked for, in log order.
    fn all_due(&mut self, asked: &OlderRead) -> Vec<Due> {
        let ends = asked.channels.iter().filter_map(|of| of.ranges.last()).map(|last| *last.end());
        let newest = ends.max().unwrap_or(0);
        if self.segments.last().is_none_or(|last| *last <= newest) {
            self.list_segments();
        }
        let mut all = Vec::new();
        for (place, of) in (0..).zip(&asked.channels) {
            let channel = crc32c(of.name.as_bytes());
            for range in &of.ranges {
                self.find(channel, range, |seq, what| all.push(Due { seq, place, what }));
            }
        }
        all.sort_unstable_by_key(|due| due.seq);
        all
    }

    /// Where a channel's events are.
    fn find(&mut self, channel: u32, range: &RangeInclusive<u64>, mut due: impl FnMut(u64, What)) {
        let from = self.segments.partition_point(|first| first <= range.start()).saturating_sub(1);
        let covered_from = self.segments.get(from).map_or(u64::MAX, |first| *first);
        if covered_from > *range.start() {
            due(*range.start(), What::Lost((covered_from - 1).min(*range.end())));
        }
        for number in from..self.segments.len() {
            let first_seq = self.segments[number];
            let next = self.segments.get(number + 1).copied();
            let last_seq = next.map_or(u64::MAX, |next| next - 1).min(*range.end());
            let start = first_seq.max(*range.start());
            if start > last_seq {
                break;
            }
            let is_sealed = next.is_some();
            let lost_from = match self.indexed(first_seq, last_seq, is_sealed) {
                Ok((indexed, is_whole)) => {
                    let found = indexed.places_of(channel, start..=last_seq);
                    found.for_each(|(seq, at)| due(seq, What::At(first_seq, at)));
                    (!is_whole).then_some(indexed.through + 1)
                }
                Err(error) => {
                    tracing::error!("{} can't be read: {error}", segment_name(first_seq));
                    Some(start)
                }
            };
            if let Some(from) = lost_from.filter(|from| *from <= last_seq) {
                due(from.max(start), What::Lost(last_seq));
            }
        }
    }

    fn list_segments(&mut self) {
        let names = self.disk.list().unwrap_or_else(|error| {
            tracing::error!("the journal's files can't be listed: {error}");
            Vec::new()
        });
        let firsts =
            names.iter().filter_map(|name| name.strip_suffix(SEGMENT_SUFFIX)?.parse().ok());
        self.segments = firsts.collect();
        self.segments.sort_unstable();
    }

    /// A segment, indexed up to an event, and whether all events up to there are in the index.
    fn indexed(
        &mut self,
        first_seq: u64,
        through: u64,
        is_sealed: bool,
    ) -> io::Result<(&Indexed<D::File>, bool)> {
        let known = self.indexed.iter().position(|indexed| indexed.first_seq == first_seq);
        let mut indexed = match known {
            Some(known) => self.indexed.remove(known),
            None => Indexed::open(&self.disk, first_seq)?,
        };
        let is_whole = indexed.extend(through, is_sealed);
        self.indexed.push(indexed);
        self.forget_indexes();
        let last = self.indexed.last().ok_or(io::ErrorKind::NotFound)?;
        Ok((last, is_whole?))
    }

    /// Drops the indexes used least lately, until they are within their bound.
    fn forget_indexes(&mut self) {
        let bytes = |of: &Indexed<D::File>| of.places.capacity() * size_of::<Place>();
        while self.indexed.len() > 1
            && self.indexed.iter().map(bytes).sum::<usize>() > INDEX_BYTES_MAX
        {
            self.indexed.remove(0);
        }
    }

    /// The record at a place.
    fn record(&mut self, segment: u64, at: u64) -> io::Result<Record> {
        let known = self.indexed.iter().find(|indexed| indexed.first_seq == segment);
        let opened;
        let of = match known {
            Some(known) => known,
            // Its index had to make room for another one.
            None => {
                opened = Indexed::open(&self.disk, segment)?;
                &opened
            }
        };
        let bytes = self.window.show(&of.file, segment, at)?;
        match read_record(bytes, of.seed) {
            Read::Record(record, _) => Ok(record),
            Read::End | Read::Broken | Read::Newer => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn event(&self, record: Record, name: Arc<crate::log::ChannelName>, hash: u64) -> Arc<Event> {
        let Record { seq, unix_ms, publication, .. } = record;
        let ordered_at = Duration::from_millis(unix_ms).saturating_sub(self.clock_began);
        Arc::new(Event::new(seq, name, hash, ordered_at, publication.into()))
    }
}

impl Window {
    /// The bytes from a place on, which contain the whole record.
    fn show(&mut self, file: &impl DiskFile, segment: u64, at: u64) -> io::Result<&[u8]> {
        if !self.holds(segment, at) {
            self.load(file, segment, at, WINDOW_BYTES)?;
            let needed = record_length(&self.bytes);
            if needed > RECORD_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if needed > self.bytes.len() {
                self.load(file, segment, at, needed)?;
            }
        }
        let from = usize::try_from(at - self.at).unwrap_or(usize::MAX);
        Ok(self.bytes.get(from..).unwrap_or_default())
    }

    fn holds(&self, segment: u64, at: u64) -> bool {
        let from = at.checked_sub(self.at).and_then(|from| usize::try_from(from).ok());
        let bytes = from.and_then(|from| self.bytes.get(from..)).unwrap_or_default();
        let length = record_length(bytes);
        segment == self.segment && length > 0 && length <= bytes.len()
    }

    fn load(
        &mut self,
        file: &impl DiskFile,
        segment: u64,
        at: u64,
        length: usize,
    ) -> io::Result<()> {
        (self.segment, self.at) = (segment, at);
        self.bytes.resize(length, 0);
        let count = read_some(file, &mut self.bytes, at)?;
        self.bytes.truncate(count);
        Ok(())
    }
}

impl<F: DiskFile> Indexed<F> {
    fn open<D: Disk<File = F>>(disk: &D, first_seq: u64) -> io::Result<Self> {
        let file = disk.open(&segment_name(first_seq))?;
        let mut head = [0; SEGMENT_HEAD_BYTES];
        read_some(&file, &mut head, 0)?;
        let head = SegmentHead::decode(&head).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            first_seq,
            file,
            seed: head.seed(),
            places: Vec::new(),
            scanned_to: SEGMENT_HEAD_BYTES as u64,
            through: first_seq.saturating_sub(1),
        })
    }

    /// Indexes further events up to `through`, or to the end. Returns whether the end is one of
    /// complete events, rather than of damage. Records that a start did not read are checked here,
    /// because a wrong byte in a channel's name must not hide an event.
    fn extend(&mut self, through: u64, is_sealed: bool) -> io::Result<bool> {
        let (known, mut bytes) = (self.places.len(), vec![0; SCANNED_AT_ONCE]);
        while self.through < through {
            let count = read_some(&self.file, &mut bytes, self.scanned_to)?;
            if !self.scan(&bytes[..count], through) {
                let needed = record_length(&bytes[..count]);
                if needed <= bytes.len() || needed > RECORD_BYTES_MAX {
                    break;
                }
                bytes.resize(needed, 0);
            }
        }
        if self.places.len() > known {
            // Much of it is in order already, which this makes use of.
            self.places.sort();
        }
        let is_over = is_sealed && self.scanned_to >= self.file.length()?;
        Ok(self.through >= through || is_over)
    }

    /// Returns whether it found anything.
    fn scan(&mut self, bytes: &[u8], through: u64) -> bool {
        let mut from = 0;
        while self.through < through
            && let Some(peeked) = bytes.get(from..).and_then(|rest| peek_record(rest, self.seed))
        {
            let (Ok(seq), Ok(at)) = (
                u32::try_from(peeked.seq.wrapping_sub(self.first_seq)),
                u32::try_from(self.scanned_to / 8),
            ) else {
                break;
            };
            self.places.push(Place { channel: crc32c(peeked.channel), seq, at });
            self.through = peeked.seq;
            self.scanned_to += peeked.length as u64;
            from += peeked.length;
        }
        from > 0
    }

    /// A channel's events: their seqs, and at which bytes they are.
    fn places_of(
        &self,
        channel: u32,
        range: RangeInclusive<u64>,
    ) -> impl Iterator<Item = (u64, u64)> {
        let key = |of: &Place| (of.channel, self.first_seq + u64::from(of.seq));
        let from = self.places.partition_point(|of| key(of) < (channel, *range.start()));
        let to = self.places.partition_point(|of| key(of) <= (channel, *range.end()));
        let found = self.places.get(from..to).unwrap_or_default().iter();
        found.map(move |of| (key(of).1, u64::from(of.at) * 8))
    }
}
