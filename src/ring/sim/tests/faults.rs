//! Each fault does what it says: one that did nothing would make every simulation look good.

use std::time::Duration;

use rustix::io::Errno;

use super::{Rig, read_all};
use crate::ring::sim::{
    CERTAIN_PPM, Fault, Faults, LATE_MICROS_MAX, STALL_MICROS_MAX, SimClient, SimSettings,
};
use crate::ring::{Bell, Completion, Driver, Layer, Op, RecvEnd, Token};

const WIDE: SimSettings = SimSettings {
    workers: 1,
    slots_per_worker: 16,
    recv_buffers: 64,
    recv_buffer_bytes: 64,
    socket_buffer_bytes: 256,
};

fn always(fault: Fault) -> Faults {
    Faults::none().with(fault, CERTAIN_PPM)
}

/// Eight clients, all accepted in one turn, and the slots in the order they were reported.
fn eight(rig: &mut Rig) -> (Vec<SimClient>, Vec<u32>) {
    let clients = (0..8).map(|_| rig.net.connect()).collect();
    let completions = rig.turn(&[Op::AcceptStart]);
    let slots = completions.iter().map(|completion| match completion {
        Completion::Accepted { slot, .. } => *slot,
        _ => panic!("not accepted: {completion:?}"),
    });
    (clients, slots.collect())
}

#[test]
fn every_send_may_be_short_refused_or_followed_by_a_spurious_writable() {
    let (mut rig, _client, token) =
        Rig::with_client(Faults::none().with(Fault::RefusedSend, CERTAIN_PPM));
    assert_eq!(rig.send(token, b"ab"), [Completion::SendShort { token, taken: 0 }]);
    assert_eq!(rig.turn(&[Op::PollOut(token)]), [Completion::Writable { token }]);

    let (mut rig, mut client, token) =
        Rig::with_client(Faults::none().with(Fault::ShortSend, CERTAIN_PPM));
    let completions = rig.send(token, b"0123456789");
    let [Completion::SendShort { taken, .. }] = completions[..] else {
        panic!("not short: {completions:?}");
    };
    assert_eq!(read_all(&mut client), &b"0123456789"[..taken as usize]);

    let (mut rig, _client, token) =
        Rig::with_client(Faults::none().with(Fault::SpuriousWritable, CERTAIN_PPM));
    rig.send(token, &[0; 12]);
    assert_eq!(rig.turn(&[Op::PollOut(token)]), [Completion::Writable { token }]);
    assert_eq!(rig.send(token, b"x"), [Completion::SendShort { token, taken: 0 }]);
}

#[test]
fn receiving_may_end_or_come_late_for_no_reason() {
    for (fault, why) in
        [(Fault::NoBuffers, RecvEnd::NoBuffers), (Fault::RecvDisarmed, RecvEnd::Disarmed)]
    {
        let (mut rig, mut client, token) =
            Rig::with_client(Faults::none().with(fault, CERTAIN_PPM));
        client.write(b"a");
        assert_eq!(rig.turn(&[Op::RecvStart(token)]), [Completion::RecvEnded { token, why }]);
    }
    let (mut rig, mut client, token) =
        Rig::with_client(Faults::none().with(Fault::LateRecv, CERTAIN_PPM));
    client.write(b"a");
    assert_eq!(rig.turn(&[Op::RecvStart(token)]), []);
    rig.net.advance(Duration::from_micros(LATE_MICROS_MAX));
    let completions = rig.turn(&[]);
    assert_eq!(rig.bytes_of(&completions), b"a");
}

#[test]
fn tiny_receives_are_pieces_of_the_same_bytes() {
    let mut rig = Rig::sized(WIDE, always(Fault::TinyRecv));
    rig.turn(&[Op::AcceptStart]);
    let (mut client, token) = rig.accept();
    let bytes: Vec<u8> = (0..200).collect();
    client.write(&bytes);
    let completions = rig.turn(&[Op::RecvStart(token)]);
    assert!(completions.len() > 200 / 16, "{} pieces", completions.len());
    assert_eq!(rig.bytes_of(&completions), bytes);
}

#[test]
fn a_reset_in_the_middle_is_told_to_both_sides() {
    let (mut rig, client, token) = Rig::with_client(always(Fault::Reset));
    let errno = Errno::CONNRESET.raw_os_error();
    assert_eq!(rig.send(token, b"x"), [Completion::SendFailed { token, errno }]);
    assert!(client.reset_seen());

    let (mut rig, mut client, token) = Rig::with_client(always(Fault::Reset));
    rig.turn(&[Op::RecvStart(token)]);
    client.write(b"ab");
    let mut completions = rig.turn(&[]);
    let failed = Completion::RecvEnded { token, why: RecvEnd::Failed(errno) };
    assert_eq!(completions.pop(), Some(failed));
    assert_eq!(rig.bytes_of(&completions), b"ab", "they had arrived");
    assert!(client.reset_seen());
}

