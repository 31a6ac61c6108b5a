//! The contract of `Driver`, sentence by sentence, as the simulation keeps it.

mod chaos;
mod faults;
mod violations;

use std::time::Duration;

use rustix::io::Errno;

use super::{Bell, SimSettings};
use super::{CERTAIN_PPM, Fault, Faults, LATE_MICROS_MAX, SimClient, SimDriver, SimNet};
use crate::ring::{Batch, Completion, Driver, Layer, Op, RecvEnd, Token, Wait};

const SMALL: SimSettings = SimSettings {
    workers: 1,
    slots_per_worker: 2,
    recv_buffers: 2,
    recv_buffer_bytes: 4,
    socket_buffer_bytes: 12,
};

/// One worker, controlled by a test.
struct Rig {
    net: SimNet,
    driver: SimDriver,
    batch: Batch,
    generation: u32,
}

impl Rig {
    fn new(faults: Faults) -> Self {
        Self::sized(SMALL, faults)
    }

    fn sized(settings: SimSettings, faults: Faults) -> Self {
        let net = SimNet::new(settings, faults, 1);
        let driver = net.driver(0);
        Self { net, driver, batch: Batch::default(), generation: 0 }
    }

    fn turn(&mut self, ops: &[Op]) -> Vec<Completion> {
        let mut completions = Vec::new();
        self.batch.ops.extend(ops);
        self.driver.turn(&mut self.batch, Wait::No, &mut completions).expect("never fails");
        assert!(self.batch.ops.is_empty());
        self.net.check_conservation();
        completions
    }

    fn send(&mut self, token: Token, bytes: &[u8]) -> Vec<Completion> {
        self.batch.arena = bytes.to_vec();
        let completions = self.turn(&[Op::Send { token, from: 0, to: bytes.len() as u32 }]);
        assert_eq!(self.batch.arena, bytes, "the arena is as it was");
        completions
    }

    /// A client that the (armed) listener accepts at once.
    fn accept(&mut self) -> (SimClient, Token) {
        let client = self.net.connect();
        let completions = self.turn(&[]);
        let [Completion::Accepted { slot, peer: None, layer: Layer::Plain }] = completions[..]
        else {
            panic!("not accepted: {completions:?}");
        };
        self.generation += 1;
        (client, Token { slot, generation: self.generation })
    }

    /// An accepting worker with one connection.
    fn with_client(faults: Faults) -> (Self, SimClient, Token) {
        let mut rig = Self::new(faults);
        assert_eq!(rig.turn(&[Op::AcceptStart]), []);
        let (client, token) = rig.accept();
        (rig, client, token)
    }

    /// The bytes of all `Received`; there must be no other completions.
    fn bytes_of(&mut self, completions: &[Completion]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for completion in completions {
            let Completion::Received { buffer, .. } = *completion else {
                panic!("not bytes: {completion:?}");
            };
            bytes.extend(self.driver.received(buffer));
            self.driver.recycle(buffer);
        }
        bytes
    }
}

fn read_all(client: &mut SimClient) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read(&mut bytes);
    bytes
}

#[test]
fn connections_get_the_lowest_free_slots_and_wait_while_accepting_is_not_armed() {
    let mut rig = Rig::new(Faults::none());
    let first = rig.net.connect();
    assert_eq!(rig.turn(&[]), []);
    assert_eq!(
        rig.turn(&[Op::AcceptStart]),
        [Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain }]
    );
    let address = "192.0.2.1".parse().expect("an address");
    let _second = rig.net.connect_from(0, address);
    assert_eq!(
        rig.turn(&[]),
        [Completion::Accepted { slot: 1, peer: Some(address), layer: Layer::Plain }]
    );
    assert_eq!((first.worker(), rig.net.slots_used(0)), (Some(0), 2));
}

#[test]
fn accept_stop_ends_accepting_once_and_leaves_connections_in_the_backlog() {
    let mut rig = Rig::new(Faults::none());
    assert_eq!(rig.turn(&[Op::AcceptStop]), [], "none was armed");
    rig.turn(&[Op::AcceptStart]);
    assert_eq!(rig.turn(&[Op::AcceptStop]), [Completion::AcceptEnded { errno: 0 }]);
    let _client = rig.net.connect();
    assert_eq!(rig.turn(&[]), []);
    assert_eq!(
        rig.turn(&[Op::AcceptStart]),
        [Completion::Accepted { slot: 0, peer: None, layer: Layer::Plain }]
    );
}

