//! Peers that are gone, and who is told so first.

use std::time::Instant;

use pushline::ring::{Completion, Op, RecvEnd, Token};

use crate::LONG_MESSAGE_BYTES;
use crate::rig::{PATIENCE, Rig};
use crate::worlds::{Client, End, World};

on_all_drivers! {
    a_reset_is_told_once_to_receiving_and_then_sends_fail,
    a_reset_is_told_to_a_send_that_comes_first,
    a_reset_of_a_connection_that_waits_to_be_accepted_is_told_when_it_receives,
    a_reset_while_receiving_is_disarmed_is_told_when_it_is_armed_again,
    a_reset_is_told_to_a_sender_that_waits_for_room,
    a_reset_behind_our_own_end_is_told_to_receiving,
    a_reset_behind_the_peers_own_end_fails_the_next_send,
    bytes_that_came_before_a_reset_are_still_received,
    a_client_that_closes_with_unread_bytes_resets,
    the_first_send_to_a_closed_client_is_taken_and_the_next_fails,
}

fn a_reset_is_told_once_to_receiving_and_then_sends_fail<W: World>() {
    let (mut rig, client, token) = Rig::<W>::with_client();
    rig.submit(&[Op::RecvStart(token)]);
    client.reset();
    let why = RecvEnd::Failed(libc::ECONNRESET);
    assert_eq!(rig.next(), Completion::RecvEnded { token, why });
    let failed = Completion::SendFailed { token, errno: libc::EPIPE };
    assert_eq!(rig.send(token, b"x"), [failed]);
    rig.submit(&[Op::RecvStart(token)]);
    assert_eq!(rig.next(), Completion::RecvEnded { token, why: RecvEnd::Eof });
}

fn a_reset_is_told_to_a_send_that_comes_first<W: World>() {
    let (mut rig, client, token) = Rig::<W>::with_client();
    client.reset();
    rig.submit(&[Op::PollOut(token)]);
    assert_eq!(rig.next(), Completion::Writable { token });
    let failed = |errno| Completion::SendFailed { token, errno };
    assert_eq!(rig.send(token, b"x"), [failed(libc::ECONNRESET)]);
    assert_eq!(rig.send(token, b"x"), [failed(libc::EPIPE)]);
}

fn a_reset_of_a_connection_that_waits_to_be_accepted_is_told_when_it_receives<W: World>() {
    let mut rig = Rig::<W>::new();
    rig.world.connect().reset();
    let Completion::Accepted { slot, .. } = rig.next() else { panic!("not accepted") };
    let token = Token { slot, generation: 1 };
    rig.submit(&[Op::RecvStart(token)]);
    let why = RecvEnd::Failed(libc::ECONNRESET);
    assert_eq!(rig.next(), Completion::RecvEnded { token, why });
}

fn a_reset_while_receiving_is_disarmed_is_told_when_it_is_armed_again<W: World>() {
    for unread in [&b""[..], b"unread"] {
        let (mut rig, mut client, token) = Rig::<W>::with_client();
        rig.submit(&[Op::RecvStart(token)]);
        rig.submit(&[Op::RecvStop(token)]);
        assert_eq!(rig.next(), Completion::RecvEnded { token, why: RecvEnd::Disarmed });
        client.write(unread);
        client.reset();
        rig.expect_silence();
        rig.submit(&[Op::RecvStart(token)]);
        assert_eq!(rig.receive(token, unread.len()), unread);
        let why = RecvEnd::Failed(libc::ECONNRESET);
        assert_eq!(rig.next(), Completion::RecvEnded { token, why });
    }
}

fn a_reset_is_told_to_a_sender_that_waits_for_room<W: World>() {
    let (mut rig, client, token) = Rig::<W>::with_client();
    let message = vec![7; LONG_MESSAGE_BYTES];
    assert!(matches!(rig.send(token, &message)[..], [Completion::SendShort { .. }]));
    rig.submit(&[Op::PollOut(token)]);
    rig.expect_silence();
    client.reset();
    assert_eq!(rig.next(), Completion::Writable { token });
    let failed = |errno| Completion::SendFailed { token, errno };
    assert_eq!(rig.send(token, b"x"), [failed(libc::ECONNRESET)]);
}

fn a_reset_behind_our_own_end_is_told_to_receiving<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    rig.submit(&[Op::RecvStart(token), Op::Shutdown(token)]);
    assert_eq!(client.read(), Err(End::Eof));
    client.reset();
    let why = RecvEnd::Failed(libc::ECONNRESET);
    assert_eq!(rig.next(), Completion::RecvEnded { token, why });
}

fn a_reset_behind_the_peers_own_end_fails_the_next_send<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    rig.submit(&[Op::RecvStart(token)]);
    client.finish();
    assert_eq!(rig.next(), Completion::RecvEnded { token, why: RecvEnd::Eof });
    client.reset();
    rig.submit(&[Op::PollOut(token)]);
    assert_eq!(rig.next(), Completion::Writable { token });
    let failed = Completion::SendFailed { token, errno: libc::EPIPE };
    assert_eq!(rig.send(token, b"x"), [failed]);
}

fn bytes_that_came_before_a_reset_are_still_received<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    client.write(b"last");
    client.reset();
    rig.submit(&[Op::RecvStart(token)]);
    assert_eq!(rig.receive(token, 4), b"last");
    let why = RecvEnd::Failed(libc::ECONNRESET);
    assert_eq!(rig.next(), Completion::RecvEnded { token, why });
}

fn a_client_that_closes_with_unread_bytes_resets<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    assert_eq!(rig.send(token, b"never read"), []);
    client.await_unread(10);
    rig.submit(&[Op::RecvStart(token)]);
    drop(client);
    let why = RecvEnd::Failed(libc::ECONNRESET);
    assert_eq!(rig.next(), Completion::RecvEnded { token, why });
}

fn the_first_send_to_a_closed_client_is_taken_and_the_next_fails<W: World>() {
    let (mut rig, client, token) = Rig::<W>::with_client();
    rig.submit(&[Op::RecvStart(token)]);
    drop(client);
    assert_eq!(rig.next(), Completion::RecvEnded { token, why: RecvEnd::Eof });
    assert_eq!(rig.send(token, b"x"), []);
    let start = Instant::now();
    let told = loop {
        // Until the client's reset has come back a send is taken.
        match rig.send(token, b"x") {
            taken if taken.is_empty() => assert!(start.elapsed() < PATIENCE, "it never came"),
            told => break told,
        }
    };
    assert_eq!(told, [Completion::SendFailed { token, errno: libc::EPIPE }]);
}
