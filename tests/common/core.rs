//! A worker without threads and sockets, for tests that decide what happens in which turn.

use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};
use pushline::auth::{Gate, ProofKey};
use pushline::config::Settings;
use pushline::log::SharedHasher;
use pushline::log::message::ToLog;
use pushline::metrics::WorkerMetrics;
use pushline::proto::cursor::Epoch;
use pushline::worker::connection_count::{ByAddress, ConnectionCount};
use pushline::worker::{Core, Setup};

/// A worker with room for this many connections, and what it asks of the log.
pub fn core(gate: Gate, slots: u32) -> (Core, Receiver<ToLog>) {
    core_of(Settings::default(), gate, slots)
}

/// The same with these settings.
pub fn core_of(settings: Settings, gate: Gate, slots: u32) -> (Core, Receiver<ToLog>) {
    let setup = Setup {
        worker: 0,
        epoch: Epoch::from_random(1),
        hasher: SharedHasher::from_seed(1),
        proof_key: ProofKey::new(&[1; 32]),
        settings: Arc::new(settings),
        slots,
        connection_count: Arc::new(ConnectionCount::new(u64::from(slots), ByAddress::Ignored)),
        gate: Arc::new(gate),
        seed: 1,
    };
    let (ask, asked) = bounded(8);
    (Core::new(setup, ask, Arc::new(WorkerMetrics::default())), asked)
}
