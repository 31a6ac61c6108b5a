//! What clients of a server need on the wire, for all tools.

pub mod url;
