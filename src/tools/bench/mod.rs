//! The load generator behind `pushline bench`.
//!
//! One parent process plans the run, publishes, watches the server and writes the report; client
//! processes, each with its own epoll loop, hold the connections (a process can only hold a limited
//! number of descriptors). They are this same program started again with [`CLIENT_COMMAND`], and
//! talk to the parent in JSON lines over their standard input and output.
//!
//! Every event carries the run, its channel, a sequence number and the time it was published, so
//! that each client can tell lost, repeated and reordered events apart without any bookkeeping
//! but one number per subscriber. With HTTP/2 a connection carries many subscribers. Nothing here depends on the server being Pushline: rivals are
//! measured by the same client.

mod args;
mod client;
mod connection;
mod error;
mod fleet;
mod handshakes;
mod http2;
mod link;
mod messages;
mod observe;
mod payload;
mod phases;
mod plan;
mod plot;
mod publisher;
mod rates;
mod reading;
mod report;
mod sealed;
mod stream;
mod subscriber;
mod table;
mod tally;

pub use args::{BenchArgs, Transport};
pub use client::run as run_client;
pub use phases::run;

/// The hidden subcommand that turns this program into one client process; it takes no arguments.
pub const CLIENT_COMMAND: &str = "bench-client";

/// The time in nanoseconds on the clock that all processes of one machine share.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
