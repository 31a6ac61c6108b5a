//! What is sent: whole and silently, or in part and said so.

use pushline::ring::{Completion, Op};

use crate::LONG_MESSAGE_BYTES;
use crate::rig::Rig;
use crate::worlds::{Client, World};

/// Cut at each of its bytes.
const SMALL_MESSAGE_BYTES: usize = 24;

on_all_drivers! {
    a_send_that_fits_is_silent,
    a_send_cut_at_any_byte_goes_on_there,
    a_short_send_goes_on_after_poll_out_and_no_byte_is_torn,
    poll_out_is_one_shot,
}

fn a_send_that_fits_is_silent<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    assert_eq!(rig.send(token, b"hello"), []);
    assert_eq!(client.read_exactly(5), b"hello");
    rig.expect_silence();
}

fn a_send_cut_at_any_byte_goes_on_there<W: World>() {
    let message: Vec<u8> = (0..SMALL_MESSAGE_BYTES).map(|at| at as u8).collect();
    for room in 1..message.len() {
        let world = W::with_room_to_send(room);
        let (mut rig, mut client, token) = Rig::<W>::with_client_of(world);
        let (mut sent, mut seen) = (0, Vec::new());
        // After bytes of others in the arena, as in a worker's turn.
        rig.batch.arena.extend([0xff; 7]);
        rig.batch.arena.extend(&message);
        let to = rig.batch.arena.len() as u32;
        while sent < message.len() {
            let from = to - (message.len() - sent) as u32;
            match rig.turn(&[Op::Send { token, from, to }])[..] {
                [] => sent = message.len(),
                [Completion::SendShort { taken, .. }] => sent += taken as usize,
                ref other => panic!("wrong news: {other:?}"),
            }
            if seen.len() < sent {
                seen.extend(client.read().expect("the stream goes on"));
            }
        }
        let left = message.len() - seen.len();
        seen.extend(client.read_exactly(left));
        assert_eq!(seen, message, "room for {room}");
    }
}

fn a_short_send_goes_on_after_poll_out_and_no_byte_is_torn<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    let message: Vec<u8> = (0..LONG_MESSAGE_BYTES).map(|at| (at / 251) as u8).collect();
    let (mut sent, mut seen, mut shorts) = (0, Vec::new(), 0);
    while sent < message.len() {
        match rig.send(token, &message[sent..])[..] {
            [] => sent = message.len(),
            [Completion::SendShort { token: whose, taken }] => {
                assert_eq!(whose, token);
                (sent, shorts) = (sent + taken as usize, shorts + 1);
                rig.submit(&[Op::PollOut(token)]);
                while rig.heard.is_empty() {
                    seen.extend(client.read().expect("the stream goes on"));
                    rig.submit(&[]);
                }
                assert_eq!(rig.next(), Completion::Writable { token });
            }
            ref other => panic!("wrong news: {other:?}"),
        }
    }
    assert!(shorts > 0, "never short");
    let left = message.len() - seen.len();
    seen.extend(client.read_exactly(left));
    assert!(seen == message, "torn");
    rig.expect_silence();
}

fn poll_out_is_one_shot<W: World>() {
    let (mut rig, _client, token) = Rig::<W>::with_client();
    rig.submit(&[Op::PollOut(token)]);
    assert_eq!(rig.next(), Completion::Writable { token });
    rig.expect_silence();
}
