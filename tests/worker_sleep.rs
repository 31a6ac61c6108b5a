//! A worker sleeps only when there is nothing left to do. What a send became is known one turn
//! after it was submitted, without a completion; a worker that slept over it would close an
//! answered connection, or go on with a long replay, a tick later.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;
use pushline::auth::Gate;
use pushline::config::Settings;
use pushline::log::SharedHasher;
use pushline::metrics::WorkerMetrics;
use pushline::proto::cursor::Epoch;
use pushline::ring::{Completion, Op, Token, Wait};
use pushline::worker::census::{ByAddress, Census};
use pushline::worker::core::{Core, Setup};

const SLOT: Token = Token { slot: 0, generation: 0 };

fn worker() -> Core {
    let setup = Setup {
        worker: 0,
        epoch: Epoch::from_random(1),
        hasher: SharedHasher::from_seed(1),
        settings: Arc::new(Settings::default()),
        slots: 1000,
        census: Arc::new(Census::new(1000, ByAddress::Ignored)),
        gate: Arc::new(Gate::open()),
        seed: 1,
    };
    Core::new(setup, bounded(8).0, Arc::new(WorkerMetrics::default()))
}

/// One turn with these completions; what it wants done.
fn turn(core: &mut Core, completions: &[Completion], bytes: &[u8]) -> Vec<Op> {
    core.batch().ops.clear();
    core.begin_turn(Duration::from_millis(1), 1_800_000_000, completions);
    for completion in completions {
        core.complete(*completion, bytes);
    }
    core.end_turn();
    core.batch().ops.to_vec()
}

#[test]
fn an_answered_connection_is_closed_in_the_next_turn_and_that_turn_comes_at_once() {
    let mut core = worker();
    turn(&mut core, &[Completion::Accepted { slot: 0, peer: None }], b"");
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let received = Completion::Received { token: SLOT, buffer: pushline::ring::BufferId(0) };
    let answered = turn(&mut core, &[received], request);
    assert!(answered.iter().any(|op| matches!(op, Op::Send { .. })), "{answered:?}");
    assert_eq!(core.wait(), Wait::No, "the send has to be settled");
    let closed = turn(&mut core, &[], b"");
    assert!(closed.iter().any(|op| matches!(op, Op::Close(_) | Op::Shutdown(_))), "{closed:?}");
    assert_ne!(core.wait(), Wait::No, "there is nothing left to do");
}
