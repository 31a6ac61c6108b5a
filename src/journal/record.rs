//! The journal's format: what a segment and the `head` file look like. No I/O.
//!
//! A segment is [`SegmentHead`] and then records, each padded to 8 bytes, up to the end of the file
//! or to zeros. Numbers are little-endian. A record:
//!
//! | bytes | what |
//! |--:|---|
//! | 4 | length of the record without its padding |
//! | 4 | CRC32C of all that follows, begun with the segment's own checksum: a record that got into the wrong segment is none |
//! | 8 | `seq` |
//! | 8 | when it was ordered, in milliseconds of Unix time |
//! | 8 | `synced_to`: everything up to this seq was synced before the record was written |
//! | 2, 2, 2 | length of the channel's name, of the event type and of the key; 65,535: there is none |
//! | 1, 1 | kind; 1: attributes follow, 0: there are none |
//! | | name, type, key |
//! | 2 | if attributes follow: their length, and then the [`Attributes`] |
//! | | data |

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

use crate::log::event::{Attributes, BadAttributes, Event, Kind, Publication};

/// Bytes of a record before its texts.
pub(crate) const RECORD_HEAD_BYTES: usize = 40;
/// The prefix of a record, which its checksum does not cover.
const PREFIX_BYTES: usize = 8;
/// The prefix of attributes: their length.
const SECTION_HEAD_BYTES: usize = 2;
/// The length that stands for a missing text.
const NONE: u16 = u16::MAX;
/// Bytes of a segment before its first record.
pub(crate) const SEGMENT_HEAD_BYTES: usize = 48;
const SEGMENT_MAGIC: &[u8; 8] = b"PUSHLOG1";
/// Bytes of the `head` file.
pub const HEAD_BYTES: usize = 80;
const HEAD_MAGIC: &[u8; 8] = b"PUSHHED1";

/// An event that was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log.
    pub seq: u64,
    /// When it was ordered, in milliseconds of Unix time.
    pub unix_ms: u64,
    /// Everything up to here was synced before this record was written.
    pub synced_to: u64,
    /// Everything else about the event.
    pub publication: RecordPublication,
}

/// What was published, in a form that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPublication {
    /// The name of its channel.
    pub channel: Box<str>,
    /// How `data` is to be read.
    pub kind: Kind,
    /// As it was published.
    pub data: Bytes,
    /// The header `Event-Type` it was published with.
    pub event_type: Option<Box<str>>,
    /// The header `Idempotency-Key` it was published with.
    pub key: Option<Box<str>>,
    /// What only some events have.
    pub attributes: Option<Box<Attributes>>,
}

impl From<RecordPublication> for Publication {
    fn from(of: RecordPublication) -> Self {
        let RecordPublication { channel, kind, data, event_type, key, attributes } = of;
        Self { channel, kind, data, event_type, key, attributes }
    }
}

/// What was found at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// A record, and its length with padding.
    Record(Record, usize),
    /// Zeros or the end: nothing was written here.
    End,
    /// Something that is not a record.
    Broken,
    /// A complete record of a later version.
    Newer,
}

/// Bytes of an event's record, including padding.
pub(crate) fn record_bytes(event: &Event) -> usize {
    let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    let texts = event.channel.len() + text(&event.event_type) + text(&event.key);
    let section = |attributes: &Attributes| SECTION_HEAD_BYTES + attributes.encoded_bytes();
    let attributes = event.attributes.as_deref().map_or(0, section);
    padded(RECORD_HEAD_BYTES + texts + attributes + event.data.len())
}

/// Appends an event's record.
pub(crate) fn write_record(
    out: &mut Vec<u8>,
    seed: u32,
    event: &Event,
    unix_ms: u64,
    synced_to: u64,
) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    for number in [event.seq, unix_ms, synced_to] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let texts = [Some(&**event.channel), event.event_type.as_deref(), event.key.as_deref()];
    for text in texts {
        // Names, types and keys are much shorter.
        let length = text.map_or(NONE, |text| u16::try_from(text.len()).unwrap_or(NONE));
        out.extend_from_slice(&length.to_le_bytes());
    }
    out.extend_from_slice(&[kind_byte(event.kind), u8::from(event.attributes.is_some())]);
    texts.iter().flatten().for_each(|text| out.extend_from_slice(text.as_bytes()));
    if let Some(attributes) = &event.attributes {
        // Much shorter, as their texts are.
        out.extend_from_slice(&(attributes.encoded_bytes() as u16).to_le_bytes());
        attributes.encode(out);
    }
    out.extend_from_slice(&event.data);
    // Events are at most `EVENT_BYTES_MAX`.
    let length = (out.len() - start) as u32;
    let checksum = crc32c_append(seed, &out[start + PREFIX_BYTES..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + PREFIX_BYTES].copy_from_slice(&checksum.to_le_bytes());
    out.resize(start + padded(length as usize), 0);
}

