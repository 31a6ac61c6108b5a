//! `pushline sub` and `pushline pub`.

pub mod sse;
