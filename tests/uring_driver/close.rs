//! Closing: the peer notices at once, whatever else the ring holds.

use std::io::Write;
use std::time::{Duration, Instant};

use pushline::ring::{Completion, Driver, Op, Wait};

use crate::sockets::held;
use crate::{PATIENCE, Rig, closes_in_two_steps, read_one, settings};

/// Before Linux 6.13 a ring releases closed descriptors in order, and only when every operation
/// that began before has ended: one idle connection would keep all later ones open.
#[test]
fn a_close_is_heard_while_older_connections_stay_armed() {
    let mut rig = Rig::new(&settings());
    let (_idle, older) = rig.connect();
    rig.turn(&[Op::RecvStart(older)], Wait::No);
    let (mut peer, token) = rig.connect();
    rig.turn(&[Op::RecvStart(token)], Wait::No);
    rig.turn(&[Op::Close(token)], Wait::No);
    assert_eq!(read_one(&mut peer).expect("a FIN in time"), 0);
}

/// Closed sockets are released even while an older connection stays: on new kernels at once, on
/// older ones all but a bounded rest. The older connection notices nothing.
#[test]
fn closed_sockets_do_not_pile_up_behind_an_idle_connection() {
    const CLOSES: usize = 1000;
    const LINGERING_MAX: usize = 300;
    let mut rig = Rig::new(&settings());
    let (mut idle, older) = rig.connect();
    rig.turn(&[Op::RecvStart(older)], Wait::No);
    let mut peers = Vec::new();
    for _ in 0..CLOSES {
        let (peer, token) = rig.connect();
        peers.push(peer);
        rig.turn(&[Op::RecvStart(token)], Wait::No);
        rig.turn(&[Op::Close(token)], Wait::No);
    }
    for peer in &mut peers {
        assert_eq!(read_one(peer).expect("a FIN in time"), 0);
    }
    // From there on there is no shutdown: only a socket that was released sends FIN.
    if closes_in_two_steps() {
        let end = Instant::now() + PATIENCE;
        while held(rig.address.port()) > 1 + LINGERING_MAX {
            assert!(Instant::now() < end, "{} are held", held(rig.address.port()));
            rig.turn(&[], Wait::AtMost(Duration::from_millis(20)));
        }
    }
    idle.write_all(b"still here").unwrap();
    let buffer = rig.await_received(older);
    assert_eq!(rig.driver.received(buffer), b"still here");
    let ended =
        |c: &Completion| matches!(c, Completion::RecvEnded { token, .. } if *token == older);
    assert!(!rig.heard.iter().any(ended));
}
