//! What is sent: whole and silently, or in part and said so.

use std::collections::BTreeSet;
use std::time::Instant;

use pushline::ring::{Completion, Op, Token};

use crate::LONG_MESSAGE_BYTES;
use crate::rig::{PATIENCE, Rig};
use crate::worlds::{Client, Sizes, World};

/// Cut at each of its bytes.
const SMALL_MESSAGE_BYTES: usize = 24;

/// What a connection takes at once while that happens, and how much it is sent.
const LITTLE_ROOM_BYTES: u32 = 4 * 1024;
const MESSAGES_BYTES: usize = 256 * 1024;

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

/// Where a socket cuts a long send is up to it, but much the same each time: if the send begins at
/// another byte of the first message, the cut is at another byte, too.
fn a_send_cut_at_any_byte_goes_on_there<W: World>() {
    let sizes = Sizes { room_to_send: Some(LITTLE_ROOM_BYTES), ..Sizes::default() };
    let (mut rig, mut client, token) = Rig::<W>::with_client_of(W::of(sizes));
    let mut never: BTreeSet<usize> = (1..SMALL_MESSAGE_BYTES).collect();
    let (mut first, start) = (0, Instant::now());
    while let Some(&wanted) = never.first() {
        assert!(start.elapsed() < PATIENCE, "never cut at {never:?}");
        let messages = (0..SMALL_MESSAGE_BYTES as u8).cycle().skip(first);
        let bytes: Vec<u8> = messages.take(MESSAGES_BYTES).collect();
        let cuts = send_all(&mut rig, &mut client, token, &bytes);
        for cut in &cuts {
            never.remove(&((first + cut) % SMALL_MESSAGE_BYTES));
        }
        let next_cut = cuts[0] % SMALL_MESSAGE_BYTES;
        first = (SMALL_MESSAGE_BYTES + wanted - next_cut) % SMALL_MESSAGE_BYTES;
    }
}

fn a_short_send_goes_on_after_poll_out_and_no_byte_is_torn<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    let message: Vec<u8> = (0..LONG_MESSAGE_BYTES).map(|at| (at / 251) as u8).collect();
    send_all(&mut rig, &mut client, token, &message);
    rig.expect_silence();
}

/// Sends more than the socket takes at once, going on where it was cut, and checks what the client
/// sees; returns the cuts.
fn send_all<W: World>(
    rig: &mut Rig<W>,
    client: &mut W::Client,
    token: Token,
    message: &[u8],
) -> Vec<usize> {
    let (mut sent, mut seen, mut cuts) = (0, Vec::new(), Vec::new());
    // Behind bytes of others in the arena, as in a worker's turn.
    rig.batch.arena = [&[0xff; 7], message].concat();
    let to = rig.batch.arena.len() as u32;
    while sent < message.len() {
        let from = to - (message.len() - sent) as u32;
        match rig.turn(&[Op::Send { token, from, to }])[..] {
            [] => sent = message.len(),
            [Completion::SendShort { token: whose, taken }] => {
                assert_eq!(whose, token);
                sent += taken as usize;
                cuts.push(sent);
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
    assert!(!cuts.is_empty(), "never short");
    let left = message.len() - seen.len();
    seen.extend(client.read_exactly(left));
    assert!(seen == message, "torn");
    cuts
}

fn poll_out_is_one_shot<W: World>() {
    let (mut rig, _client, token) = Rig::<W>::with_client();
    rig.submit(&[Op::PollOut(token)]);
    assert_eq!(rig.next(), Completion::Writable { token });
    rig.expect_silence();
}
