//! TLS over the simulated kernel, with rustls as the client.

mod endings;
mod storms;
mod talks;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion, version,
};

use super::carriers::LINE_LOOKED_AT;
use super::{HandshakeConfig, Tls};
use crate::ring::sim::{Fault, Faults, SimClient, SimDriver, SimNet, SimSettings};
use crate::ring::{Batch, Completion, Driver, Op, RecvEnd, Token, Wait};

/// Rounds in which everything that was begun must get done.
const ROUNDS_MAX: u32 = 20_000;
const SEEDS: u64 = 40;
const FORGERIES: u64 = 150;

const SETTINGS: SimSettings = SimSettings {
    workers: 1,
    slots_per_worker: 4,
    recv_buffers: 4,
    recv_buffer_bytes: 512,
    socket_buffer_bytes: 9000,
};

/// A certificate for `localhost`.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("PKCS 8");
        Self { certificate: made.cert.der().clone(), key }
    }

    fn server(&self) -> Arc<HandshakeConfig> {
        self.server_of(provider())
    }

    fn server_of(&self, provider: Arc<CryptoProvider>) -> Arc<HandshakeConfig> {
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS12, &version::TLS13])
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .expect("they match");
        Arc::new(HandshakeConfig::new(config))
    }

    fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("a known version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        ClientConnection::new(Arc::new(config), name).expect("a configuration")
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A worker that sends what it is told to, keeps what comes, and breaks no rule.
struct Host {
    net: SimNet,
    driver: Tls<SimDriver>,
    batch: Batch,
    wait: Wait,
    token: Option<Token>,
    /// Connections it has had.
    accepted: u32,
    unsent: Vec<u8>,
    full: bool,
    received: Vec<u8>,
    end: Option<RecvEnd>,
    /// It sends no more.
    closed: bool,
    /// What it does after its last send, in the same turn.
    last: Option<Op>,
    /// It has closed the connection.
    gone: bool,
}

impl Host {
    fn new(identity: &Identity, faults: Faults, seed: u64) -> Self {
        Self::on(SimNet::new(SETTINGS, faults, seed), identity)
    }

    fn on(net: SimNet, identity: &Identity) -> Self {
        Self::with(net, identity.server())
    }

    fn with(net: SimNet, config: Arc<HandshakeConfig>) -> Self {
        let driver = Tls::over(net.driver(0), config);
        let batch = Batch { ops: vec![Op::AcceptStart], ..Batch::default() };
        Self {
            net,
            driver,
            batch,
            wait: Wait::No,
            token: None,
            accepted: 0,
            unsent: Vec::new(),
            full: false,
            received: Vec::new(),
            end: None,
            closed: false,
            last: None,
            gone: false,
        }
    }

    /// All it had to say has left, as far as it was told.
    fn has_said_all(&self) -> bool {
        self.unsent.is_empty() && !self.full
    }

    /// Sends once more, and then does this in the same turn.
    fn says_last(&mut self, op: fn(Token) -> Op) {
        self.last = self.token.map(op);
        self.turn();
    }

    fn turn(&mut self) {
        self.batch.arena.clear();
        let mut sending = 0;
        if let Some(token) = self.token
            && !self.full
            && !self.unsent.is_empty()
            && !self.closed
        {
            sending = self.unsent.len();
            self.batch.arena.extend(&self.unsent);
            self.batch.ops.push(Op::Send { token, from: 0, to: sending as u32 });
        }
        if let Some(op) = self.last.take() {
            self.closed = true;
            self.gone = matches!(op, Op::Close(_));
            self.batch.ops.push(op);
        }
        self.net.advance(Duration::from_millis(1));
        let arena = self.batch.arena.clone();
        let mut completions = Vec::new();
        self.driver.turn(&mut self.batch, self.wait, &mut completions).expect("a sound driver");
        assert_eq!(self.batch.arena, arena, "the arena is as it was");
        for completion in completions {
            match completion {
                Completion::Received { buffer, .. } if self.gone => self.driver.recycle(buffer),
                Completion::RecvEnded { .. } | Completion::SendShort { .. } if self.gone => {}
                Completion::Accepted { slot, .. } => {
                    self.accepted += 1;
                    let token = Token { slot, generation: self.accepted };
                    self.token = Some(token);
                    self.batch.ops.push(Op::RecvStart(token));
                }
                Completion::AcceptEnded { .. } => self.batch.ops.push(Op::AcceptStart),
                Completion::Received { buffer, .. } => {
                    self.received.extend(self.driver.received(buffer));
                    self.driver.recycle(buffer);
                }
                Completion::RecvEnded { token, why } => match why {
                    RecvEnd::NoBuffers | RecvEnd::Disarmed => {
                        self.batch.ops.push(Op::RecvStart(token));
                    }
                    end => self.end = Some(end),
                },
                Completion::SendShort { token, taken } => {
                    assert!((taken as usize) < sending, "all of it is not short");
                    self.unsent.drain(..taken as usize);
                    (self.full, sending) = (true, 0);
                    self.batch.ops.push(Op::PollOut(token));
                }
                Completion::SendFailed { .. } => (sending, self.closed) = (0, true),
                Completion::Writable { .. } => self.full = false,
                Completion::Certified { .. } | Completion::Doorbell => {}
            }
        }
        self.unsent.drain(..sending);
    }
}

/// A client's socket, and what it has read of it.
struct Peer {
    socket: SimClient,
    tls: ClientConnection,
    received: Vec<u8>,
    /// Sealed, and not yet taken by the socket.
    unsent: Vec<u8>,
    /// Most bytes it reads at once.
    reads_max: usize,
}

impl Peer {
    /// Reads until there is nothing left.
    fn reads_on(&mut self) {
        while self.socket.unread() > 0 {
            self.turn();
        }
    }

    fn of(host: &Host, identity: &Identity, version: &'static SupportedProtocolVersion) -> Self {
        let socket = host.net.connect_tls_to(0);
        let tls = identity.client(version);
        Self { socket, tls, received: Vec::new(), unsent: Vec::new(), reads_max: usize::MAX }
    }

    fn turn(&mut self) {
        let mut wire = Vec::new();
        self.socket.read_at_most(self.reads_max, &mut wire);
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            self.tls.read_tls(&mut wire).expect("room");
            self.tls.process_new_packets().expect("what we seal opens, once and in order");
            let mut bytes = vec![0; 1 << 16];
            if let Ok(count) = self.tls.reader().read(&mut bytes) {
                self.received.extend(&bytes[..count]);
            }
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.unsent).expect("memory");
        }
        if !self.unsent.is_empty() {
            let written = self.socket.write(&self.unsent);
            self.unsent.drain(..written);
        }
    }
}

