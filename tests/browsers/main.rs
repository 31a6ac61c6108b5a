//! Real browsers. Pages with the browser's own `EventSource` live through restarts: none dies, and
//! each sees what it was sent once and in order, or is told of the gap. Half of them are warm: they
//! have published, so they have an idle connection over which a browser reconnects first. Pages
//! with our own client live through more than that.

mod cable;
mod client;
// Each test binary uses its own part of it.
#[path = "../common/mod.rs"]
mod common;
mod dashboard;
mod demos;
mod https;
mod restarts;
