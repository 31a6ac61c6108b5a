//! The codecs against the text of their standards, other parsers, and hostile input.

mod http_differential;
mod http_smuggling;
mod sse_roundtrip;
mod ws_framing;