#[test]
fn a_full_table_ends_accepting_and_a_close_makes_room() {
    let (mut rig, _first, token) = Rig::with_client(Faults::none());
    let (_second, _) = rig.accept();
    let third = rig.net.connect();
    let fourth = rig.net.connect();
    let full = Completion::AcceptEnded { errno: Errno::NFILE.raw_os_error() };
    assert_eq!(rig.turn(&[]), [full]);
    assert!(third.eof_seen(), "the kernel accepts before it finds no place");
    assert!(!fourth.eof_seen());
    let reused = Completion::Accepted { slot: token.slot, peer: None, layer: Layer::Plain };
    assert_eq!(rig.turn(&[Op::Close(token), Op::AcceptStart]), [reused]);
    assert_eq!(fourth.worker(), Some(0));
}

#[test]
fn without_an_accept_whoever_waits_is_refused_when_the_port_is_left() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    rig.turn(&[Op::AcceptStop]);
    let waiting = rig.net.connect();
    assert_eq!(rig.turn(&[Op::ListenStop]), []);
    let late = rig.net.connect();
    assert_eq!(rig.turn(&[]), []);
    assert!(waiting.reset_seen() && late.reset_seen());
    assert_eq!(rig.send(token, b"still"), []);
    assert_eq!(read_all(&mut client), b"still");
}

#[test]
fn bytes_arrive_in_order_in_buffers_of_their_size() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    assert_eq!(client.write(b"abcdef"), 6);
    let completions = rig.turn(&[Op::RecvStart(token)]);
    assert_eq!(completions.len(), 2);
    assert_eq!(rig.net.buffers_lent(0), 2);
    assert_eq!(rig.bytes_of(&completions), b"abcdef");
    assert_eq!(rig.net.buffers_lent(0), 0);
    client.write(b"gh");
    let completions = rig.turn(&[]);
    assert_eq!(rig.bytes_of(&completions), b"gh", "still armed");
}

#[test]
fn without_buffers_receiving_ends_and_goes_on_where_it_was() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    client.write(b"0123456789");
    let mut completions = rig.turn(&[Op::RecvStart(token)]);
    let end = Completion::RecvEnded { token, why: RecvEnd::NoBuffers };
    assert_eq!(completions.pop(), Some(end));
    assert_eq!(rig.bytes_of(&completions), b"01234567");
    assert_eq!(rig.driver.stats().no_buffers, 1);
    let completions = rig.turn(&[Op::RecvStart(token)]);
    assert_eq!(rig.bytes_of(&completions), b"89");
}

#[test]
fn recv_stop_disarms_and_later_bytes_wait_for_the_next_start() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    assert_eq!(rig.turn(&[Op::RecvStop(token)]), [], "none was armed");
    rig.turn(&[Op::RecvStart(token)]);
    let end = Completion::RecvEnded { token, why: RecvEnd::Disarmed };
    assert_eq!(rig.turn(&[Op::RecvStop(token)]), [end]);
    client.write(b"ab");
    assert_eq!(rig.turn(&[]), []);
    let completions = rig.turn(&[Op::RecvStart(token)]);
    assert_eq!(rig.bytes_of(&completions), b"ab");
}

#[test]
fn a_late_recv_stop_still_brings_bytes_and_then_ends_once() {
    let late = Faults::none().with(Fault::LateStop, CERTAIN_PPM);
    let (mut rig, mut client, token) = Rig::with_client(late);
    rig.turn(&[Op::RecvStart(token)]);
    assert_eq!(rig.turn(&[Op::RecvStop(token)]), []);
    client.write(b"ab");
    let completions = rig.turn(&[]);
    assert_eq!(rig.bytes_of(&completions), b"ab");
    rig.net.advance(Duration::from_micros(LATE_MICROS_MAX));
    assert_eq!(rig.turn(&[]), [Completion::RecvEnded { token, why: RecvEnd::Disarmed }]);
}

