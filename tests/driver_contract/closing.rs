//! Our own end of a connection, and the next life of its slot.

use pushline::ring::{Completion, Layer, Op, Token};

use crate::rig::Rig;
use crate::worlds::{Client, End, World};

on_all_drivers! {
    shutdown_ends_the_stream_and_receiving_goes_on,
    a_close_behind_a_send_delivers_it_and_says_nothing,
    a_close_with_unread_bytes_resets_the_client,
    a_closed_slot_lives_again_and_nothing_of_the_former_life_is_heard,
    what_a_former_life_left_behind_is_not_heard_in_the_turn_its_slot_lives_again,
}

fn shutdown_ends_the_stream_and_receiving_goes_on<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    assert_eq!(rig.send(token, b"bye"), []);
    rig.submit(&[Op::RecvStart(token), Op::Shutdown(token)]);
    assert_eq!(client.read_exactly(3), b"bye");
    assert_eq!(client.read(), Err(End::Eof));
    client.write(b"more");
    assert_eq!(rig.receive(token, 4), b"more");
}

fn a_close_behind_a_send_delivers_it_and_says_nothing<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    rig.submit(&[Op::RecvStart(token)]);
    rig.batch.arena = b"bye".to_vec();
    let send = Op::Send { token, from: 0, to: 3 };
    assert_eq!(rig.turn(&[send, Op::Close(token)]), []);
    assert_eq!(client.read_exactly(3), b"bye");
    assert_eq!(client.read(), Err(End::Eof));
    rig.expect_silence();
}

fn a_close_with_unread_bytes_resets_the_client<W: World>() {
    let (mut rig, mut client, token) = Rig::<W>::with_client();
    client.write_unread(b"never read");
    rig.submit(&[Op::Close(token)]);
    let end = client.read();
    assert!(
        end == Err(End::Reset) || (W::closes_in_two_steps() && end == Err(End::Eof)),
        "{end:?}"
    );
}

fn a_closed_slot_lives_again_and_nothing_of_the_former_life_is_heard<W: World>() {
    let (mut rig, mut former, token) = Rig::<W>::with_client();
    rig.submit(&[Op::RecvStart(token)]);
    former.write(b"unheard");
    rig.turn(&[Op::Close(token)]);
    if W::closes_in_two_steps() {
        rig.expect_silence();
    }
    let (mut client, again) = rig.connect();
    assert_eq!(again.slot, token.slot);
    client.write(b"heard");
    rig.submit(&[Op::RecvStart(again)]);
    assert_eq!(rig.receive(again, 5), b"heard");
    rig.expect_silence();
}

fn what_a_former_life_left_behind_is_not_heard_in_the_turn_its_slot_lives_again<W: World>() {
    let (mut rig, mut former, token) = Rig::<W>::with_client();
    let (_other, _) = rig.connect();
    rig.submit(&[Op::RecvStart(token), Op::PollOut(token), Op::AcceptStop]);
    while rig.next() != (Completion::AcceptEnded { errno: 0 }) {}
    rig.heard.clear();
    let mut client = rig.world.connect();
    former.write(b"unheard");
    former.reset();
    rig.batch.ops.extend([Op::Close(token), Op::AcceptStart]);
    let again = Token { slot: token.slot, generation: token.generation + 10 };
    assert_eq!(
        rig.next(),
        Completion::Accepted { slot: again.slot, peer: None, layer: Layer::Plain }
    );
    client.write(b"heard");
    rig.submit(&[Op::RecvStart(again)]);
    assert_eq!(rig.receive(again, 5), b"heard");
    rig.expect_silence();
}
