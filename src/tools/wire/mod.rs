//! How a server's bytes are read: by the client, by the load generator and by tests.

pub(crate) mod connection;
pub mod frames;
pub mod head;
pub(crate) mod tls;
pub(crate) mod url;

pub use crate::proto::carry::{TooLong, UNIT_BYTES_MAX};
pub use crate::proto::event_stream as sse;
/// Of answers too: as long as common servers and clients allow.
pub use crate::proto::http::head::HEAD_BYTES_MAX;
