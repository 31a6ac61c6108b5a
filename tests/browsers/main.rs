//! Browsers' pages live through restarts: no `EventSource` dies, and each page sees what it was sent
//! once and in order, or is told of the gap. Half of the pages are warm: they have published, so
//! they have an idle connection over which a browser reconnects first.

// Each test binary uses its own part of it.
#[path = "../common/mod.rs"]
mod common;
mod proxies;
mod restarts;