/// Reads what is at the front of `bytes`.
pub(crate) fn read_record(bytes: &[u8], seed: u32) -> Read {
    let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() else {
        return if bytes.iter().all(|byte| *byte == 0) { Read::End } else { Read::Broken };
    };
    if *prefix == [0; PREFIX_BYTES] {
        return Read::End;
    }
    let Some(whole) = whole_record(bytes, seed) else { return Read::Broken };
    match parse(whole) {
        Ok(record) => Read::Record(record, padded(whole.len())),
        Err(BadAttributes::Unknown(_)) => Read::Newer,
        Err(BadAttributes::Malformed) => Read::Broken,
    }
}

/// What has to be known of a record to find it again.
#[derive(Debug)]
pub struct Peeked<'a> {
    /// Its place in the log.
    pub seq: u64,
    /// The name of its channel, as UTF-8.
    pub channel: &'a [u8],
    /// Its length with padding.
    pub length: usize,
}

/// Looks at the record at the front of `bytes`. `None` if there is none, or it is damaged, or not all of
/// it is here.
pub(crate) fn peek_record(bytes: &[u8], seed: u32) -> Option<Peeked<'_>> {
    let record = whole_record(bytes, seed)?;
    let name = usize::from(u16::from_le_bytes(*record.get(32..)?.first_chunk()?));
    let channel = record.get(RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + name)?;
    Some(Peeked { seq: u64_at(record, 8), channel, length: padded(record.len()) })
}

/// The record at the front without its padding, if its checksum is right.
fn whole_record(bytes: &[u8], seed: u32) -> Option<&[u8]> {
    let length = record_length(bytes);
    let record = bytes.get(..length).filter(|_| length >= RECORD_HEAD_BYTES)?;
    (crc32c_append(seed, &record[PREFIX_BYTES..]) == u32_at(record, 4)).then_some(record)
}

/// The length that the record at the front gives; 0 if there is no record.
pub(crate) fn record_length(bytes: &[u8]) -> usize {
    u32_at(bytes, 0) as usize
}

fn parse(record: &[u8]) -> Result<Record, BadAttributes> {
    let (publication, rest) = parse_head(record).ok_or(BadAttributes::Malformed)?;
    let (attributes, data) = match record[39] {
        0 => (None, rest),
        1 => split_attributes(rest)?,
        unknown => return Err(BadAttributes::Unknown(unknown)),
    };
    if publication.kind != Kind::Binary && simdutf8::basic::from_utf8(data).is_err() {
        return Err(BadAttributes::Malformed);
    }
    let data = Bytes::copy_from_slice(data);
    let publication = RecordPublication { data, attributes, ..publication };
    let (seq, unix_ms, synced_to) = (u64_at(record, 8), u64_at(record, 16), u64_at(record, 24));
    Ok(Record { seq, unix_ms, synced_to, publication })
}

type WithRest<'a, T> = (T, &'a [u8]);

fn split_attributes(bytes: &[u8]) -> Result<WithRest<'_, Option<Box<Attributes>>>, BadAttributes> {
    let (length, rest) = bytes.split_first_chunk().ok_or(BadAttributes::Malformed)?;
    let length = usize::from(u16::from_le_bytes(*length));
    let (section, rest) = rest.split_at_checked(length).ok_or(BadAttributes::Malformed)?;
    Ok((Some(Box::new(Attributes::decode(section)?)), rest))
}

