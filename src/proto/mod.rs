//! Codecs: bytes in, values out. No socket, clock, thread or randomness here.

pub mod attributes;
pub(crate) mod carry;
pub mod cursor;
pub mod data;
pub mod dialect;
pub mod envelope;
pub mod event_stream;
pub(crate) mod forwarded;
pub mod h2;
pub mod http;
pub mod identity;
pub mod name;
pub mod path_map;
pub mod proxy;
pub mod reject;
pub mod sender;
pub mod sse;
pub mod stream;
pub mod ws;