fn connected(
    faults: Faults,
    seed: u64,
    version: &'static SupportedProtocolVersion,
) -> (Host, Peer) {
    let identity = Identity::new();
    let host = Host::new(&identity, faults, seed);
    let peer = Peer::of(&host, &identity, version);
    (host, peer)
}

fn until(host: &mut Host, peer: &mut Peer, what: &str, done: impl Fn(&Host, &Peer) -> bool) {
    for _ in 0..ROUNDS_MAX {
        if done(host, peer) {
            return;
        }
        peer.turn();
        host.turn();
    }
    panic!("{what} did not happen");
}

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

#[test]
fn both_sides_hear_each_other_to_the_end() {
    for version in BOTH {
        let (mut host, mut peer) = connected(Faults::none(), 1, version);
        peer.tls.writer().write_all(b"hello").expect("memory");
        until(&mut host, &mut peer, "a request", |host, _| host.received == b"hello");
        host.unsent = b"world".to_vec();
        until(&mut host, &mut peer, "an answer", |_, peer| peer.received == b"world");
        peer.tls.send_close_notify();
        until(&mut host, &mut peer, "an end", |host, _| host.end == Some(RecvEnd::Eof));
        let stats = host.driver.stats().tls;
        assert_eq!((stats.open, stats.handshakes_full, stats.handshakes_failed), (1, 1, 0));
    }
}

