//! What a piece of input led to.

use crate::proto::h2::ErrorCode;
use crate::proto::h2::request::Body;

/// What a piece of input led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This many bytes were used; go on with the rest.
    Used(usize),
    /// This many bytes were used; the rest waits for more input or for an answer.
    Wait(usize),
    /// So many bytes are done with; they are for one of the connection's streams.
    Stream(usize, ForStream),
}

/// What a frame means for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForStream {
    /// It opens with a request, whose head is `Sessions::take_stream_head`.
    Opens { id: u32, ended: bool, body: Body },
    /// A part of its body, at this place in the input.
    Data { index: u32, from: usize, to: usize, ended: bool },
    /// Its client has reset it.
    Reset { index: u32 },
    /// Its client broke the protocol.
    Fault { index: u32, code: ErrorCode },
}