#[test]
fn eof_comes_behind_the_last_byte_and_sending_goes_on() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    client.write(b"ab");
    client.finish();
    let mut completions = rig.turn(&[Op::RecvStart(token)]);
    let eof = Completion::RecvEnded { token, why: RecvEnd::Eof };
    assert_eq!(completions.pop(), Some(eof));
    assert_eq!(rig.bytes_of(&completions), b"ab");
    assert_eq!(rig.send(token, b"bye"), []);
    assert_eq!(read_all(&mut client), b"bye");
    assert_eq!(rig.turn(&[Op::RecvStart(token)]), [eof], "and stays");
}

#[test]
fn a_reset_fails_receiving_first_and_then_sends() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    rig.turn(&[Op::RecvStart(token)]);
    client.reset();
    let reset = Errno::CONNRESET.raw_os_error();
    let failed = Completion::RecvEnded { token, why: RecvEnd::Failed(reset) };
    assert_eq!(rig.turn(&[]), [failed]);
    let errno = Errno::PIPE.raw_os_error();
    assert_eq!(rig.send(token, b"x"), [Completion::SendFailed { token, errno }]);
}

#[test]
fn a_send_to_a_client_that_closed_is_taken_and_the_next_one_fails() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    client.close();
    assert_eq!(rig.send(token, b"x"), []);
    let errno = Errno::PIPE.raw_os_error();
    assert_eq!(rig.send(token, b"x"), [Completion::SendFailed { token, errno }]);
}

#[test]
fn a_send_that_fits_is_silent_and_one_that_does_not_tells_how_much_was_taken() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    assert_eq!(rig.send(token, b"01234567"), []);
    assert_eq!(rig.send(token, b"89abcdef"), [Completion::SendShort { token, taken: 4 }]);
    assert_eq!(rig.send(token, b"cdef"), [Completion::SendShort { token, taken: 0 }]);
    assert_eq!(rig.turn(&[Op::PollOut(token)]), [], "still full");
    let mut seen = Vec::new();
    client.read_at_most(1, &mut seen);
    assert_eq!(rig.turn(&[]), [], "writable only with a third of the buffer free");
    client.read(&mut seen);
    assert_eq!(rig.turn(&[]), [Completion::Writable { token }]);
    assert_eq!(rig.turn(&[]), [], "one shot");
    assert_eq!(rig.send(token, b"cdef"), []);
    client.read(&mut seen);
    assert_eq!(seen, b"0123456789abcdef");
}

#[test]
fn shutdown_ends_the_clients_stream_and_receiving_goes_on() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    rig.send(token, b"bye");
    rig.turn(&[Op::RecvStart(token), Op::Shutdown(token)]);
    assert!(!client.eof_seen(), "three bytes come before it");
    assert_eq!(read_all(&mut client), b"bye");
    assert!(client.eof_seen());
    client.write(b"ok");
    let completions = rig.turn(&[]);
    assert_eq!(rig.bytes_of(&completions), b"ok");
}

#[test]
fn after_close_nothing_is_heard_of_the_token_and_the_slot_lives_again() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    rig.turn(&[Op::RecvStart(token)]);
    rig.batch.arena = vec![b'x'; 20];
    let send = Op::Send { token, from: 0, to: 20 };
    assert_eq!(rig.turn(&[send, Op::PollOut(token), Op::Close(token)]), []);
    assert_eq!(rig.driver.stats().stale, 1, "the short send");
    assert_eq!(read_all(&mut client), [b'x'; 12]);
    assert!(client.eof_seen());
    let (mut next, token_of_next) = rig.accept();
    assert_eq!(token_of_next.slot, token.slot);
    next.write(b"new");
    let completions = rig.turn(&[Op::RecvStart(token_of_next)]);
    assert_eq!(rig.bytes_of(&completions), b"new");
}

#[test]
fn closing_with_unread_bytes_resets_the_client() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    client.write(b"never read");
    rig.turn(&[Op::Close(token)]);
    assert!(client.reset_seen() && !client.eof_seen());
    assert_eq!(client.write(b"x"), 0);
}

