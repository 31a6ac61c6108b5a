//! Token streams: what an event is to the stream of its channel, how a producer's body is cut into
//! tokens ([`tokens`]), and how a plain reader sees them.
//!
//! A stream is a stretch of its channel's events: one that opens it, tokens, one that ends it. The
//! first and the last are of type [`STREAM_TYPE`] and say so in JSON.

pub mod merged;
pub mod tokens;

use std::sync::Arc;

use super::data::{Data, EventView};
use super::envelope::json;

/// The type of the events that open and end a stream.
pub const STREAM_TYPE: &str = "pushline.stream";

/// What an event is to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The stream's name.
    pub id: Arc<str>,
    /// Which part of it.
    pub part: Part,
    /// Tokens before this event. Of a publication: by which attempt of its producer it comes.
    pub at: u64,
}

impl Mark {
    /// Length of what [`Mark::encode`] appends.
    pub fn encoded_bytes(&self) -> usize {
        1 + 8 + self.id.len()
    }

    /// Appends it, for what is kept: the part, the number, the name.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.part.to_byte());
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(self.id.as_bytes());
    }

    /// None: these are not such bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&part, rest) = bytes.split_first()?;
        let (at, id) = rest.split_first_chunk()?;
        let id = std::str::from_utf8(id).ok()?.into();
        Some(Self { id, part: Part::from_byte(part)?, at: u64::from_le_bytes(*at) })
    }
}

/// A part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It begins.
    Open,
    /// A piece of what is streamed.
    Token,
    /// It is over.
    End(End),
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its producer said all.
    Done,
    /// Its producer failed, and said so.
    Error,
    /// A reader wanted no more.
    Cancelled,
    /// Its producer went away and did not come back.
    Lost,
    /// Its producer said nothing for too long.
    Idle,
}

impl End {
    /// All of them, by index.
    pub const ALL: [Self; 5] = [Self::Done, Self::Error, Self::Cancelled, Self::Lost, Self::Idle];

    /// Their names, by index.
    pub const LABELS: [&str; 5] = ["done", "error", "cancelled", "lost", "idle"];

    /// Its place in lists of them.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Why, in a word.
    pub fn reason(self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// What became of the stream: `done`, `error` or `cancelled`.
    pub fn state(self) -> &'static str {
        match self {
            Self::Done | Self::Cancelled => self.reason(),
            Self::Error | Self::Lost | Self::Idle => "error",
        }
    }
}

impl Part {
    /// In one byte, for what is kept.
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Token => 1,
            Self::End(end) => 2 + end as u8,
        }
    }

    /// None: no part has this byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Open),
            1 => Some(Self::Token),
            end => End::ALL.get(usize::from(end) - 2).map(|end| Self::End(*end)),
        }
    }
}

/// What the event that opens a stream, or ends it, says: a JSON object.
pub fn control_data(id: &str, part: Part, tokens: u64) -> Vec<u8> {
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
    /// The number of the last token it has; none: it has none.
    pub after: Option<u64>,
    /// What if there is no stream.
    pub or_else: OrElse,
}

/// What a reader of a stream does where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrElse {
    /// It reads the channel from now on.
    Now,
    /// It is told that there is none.
    Refuse,
    /// The same, and a stream that has ended is none.
    RefuseEnded,
}

/// Appends an event of a plain reader's event stream: the producer's own type and data, and at the
/// end of all `[DONE]`, as the models' vendors write it. Events of the channel that are no part of
/// the stream are nothing to it.
pub fn write_plain(out: &mut Vec<u8>, event: &EventView<'_>) {
    match part_of(event) {
        Some(Part::Token) => super::sse::write_unnamed(out, event),
        Some(Part::End(End::Done | End::Cancelled)) => out.extend_from_slice(b"data: [DONE]\n\n"),
        Some(Part::Open | Part::End(_)) | None => {}
    }
}

/// Appends what a reader of the stream's text gets of an event.
pub fn write_text(out: &mut Vec<u8>, event: &EventView<'_>) {
    if part_of(event) == Some(Part::Token) {
        out.extend_from_slice(match event.data {
            Data::Text(text) | Data::Json(text) => text.as_bytes(),
            Data::Binary(bytes) => bytes,
        });
    }
}

/// Which part of a stream an event is.
pub fn part_of(event: &EventView<'_>) -> Option<Part> {
    event.attributes?.stream.as_ref().map(|mark| mark.part)
}