#[test]
fn a_reset_may_lose_what_was_not_read_yet() {
    for (faults, left) in [(Faults::none(), &b"ab"[..]), (always(Fault::ResetLosesBytes), b"")] {
        let (mut rig, mut client, token) = Rig::with_client(faults);
        client.write(b"ab");
        client.reset();
        let mut completions = rig.turn(&[Op::RecvStart(token)]);
        assert!(matches!(completions.pop(), Some(Completion::RecvEnded { .. })));
        assert_eq!(rig.bytes_of(&completions), left, "of the client's bytes");

        let (mut rig, mut client, token) = Rig::with_client(faults);
        client.write(b"unread");
        rig.send(token, b"ab");
        rig.turn(&[Op::Close(token)]);
        assert!(client.reset_seen());
        assert_eq!(read_all(&mut client), left, "of the server's bytes");
    }
}

#[test]
fn accepting_fails_by_aborting_the_client_while_no_slot_is_in_use() {
    let mut rig = Rig::new(always(Fault::AcceptFailed));
    let client = rig.net.connect();
    let errno = Errno::CONNABORTED.raw_os_error();
    assert_eq!(rig.turn(&[Op::AcceptStart]), [Completion::AcceptEnded { errno }]);
    assert!(client.reset_seen());
}

#[test]
fn accepting_fails_for_want_of_files_while_slots_are_in_use_and_the_client_waits() {
    let mut rig = Rig::sized(WIDE, Faults::none().with(Fault::AcceptFailed, 500_000));
    let mut clients = Vec::new();
    let mut starved = 0;
    rig.turn(&[Op::AcceptStart]);
    while starved < 3 {
        if clients.len() == 10 {
            clients.clear();
        }
        clients.push(rig.net.connect());
        let mut completions = rig.turn(&[]);
        while let Some(Completion::AcceptEnded { errno }) = completions.pop() {
            let errno = Errno::from_raw_os_error(errno);
            if errno == Errno::MFILE || errno == Errno::NFILE {
                starved += 1;
                assert!(rig.net.slots_used(0) > 0, "no slot could come free");
                assert!(clients.last().is_some_and(|client| client.worker() == Some(0)));
            }
            completions = rig.turn(&[Op::AcceptStart]);
        }
        assert!(rig.net.slots_used(0) < 16, "never starved");
    }
}

#[test]
fn accepts_may_come_late() {
    let mut rig = Rig::new(always(Fault::LateAccept));
    let _client = rig.net.connect();
    assert_eq!(rig.turn(&[Op::AcceptStart]), []);
    rig.net.advance(Duration::from_micros(LATE_MICROS_MAX));
    assert_eq!(rig.turn(&[]), [Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain }]);
}

#[test]
fn slots_may_be_any_that_are_free() {
    let (_clients, lowest_first) = eight(&mut Rig::sized(WIDE, Faults::none()));
    assert_eq!(lowest_first, [0, 1, 2, 3, 4, 5, 6, 7]);
    let (_clients, mut slots) = eight(&mut Rig::sized(WIDE, always(Fault::SlotOrder)));
    assert_ne!(slots, lowest_first);
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), 8, "none twice");
}

#[test]
fn completions_of_different_sockets_may_come_in_any_order() {
    let order = |faults| {
        let mut rig = Rig::sized(WIDE, faults);
        let (mut clients, slots) = eight(&mut rig);
        let start = |slot: &u32| Op::RecvStart(Token { slot: *slot, generation: 1 });
        rig.turn(&slots.iter().map(start).collect::<Vec<_>>());
        for client in &mut clients {
            client.write(b"x");
        }
        let completions = rig.turn(&[]);
        let slot = |completion: &Completion| match completion {
            Completion::Received { token, .. } => token.slot,
            _ => panic!("not bytes: {completion:?}"),
        };
        completions.iter().map(slot).collect::<Vec<_>>()
    };
    assert_eq!(order(Faults::none()), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_ne!(order(always(Fault::Reorder)), order(Faults::none()));
}

#[test]
fn a_doubled_doorbell_comes_exactly_twice() {
    let mut rig = Rig::new(always(Fault::DoubleDoorbell));
    let mut bell = rig.net.bell();
    bell.ring(0);
    bell.flush();
    assert_eq!(rig.turn(&[]), [Completion::Doorbell]);
    rig.net.advance(Duration::from_millis(1));
    assert_eq!(rig.turn(&[]), [Completion::Doorbell]);
    rig.net.advance(Duration::from_secs(1));
    assert_eq!(rig.turn(&[]), []);
}

#[test]
fn a_stalled_worker_is_not_due_whatever_is_ready() {
    let mut rig = Rig::new(always(Fault::WorkerStall));
    rig.turn(&[Op::AcceptStart]);
    let _client = rig.net.connect();
    assert!(!rig.net.is_due(0) && !rig.net.has_ready(0));
    let due_at = rig.net.due_at(0).expect("it runs again");
    assert!(due_at > rig.net.now() && due_at <= Duration::from_micros(STALL_MICROS_MAX));
    rig.net.advance_to_next_wakeup();
    assert!(rig.net.is_due(0) && rig.net.has_ready(0));
    assert_eq!(rig.driver.now(), due_at);
}