/// Each handshake has part of a record for a moment.
#[test]
fn the_line_of_those_with_part_of_a_record_forgets_connections_that_are_gone() {
    let identity = Identity::new();
    let mut host = Host::new(&identity, Faults::none(), 10);
    for _ in 0..3 * LINE_LOOKED_AT {
        let mut peer = Peer::of(&host, &identity, &version::TLS13);
        peer.tls.writer().write_all(b"hello").expect("memory");
        until(&mut host, &mut peer, "a request", |host, _| host.received == b"hello");
        host.received.clear();
        host.batch.ops.push(Op::Close(host.token.expect("accepted")));
        host.turn();
    }
    let line = host.driver.input.carriers.line_length();
    assert!(line <= LINE_LOOKED_AT, "{line} for none");
}

/// A client that sends much ends most reads within a record, and yet begins none long before others.
#[test]
fn with_its_record_whole_a_connection_goes_to_the_end_of_the_line() {
    for version in BOTH {
        let identity = Identity::new();
        let mut host = Host::new(&identity, Faults::none(), 15);
        let mut pieces = Vec::new();
        for _ in 0..2 {
            let mut peer = Peer::of(&host, &identity, version);
            peer.tls.writer().write_all(b"hello").expect("memory");
            until(&mut host, &mut peer, "a request", |host, _| host.received == b"hello");
            host.received.clear();
            let mut records = Vec::new();
            for _ in 0..2 {
                peer.tls.writer().write_all(&[b'x'; 100]).expect("memory");
                peer.tls.write_tls(&mut records).expect("memory");
            }
            pieces.push((host.token, peer, records));
        }
        let [(_, uploader, records), (slow, other, begun)] = &mut pieces[..] else {
            unreachable!()
        };
        for (peer, bytes) in [(&mut *uploader, &records[..50]), (other, &begun[..50])] {
            peer.socket.write(bytes);
            host.turn();
        }
        uploader.socket.write(&records[50..records.len() - 50]);
        host.turn();
        assert_eq!(host.received.len(), 100);
        let Tls { input, slots, .. } = &mut host.driver;
        assert_eq!(input.carriers.pop(slots), *slow);
    }
}

#[test]
fn what_is_no_record_ends_the_connection_and_says_why() {
    let (mut host, mut peer) = connected(Faults::none(), 4, &version::TLS13);
    peer.tls.writer().write_all(b"hello").expect("memory");
    until(&mut host, &mut peer, "a request", |host, _| host.received == b"hello");
    peer.socket
        .write(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2]);
    host.turn();
    assert!(matches!(host.end, Some(RecvEnd::Failed(_))), "{:?}", host.end);
    host.batch.ops.push(Op::Close(host.token.expect("accepted")));
    host.turn();
    let mut wire = Vec::new();
    peer.socket.read(&mut wire);
    peer.tls.read_tls(&mut wire.as_slice()).expect("bytes");
    let told = peer.tls.process_new_packets().expect_err("an alert");
    assert_eq!(told, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
}

#[test]
fn what_does_not_begin_with_a_handshake_is_cut() {
    let identity = Identity::new();
    let mut host = Host::new(&identity, Faults::none(), 5);
    let mut socket = host.net.connect_tls_to(0);
    host.turn();
    socket.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    host.turn();
    host.turn();
    assert!(matches!(host.end, Some(RecvEnd::Failed(_))), "{:?}", host.end);
    assert_eq!(host.driver.stats().tls.handshakes_failed, 1);
}