/// Reads all but the attributes and the data; returns those as bytes.
fn parse_head(record: &[u8]) -> Option<WithRest<'_, RecordPublication>> {
    let mut rest = record.get(RECORD_HEAD_BYTES..)?;
    let mut text = |at: usize| -> Option<Option<Box<str>>> {
        let length = u16::from_le_bytes(record.get(at..at + 2)?.try_into().ok()?);
        if length == NONE {
            return Some(None);
        }
        let (text, behind) = rest.split_at_checked(usize::from(length))?;
        rest = behind;
        Some(Some(std::str::from_utf8(text).ok()?.into()))
    };
    let (channel, event_type, key) = (text(32)??, text(34)?, text(36)?);
    let kind = kind_of(*record.get(38)?)?;
    let publication =
        RecordPublication { channel, kind, data: Bytes::new(), event_type, key, attributes: None };
    Some((publication, rest))
}

/// The beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// The journal it belongs to.
    pub journal: u64,
    /// No event in it is older than this.
    pub first_seq: u64,
    /// The last event of the segment before it; 0 if there was none.
    pub before: u64,
}

impl SegmentHead {
    /// The head's bytes, as they begin a segment file.
    pub fn encode(&self) -> [u8; SEGMENT_HEAD_BYTES] {
        let mut bytes = [0; SEGMENT_HEAD_BYTES];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        put(&mut bytes, 8, self.journal);
        put(&mut bytes, 16, self.first_seq);
        put(&mut bytes, 24, self.before);
        seal(&mut bytes);
        bytes
    }

    /// `None` if the bytes are not a segment's head.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = opened::<SEGMENT_HEAD_BYTES>(bytes, SEGMENT_MAGIC)?;
        let (journal, first_seq, before) = (u64_at(bytes, 8), u64_at(bytes, 16), u64_at(bytes, 24));
        Some(Self { journal, first_seq, before })
    }

    /// What the checksums of its records start from.
    pub fn seed(&self) -> u32 {
        crc32c(&self.encode())
    }
}

/// The `head` file: what must be known before the segments are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Tells this journal's segments from another's.
    pub journal: u64,
    /// The epoch is made from these bits.
    pub epoch_bits: u64,
    /// No event above this may have been shown.
    pub reserved_to: u64,
    /// Everything up to here was synced when this was written.
    pub synced_to: u64,
    /// Segments that held events up to here were removed.
    pub removed_to: u64,
    /// Hash of the machine's boot at the time: bytes that were written to files and not synced live
    /// only as long as that.
    pub boot: u64,
    /// The journal was closed: nothing came after this.
    pub closed: bool,
    /// Events may have been shown that were not synced.
    pub lax: bool,
}

impl Head {
    /// That of a journal which has nothing in it yet.
    pub(super) fn fresh(journal: u64, epoch_bits: u64) -> Self {
        Self {
            journal,
            epoch_bits,
            reserved_to: 0,
            synced_to: 0,
            removed_to: 0,
            boot: 0,
            closed: false,
            lax: false,
        }
    }

    /// The bytes of the `head` file.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(HEAD_MAGIC);
        let numbers = [
            self.journal,
            self.epoch_bits,
            self.reserved_to,
            self.synced_to,
            self.removed_to,
            self.boot,
        ];
        for (place, number) in numbers.into_iter().enumerate() {
            put(&mut bytes, 8 + 8 * place, number);
        }
        bytes[56] = u8::from(self.closed);
        bytes[57] = u8::from(self.lax);
        seal(&mut bytes);
        bytes
    }

    /// `None` if the bytes are not a head file.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = opened::<HEAD_BYTES>(bytes, HEAD_MAGIC)?;
        let number = |place: usize| u64_at(bytes, 8 + 8 * place);
        Some(Self {
            journal: number(0),
            epoch_bits: number(1),
            reserved_to: number(2),
            synced_to: number(3),
            removed_to: number(4),
            boot: number(5),
            closed: bytes[56] == 1,
            lax: bytes[57] == 1,
        })
    }
}

/// Puts the checksum into the last four bytes.
fn seal<const N: usize>(bytes: &mut [u8; N]) {
    let checksum = crc32c(&bytes[..N - 4]);
    bytes[N - 4..].copy_from_slice(&checksum.to_le_bytes());
}

fn opened<'a, const N: usize>(bytes: &'a [u8], magic: &[u8; 8]) -> Option<&'a [u8; N]> {
    let bytes = bytes.first_chunk::<N>()?;
    let is_whole = crc32c(&bytes[..N - 4]) == u32_at(bytes, N - 4);
    (is_whole && bytes.starts_with(magic)).then_some(bytes)
}

