//! How a server's bytes are read: by the client, by the load generator and by tests.

pub(crate) mod connection;
pub mod frames;
pub mod head;
pub(crate) mod tls;
pub(crate) mod url;

pub use crate::proto::carry::{TooLong, UNIT_BYTES_MAX};
pub use crate::proto::event_stream as sse;

/// The longest head of an answer: what common servers and clients use.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
