//! What is received: in order, through few buffers, and up to the end of the stream.

use pushline::ring::{Completion, Driver, Op, RecvEnd};

use crate::rig::Rig;
use crate::worlds::{Client, World};
use crate::{IN_BUFFERS, RECV_BUFFER_BYTES, RECV_BUFFERS};

on_all_drivers! {
    bytes_are_received_in_order_through_few_buffers,
    messages_that_just_fill_their_buffers_all_arrive,
    without_buffers_receiving_ends_and_loses_nothing,
    recv_stop_disarms_and_bytes_wait_for_the_next_start,
    eof_comes_behind_the_last_byte_and_sending_goes_on,
    eof_comes_behind_bytes_that_found_no_buffer,
    connections_that_compete_for_buffers_all_get_theirs,
}

fn bytes_are_received_in_order_through_few_buffers<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    rig.submit(&[Op::RecvStart(token)]);
    for round in 0..20 {
        let bytes = [round; RECV_BUFFER_BYTES * 2 + 1];
        client.write(&bytes);
        assert_eq!(rig.receive(token, bytes.len()), bytes);
    }
}

fn messages_that_just_fill_their_buffers_all_arrive<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    rig.submit(&[Op::RecvStart(token)]);
    for buffers in [1, 1, 2, usize::from(RECV_BUFFERS) - 1] {
        let bytes = vec![b'x'; RECV_BUFFER_BYTES * buffers];
        client.write(&bytes);
        assert_eq!(rig.receive(token, bytes.len()), bytes);
        rig.expect_silence();
    }
}

fn without_buffers_receiving_ends_and_loses_nothing<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    let bytes: Vec<u8> = (0..IN_BUFFERS + 10).map(|at| at as u8).collect();
    client.write(&bytes);
    rig.submit(&[Op::RecvStart(token)]);
    let mut lent = Vec::new();
    loop {
        match rig.next() {
            Completion::Received { buffer, .. } => lent.push(buffer),
            other => {
                let why = RecvEnd::NoBuffers;
                assert_eq!(other, Completion::RecvEnded { token, why });
                break;
            }
        }
    }
    assert_eq!(lent.len(), usize::from(RECV_BUFFERS));
    let mut seen = Vec::new();
    for buffer in lent {
        seen.extend(rig.take(buffer));
    }
    rig.submit(&[Op::RecvStart(token)]);
    seen.extend(rig.receive(token, 10));
    assert_eq!(seen, bytes);
    assert_eq!(rig.world.driver().stats().no_buffers, 1);
}

fn recv_stop_disarms_and_bytes_wait_for_the_next_start<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    rig.submit(&[Op::RecvStart(token)]);
    rig.submit(&[Op::RecvStop(token)]);
    assert_eq!(rig.next(), Completion::RecvEnded { token, why: RecvEnd::Disarmed });
    client.write(b"later");
    rig.expect_silence();
    rig.submit(&[Op::RecvStart(token)]);
    assert_eq!(rig.receive(token, 5), b"later");
}

fn eof_comes_behind_the_last_byte_and_sending_goes_on<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    client.write(b"last");
    client.finish();
    rig.submit(&[Op::RecvStart(token)]);
    assert_eq!(rig.receive(token, 4), b"last");
    let eof = Completion::RecvEnded { token, why: RecvEnd::Eof };
    assert_eq!(rig.next(), eof);
    assert_eq!(rig.send(token, b"bye"), []);
    assert_eq!(client.read_exactly(3), b"bye");
    rig.submit(&[Op::RecvStart(token)]);
    assert_eq!(rig.next(), eof, "and stays");
}

fn eof_comes_behind_bytes_that_found_no_buffer<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    let bytes: Vec<u8> = (0..IN_BUFFERS * 3 + 10).map(|at| at as u8).collect();
    client.write(&bytes);
    client.finish();
    let (mut seen, mut ends) = (Vec::new(), 0);
    rig.submit(&[Op::RecvStart(token)]);
    loop {
        match rig.next() {
            Completion::Received { buffer, .. } => seen.extend(rig.take(buffer)),
            Completion::RecvEnded { why: RecvEnd::NoBuffers, .. } => {
                ends += 1;
                rig.submit(&[Op::RecvStart(token)]);
            }
            other => {
                assert_eq!(other, Completion::RecvEnded { token, why: RecvEnd::Eof });
                break;
            }
        }
    }
    assert!(seen == bytes, "{} of {} bytes", seen.len(), bytes.len());
    assert_eq!(rig.world.driver().stats().no_buffers, ends);
}

fn connections_that_compete_for_buffers_all_get_theirs<W: World>() {
    let (mut rig, mut first, a) = Rig::<W>::with_client();
    let (mut second, b) = rig.connect();
    let bytes: Vec<u8> = (0..IN_BUFFERS * 2).map(|at| at as u8).collect();
    first.write(&bytes);
    second.write(&bytes);
    let mut seen = [Vec::new(), Vec::new()];
    rig.submit(&[Op::RecvStart(a), Op::RecvStart(b)]);
    while seen.iter().any(|seen| seen.len() < bytes.len()) {
        match rig.next() {
            Completion::Received { token, buffer } => {
                seen[token.slot as usize].extend(rig.take(buffer));
            }
            Completion::RecvEnded { token, why: RecvEnd::NoBuffers } => {
                rig.submit(&[Op::RecvStart(token)]);
            }
            other => panic!("wrong news: {other:?}"),
        }
    }
    assert!(seen == [bytes.clone(), bytes], "torn");
}
