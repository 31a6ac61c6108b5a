//! Who is let in, and what becomes of those for whom there is no slot.

use std::collections::VecDeque;

use pushline::ring::{Completion, Layer, Op, Token};

use crate::SLOTS;
use crate::rig::Rig;
use crate::worlds::{Client, End, World};

on_all_drivers! {
    accepted_connections_take_the_lowest_slots,
    a_full_table_ends_accepting_and_turns_one_away,
    each_accept_into_a_full_table_turns_one_away_and_the_rest_waits,
    accept_stop_leaves_connections_in_the_backlog,
    leaving_the_port_takes_who_waits_and_refuses_who_comes,
}

fn accepted_connections_take_the_lowest_slots<W: World>() {
    let (mut rig, _first, first) = Rig::<W>::with_client();
    let (_second, second) = rig.connect();
    assert_eq!((first.slot, second.slot), (0, 1));
    rig.expect_silence();
}

fn a_full_table_ends_accepting_and_turns_one_away<W: World>() {
    let (mut rig, _first, token) = Rig::<W>::with_client();
    let (_second, _) = rig.connect();
    let mut turned_away = rig.world.connect();
    assert_eq!(rig.next(), Completion::AcceptEnded { errno: libc::ENFILE });
    assert_eq!(turned_away.read(), Err(End::Eof));
    let mut waiting = rig.world.connect();
    rig.expect_silence();
    rig.submit(&[Op::Close(token), Op::AcceptStart]);
    assert_eq!(
        rig.next(),
        Completion::Accepted { slot: token.slot, peer: None, layer: Layer::Plain }
    );
    let again = Token { slot: token.slot, generation: token.generation + 10 };
    assert_eq!(rig.send(again, b"welcome"), []);
    assert_eq!(waiting.read_exactly(7), b"welcome");
}

fn each_accept_into_a_full_table_turns_one_away_and_the_rest_waits<W: World>() {
    const WAITING: usize = 5;
    let mut rig = Rig::<W>::new();
    let mut held: Vec<_> = (0..SLOTS).map(|_| rig.world.connect()).collect();
    for slot in 0..SLOTS {
        assert_eq!(rig.next(), Completion::Accepted { slot, peer: None, layer: Layer::Plain });
    }
    let mut token = Token { slot: 0, generation: 1 };
    let mut waiting: VecDeque<_> = (0..WAITING).map(|_| rig.world.connect()).collect();
    while let Some(mut turned_away) = waiting.pop_front() {
        assert_eq!(rig.next(), Completion::AcceptEnded { errno: libc::ENFILE });
        assert_eq!(turned_away.read(), Err(End::Eof));
        rig.expect_silence();
        let Some(mut next) = waiting.pop_front() else { return };
        rig.submit(&[Op::Close(token), Op::AcceptStart]);
        assert_eq!(rig.next(), Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain });
        token.generation += 1;
        // The next one may be refused in this turn already.
        let heard = rig.send(token, b"welcome");
        rig.heard.extend(heard);
        assert_eq!(next.read_exactly(7), b"welcome");
        held.push(next);
    }
}

fn accept_stop_leaves_connections_in_the_backlog<W: World>() {
    let mut rig = Rig::<W>::new();
    rig.submit(&[Op::AcceptStop]);
    assert_eq!(rig.next(), Completion::AcceptEnded { errno: 0 });
    let _waiting = rig.world.connect();
    rig.expect_silence();
    rig.submit(&[Op::AcceptStart]);
    assert_eq!(rig.next(), Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain });
}

fn leaving_the_port_takes_who_waits_and_refuses_who_comes<W: World>() {
    let mut rig = Rig::<W>::new();
    let mut waiting = rig.world.connect();
    rig.submit(&[Op::ListenStop]);
    assert_eq!(rig.next(), Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain });
    assert_eq!(rig.next(), Completion::AcceptEnded { errno: 0 });
    assert!(rig.world.is_refused());
    let token = Token { slot: 0, generation: 1 };
    assert_eq!(rig.send(token, b"served"), []);
    assert_eq!(waiting.read_exactly(6), b"served");
}
