//! What is fuzzed: one function per target that takes any bytes and panics if a property does not
//! hold. Two things run them: libFuzzer for long (`scripts/fuzz`, a binary each in `bins/`), and a
//! seeded mutator in every `cargo test` (`tests/fuzz_smoke.rs`).

pub mod chunked_body;
pub mod config;
pub mod envelope;
pub mod http2_connection;
pub mod http2_head;
pub mod http_head;
pub mod last_event_id;
pub mod proxy_header;
pub mod request_stream;
mod server;
mod split;
pub mod sse_stream;
pub mod tls_records;
pub mod ws_stream;

/// A target; it panics if the input reveals a fault.
pub type Check = fn(&[u8]);

/// All targets by name; a target's corpus is `corpus/<name>/`.
pub const TARGETS: [(&str, Check); 12] = [
    ("chunked_body", chunked_body::check),
    ("config", config::check),
    ("envelope", envelope::check),
    ("http2_connection", http2_connection::check),
    ("http2_head", http2_head::check),
    ("http_head", http_head::check),
    ("last_event_id", last_event_id::check),
    ("proxy_header", proxy_header::check),
    ("request_stream", request_stream::check),
    ("sse_stream", sse_stream::check),
    ("tls_records", tls_records::check),
    ("ws_stream", ws_stream::check),
];
