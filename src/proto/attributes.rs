//! What only some events have: who published it, what it replaces, how long it lasts. A plain event
//! has none of these and pays for a null pointer.
//!
//! Outside of memory (in the journal, in a broker's header) attributes are a list of entries: one
//! byte for the tag, two for the length of the value (little-endian), then the value.

use super::sender::Sender;
use super::stream::merged::Merged;
use super::stream::{Mark, Origin};

/// What an event may have besides its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The publisher's subject, if the channel's rule asks for it. Never supplied by the client.
    pub publisher: Option<Box<str>>,
    /// `Event-Key`: the event replaces the earlier one in its channel with this key.
    pub event_key: Option<Box<str>>,
    /// `Event-Tombstone`: the event only removes the earlier one.
    pub tombstone: bool,
    /// Only sent to subscribers that are connected now, never kept.
    pub ephemeral: bool,
    /// The connection that published it for others, and is left out.
    pub sender: Option<Sender>,
    /// Its part in the channel's stream, if it has one.
    pub stream: Option<Mark>,
    /// Who sent that part of a stream. Only on its way: an event has none.
    pub origin: Option<Box<Origin>>,
    /// Where its tokens were, if it is several merged into one. In memory only: a store keeps the tokens
    /// themselves.
    pub merged: Option<Merged>,
}

/// Why attributes could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAttributes {
    /// Cut off, not UTF-8, or a flag with a value.
    Malformed,
    /// A later version wrote something this one does not know.
    Unknown(u8),
}

const PUBLISHER: u8 = 1;
const EVENT_KEY: u8 = 2;
const TOMBSTONE: u8 = 3;
const EPHEMERAL: u8 = 4;
const STREAM: u8 = 5;
const SENDER: u8 = 6;
const ORIGIN: u8 = 7;

/// Bytes of an entry before its value.
const ENTRY_HEAD_BYTES: usize = 3;

impl Attributes {
    /// Those of a part of a stream.
    pub fn of_stream(mark: Mark) -> Option<Box<Self>> {
        Some(Box::new(Self { stream: Some(mark), ..Self::default() }))
    }

    /// `None` if they are empty.
    pub(crate) fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }

    /// What they take in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        let texts = [&self.publisher, &self.event_key].into_iter().flatten();
        // A stream's tokens share its name.
        let merged = self.merged.as_ref().map_or(0, Merged::held_bytes);
        size_of::<Self>() + texts.map(|text| text.len()).sum::<usize>() + merged
    }

    /// The length of what [`Attributes::encode`] appends.
    pub(crate) fn encoded_bytes(&self) -> usize {
        let stream = self.stream.as_ref().map_or(0, |mark| ENTRY_HEAD_BYTES + mark.encoded_bytes());
        let sender = self.sender.map_or(0, |_| ENTRY_HEAD_BYTES + Sender::ENCODED_BYTES);
        let texts = self.entries().map(|(_, value)| ENTRY_HEAD_BYTES + value.len());
        let origin = self.origin.as_ref().map_or(0, |_| ENTRY_HEAD_BYTES + Origin::ENCODED_BYTES);
        texts.sum::<usize>() + sender + stream + origin
    }

    /// Appends their entries.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for (tag, value) in self.entries() {
            // Subjects and keys are bounded far below.
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
            out.push(tag);
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&value[..usize::from(length)]);
        }
        if let Some(sender) = &self.sender {
            out.push(SENDER);
            out.extend_from_slice(&(Sender::ENCODED_BYTES as u16).to_le_bytes());
            sender.encode(out);
        }
        if let Some(mark) = &self.stream {
            out.push(STREAM);
            out.extend_from_slice(&(mark.encoded_bytes() as u16).to_le_bytes());
            mark.encode(out);
        }
        if let Some(origin) = &self.origin {
            out.push(ORIGIN);
            out.extend_from_slice(&(Origin::ENCODED_BYTES as u16).to_le_bytes());
            origin.encode(out);
        }
    }

    /// Reads a complete list of entries.
    ///
    /// # Errors
    /// The list is cut short or of a later version. Then nothing of it is taken, as what is not
    /// understood may be what matters.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, BadAttributes> {
        let mut read = Self::default();
        while let Some((&tag, rest)) = bytes.split_first() {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or(BadAttributes::Malformed)?;
            let length = usize::from(u16::from_le_bytes(*length));
            let (value, rest) = rest.split_at_checked(length).ok_or(BadAttributes::Malformed)?;
            read.take(tag, value)?;
            bytes = rest;
        }
        Ok(read)
    }

    fn entries(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let texts = [(PUBLISHER, &self.publisher), (EVENT_KEY, &self.event_key)];
        let texts =
            texts.into_iter().filter_map(|(tag, text)| Some((tag, text.as_deref()?.as_bytes())));
        let flags = [(TOMBSTONE, self.tombstone), (EPHEMERAL, self.ephemeral)];
        let flags = flags.into_iter().filter(|(_, is_set)| *is_set);
        texts.chain(flags.map(|(tag, _)| (tag, &b""[..])))
    }

    fn take(&mut self, tag: u8, value: &[u8]) -> Result<(), BadAttributes> {
        match tag {
            PUBLISHER => self.publisher = Some(text(value)?),
            EVENT_KEY => self.event_key = Some(text(value)?),
            TOMBSTONE => self.tombstone = flag(value)?,
            EPHEMERAL => self.ephemeral = flag(value)?,
            SENDER => self.sender = Some(Sender::decode(value).ok_or(BadAttributes::Malformed)?),
            STREAM => self.stream = Some(Mark::decode(value).ok_or(BadAttributes::Malformed)?),
            ORIGIN => {
                let origin = Origin::decode(value).ok_or(BadAttributes::Malformed)?;
                self.origin = Some(Box::new(origin));
            }
            unknown => return Err(BadAttributes::Unknown(unknown)),
        }
        Ok(())
    }
}

