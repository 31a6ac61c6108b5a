//! The log: the one order of all events, its history, and who wants to hear of what. Sans-IO.

pub mod event;
pub mod message;
