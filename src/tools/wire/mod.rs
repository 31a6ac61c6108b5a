//! What clients of a server need on the wire, for all tools.

pub mod url;

/// The longest line, event or frame of a server that is waited for: the largest event Pushline can
/// be set to take (16 MiB), base64 and framing included.
pub const UNIT_BYTES_MAX: usize = 24 * 1024 * 1024;

/// The longest head of an answer: what common servers and clients use.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
