//! HTTP/2 (RFC 9113), server side: reads and writes frames and field blocks, without I/O and without
//! the state of streams. A request's head is rewritten as one of HTTP/1.1, so that one parser decides
//! what both versions mean, and an answer's head is made from one of HTTP/1.1 ([`request`],
//! [`response`]).

mod error;
pub mod frame;
pub mod hpack;
pub mod request;
pub mod response;
pub mod settings;

pub use self::error::ErrorCode;

/// What a client says first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The window of a connection, and of a stream unless settings say otherwise (RFC 9113 section
/// 6.9.2).
pub const WINDOW_DEFAULT: u32 = 65_535;

/// Received bytes after which a client is given window for as many more.
pub(crate) const CREDIT_BYTES_MIN: u32 = WINDOW_DEFAULT / 2;

/// The largest window (RFC 9113 section 6.9.1).
pub const WINDOW_MAX: u32 = (1 << 31) - 1;

/// The largest id of a stream.
pub const STREAM_ID_MAX: u32 = (1 << 31) - 1;
