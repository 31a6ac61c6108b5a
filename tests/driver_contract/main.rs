//! One contract, three drivers: each behaviour is stated once and holds on the in-memory network
//! and on real sockets, over io_uring and over epoll. What a simulation shows about a worker is
//! worth as much as this test.

#[path = "../common/skip.rs"]
mod skip;
mod worlds;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pushline::ring::{Batch, Bell, BufferId, Completion, Driver, Layer, Op, RecvEnd, Token, Wait};

use worlds::{Client, End, World};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing may be heard before it counts as silence.
const SILENCE: Duration = Duration::from_millis(50);
const SLOTS: u32 = 2;
const RECV_BUFFERS: u16 = 4;
const RECV_BUFFER_BYTES: usize = 64;
/// The content of all buffers.
const IN_BUFFERS: usize = RECV_BUFFERS as usize * RECV_BUFFER_BYTES;
/// Small, so that a slow reader is noticed soon.
const CLIENT_RECV_BYTES: usize = 32 * 1024;
/// Rings in a storm, and the number of storms.
const RINGS: u32 = 100;
/// Cut at each of its bytes.
const SMALL_MESSAGE_BYTES: usize = 24;
/// More than all socket buffers on the way can hold.
const LONG_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A world, its worker's batch, and completions that no test has asked for yet.
struct Rig<W: World> {
    world: W,
    batch: Batch,
    heard: Vec<Completion>,
    generation: u32,
}

impl<W: World> Rig<W> {
    /// Accepting.
    fn new() -> Self {
        Self::of(W::new())
    }

    fn of(world: W) -> Self {
        let (batch, heard) = Default::default();
        let mut rig = Self { world, batch, heard, generation: 0 };
        assert_eq!(rig.turn(&[Op::AcceptStart]), []);
        rig
    }

    fn with_client() -> (Self, W::Client, Token) {
        Self::with_client_of(W::new())
    }

    fn with_client_of(world: W) -> (Self, W::Client, Token) {
        let mut rig = Self::of(world);
        let (client, token) = rig.connect();
        (rig, client, token)
    }

    fn connect(&mut self) -> (W::Client, Token) {
        let client = self.world.connect();
        let Completion::Accepted { slot, .. } = self.next() else { panic!("not accepted") };
        self.generation += 1;
        (client, Token { slot, generation: self.generation })
    }

    /// One turn without sleep; returns what this very turn returned.
    fn turn(&mut self, ops: &[Op]) -> Vec<Completion> {
        self.batch.ops.extend(ops);
        self.turn_with(Wait::No)
    }

    fn turn_with(&mut self, wait: Wait) -> Vec<Completion> {
        let mut completions = Vec::new();
        let turned = self.world.driver().turn(&mut self.batch, wait, &mut completions);
        turned.expect("the driver is sound");
        assert!(self.batch.ops.is_empty());
        completions
    }

    /// Submits the ops; [`Self::next`] returns what comes of them.
    fn submit(&mut self, ops: &[Op]) {
        let completions = self.turn(ops);
        self.heard.extend(completions);
    }

    /// The next completion.
    fn next(&mut self) -> Completion {
        let start = Instant::now();
        while self.heard.is_empty() {
            assert!(start.elapsed() < PATIENCE, "nothing was heard");
            self.heard = self.turn_with(Wait::AtMost(PATIENCE));
        }
        self.heard.remove(0)
    }

    fn expect_silence(&mut self) {
        let heard = self.turn_with(Wait::AtMost(SILENCE));
        assert_eq!((&self.heard[..], &heard[..]), (&[][..], &[][..]));
    }

    fn send(&mut self, token: Token, bytes: &[u8]) -> Vec<Completion> {
        self.batch.arena.clear();
        self.batch.arena.extend(bytes);
        self.turn(&[Op::Send { token, from: 0, to: bytes.len() as u32 }])
    }

    /// Receives (already armed) until this many bytes have come.
    fn receive(&mut self, token: Token, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let Completion::Received { token: whose, buffer } = self.next() else {
                panic!("not bytes")
            };
            assert_eq!(whose, token);
            bytes.extend(self.take(buffer));
        }
        assert_eq!(bytes.len(), count, "more than was to come");
        bytes
    }

    /// The bytes received into this buffer, which is recycled.
    fn take(&mut self, buffer: BufferId) -> Vec<u8> {
        let bytes = self.world.driver().received(buffer).to_vec();
        self.world.driver().recycle(buffer);
        bytes
    }
}

