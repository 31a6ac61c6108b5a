//! `pushline sub` and `pushline pub`: a subscriber and a publisher that reconnect by themselves.
//!
//! Blocking sockets and a few threads: a client has one connection. What can be pure is pure:
//! [`backoff`] says how long to wait, [`outbox`] knows which lines the server has not confirmed,
//! and [`super::wire`] reads what the server sends.

mod answer;
mod args;
pub mod backoff;
mod connection;
mod error;
mod event;
mod follow;
mod input;
pub mod outbox;
mod publish;
mod server;
mod stdin_lines;
mod tell;
mod websocket;

pub use args::{PubArgs, SubArgs};
pub use follow::subscribe;
pub use publish::publish;
pub use tell::{tell, tell_plainly};
