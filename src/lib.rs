//! Pushline: a push server for Linux. One ordered log of events, and every connection a cursor
//! into it.

pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod doctor;
pub mod limits;
pub mod load;
pub mod log;
pub mod mesh;
pub mod metrics;
pub mod proto;
pub mod reason;
pub mod ring;
pub mod server;
pub mod worker;
