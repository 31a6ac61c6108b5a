//! What main tells a worker to do.

use std::sync::Arc;

use crate::auth::Gate;
use crate::config::Settings;

/// An order.
#[derive(Debug)]
pub enum Order {
    /// Accept no more, answer new requests 503, and let streams go bit by bit.
    Drain,
    /// End what is left and stop.
    Stop,
    /// New rules of access.
    Gate(Arc<Gate>),
    /// New settings; those that need a restart are as before.
    Settings(Arc<Settings>),
}
