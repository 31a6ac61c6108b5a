//! Closing: the peer hears of it at once, whatever else the ring holds.

use std::io::Read;

use pushline::ring::{Op, Wait};

use crate::{Rig, settings};

/// Before Linux 6.13 a ring lets go of closed descriptors in order, and only when every operation
/// that was begun before has ended: one idle connection would keep all later ones open.
#[test]
fn a_close_is_heard_while_older_connections_stay_armed() {
    let mut rig = Rig::new(&settings());
    let (_idle, older) = rig.connect();
    rig.turn(&[Op::RecvStart(older)], Wait::No);
    let (mut peer, token) = rig.connect();
    rig.turn(&[Op::RecvStart(token)], Wait::No);
    rig.turn(&[Op::Close(token)], Wait::No);
    assert_eq!(peer.read(&mut [0; 1]).expect("a FIN in time"), 0);
}
