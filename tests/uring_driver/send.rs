//! Fire and forget: silence if all was taken, the exact count if not, never a torn stream.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use pushline::ring::uring::UringSettings;
use pushline::ring::{Completion, Driver, ListenOptions, Op, RecvEnd, Token, Wait};
use socket2::SockRef;

use crate::{PATIENCE, Rig, read_one, settings};

/// Closes with a reset instead of a FIN.
fn reset(peer: TcpStream) {
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
}

/// Bytes in which every position is recognisable.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).flat_map(|i| i.to_le_bytes()).take(bytes).collect()
}

#[test]
fn three_thousand_sends_in_one_turn_complete_silently() {
    const COUNT: usize = 3000;
    let mut rig = Rig::new(&UringSettings { slots: 4096, ..settings() });
    let mut peers = Vec::new();
    let mut tokens = Vec::new();
    for _ in 0..COUNT {
        let (peer, token) = rig.connect();
        peers.push(peer);
        tokens.push(token);
    }
    for round in 0..3u8 {
        let bytes = [round; 64];
        rig.batch.arena.clear();
        rig.batch.arena.extend_from_slice(&bytes);
        let sends: Vec<Op> =
            tokens.iter().map(|&token| Op::Send { token, from: 0, to: 64 }).collect();
        assert_eq!(rig.turn(&sends, Wait::No), []);
        assert_eq!(rig.batch.arena, bytes, "the arena is as it was");
        for peer in &mut peers {
            let mut got = [255; 64];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(got, bytes);
        }
    }
    let stats = rig.driver.stats();
    assert_eq!(stats.sends, 3 * COUNT as u64);
    assert_eq!(stats.sq_full, 3, "each of the batches was larger than the queue");
    assert_eq!((stats.stale, stats.cq_overflows), (0, 0));
}

#[test]
fn a_full_socket_tells_in_the_same_turn_how_much_it_took_and_resumes_without_loss() {
    let options = ListenOptions { send_buffer_bytes: Some(16 * 1024), ..Default::default() };
    let mut rig = Rig::with_listener(&settings(), &options);
    let (mut peer, token) = rig.connect();
    let message = pattern(1 << 20);
    let taken = rig.fill(token, &message);
    assert!(0 < taken && taken < message.len());
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all)
    });
    resume(&mut rig, token, &message, taken);
    rig.turn(&[Op::Close(token)], Wait::No);
    assert!(reader.join().unwrap().unwrap() == message, "every byte once and in order");
}

/// Sends `message[taken..]` as the socket takes it.
fn resume(rig: &mut Rig, token: Token, message: &[u8], mut taken: usize) {
    rig.batch.arena.clear();
    rig.batch.arena.extend_from_slice(message);
    while taken < message.len() {
        rig.turn(&[Op::PollOut(token), Op::PollOut(token)], Wait::No);
        rig.await_one(|c| *c == Completion::Writable { token });
        let send = Op::Send { token, from: taken as u32, to: message.len() as u32 };
        taken = match rig.turn(&[send], Wait::No)[..] {
            [] => message.len(),
            [Completion::SendShort { taken: more, .. }] => taken + more as usize,
            ref other => panic!("{other:?}"),
        };
        rig.heard.clear();
    }
}

#[test]
fn a_reset_that_has_arrived_fails_the_send_in_the_same_turn() {
    let mut rig = Rig::new(&settings());
    let (peer, token) = rig.connect();
    reset(peer);
    let end = Instant::now() + PATIENCE;
    let told = loop {
        // Loopback itself may take its time, and until the reset has arrived a send is taken.
        match rig.send(token, b"anyone there?") {
            taken if taken.is_empty() => assert!(Instant::now() < end, "the reset never came"),
            told => break told,
        }
    };
    assert_eq!(told, [Completion::SendFailed { token, errno: libc::ECONNRESET }]);
}

#[test]
fn a_reset_ends_receiving_with_its_errno() {
    let mut rig = Rig::new(&settings());
    let (peer, token) = rig.connect();
    rig.turn(&[Op::RecvStart(token)], Wait::No);
    reset(peer);
    assert_eq!(rig.await_recv_end(token), RecvEnd::Failed(libc::ECONNRESET));
    let told = rig.send(token, b"x");
    assert_eq!(told, [Completion::SendFailed { token, errno: libc::EPIPE }]);
}

#[test]
fn polling_a_broken_connection_tells_writable_and_the_send_tells_why() {
    let options = ListenOptions { send_buffer_bytes: Some(16 * 1024), ..Default::default() };
    let mut rig = Rig::with_listener(&settings(), &options);
    let (peer, token) = rig.connect();
    rig.fill(token, &pattern(1 << 20));
    rig.turn(&[Op::PollOut(token)], Wait::No);
    reset(peer);
    rig.await_one(|c| *c == Completion::Writable { token });
    let told = rig.send(token, b"x");
    assert!(matches!(told[..], [Completion::SendFailed { .. }]), "{told:?}");
}

#[test]
fn after_a_half_close_receiving_goes_on() {
    let mut rig = Rig::new(&settings());
    let (mut peer, token) = rig.connect();
    rig.turn(&[Op::RecvStart(token), Op::Shutdown(token)], Wait::No);
    // The shutdown runs on a kernel thread: the peer's read waits for it.
    assert_eq!(read_one(&mut peer).unwrap(), 0);
    peer.write_all(b"late").unwrap();
    let buffer = rig.await_received(token);
    assert_eq!(rig.driver.received(buffer), b"late");
    rig.driver.recycle(buffer);
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.await_recv_end(token), RecvEnd::Eof);
}

/// A shutdown looks its descriptor up when it runs, which can be after a close submitted after it,
/// and after the slot was given to another connection. The driver holds the close back.
#[test]
fn a_shutdown_never_hits_the_next_owner_of_the_slot() {
    let mut rig = Rig::new(&UringSettings { slots: 2, ..settings() });
    for _ in 0..200 {
        let (mut first, token) = rig.connect();
        rig.turn(&[Op::Shutdown(token), Op::Close(token)], Wait::No);
        let (mut second, token) = rig.connect();
        assert_eq!(rig.send(token, b"alive"), []);
        second.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(read_one(&mut first).unwrap(), 0);
        assert_eq!(rig.send(token, b"still alive"), []);
        second.read_exact(&mut [0; 11]).unwrap();
        rig.turn(&[Op::Close(token)], Wait::No);
        assert_eq!(read_one(&mut second).unwrap(), 0);
    }
}