#[test]
fn a_send_before_the_handshake_is_over_fails() {
    let identity = Identity::new();
    let mut host = Host::new(&identity, Faults::none(), 6);
    let _socket = host.net.connect_tls_to(0);
    host.turn();
    host.unsent = b"busy".to_vec();
    host.turn();
    assert!(host.closed);
}

#[test]
fn plain_connections_pass_through_beside_it() {
    let (mut host, mut peer) = connected(Faults::none(), 7, &version::TLS13);
    peer.tls.writer().write_all(b"hello").expect("memory");
    until(&mut host, &mut peer, "a request", |host, _| host.received == b"hello");
    host.received.clear();
    let mut plain = host.net.connect_to(0);
    host.turn();
    plain.write(b"plain");
    host.turn();
    host.turn();
    assert_eq!(host.received, b"plain");
    host.unsent = b"too".to_vec();
    host.turn();
    let mut bytes = Vec::new();
    plain.read(&mut bytes);
    assert_eq!(bytes, b"too");
    assert_eq!(host.driver.stats().tls.open, 1);
}

/// Changes some of the bytes: one flipped, a piece cut out, sent twice, or made up.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let at = rng.usize(0..bytes.len());
    match rng.u8(0..4) {
        0 => bytes[at] ^= 1 << rng.u8(0..8),
        1 => drop(bytes.drain(at..)),
        2 => bytes.extend_from_within(at..),
        _ => {
            let count = rng.usize(1..40);
            let made_up: Vec<u8> = (0..count).map(|_| rng.u8(..)).collect();
            bytes.splice(at..at, made_up);
        }
    }
}

/// The record parser is fed what an attacker on the way could make of true records.
#[test]
fn whatever_is_done_to_records_nothing_panics_and_nothing_forged_is_heard() {
    for version in BOTH {
        for seed in 0..FORGERIES {
            let mut rng = Rng::with_seed(seed);
            let (mut host, mut peer) = connected(Faults::none(), seed, version);
            let mut expected = b"hello".to_vec();
            peer.tls.writer().write_all(&expected).expect("memory");
            until(&mut host, &mut peer, "a request", |host, _| host.received == b"hello");
            let mut wire = Vec::new();
            for _ in 0..rng.usize(1..4) {
                let data: Vec<u8> = (0..rng.usize(1..200)).map(|_| rng.u8(..)).collect();
                peer.tls.writer().write_all(&data).expect("memory");
                expected.extend(data);
                peer.tls.write_tls(&mut wire).expect("memory");
            }
            mutate(&mut rng, &mut wire);
            while !wire.is_empty() && host.end.is_none() {
                let written = peer.socket.write(&wire);
                wire.drain(..written);
                host.turn();
            }
            host.turn();
            assert!(expected.starts_with(&host.received), "seed {seed}");
        }
    }
}

#[test]
fn whatever_is_done_to_a_handshake_nothing_panics() {
    for version in BOTH {
        for seed in 0..FORGERIES {
            let mut rng = Rng::with_seed(seed);
            let (mut host, mut peer) = connected(Faults::none(), seed, version);
            let forged_flight = rng.u8(0..2);
            for flight in 0..3 {
                let mut wire = std::mem::take(&mut peer.unsent);
                while peer.tls.wants_write() {
                    peer.tls.write_tls(&mut wire).expect("memory");
                }
                if flight == forged_flight && !wire.is_empty() {
                    mutate(&mut rng, &mut wire);
                }
                while !wire.is_empty() && host.end.is_none() {
                    let written = peer.socket.write(&wire);
                    wire.drain(..written);
                    host.turn();
                }
                host.turn();
                host.turn();
                let mut answer = Vec::new();
                peer.socket.read(&mut answer);
                let mut answer = answer.as_slice();
                while !answer.is_empty() && peer.tls.read_tls(&mut answer).is_ok() {
                    // A client that is told of a forgery gives up.
                    let _ = peer.tls.process_new_packets();
                }
            }
            assert_eq!(host.received, b"");
        }
    }
}
