//! A server's WebSocket frames (RFC 6455 section 5.2), without joining fragments:
//! [`crate::proto::ws::message`] makes messages of them.

use super::{TooLong, UNIT_BYTES_MAX};
use crate::proto::carry::Carry;
use crate::proto::ws::close::Violation;
use crate::proto::ws::frame::{self, Fin, Opcode, Parsed, Sender};

/// A frame of which all has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What its payload is: text, binary, or that of a control frame.
    pub opcode: Opcode,
    /// Whether the message ends with it.
    pub fin: Fin,
    /// Unmasked: servers do not mask.
    pub payload: &'a [u8],
}

/// Why frames cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A server must not send such a frame.
    Violation(Violation),
    /// It is longer than [`UNIT_BYTES_MAX`].
    TooLong,
}

impl From<TooLong> for FrameError {
    fn from(TooLong: TooLong) -> Self {
        Self::TooLong
    }
}

/// Takes the frame at the front of `bytes` and returns its length too, once all of it has come.
///
/// # Errors
/// More bytes will not make it a frame.
pub fn first(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let (header, header_bytes) = match frame::parse(bytes, Sender::Server) {
        Parsed::Complete(header, header_bytes) => (header, header_bytes),
        Parsed::Partial => return Ok(None),
        Parsed::Reject(violation) => return Err(FrameError::Violation(violation)),
    };
    let payload_bytes = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
    if payload_bytes > UNIT_BYTES_MAX {
        return Err(FrameError::TooLong);
    }
    let Some(payload) = bytes[header_bytes..].get(..payload_bytes) else { return Ok(None) };
    let frame = Frame { opcode: header.opcode, fin: header.fin, payload };
    Ok(Some((frame, header_bytes + payload_bytes)))
}

/// Finds frames in pieces of a stream. Bytes are used where they lie; only an unfinished frame is
/// kept.
#[derive(Debug, Default)]
pub struct Frames {
    carry: Carry,
}

impl Frames {
    /// Reads on; `on` gets each frame that is complete.
    ///
    /// # Errors
    /// The server sent something it must not send, or `on` failed.
    pub fn feed<E: From<TooLong> + From<FrameError>>(
        &mut self,
        bytes: &[u8],
        mut on: impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.carry.pour(bytes, |bytes, _| {
            let mut start = 0;
            while let Some((frame, length)) = first(&bytes[start..])? {
                on(frame)?;
                start += length;
            }
            Ok(start)
        })
    }
}
