//! Receiving: nothing is lost when buffers or the completion queue run out, nothing comes late
//! after a close.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;

use pushline::ring::uring::UringSettings;
use pushline::ring::{BellTarget, Completion, Driver, Op, RecvEnd, Token, Wait};

use crate::sockets::await_unread;
use crate::{PATIENCE, Rig, closes_in_two_steps, read_one, settings};

#[test]
fn bytes_go_round_and_a_fin_ends_receiving() {
    let mut rig = Rig::new(&settings());
    let (mut peer, token) = rig.connect();
    rig.turn(&[Op::RecvStart(token)], Wait::No);
    for round in 0..100u32 {
        let message = format!("message {round}");
        peer.write_all(message.as_bytes()).unwrap();
        let buffer = rig.await_received(token);
        let echo = rig.driver.received(buffer).to_vec();
        assert_eq!(echo, message.as_bytes());
        rig.driver.recycle(buffer);
        assert_eq!(rig.send(token, &echo), [], "a send that fits is not heard of");
        let mut answer = vec![0; message.len()];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(answer, message.as_bytes());
    }
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.await_recv_end(token), RecvEnd::Eof);
    rig.turn(&[Op::Close(token)], Wait::No);
    assert_eq!(read_one(&mut peer).unwrap(), 0, "the peer sees the close");
    assert_eq!(rig.driver.stats().stale, 0);
}

/// On a connection that was heard before: the first time, a poll reports, and a receive is a second
/// call. Work of the kernel's own (an acknowledgement just then) may seldom cost one more call. If
/// a close takes two steps, that of the first connection is such work (seen on 6.12).
#[test]
fn a_turn_is_one_system_call() {
    let calls_max = if closes_in_two_steps() { 3 } else { 2 };
    assert!((0..10).any(|_| calls_of_two_turns() <= calls_max));
}

/// One turn receives a request, the next answers it and closes; returns how many system calls that
/// took.
fn calls_of_two_turns() -> u64 {
    let mut rig = Rig::new(&settings());
    let (mut peer, token) = rig.connect();
    rig.turn(&[Op::RecvStart(token)], Wait::No);
    peer.write_all(b"hello").unwrap();
    let hello = rig.await_received(token);
    rig.driver.recycle(hello);
    peer.write_all(b"ping").unwrap();
    let before = rig.driver.stats().enters;
    let heard = rig.turn(&[], Wait::Forever);
    let [Completion::Received { buffer, .. }] = heard[..] else { panic!("{heard:?}") };
    rig.driver.recycle(buffer);
    rig.batch.arena = b"pong".to_vec();
    let told = rig.turn(&[Op::Send { token, from: 0, to: 4 }, Op::Close(token)], Wait::No);
    assert_eq!(told, []);
    let calls = rig.driver.stats().enters - before;
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"pong", "operations take effect in their order");
    calls
}

/// The kernel runs about 20 pieces of deferred work per call; a turn must gather more than that, or
/// events that arrive together would not share their sends.
#[test]
fn a_burst_arrives_in_few_turns() {
    const COUNT: usize = 1000;
    let large = UringSettings { slots: 1024, recv_buffers: 1024, cq_entries: 2048, ..settings() };
    let mut rig = Rig::new(&large);
    let mut peers = Vec::new();
    for _ in 0..COUNT {
        let (peer, token) = rig.connect();
        rig.turn(&[Op::RecvStart(token)], Wait::No);
        peers.push(peer);
    }
    for peer in &mut peers {
        peer.write_all(b"now").unwrap();
    }
    await_unread(rig.address, COUNT * b"now".len());
    let mut turns = 0;
    while rig.heard.len() < COUNT {
        rig.turn(&[], Wait::AtMost(PATIENCE));
        turns += 1;
    }
    assert!(rig.heard.iter().all(|c| matches!(c, Completion::Received { .. })));
    assert!(turns <= 10, "{turns} turns");
}

#[test]
fn running_out_of_buffers_ends_receiving_and_loses_nothing() {
    let two = UringSettings { recv_buffers: 2, recv_buffer_bytes: 64, ..settings() };
    let mut rig = Rig::new(&two);
    let (mut peer, token) = rig.connect();
    let message: Vec<u8> = (0..1000u32).map(|i| i as u8).collect();
    peer.write_all(&message).unwrap();
    let mut got = Vec::new();
    while got.len() < message.len() {
        rig.turn(&[Op::RecvStart(token)], Wait::No);
        let why = rig.await_recv_end(token);
        let mut buffers = 0;
        while rig.heard.iter().any(|c| matches!(c, Completion::Received { .. })) {
            let buffer = rig.await_received(token);
            got.extend_from_slice(rig.driver.received(buffer));
            rig.driver.recycle(buffer);
            buffers += 1;
        }
        assert_eq!((why, buffers), (RecvEnd::NoBuffers, 2));
        if message.len() - got.len() <= 2 * 64 {
            break;
        }
    }
    rig.turn(&[Op::RecvStart(token)], Wait::No);
    while got.len() < message.len() {
        let buffer = rig.await_received(token);
        got.extend_from_slice(rig.driver.received(buffer));
        rig.driver.recycle(buffer);
    }
    assert_eq!(got, message);
    assert!(rig.driver.stats().no_buffers >= 7);
}

