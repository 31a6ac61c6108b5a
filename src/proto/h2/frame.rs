//! Frames (RFC 9113 sections 4 and 6). Here, a frame is checked by itself; whether it may come at this
//! moment is for the connection to decide.
//!
//! A fault that the RFC calls a stream error may be treated as a connection error (section 5.4). That
//! is done here, because only a broken peer makes one.

use super::ErrorCode;

/// Bytes before a frame's payload.
pub const HEADER_BYTES: usize = 9;

/// The largest payload: what every peer takes, and all that is taken here.
pub const PAYLOAD_BYTES_MAX: usize = 16_384;

/// Type numbers.
mod kind {
    pub const DATA: u8 = 0x0;
    pub const HEADERS: u8 = 0x1;
    pub const PRIORITY: u8 = 0x2;
    pub const RST_STREAM: u8 = 0x3;
    pub const SETTINGS: u8 = 0x4;
    pub const PUSH_PROMISE: u8 = 0x5;
    pub const PING: u8 = 0x6;
    pub const GOAWAY: u8 = 0x7;
    pub const WINDOW_UPDATE: u8 = 0x8;
    pub const CONTINUATION: u8 = 0x9;
}

/// Bits of a frame's flags.
mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// A frame of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'b> {
    /// A part of a body.
    Data {
        /// The id of the stream it is for.
        stream: u32,
        /// Without the padding.
        payload: &'b [u8],
        /// How much of the windows it uses: padding counts.
        length: u32,
        /// Whether the stream ends with it.
        ends: bool,
    },
    /// A field block, or its beginning.
    Headers {
        /// The id of the stream it is for.
        stream: u32,
        /// Of the block.
        fragment: &'b [u8],
        /// Whether the stream ends with it.
        ends: bool,
        /// Otherwise `Continuation` frames follow.
        ends_block: bool,
    },
    /// More of a field block.
    Continuation {
        /// The id of the stream it is for.
        stream: u32,
        /// Of the block.
        fragment: &'b [u8],
        /// Otherwise `Continuation` frames follow.
        ends_block: bool,
    },
    /// The client does not want a stream any more.
    Reset {
        /// The id of the stream it is for.
        stream: u32,
    },
    /// The client's settings.
    Settings(&'b [u8]),
    /// Ours are applied.
    SettingsAck,
    /// To be answered.
    Ping([u8; 8]),
    /// An answer.
    PingAck,
    /// The client will open no more streams.
    GoAway,
    /// The client takes more bytes: of one stream, or (stream 0) of all together.
    WindowUpdate {
        /// The stream's id; 0: all together.
        stream: u32,
        /// How many; 0 is a fault.
        by: u32,
    },
    /// Priorities, and unknown types.
    Ignored {
        /// The id of the stream it is for; 0: the connection.
        stream: u32,
    },
}

/// Reads the frame at the beginning of `bytes` and tells its length; `None` while it is not whole.
///
/// # Errors
/// What ends the connection.
pub fn read(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, ErrorCode> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let &[l2, l1, l0, kind, flags, s3, s2, s1, s0] = header;
    let length = u32::from_be_bytes([0, l2, l1, l0]) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err(ErrorCode::FrameSizeError);
    }
    let stream = u31([s3, s2, s1, s0]);
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    Ok(Some((interpret(kind, flags, stream, payload)?, HEADER_BYTES + length)))
}

fn interpret(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<Frame<'_>, ErrorCode> {
    let has = |bit: u8| flags & bit != 0;
    check_stream(kind, stream)?;
    match kind {
        kind::DATA => Ok(Frame::Data {
            stream,
            payload: unpadded(has(flag::PADDED), payload)?,
            length: payload.len() as u32,
            ends: has(flag::END_STREAM),
        }),
        kind::HEADERS => {
            let inner = unpadded(has(flag::PADDED), payload)?;
            let fragment = match has(flag::PRIORITY) {
                true => without_priority(stream, inner)?,
                false => inner,
            };
            let (ends, ends_block) = (has(flag::END_STREAM), has(flag::END_HEADERS));
            Ok(Frame::Headers { stream, fragment, ends, ends_block })
        }
        kind::CONTINUATION => {
            let ends_block = has(flag::END_HEADERS);
            Ok(Frame::Continuation { stream, fragment: payload, ends_block })
        }
        kind::PRIORITY => match without_priority(stream, payload)? {
            [] => Ok(Frame::Ignored { stream }),
            _ => Err(ErrorCode::FrameSizeError),
        },
        kind::RST_STREAM => exactly::<4>(payload).map(|_| Frame::Reset { stream }),
        kind::SETTINGS if !has(flag::ACK) => Ok(Frame::Settings(payload)),
        kind::SETTINGS => exactly::<0>(payload).map(|_| Frame::SettingsAck),
        // A client has nothing to push.
        kind::PUSH_PROMISE => Err(ErrorCode::ProtocolError),
        kind::PING if has(flag::ACK) => exactly::<8>(payload).map(|_| Frame::PingAck),
        kind::PING => exactly(payload).map(|payload| Frame::Ping(*payload)),
        kind::GOAWAY if payload.len() < 8 => Err(ErrorCode::FrameSizeError),
        kind::GOAWAY => Ok(Frame::GoAway),
        kind::WINDOW_UPDATE => {
            exactly(payload).map(|by| Frame::WindowUpdate { stream, by: u31(*by) })
        }
        _ => Ok(Frame::Ignored { stream }),
    }
}