fn accepted_connections_take_the_lowest_slots<W: World>() {
    let (mut rig, _first, first) = Rig::<W>::with_client();
    let (_second, second) = rig.connect();
    assert_eq!((first.slot, second.slot), (0, 1));
    rig.expect_silence();
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
    let (mut rig, client, token) = Rig::<W>::with_client();
    assert_eq!(rig.send(token, b"never read"), []);
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
    let failed = Completion::SendFailed { token, errno: libc::EPIPE };
    assert_eq!(rig.send(token, b"x"), [failed]);
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
    client.write(b"never read");
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

fn a_storm_of_rings_is_one_doorbell_a_turn_and_the_last_is_heard<W: World>() {
    let mut rig = Rig::<W>::new();
    let mut bell = rig.world.bell();
    for _ in 0..RINGS {
        for _ in 0..RINGS {
            bell.ring(0);
            bell.flush();
        }
        let heard = rig.turn_with(Wait::AtMost(PATIENCE));
        assert_eq!(heard, [Completion::Doorbell]);
    }
    // A ring may have come after the last turn's look; then it is reported, too.
    let heard = rig.turn(&[]);
    assert!(heard.iter().all(|heard| *heard == Completion::Doorbell), "{heard:?}");
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

/// Makes each behaviour a test of each driver.
macro_rules! on_all_drivers {
    ($($behaviour:ident),* $(,)?) => {
        mod sim {
            $(#[test] fn $behaviour() { super::$behaviour::<crate::worlds::SimWorld>(); })*
        }
        mod epoll {
            $(#[test] fn $behaviour() { super::$behaviour::<crate::worlds::EpollWorld>(); })*
        }
        on_uring!(uring, 1024, $($behaviour)*);
        on_uring!(uring_with_one_multishot, 1, $($behaviour)*);
        on_uring!(uring_by_poll, 0, $($behaviour)*);
    };
}

macro_rules! on_uring {
    ($name:ident, $multishots:literal, $($behaviour:ident)*) => {
        mod $name {
            $(#[test] fn $behaviour() {
                if crate::worlds::has_io_uring() {
                    super::$behaviour::<crate::worlds::UringWorld<$multishots>>();
                }
            })*
        }
    };
}

on_all_drivers! {
    accepted_connections_take_the_lowest_slots,
    bytes_are_received_in_order_through_few_buffers,
    without_buffers_receiving_ends_and_loses_nothing,
    recv_stop_disarms_and_bytes_wait_for_the_next_start,
    a_send_that_fits_is_silent,
    a_send_cut_at_any_byte_goes_on_there,
    a_short_send_goes_on_after_poll_out_and_no_byte_is_torn,
    poll_out_is_one_shot,
    eof_comes_behind_the_last_byte_and_sending_goes_on,
    eof_comes_behind_bytes_that_found_no_buffer,
    connections_that_compete_for_buffers_all_get_theirs,
    a_reset_is_told_once_to_receiving_and_then_sends_fail,
    a_reset_is_told_to_a_send_that_comes_first,
    a_reset_of_a_connection_that_waits_to_be_accepted_is_told_when_it_receives,
    a_reset_is_told_to_a_sender_that_waits_for_room,
    a_reset_behind_our_own_end_is_told_to_receiving,
    a_reset_behind_the_peers_own_end_fails_the_next_send,
    bytes_that_came_before_a_reset_are_still_received,
    a_client_that_closes_with_unread_bytes_resets,
    the_first_send_to_a_closed_client_is_taken_and_the_next_fails,
    shutdown_ends_the_stream_and_receiving_goes_on,
    a_close_behind_a_send_delivers_it_and_says_nothing,
    a_close_with_unread_bytes_resets_the_client,
    a_closed_slot_lives_again_and_nothing_of_the_former_life_is_heard,
    what_a_former_life_left_behind_is_not_heard_in_the_turn_its_slot_lives_again,
    a_full_table_ends_accepting_and_turns_one_away,
    each_accept_into_a_full_table_turns_one_away_and_the_rest_waits,
    accept_stop_leaves_connections_in_the_backlog,
    leaving_the_port_takes_who_waits_and_refuses_who_comes,
    a_storm_of_rings_is_one_doorbell_a_turn_and_the_last_is_heard,
}
