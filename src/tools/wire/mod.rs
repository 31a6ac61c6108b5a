//! How a server's bytes are read: by the client, by the load generator and by tests.

pub(crate) mod carry;
pub(crate) mod connection;
pub mod frames;
pub mod head;
pub mod sse;
pub(crate) mod tls;
pub(crate) mod url;

/// The longest line, event or frame of a server that is accepted: the largest event Pushline can be
/// set to take (16 MiB), with base64 and framing.
pub const UNIT_BYTES_MAX: usize = 24 * 1024 * 1024;

/// The longest head of an answer: what common servers and clients use.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A line, event, frame or head is longer than its limit; nothing more can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;