fn text(value: &[u8]) -> Result<Box<str>, BadAttributes> {
    std::str::from_utf8(value).map(Into::into).map_err(|_| BadAttributes::Malformed)
}

fn flag(value: &[u8]) -> Result<bool, BadAttributes> {
    if value.is_empty() { Ok(true) } else { Err(BadAttributes::Malformed) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::identity::NodeId;
    use crate::proto::sender::Home;
    use crate::proto::stream::Part;

    fn any_attributes() -> impl Strategy<Value = Attributes> {
        let text = || prop::option::of(any::<String>().prop_map(Into::into));
        let mark = (any::<String>(), 0u8..7, any::<u64>()).prop_map(|(id, part, at)| Mark {
            id: id.into(),
            part: Part::from_byte(part).expect("a part"),
            at,
        });
        let stream = prop::option::of(mark);
        let origin = (any::<u32>(), any::<[u64; 4]>());
        let origin = origin.prop_map(|(node, [number, opened, attempt, seen])| {
            Box::new(Origin { node: NodeId(node), number, opened, attempt, seen })
        });
        let stream = (stream, prop::option::of(origin));
        let sender = (any::<u64>(), any::<u16>(), any::<u32>(), any::<u32>());
        let sender = sender.prop_map(|(process, worker, slot, generation)| Sender {
            home: Home { process, worker },
            slot,
            generation,
        });
        let flags = (any::<bool>(), any::<bool>());
        (text(), text(), flags, prop::option::of(sender), stream).prop_map(
            |(publisher, event_key, (tombstone, ephemeral), sender, (stream, origin))| Attributes {
                publisher,
                event_key,
                tombstone,
                ephemeral,
                sender,
                stream,
                origin,
                merged: None,
            },
        )
    }

    #[test]
    fn what_a_later_version_wrote_is_refused_by_name() {
        let mut bytes = Vec::new();
        Attributes { ephemeral: true, ..Attributes::default() }.encode(&mut bytes);
        bytes.extend_from_slice(&[200, 1, 0, b'x']);
        assert_eq!(Attributes::decode(&bytes), Err(BadAttributes::Unknown(200)));
        assert_eq!(Attributes::decode(&[TOMBSTONE, 1, 0, 1]), Err(BadAttributes::Malformed));
    }

    proptest! {
        #[test]
        fn attributes_are_read_as_they_were_written(attributes in any_attributes()) {
            let mut bytes = Vec::new();
            attributes.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), attributes.encoded_bytes());
            prop_assert_eq!(Attributes::decode(&bytes), Ok(attributes));
            for end in 0..bytes.len() {
                // Cut between two entries it is a shorter list; anywhere else it is malformed.
                if let Ok(part) = Attributes::decode(&bytes[..end]) {
                    prop_assert_eq!(part.encoded_bytes(), end);
                }
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Attributes::decode(&bytes);
        }
    }
}
