//! What connections have to share.

use pushline::ring::{Completion, Op, RecvEnd};

use crate::rig::Rig;
use crate::worlds::{Client, Sizes, World};

const GREEDY: usize = 3;

/// As many as two connections may fill in a turn on the driver that has a bound for it.
const BUFFERS: u16 = 32;

/// Many turns' worth for each.
const WAITING_BYTES: usize = 64 * 1024;

on_sockets! {
    connections_that_could_fill_all_buffers_each_turn_leave_some_to_the_last,
}

fn connections_that_could_fill_all_buffers_each_turn_leave_some_to_the_last<W: World>() {
    let sizes = Sizes { slots: GREEDY as u32, recv_buffers: BUFFERS, ..Sizes::default() };
    let mut rig = Rig::<W>::of(W::of(sizes));
    let mut greedy: Vec<_> = (0..GREEDY).map(|_| rig.connect()).collect();
    for (client, token) in &mut greedy {
        client.write(&[7; WAITING_BYTES]);
        rig.batch.ops.push(Op::RecvStart(*token));
    }
    let mut seen = [0; GREEDY];
    while seen.contains(&0) {
        match rig.next() {
            Completion::Received { token, buffer } => {
                seen[token.slot as usize] += rig.take(buffer).len();
            }
            Completion::RecvEnded { token, why: RecvEnd::NoBuffers } => {
                rig.batch.ops.push(Op::RecvStart(token));
            }
            other => panic!("wrong news: {other:?}"),
        }
    }
    assert!(seen.iter().all(|&seen| seen < WAITING_BYTES), "one was read last: {seen:?}");
}
