//! A worker sleeps only when there is nothing left to do. What a send became is known one turn
//! after it was submitted, without a completion; a worker that slept over it would close an
//! answered connection, or go on with a long replay, a tick later.

mod common;

use std::time::Duration;

use pushline::auth::Gate;
use pushline::ring::{Completion, Op, Token, Wait};
use pushline::worker::core::Core;

const SLOT: Token = Token { slot: 0, generation: 0 };

fn worker() -> Core {
    common::core(Gate::open(), 1000).0
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
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let received = Completion::Received { token: SLOT, buffer: pushline::ring::BufferId(0) };
    let answered = turn(&mut core, &[received], request);
    assert!(answered.iter().any(|op| matches!(op, Op::Send { .. })), "{answered:?}");
    assert_eq!(core.wait(), Wait::No, "the send has to be settled");
    let closed = turn(&mut core, &[], b"");
    assert!(closed.iter().any(|op| matches!(op, Op::Close(_) | Op::Shutdown(_))), "{closed:?}");
    assert_ne!(core.wait(), Wait::No, "there is nothing left to do");
}