fn put(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk());
    four.map_or(0, |four| u32::from_le_bytes(*four))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes.get(at..).and_then(|rest| rest.first_chunk());
    eight.map_or(0, |eight| u64::from_le_bytes(*eight))
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(8)
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Text => 1,
        Kind::Json => 2,
        Kind::Binary => 3,
    }
}

fn kind_of(byte: u8) -> Option<Kind> {
    match byte {
        1 => Some(Kind::Text),
        2 => Some(Kind::Json),
        3 => Some(Kind::Binary),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::log::ChannelName;

    fn event(seq: u64, data: &[u8], key: Option<&str>) -> Event {
        let publication = Publication {
            channel: "news".into(),
            kind: Kind::Binary,
            data: Bytes::copy_from_slice(data),
            event_type: Some("".into()),
            key: key.map(Into::into),
            attributes: None,
        };
        let channel = Arc::new(ChannelName::new(&publication.channel));
        Event::new(seq, channel, 0, Duration::ZERO, publication)
    }

    fn any_attributes() -> Attributes {
        let text = |text: &str| Some(text.into());
        Attributes { publisher: text("jane"), event_key: text("é"), ..Attributes::default() }
    }

    #[test]
    fn attributes_are_read_back_and_a_record_of_a_later_version_is_named_as_one() {
        let attributes = Some(Box::new(any_attributes()));
        let mut event = event(9, b"data", Some("k"));
        event.attributes = attributes;
        let mut bytes = Vec::new();
        write_record(&mut bytes, 77, &event, 5, 3);
        assert_eq!(bytes.len(), record_bytes(&event));
        let Read::Record(record, length) = read_record(&bytes, 77) else { panic!("a record") };
        assert_eq!(length, bytes.len());
        assert_eq!(record.publication.attributes.as_deref(), Some(&any_attributes()));
        assert_eq!(&record.publication.data[..], b"data");
        let tag = RECORD_HEAD_BYTES + "newsk".len() + SECTION_HEAD_BYTES;
        for at in [tag, 39] {
            let mut later = bytes.clone();
            later[at] = 250;
            let end = u32_at(&later, 0) as usize;
            let checksum = crc32c_append(77, &later[PREFIX_BYTES..end]);
            later[4..8].copy_from_slice(&checksum.to_le_bytes());
            assert_eq!(read_record(&later, 77), Read::Newer, "byte {at}");
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_no_byte_of_it_may_change() {
        for data in [&b""[..], b"1234567", b"12345678"] {
            let event = event(9, data, Some("k"));
            let mut bytes = Vec::new();
            write_record(&mut bytes, 77, &event, 5, 3);
            assert_eq!(bytes.len(), record_bytes(&event));
            let Read::Record(record, length) = read_record(&bytes, 77) else { panic!("a record") };
            assert_eq!(
                (record.seq, record.unix_ms, record.synced_to, length),
                (9, 5, 3, bytes.len())
            );
            assert_eq!(&record.publication.data[..], data);
            assert_eq!(record.publication.event_type.as_deref(), Some(""));
            assert_eq!(read_record(&bytes, 78), Read::Broken, "of another segment");
            let written = u32_at(&bytes, 0) as usize;
            for at in 0..written {
                bytes[at] ^= 4;
                assert!(!matches!(read_record(&bytes, 77), Read::Record(..)), "byte {at}");
                bytes[at] ^= 4;
            }
        }
        assert_eq!(read_record(&[0; 64], 77), Read::End);
        assert_eq!(read_record(&[], 77), Read::End);
    }

    #[test]
    fn heads_are_read_as_they_were_written_or_not_at_all() {
        let segment = SegmentHead { journal: 1, first_seq: 2, before: 3 };
        assert_eq!(SegmentHead::decode(&segment.encode()), Some(segment));
        let head = Head {
            journal: 1,
            epoch_bits: 2,
            reserved_to: 3,
            synced_to: 4,
            removed_to: 5,
            boot: 6,
            closed: true,
            lax: false,
        };
        let mut bytes = head.encode();
        assert_eq!(Head::decode(&bytes), Some(head));
        assert_eq!(Head::decode(&bytes[1..]), None);
        for at in 0..HEAD_BYTES {
            bytes[at] ^= 1;
            assert_eq!(Head::decode(&bytes), None, "byte {at}");
            bytes[at] ^= 1;
        }
    }
}