/// Whether a frame of this kind is a stream's or the connection's.
fn check_stream(kind: u8, stream: u32) -> Result<(), ErrorCode> {
    let fits = match kind {
        kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM | kind::CONTINUATION => {
            stream != 0
        }
        kind::SETTINGS | kind::PING | kind::GOAWAY => stream == 0,
        _ => true,
    };
    if fits { Ok(()) } else { Err(ErrorCode::ProtocolError) }
}

fn exactly<const N: usize>(payload: &[u8]) -> Result<&[u8; N], ErrorCode> {
    payload.try_into().map_err(|_| ErrorCode::FrameSizeError)
}

fn unpadded(padded: bool, payload: &[u8]) -> Result<&[u8], ErrorCode> {
    if !padded {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(ErrorCode::FrameSizeError)?;
    let length = rest.len().checked_sub(usize::from(padding)).ok_or(ErrorCode::ProtocolError)?;
    Ok(&rest[..length])
}

/// Skips the five bytes of a priority scheme that is obsolete (RFC 9113 section 5.3). A stream that
/// depends on itself is still a fault.
fn without_priority(stream: u32, payload: &[u8]) -> Result<&[u8], ErrorCode> {
    let (priority, rest) = payload.split_first_chunk::<5>().ok_or(ErrorCode::FrameSizeError)?;
    let &[d3, d2, d1, d0, _] = priority;
    if u31([d3, d2, d1, d0]) == stream { Err(ErrorCode::ProtocolError) } else { Ok(rest) }
}

/// The 31 bits after a reserved one.
fn u31(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes) & (u32::MAX >> 1)
}

// --- what we send ---

fn write_header(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    debug_assert!(length <= PAYLOAD_BYTES_MAX);
    let [_, l2, l1, l0] = (length as u32).to_be_bytes();
    let [s3, s2, s1, s0] = stream.to_be_bytes();
    out.extend_from_slice(&[l2, l1, l0, kind, flags, s3, s2, s1, s0]);
}

/// Whether a stream ends with what is sent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Nothing follows.
    Yes,
    /// More follows.
    No,
}

impl Ends {
    fn flag(self) -> u8 {
        if self == Self::Yes { flag::END_STREAM } else { 0 }
    }
}

/// Appends a part of a body, in as many frames as it takes.
pub(crate) fn write_data(out: &mut Vec<u8>, stream: u32, mut bytes: &[u8], ends: Ends) {
    while bytes.len() > PAYLOAD_BYTES_MAX {
        let (piece, rest) = bytes.split_at(PAYLOAD_BYTES_MAX);
        write_header(out, piece.len(), kind::DATA, 0, stream);
        out.extend_from_slice(piece);
        bytes = rest;
    }
    write_header(out, bytes.len(), kind::DATA, ends.flag(), stream);
    out.extend_from_slice(bytes);
}

/// Appends a head: its field block, in as many frames as it takes.
pub(crate) fn write_headers(out: &mut Vec<u8>, stream: u32, mut block: &[u8], ends: Ends) {
    let mut kind = kind::HEADERS;
    let mut flags = ends.flag();
    while block.len() > PAYLOAD_BYTES_MAX {
        let (piece, rest) = block.split_at(PAYLOAD_BYTES_MAX);
        write_header(out, piece.len(), kind, flags, stream);
        out.extend_from_slice(piece);
        (block, kind, flags) = (rest, kind::CONTINUATION, 0);
    }
    write_header(out, block.len(), kind, flags | flag::END_HEADERS, stream);
    out.extend_from_slice(block);
}

/// Appends settings, each a number and its value.
pub(crate) fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    write_header(out, settings.len() * 6, kind::SETTINGS, 0, 0);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends the acknowledgement of the client's settings.
pub(crate) fn write_settings_ack(out: &mut Vec<u8>) {
    write_header(out, 0, kind::SETTINGS, flag::ACK, 0);
}

/// Appends a ping.
pub(crate) fn write_ping(out: &mut Vec<u8>) {
    write_header(out, 8, kind::PING, 0, 0);
    out.extend_from_slice(b"pushline");
}

/// Appends the answer to a ping.
pub(crate) fn write_ping_ack(out: &mut Vec<u8>, payload: &[u8; 8]) {
    write_header(out, 8, kind::PING, flag::ACK, 0);
    out.extend_from_slice(payload);
}

/// Appends a goaway: streams above `last` are not processed.
pub(crate) fn write_goaway(out: &mut Vec<u8>, last: u32, code: ErrorCode) {
    write_header(out, 8, kind::GOAWAY, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&(code as u32).to_be_bytes());
}

/// Appends the reset of a stream.
pub fn write_reset(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    write_header(out, 4, kind::RST_STREAM, 0, stream);
    out.extend_from_slice(&(code as u32).to_be_bytes());
}

/// Appends: we take `by` more bytes, of one stream, or (stream 0) of all together.
pub(crate) fn write_window_update(out: &mut Vec<u8>, stream: u32, by: u32) {
    write_header(out, 4, kind::WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&by.to_be_bytes());
}
