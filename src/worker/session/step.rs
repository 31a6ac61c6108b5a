//! What a piece of input led to.

use std::net::IpAddr;

use crate::proto::h2::ErrorCode;
use crate::proto::h2::request::Body;

/// What a piece of input led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This many bytes were used; go on with the rest.
    Used(usize),
    /// This many bytes were used; the rest waits for more input or for an answer.
    Wait(usize),
    /// Consumed this many bytes. The connection belongs to this client from now on; once that is
    /// counted, the rest of the input is offered again.
    Client(usize, IpAddr),
    /// Consumed this many bytes, a frame of HTTP/2 that is for the connection's streams.
    H2(usize, ForH2Streams),
}

/// What a frame of HTTP/2 means for the connection's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForH2Streams {
    /// One opens with a request, whose head is `Sessions::take_h2_head`.
    Opens { id: u32, ended: bool, body: Body },
    /// A part of a body, at this place in the input. `length`: with its padding.
    Data { index: u32, length: u32, from: usize, to: usize, ended: bool },
    /// The client has reset one.
    Reset { index: u32 },
    /// The client broke the protocol on one.
    Fault { index: u32, code: ErrorCode },
    /// The client takes `by` more bytes of DATA: on this stream, or on all together.
    Widen { index: Option<u32>, by: u32 },
    /// The client takes this many bytes of DATA on each new stream; what it takes on open ones changes
    /// by the difference.
    InitialWindow(u32),
}
