//! What a server sends, read incrementally with next to no state per connection.
//!
//! An answer's head, then SSE lines (plain or chunked) or WebSocket frames. Bytes are parsed where
//! they lie; only an unfinished line, frame or head is kept, and only until it is finished.

use super::args::Transport;
use crate::tools::wire::{HEAD_BYTES_MAX, UNIT_BYTES_MAX};

/// What was found in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// The head: the server took the subscription.
    Subscribed,
    /// The data of an event.
    Data(&'a [u8]),
    /// An SSE comment.
    Comment,
    /// A WebSocket ping with its data; wants a pong.
    Ping(&'a [u8]),
}

/// Why a connection cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server answered with another status.
    Status(u16),
    /// The head is not an HTTP/1.1 answer.
    Head,
    /// The answer is a success, but no event stream.
    NoStream,
    /// The chunked coding is broken (RFC 9112 section 7.1).
    Chunk,
    /// The server ended the stream: the last chunk or a close frame.
    End,
    /// A frame a server must not send (RFC 6455 section 5), or a fragment, which we do not join.
    Frame,
    /// A head, line or frame without an end.
    TooLong,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Head => f.write_str("not HTTP"),
            Self::NoStream => f.write_str("answered with something else than text/event-stream"),
            Self::Chunk => f.write_str("bad chunk"),
            Self::End => f.write_str("ended by the server"),
            Self::Frame => f.write_str("bad frame"),
            Self::TooLong => f.write_str("too long"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Lines,
    ChunkedLines,
    Frames,
}

/// The reading side of one connection.
#[derive(Debug)]
pub(super) struct Stream {
    /// Boxed twice over so that the usual, empty one takes 8 bytes.
    #[expect(clippy::box_collection, reason = "a Vec takes 24 bytes in each idle connection")]
    carry: Option<Box<Vec<u8>>>,
    chunks: Chunks,
    stage: Stage,
}

impl Stream {
    /// A stream before its first byte.
    pub fn new() -> Self {
        Self { carry: None, chunks: Chunks::new(), stage: Stage::Head }
    }

    /// Reads on; `on` gets everything that became complete.
    pub fn feed(
        &mut self,
        transport: Transport,
        bytes: &[u8],
        mut on: impl FnMut(Item<'_>),
    ) -> Result<(), Fault> {
        match self.stage {
            Stage::Head => self.feed_head(transport, bytes, on),
            Stage::Lines => pour(&mut self.carry, bytes, |bytes| Ok(lines(bytes, &mut on))),
            Stage::Frames => pour(&mut self.carry, bytes, |bytes| frames(bytes, &mut on)),
            Stage::ChunkedLines => {
                let mut rest = bytes;
                while let Some(body) = self.chunks.next(&mut rest)? {
                    pour(&mut self.carry, body, |bytes| Ok(lines(bytes, &mut on)))?;
                }
                Ok(())
            }
        }
    }

    fn feed_head(
        &mut self,
        transport: Transport,
        bytes: &[u8],
        mut on: impl FnMut(Item<'_>),
    ) -> Result<(), Fault> {
        let mut carried = self.carry.take();
        let bytes = match &mut carried {
            Some(joined) => {
                joined.extend_from_slice(bytes);
                joined.as_slice()
            }
            None => bytes,
        };
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(Fault::TooLong);
            }
            let begun = Box::new(bytes.to_vec());
            self.carry = Some(carried.unwrap_or(begun));
            return Ok(());
        };
        let (head, rest) = bytes.split_at(end + 4);
        self.stage = stage_after(transport, head)?;
        on(Item::Subscribed);
        if rest.is_empty() { Ok(()) } else { self.feed(transport, rest, on) }
    }
}

/// What follows this head, if the server took the subscription.
fn stage_after(transport: Transport, head: &[u8]) -> Result<Stage, Fault> {
    let status = head
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| std::str::from_utf8(rest.get(2..5)?).ok()?.parse::<u16>().ok())
        .ok_or(Fault::Head)?;
    match (transport, status) {
        (Transport::Sse, 200) if !is_event_stream(head) => Err(Fault::NoStream),
        (Transport::Sse, 200) if is_chunked(head) => Ok(Stage::ChunkedLines),
        (Transport::Sse, 200) => Ok(Stage::Lines),
        (Transport::Ws, 101) => Ok(Stage::Frames),
        (Transport::Sse | Transport::Ws, status) => Err(Fault::Status(status)),
    }
}

/// Whether the body behind this head uses the chunked coding.
pub(super) fn is_chunked(head: &[u8]) -> bool {
    field_has(head, b"transfer-encoding:", b"chunked")
}

fn is_event_stream(head: &[u8]) -> bool {
    field_has(head, b"content-type:", b"text/event-stream")
}

/// Whether the header field whose `name` ends in a colon has this word; both in small letters.
fn field_has(head: &[u8], name: &[u8], word: &[u8]) -> bool {
    head.split(|byte| *byte == b'\n').any(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with(name) && memchr::memmem::find(&line, word).is_some()
    })
}

