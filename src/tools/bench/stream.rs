//! What a server sends, read incrementally with next to no state per connection: an answer's head,
//! then SSE lines (plain or chunked) or WebSocket frames.

use std::fmt;

use super::args::Transport;
use crate::proto::carry::Carry;
use crate::proto::http::body::{BodyDecoder, BodyError};
use crate::proto::http::head::Framing;
use crate::proto::ws::frame::{Fin, Opcode};
use crate::tools::wire::TooLong;
use crate::tools::wire::frames::{Frame, FrameError, Frames};
use crate::tools::wire::head::{Head, HeadError};
use crate::tools::wire::sse::{Line, Lines};

/// What was found in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// The head: the server took the subscription.
    Subscribed,
    /// The data of an event. Data of several lines does not occur in a benchmark, so each SSE line
    /// with data counts as an event.
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
    /// What came is not HTTP/2.
    Http2,
    /// The server has reset the stream of HTTP/2.
    Reset,
}

/// The reading side of one connection, by what comes next.
#[derive(Debug)]
pub(super) enum Stream {
    Head(Carry),
    Lines(Lines),
    /// Boxed: a stream that is chunked must not make the others larger.
    ChunkedLines(Box<(BodyDecoder, Lines)>),
    Frames(Frames),
}

impl Stream {
    /// A stream before its first byte.
    pub fn new() -> Self {
        Self::Head(Carry::default())
    }

    /// What follows this head, if the server took the subscription.
    fn behind(head: &Head, transport: Transport) -> Result<Self, Fault> {
        match (transport, head.status) {
            (Transport::Sse, 200) if head.media_type() != "text/event-stream" => {
                Err(Fault::NoStream)
            }
            (Transport::Sse, 200) => Ok(match head.framing() {
                Some(framing @ Framing::Chunked) => {
                    Self::ChunkedLines(Box::new((BodyDecoder::new(framing), Lines::default())))
                }
                _ => Self::Lines(Lines::default()),
            }),
            (Transport::Ws, 101) => Ok(Self::Frames(Frames::default())),
            (Transport::Sse | Transport::Ws, status) => Err(Fault::Status(status)),
        }
    }

    /// Reads on; `on` gets everything that became complete.
    pub fn feed(
        &mut self,
        transport: Transport,
        bytes: &[u8],
        on: &mut impl FnMut(Item<'_>),
    ) -> Result<(), Fault> {
        match self {
            Self::Head(begun) => {
                let mut next = None;
                begun.pour(bytes, |bytes, _| {
                    let Some((head, length)) = Head::parse(bytes)? else { return Ok(0) };
                    let mut stream = Self::behind(&head, transport)?;
                    on(Item::Subscribed);
                    stream.feed_body(&bytes[length..], on)?;
                    next = Some(stream);
                    Ok::<_, Fault>(bytes.len())
                })?;
                if let Some(next) = next {
                    *self = next;
                }
                Ok(())
            }
            _ => self.feed_body(bytes, on),
        }
    }

    fn feed_body(&mut self, bytes: &[u8], on: &mut impl FnMut(Item<'_>)) -> Result<(), Fault> {
        match self {
            Self::Head(_) => Ok(()),
            Self::Lines(lines) => lines.feed(bytes, |line| on_line(line, on)),
            Self::Frames(frames) => frames.feed(bytes, |frame| on_frame(frame, on)),
            Self::ChunkedLines(chunked) => {
                let (decoder, lines) = &mut **chunked;
                let mut rest = bytes;
                while !rest.is_empty() {
                    let decoded = decoder.decode(rest)?;
                    lines.feed(decoded.payload, |line| on_line(line, on))?;
                    if decoder.is_done() {
                        return Err(Fault::End);
                    }
                    rest = &rest[decoded.consumed..];
                }
                Ok(())
            }
        }
    }
}

#[inline]
fn on_line(line: Line<'_>, on: &mut impl FnMut(Item<'_>)) -> Result<(), Fault> {
    match line {
        Line::Field { name: b"data", value } => on(Item::Data(value)),
        Line::Comment(_) => on(Item::Comment),
        Line::Field { .. } | Line::Blank => {}
    }
    Ok(())
}

#[inline]
fn on_frame(frame: Frame<'_>, on: &mut impl FnMut(Item<'_>)) -> Result<(), Fault> {
    match (frame.opcode, frame.fin) {
        (Opcode::Text | Opcode::Binary, Fin::Last) => on(Item::Data(frame.payload)),
        (Opcode::Ping, _) => on(Item::Ping(frame.payload)),
        (Opcode::Pong, _) => {}
        (Opcode::Close, _) => return Err(Fault::End),
        (Opcode::Continuation, _) | (_, Fin::More) => return Err(Fault::Frame),
    }
    Ok(())
}

impl From<HeadError> for Fault {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::NotHttp => Self::Head,
            HeadError::TooLong => Self::TooLong,
        }
    }
}

impl From<BodyError> for Fault {
    fn from(_: BodyError) -> Self {
        Self::Chunk
    }
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Violation(_) => Self::Frame,
            FrameError::TooLong => Self::TooLong,
        }
    }
}

impl From<TooLong> for Fault {
    fn from(TooLong: TooLong) -> Self {
        Self::TooLong
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Head => f.write_str("not HTTP"),
            Self::NoStream => f.write_str("answered with something else than text/event-stream"),
            Self::Chunk => f.write_str("bad chunk"),
            Self::End => f.write_str("ended by the server"),
            Self::Frame => f.write_str("bad frame"),
            Self::TooLong => f.write_str("too long"),
            Self::Http2 => f.write_str("not HTTP/2"),
            Self::Reset => f.write_str("reset by the server"),
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
