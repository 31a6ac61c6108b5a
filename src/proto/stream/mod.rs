//! Token streams: an event's part in the stream of its channel, how a producer's body is cut into tokens
//! ([`tokens`]), and how a plain reader sees them.
//!
//! A stream is a stretch of its channel's events: one that opens it, tokens, one that ends it. The
//! first and the last are of type [`STREAM_TYPE`] and say so in JSON.

pub mod merged;
pub mod tokens;

use std::sync::Arc;

use super::data::{Data, EventView};
use super::envelope::json;
use super::identity::NodeId;

/// The type of the events that open and end a stream.
pub const STREAM_TYPE: &str = "pushline.stream";

/// An event's part in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The stream's name.
    pub id: Arc<str>,
    /// Whether it begins the stream, goes on with it or ends it.
    pub part: Part,
    /// Tokens before this event. In a publication: the attempt of its producer.
    pub at: u64,
}

impl Mark {
    /// Length of what [`Mark::encode`] appends.
    pub(crate) fn encoded_bytes(&self) -> usize {
        1 + 8 + self.id.len()
    }

    /// Appends it in the form in which it is stored: the part, the number, the name.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.part.to_byte());
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(self.id.as_bytes());
    }

    /// `None` if the bytes are not a mark.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&part, rest) = bytes.split_first()?;
        let (at, id) = rest.split_first_chunk()?;
        let id = std::str::from_utf8(id).ok()?.into();
        Some(Self { id, part: Part::from_byte(part)?, at: u64::from_le_bytes(*at) })
    }
}

/// Of a part on its way to where the order is given: who sent it, and to which stream as they know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The node that its producer is connected to.
    pub node: NodeId,
    /// The node's own number for it.
    pub number: u64,
    /// The event that opened the stream; 0: this one is to.
    pub opened: u64,
    /// Which of the stream's producers it comes from; of one that takes over: which went before.
    pub attempt: u64,
    /// The newest event the node had seen: all of this is so as far as that.
    pub seen: u64,
}

impl Origin {
    /// Length of what [`Origin::encode`] appends.
    pub const ENCODED_BYTES: usize = 4 + 4 * 8;

    /// Appends it, for its way.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.node.0.to_le_bytes());
        for number in [self.number, self.opened, self.attempt, self.seen] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// None: these are not such bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&node, rest) = bytes.split_first_chunk()?;
        let (numbers, []) = rest.as_chunks::<8>() else { return None };
        let numbers: &[_; 4] = numbers.try_into().ok()?;
        let [number, opened, attempt, seen] = numbers.map(u64::from_le_bytes);
        Some(Self { node: NodeId(u32::from_le_bytes(node)), number, opened, attempt, seen })
    }
}

/// A part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The stream begins.
    Open,
    /// A piece of what is streamed.
    Token,
    /// The stream is over.
    End(End),
}

/// Why a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its producer finished it.
    Done,
    /// Its producer failed, and said so.
    Error,
    /// Someone cancelled it.
    Cancelled,
    /// Its producer went away and did not come back.
    Lost,
    /// Its producer was silent for too long.
    Idle,
}

impl End {
    /// All of them, by index.
    pub const ALL: [Self; 5] = [Self::Done, Self::Error, Self::Cancelled, Self::Lost, Self::Idle];

    /// Their names, by index.
    pub const LABELS: [&str; 5] = ["done", "error", "cancelled", "lost", "idle"];

    /// Its index in [`Self::ALL`] and [`Self::LABELS`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The reason in a word.
    pub fn reason(self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// The state of the stream: `done`, `error` or `cancelled`.
    pub fn state(self) -> &'static str {
        match self {
            Self::Done | Self::Cancelled => self.reason(),
            Self::Error | Self::Lost | Self::Idle => "error",
        }
    }
}

impl Part {
    /// As one byte, for storage.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Token => 1,
            Self::End(end) => 2 + end as u8,
        }
    }

    /// `None` if no part has this byte.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Open),
            1 => Some(Self::Token),
            end => End::ALL.get(usize::from(end) - 2).map(|end| Self::End(*end)),
        }
    }
}

/// The data of the event that opens a stream or ends it: a JSON object.
pub(crate) fn control_data(id: &str, part: Part, tokens: u64) -> Vec<u8> {
    let mut data = b"{\"stream\":".to_vec();
    json::write_string(&mut data, id);
    let state = match part {
        Part::Open | Part::Token => "open",
        Part::End(end) => end.state(),
    };
    data.extend_from_slice(format!(",\"state\":\"{state}\",\"events\":{tokens}").as_bytes());
    if let Part::End(end) = part {
        data.extend_from_slice(format!(",\"reason\":\"{}\"", end.reason()).as_bytes());
    }
    data.push(b'}');
    data
}

/// Where a reader of a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The number of the last token it has; `None` if it has none.
    pub after: Option<u64>,
    /// What happens if there is no stream.
    pub or_else: OrElse,
}

/// What happens to a reader of a stream if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrElse {
    /// It reads the channel from now on.
    Now,
    /// It is told that there is none.
    Refuse,
    /// The same, and a stream that has ended counts as none.
    RefuseEnded,
}

/// Appends an event for a plain reader of an event stream: the producer's own type and data, and at
/// the end `[DONE]`, as vendors of models write it. Other events of the channel are left out.
pub(crate) fn write_plain(out: &mut Vec<u8>, event: &EventView<'_>) {
    match part_of(event) {
        Some(Part::Token) => super::sse::write_unnamed(out, event),
        Some(Part::End(End::Done | End::Cancelled)) => out.extend_from_slice(b"data: [DONE]\n\n"),
        Some(Part::Open | Part::End(_)) | None => {}
    }
}

/// Appends an event for a reader of the stream's text.
pub(crate) fn write_text(out: &mut Vec<u8>, event: &EventView<'_>) {
    if part_of(event) == Some(Part::Token) {
        out.extend_from_slice(match event.data {
            Data::Text(text) | Data::Json(text) => text.as_bytes(),
            Data::Binary(bytes) => bytes,
        });
    }
}

/// Which part of a stream an event is.
pub(crate) fn part_of(event: &EventView<'_>) -> Option<Part> {
    event.attributes?.stream.as_ref().map(|mark| mark.part)
}
