//! The server on real sockets, in this process or as the binary: what clients and the operator see.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod admin;
mod attributes;
mod drain;
mod http2;
mod http_surface;
mod limits;
mod log_lines;
mod metrics;
mod nodes;
mod presence;
mod real_clients;
mod resume_contract;
mod slow_consumers;
mod sse_streams;
mod start;
mod streams;
mod tls;
mod websockets;
mod worker_access;
mod worker_half_close;
mod worker_turns;
