//! Both sides talk, at random and under every fault. The client opens every record that leaves with the
//! number that is due, and takes no other: were two plaintexts sealed with one number and both left, it
//! would fail.

use super::*;
use crate::ring::tls::record::RECORDS_PER_KEY;

/// Any fault but that none is let in.
fn deadly(seed: u64) -> Faults {
    Faults::from_seed(seed).with(Fault::AcceptFailed, 0)
}

/// No fault that ends a connection.
fn harsh(seed: u64) -> Faults {
    deadly(seed).with(Fault::Reset, 0).with(Fault::ResetLosesBytes, 0)
}

/// How a talk ends once all is said.
#[derive(Clone, Copy, Debug)]
enum Farewell {
    /// The worker closes as soon as it is told that all of it has left.
    Close,
    /// It says that nothing follows, and listens on.
    Shutdown,
    /// The client has nothing more to say, but listens on; then the worker closes.
    PeerFirst,
}

/// A talk, and all that was said.
struct Talk {
    rng: Rng,
    host: Host,
    peer: Peer,
    to_peer: Vec<u8>,
    to_host: Vec<u8>,
    may_change_keys: bool,
}

impl Talk {
    /// The handshake is over, or a fault has ended it.
    fn begin(seed: u64, faults: Faults, version: &'static SupportedProtocolVersion) -> Self {
        let (mut host, mut peer) = connected(faults, seed, version);
        peer.tls.writer().write_all(b"hello").expect("memory");
        until(&mut host, &mut peer, "a request", |host, peer| {
            host.received == b"hello" || is_over(host, peer)
        });
        let (rng, to_host) = (Rng::with_seed(seed), b"hello".to_vec());
        let may_change_keys = version == &version::TLS13;
        Self { rng, host, peer, to_peer: Vec::new(), to_host, may_change_keys }
    }

    fn words(&mut self, bytes_max: usize) -> Vec<u8> {
        (0..self.rng.usize(1..bytes_max)).map(|_| self.rng.u8(..)).collect()
    }

    /// Each says something, and hears some of what the other has said.
    fn go_on(&mut self) {
        let (to_peer, to_host) = (self.words(20_000), self.words(600));
        self.host.unsent.extend(&to_peer);
        self.to_peer.extend(to_peer);
        self.peer.tls.writer().write_all(&to_host).expect("memory");
        self.to_host.extend(to_host);
        if self.may_change_keys && !self.peer.tls.is_handshaking() && self.rng.u8(..) < 80 {
            self.peer.tls.refresh_traffic_keys().expect("TLS 1.3");
        }
        self.peer.reads_max = self.rng.usize(1..20_000);
        for _ in 0..self.rng.u8(0..6) {
            self.peer.turn();
            self.host.turn();
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Host, &Peer) -> bool) {
        until(&mut self.host, &mut self.peer, what, done);
    }

    /// All that was said is heard.
    fn end_with(&mut self, farewell: Farewell) {
        if let Farewell::PeerFirst = farewell {
            self.peer.tls.send_close_notify();
            self.until("the last word", |_, peer| {
                peer.unsent.is_empty() && !peer.tls.wants_write()
            });
            self.peer.socket.finish();
            self.until("an end", |host, _| host.end == Some(RecvEnd::Eof));
        }
        let words = self.to_host.len();
        self.until("all of it", |host, _| host.received.len() == words && host.has_said_all());
        let last = if let Farewell::Shutdown = farewell { Op::Shutdown } else { Op::Close };
        self.host.says_last(last);
        match farewell {
            Farewell::Shutdown => self.until("an end", |_, peer| peer.socket.eof_seen()),
            Farewell::Close | Farewell::PeerFirst => self.peer.reads_on(),
        }
        assert!(self.host.received == self.to_host && self.peer.received == self.to_peer);
    }
}

fn is_over(host: &Host, peer: &Peer) -> bool {
    host.closed || host.end.is_some() || peer.socket.reset_seen()
}

#[test]
fn nothing_is_sealed_twice_and_nothing_lost_under_any_fault() {
    for seed in 0..SEEDS {
        for version in BOTH {
            let mut talk = Talk::begin(seed, harsh(seed), version);
            for _ in 0..60 {
                talk.go_on();
            }
            let farewells = [Farewell::Close, Farewell::Shutdown, Farewell::PeerFirst];
            let farewell = farewells[talk.rng.usize(0..farewells.len())];
            talk.end_with(farewell);
        }
    }
}

/// The worker gives up in the middle of it, or the connection breaks.
#[test]
fn what_is_heard_until_a_sudden_end_is_what_was_said() {
    for seed in 0..2 * SEEDS {
        for version in BOTH {
            let mut talk = Talk::begin(seed, deadly(seed), version);
            for _ in 0..talk.rng.u8(1..40) {
                talk.go_on();
            }
            let last = if talk.rng.bool() { Op::Shutdown } else { Op::Close };
            talk.host.says_last(last);
            for _ in 0..50 {
                talk.peer.turn();
                talk.host.turn();
            }
            assert!(talk.to_peer.starts_with(&talk.peer.received), "seed {seed}");
            assert!(talk.to_host.starts_with(&talk.host.received), "seed {seed}");
        }
    }
}

#[test]
fn a_key_seals_no_more_records_than_it_may() {
    let mut talk = Talk::begin(1, Faults::none(), &version::TLS13);
    for _ in 0..3 * RECORDS_PER_KEY {
        talk.host.unsent = b"x".to_vec();
        talk.host.turn();
        talk.peer.turn();
        let slot = &mut talk.host.driver.slots[talk.host.token.expect("accepted").slot as usize];
        let sealed = *slot.sender().expect("TLS 1.3").seq;
        assert!(sealed <= RECORDS_PER_KEY + 1, "{sealed}");
    }
    assert_eq!(talk.peer.received.len() as u64, 3 * RECORDS_PER_KEY);
}
