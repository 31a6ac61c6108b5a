//! Pushline: a push server for Linux. One ordered log of events, and every connection a cursor
//! into it.

pub mod auth;
pub mod limits;
pub mod load;
pub mod log;
pub mod mesh;
pub mod metrics;
pub mod proto;
pub mod reason;
pub mod ring;
pub mod worker;
