//! What a worker is made with.

use std::sync::Arc;

use super::net::connection_count::ConnectionCount;
use crate::auth::{Gate, ProofKey};
use crate::config::Settings;
use crate::log::SharedHasher;
use crate::proto::cursor::Epoch;

/// What a worker is made with.
#[derive(Debug)]
pub struct Setup {
    /// Its number, from 0.
    pub worker: u16,
    /// The log's epoch.
    pub epoch: Epoch,
    /// The hasher all threads share.
    pub hasher: SharedHasher,
    /// Proves the names by which streams are refreshed.
    pub proof_key: ProofKey,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// Slots of the ring's descriptor table.
    pub slots: u32,
    /// Counts the connections of all workers.
    pub connection_count: Arc<ConnectionCount>,
    /// Who may do what.
    pub gate: Arc<Gate>,
    /// Seed for `retry:` jitter.
    pub seed: u64,
}
