//! Codecs: bytes in, values out. No socket, clock, thread or randomness here.

pub mod attributes;
pub mod cursor;
pub mod data;
pub mod dialect;
pub mod envelope;
pub(crate) mod forwarded;
pub mod h2;
pub mod http;
pub mod name;
pub mod proxy;
pub mod reject;
pub mod sse;
pub mod ws;