/// Runs `advance` over what was carried and `bytes`; what it does not consume is carried on.
#[expect(clippy::box_collection, reason = "see Stream::carry")]
fn pour(
    carry: &mut Option<Box<Vec<u8>>>,
    bytes: &[u8],
    mut advance: impl FnMut(&[u8]) -> Result<usize, Fault>,
) -> Result<(), Fault> {
    match carry.take() {
        None => {
            let used = advance(bytes)?;
            if used < bytes.len() {
                *carry = Some(Box::new(bytes[used..].to_vec()));
            }
        }
        Some(mut joined) => {
            joined.extend_from_slice(bytes);
            let used = advance(&joined)?;
            joined.drain(..used);
            if joined.len() > UNIT_BYTES_MAX {
                return Err(Fault::TooLong);
            }
            *carry = (!joined.is_empty()).then_some(joined);
        }
    }
    Ok(())
}

/// Reads complete SSE lines and says how many bytes they took.
///
/// Lines are taken to end in LF or CRLF; data of several lines does not occur in a benchmark, so
/// each `data` line counts as an event.
fn lines(bytes: &[u8], on: &mut impl FnMut(Item<'_>)) -> usize {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        let line = &bytes[start..end];
        start = end + 1;
        if let Some(data) = line.strip_prefix(b"data:") {
            let data = data.strip_prefix(b" ").unwrap_or(data);
            on(Item::Data(data.strip_suffix(b"\r").unwrap_or(data)));
        } else if line.first() == Some(&b':') {
            on(Item::Comment);
        }
    }
    start
}

/// Reads complete server frames (RFC 6455 section 5.2) and says how many bytes they took.
fn frames(bytes: &[u8], on: &mut impl FnMut(Item<'_>)) -> Result<usize, Fault> {
    let mut start = 0;
    while let Some((opcode, head_bytes, data_bytes)) = frame_head(&bytes[start..])? {
        let Some(data) = bytes[start + head_bytes..].get(..data_bytes) else { break };
        start += head_bytes + data_bytes;
        match opcode {
            1 | 2 => on(Item::Data(data)),
            8 => return Err(Fault::End),
            9 => on(Item::Ping(data)),
            10 => {}
            _ => return Err(Fault::Frame),
        }
    }
    Ok(start)
}

/// The opcode and the lengths of head and data, once the head is complete.
fn frame_head(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, Fault> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (final_and_reserved, opcode) = (first & 0xf0, first & 0x0f);
    let is_control = opcode >= 8;
    if final_and_reserved != 0x80 || second & 0x80 != 0 || (is_control && *second > 125) {
        return Err(Fault::Frame);
    }
    let (head_bytes, data_bytes) = match second {
        126 => match rest.first_chunk::<2>() {
            Some(length) => (4, u64::from(u16::from_be_bytes(*length))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (10, u64::from_be_bytes(*length)),
            None => return Ok(None),
        },
        length => (2, u64::from(*length)),
    };
    if data_bytes > UNIT_BYTES_MAX as u64 {
        return Err(Fault::TooLong);
    }
    Ok(Some((opcode, head_bytes, data_bytes as usize)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkStage {
    Size,
    Extension,
    Body,
    BodyEnd,
}

/// The chunked transfer coding (RFC 9112 section 7.1), without trailers: streams have no end.
#[derive(Debug)]
pub(super) struct Chunks {
    left: u32,
    stage: ChunkStage,
}

impl Chunks {
    /// A body before its first byte.
    pub fn new() -> Self {
        Self { left: 0, stage: ChunkStage::Size }
    }

    /// Takes the next piece of the body off the front of `rest`; `None` when there is no more yet,
    /// [`Fault::End`] at the last chunk.
    pub fn next<'a>(&mut self, rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        while let Some((first, tail)) = rest.split_first() {
            match self.stage {
                ChunkStage::Body => {
                    let (body, tail) = rest.split_at(rest.len().min(self.left as usize));
                    self.left -= body.len() as u32;
                    if self.left == 0 {
                        self.stage = ChunkStage::BodyEnd;
                    }
                    *rest = tail;
                    return Ok(Some(body));
                }
                ChunkStage::Size => match (*first as char).to_digit(16) {
                    Some(digit) if self.left < 1 << 28 => self.left = self.left << 4 | digit,
                    Some(_) => return Err(Fault::Chunk),
                    None => {
                        self.stage = ChunkStage::Extension;
                        continue;
                    }
                },
                ChunkStage::Extension if *first == b'\n' && self.left == 0 => {
                    return Err(Fault::End);
                }
                ChunkStage::Extension if *first == b'\n' => self.stage = ChunkStage::Body,
                ChunkStage::Extension => {}
                ChunkStage::BodyEnd => match first {
                    b'\r' => {}
                    b'\n' => self.stage = ChunkStage::Size,
                    _ => return Err(Fault::Chunk),
                },
            }
            *rest = tail;
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