#[test]
fn what_was_posted_before_a_close_is_dropped_and_its_buffers_come_back() {
    let crossing = Faults::none().with(Fault::Crossing, CERTAIN_PPM);
    let (mut rig, mut client, token) = Rig::with_client(crossing);
    rig.turn(&[Op::RecvStart(token)]);
    client.write(b"abcdef");
    assert_eq!(rig.turn(&[Op::Close(token)]), []);
    assert_eq!(rig.driver.stats().stale, 2);
    assert_eq!(rig.net.buffers_lent(0), 0);
}

#[test]
fn a_dead_peer_takes_what_the_buffer_holds_and_says_nothing() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    rig.turn(&[Op::RecvStart(token)]);
    client.drop_packets();
    client.write(b"lost");
    assert_eq!(rig.send(token, &[0; 12]), []);
    assert_eq!(rig.send(token, &[0; 12]), [Completion::SendShort { token, taken: 0 }]);
    rig.net.advance(Duration::from_secs(3600));
    assert_eq!(rig.turn(&[Op::PollOut(token)]), []);
    assert_eq!(read_all(&mut client), [0u8; 0]);
    client.time_out();
    let why = RecvEnd::Failed(Errno::TIMEDOUT.raw_os_error());
    let ended = Completion::RecvEnded { token, why };
    assert_eq!(rig.turn(&[]), [ended, Completion::Writable { token }]);
}

#[test]
fn rings_before_a_turn_become_one_doorbell() {
    let mut rig = Rig::new(Faults::none());
    let (mut log, mut main) = (rig.net.bell(), rig.net.bell());
    log.ring(0);
    assert_eq!(rig.turn(&[]), [], "gathered until the flush");
    log.ring(0);
    log.flush();
    main.ring(0);
    main.flush();
    assert!(rig.net.has_ready(0));
    assert_eq!(rig.turn(&[]), [Completion::Doorbell]);
    assert_eq!(rig.turn(&[]), []);
}

#[test]
fn a_late_doorbell_comes_with_the_sleepers_timeout() {
    let mut rig = Rig::new(Faults::none().with(Fault::LateDoorbell, CERTAIN_PPM));
    let sleep = Wait::AtMost(Duration::from_millis(20));
    let mut completions = Vec::new();
    rig.driver.turn(&mut rig.batch, sleep, &mut completions).expect("never fails");
    let mut bell = rig.net.bell();
    bell.ring(0);
    bell.flush();
    assert!(!rig.net.has_ready(0));
    rig.net.advance(Duration::from_millis(20));
    assert_eq!(rig.turn(&[]), [Completion::Doorbell]);
}

#[test]
fn the_scheduler_learns_when_to_run_the_worker_next() {
    let (mut rig, mut client, token) = Rig::with_client(Faults::none());
    rig.turn(&[Op::RecvStart(token)]);
    assert_eq!(rig.net.due_at(0), Some(Duration::ZERO), "it did not sleep");
    let mut completions = Vec::new();
    rig.driver.turn(&mut rig.batch, Wait::Forever, &mut completions).expect("never fails");
    assert_eq!((rig.net.asleep_until(0), rig.net.next_wakeup()), (None, None));
    let sleep = Wait::AtMost(Duration::from_secs(5));
    rig.driver.turn(&mut rig.batch, sleep, &mut completions).expect("never fails");
    assert_eq!(rig.net.next_wakeup(), Some(Duration::from_secs(5)));
    assert!(!rig.net.is_due(0));
    client.write(b"x");
    assert!(rig.net.is_due(0) && rig.net.has_ready(0));
    rig.net.stall(0, Duration::from_secs(7));
    assert!(!rig.net.is_due(0));
    rig.net.advance_to_next_wakeup();
    assert_eq!(rig.net.now(), Duration::from_secs(7));
    assert!(rig.net.is_due(0));
}

#[test]
fn a_dropped_driver_closes_everything_and_another_one_listens_again() {
    let (rig, client, _) = Rig::with_client(Faults::none());
    let Rig { net, driver, .. } = rig;
    let waiting = net.connect();
    drop(driver);
    assert!(client.eof_seen() && waiting.reset_seen() && net.connect().reset_seen());
    let _driver = net.driver(0);
    assert_eq!(net.connect().worker(), Some(0));
    net.check_conservation();
}