#[test]
fn stopped_receiving_says_so_and_resumes_with_what_arrived_meanwhile() {
    let mut rig = Rig::new(&settings());
    let (mut peer, token) = rig.connect();
    rig.turn(&[Op::RecvStart(token)], Wait::No);
    rig.turn(&[Op::RecvStop(token)], Wait::No);
    assert_eq!(rig.await_recv_end(token), RecvEnd::Disarmed);
    peer.write_all(b"meanwhile").unwrap();
    assert_eq!(rig.turn(&[Op::RecvStop(token)], Wait::No), [], "it is stopped already");
    assert_eq!(rig.turn(&[], Wait::No), []);
    rig.turn(&[Op::RecvStart(token)], Wait::No);
    let buffer = rig.await_received(token);
    assert_eq!(rig.driver.received(buffer), b"meanwhile");
}

#[test]
fn a_close_reaches_the_peer_while_receiving_and_polling_are_armed() {
    let options =
        pushline::ring::ListenOptions { send_buffer_bytes: Some(16 * 1024), ..Default::default() };
    let mut rig = Rig::with_listener(&settings(), &options);
    let (mut peer, token) = rig.connect();
    let taken = rig.fill(token, &vec![7; 1 << 20]);
    rig.turn(&[Op::RecvStart(token), Op::PollOut(token)], Wait::No);
    assert_eq!(rig.turn(&[Op::Close(token)], Wait::No), []);
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), taken, "all that was taken, then the end");
    assert_eq!(rig.turn(&[], Wait::No), [], "nothing is heard of a closed token");
    assert!(rig.driver.stats().stale >= 1, "cancelled operations are counted");
}

#[test]
fn what_arrives_for_a_closed_token_is_dropped_and_its_buffers_are_kept() {
    let few = UringSettings { slots: 1, recv_buffers: 4, ..settings() };
    let mut rig = Rig::new(&few);
    for life in 1..=50u64 {
        let (mut peer, token) = rig.connect();
        peer.write_all(b"too late").unwrap();
        await_unread(rig.address, b"too late".len());
        // Data has arrived, so the receive completes while the batch is submitted, before the
        // close.
        assert_eq!(rig.turn(&[Op::RecvStart(token), Op::Close(token)], Wait::No), []);
        assert!(rig.driver.stats().stale >= life);
    }
    let (mut peer, token) = rig.connect();
    assert_eq!(token, Token { slot: 0, generation: 51 });
    rig.turn(&[Op::RecvStart(token)], Wait::No);
    let mut held = Vec::new();
    for byte in 0..4 {
        peer.write_all(&[byte]).unwrap();
        held.push(rig.await_received(token));
    }
    let held: Vec<&[u8]> = held.iter().map(|&buffer| rig.driver.received(buffer)).collect();
    assert_eq!(held, [[0], [1], [2], [3]], "all four buffers are still there");
}

#[test]
fn a_tiny_completion_queue_loses_nothing() {
    const COUNT: usize = 60;
    let tiny = UringSettings { entries: 4, cq_entries: 4, recv_buffers: 128, ..settings() };
    let mut rig = Rig::new(&tiny);
    let (mut peers, mut tokens) = (Vec::new(), Vec::new());
    for _ in 0..COUNT {
        let (peer, token) = rig.connect();
        peers.push(peer);
        tokens.push(token);
        rig.turn(&[Op::RecvStart(token)], Wait::No);
    }
    for (i, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&[i as u8; 3]).unwrap();
    }
    for (i, &token) in tokens.iter().enumerate() {
        let buffer = rig.await_received(token);
        assert_eq!(rig.driver.received(buffer), [i as u8; 3]);
        rig.driver.recycle(buffer);
        // The kernel ends a multishot whose completion it had to park.
        if let Some(at) = rig
            .heard
            .iter()
            .position(|c| *c == Completion::RecvEnded { token, why: RecvEnd::Disarmed })
        {
            rig.heard.remove(at);
            rig.turn(&[Op::RecvStart(token)], Wait::No);
        }
    }
    assert!(rig.driver.stats().cq_overflows > 0, "the queue was too small on purpose");
    for peer in &peers {
        peer.shutdown(Shutdown::Write).unwrap();
    }
    for &token in &tokens {
        assert_eq!(rig.await_recv_end(token), RecvEnd::Eof);
    }
}

/// A connection that is seldom heard waits as a poll, which holds less of the kernel's memory.
#[test]
fn few_connections_hold_a_multishot_receive_and_the_others_a_poll() {
    const PEERS: usize = 8;
    let two = UringSettings { multishots: 2, ..settings() };
    let mut rig = Rig::new(&two);
    let mut pairs: Vec<_> = (0..PEERS).map(|_| rig.connect()).collect();
    for &(_, token) in &pairs {
        rig.turn(&[Op::RecvStart(token)], Wait::No);
    }
    assert_waiting(&mut rig, 0, PEERS);
    for round in 0..20u8 {
        for (peer, token) in &mut pairs {
            for word in [[round, 0], [round, 1], [round, 2]] {
                peer.write_all(&word).unwrap();
                let buffer = rig.await_received(*token);
                assert_eq!(rig.driver.received(buffer), word);
                rig.driver.recycle(buffer);
            }
        }
    }
    assert_waiting(&mut rig, 2, PEERS - 2);
    assert_eq!(rig.heard, [], "whose turn it is, is no news");
}

fn assert_waiting(rig: &mut Rig, receives: usize, polls: usize) {
    rig.turn(&[], Wait::No);
    let BellTarget::Ring(ring) = &rig.target else { return };
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", ring.as_raw_fd())).unwrap();
    let count = |code: u8| info.matches(&format!(" op={code},")).count();
    // Linux 6.1 does not list them.
    if count(io_uring::opcode::AcceptMulti::CODE) > 0 {
        let waiting = [io_uring::opcode::Recv::CODE, io_uring::opcode::PollAdd::CODE].map(count);
        assert_eq!(waiting, [receives, polls], "{info}");
    }
}
