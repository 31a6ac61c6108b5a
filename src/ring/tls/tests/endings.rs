//! Connections that end: what was said before is heard.

use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::{CipherSuiteCommon, SupportedCipherSuite, Tls12CipherSuite};

use super::*;
use crate::ring::tls::record::DATA_BYTES_MAX;

/// Both sides are there, and the peer has asked for something.
fn asked(seed: u64, version: &'static SupportedProtocolVersion) -> (Host, Peer) {
    let (mut host, mut peer) = connected(Faults::none(), seed, version);
    peer.tls.writer().write_all(b"hello").expect("memory");
    until(&mut host, &mut peer, "a request", |host, _| host.received == b"hello");
    (host, peer)
}

/// Whether the peer was told that nothing follows: a mere end would be an error.
fn was_told_of_the_end(peer: &mut Peer) -> bool {
    matches!(peer.tls.reader().read(&mut [0]), Ok(0))
}

#[test]
fn a_close_says_goodbye_after_all_that_was_sent() {
    for version in BOTH {
        let (mut host, mut peer) = connected(Faults::none(), 3, version);
        peer.tls.writer().write_all(b"hello").expect("memory");
        until(&mut host, &mut peer, "a request", |host, _| host.received == b"hello");
        host.unsent = vec![b'x'; 5000];
        until(&mut host, &mut peer, "an answer", |host, _| host.unsent.is_empty());
        let token = host.token.expect("accepted");
        host.batch.ops.push(Op::Close(token));
        host.turn();
        for _ in 0..10 {
            peer.turn();
        }
        assert_eq!(peer.received.len(), 5000);
        let mut end = [0];
        assert_eq!(peer.tls.reader().read(&mut end).expect("close_notify came"), 0);
        assert_eq!(host.driver.stats().tls.open, 0);
    }
}

/// A worker that has nothing else to do would keep the peer waiting for the end.
#[test]
fn a_turn_does_not_sleep_before_a_shutdown_has_left() {
    let (mut host, mut peer) = connected(Faults::none(), 9, &version::TLS13);
    peer.tls.writer().write_all(b"hello").expect("memory");
    until(&mut host, &mut peer, "a request", |host, _| host.received == b"hello");
    let token = host.token.expect("accepted");
    host.batch.arena = b"bye".to_vec();
    host.batch.ops = vec![Op::Send { token, from: 0, to: 3 }, Op::Shutdown(token)];
    let mut completions = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let Host { driver, batch, net, .. } = &mut host;
        driver.turn(batch, Wait::Forever, &mut completions).expect("a sound driver");
        if net.asleep_until(0).is_none() {
            break;
        }
    }
    peer.turn();
    assert_eq!(peer.received, b"bye");
    assert!(peer.socket.eof_seen(), "{completions:?}");
}

/// As a client does that has all to say at once: with TLS 1.3, its request comes with the end of its
/// handshake.
#[test]
fn a_request_is_heard_though_its_end_came_with_it() {
    for version in BOTH {
        for says_goodbye in [false, true] {
            let (mut host, mut peer) = connected(Faults::none(), 11, version);
            peer.tls.writer().write_all(b"hello").expect("memory");
            for _ in 0..ROUNDS_MAX {
                peer.turn();
                if !peer.tls.is_handshaking() {
                    break;
                }
                host.turn();
            }
            if says_goodbye {
                peer.tls.send_close_notify();
                peer.turn();
            }
            peer.socket.finish();
            until(&mut host, &mut peer, "an end", |host, _| host.end == Some(RecvEnd::Eof));
            assert_eq!(host.received, b"hello");
            host.unsent = b"world".to_vec();
            until(&mut host, &mut peer, "an answer", |_, peer| peer.received == b"world");
        }
    }
}

/// The client reads slowly, and there is no room for the end of the last record at first.
#[test]
fn what_the_worker_was_told_has_left_arrives_though_it_closes_then() {
    for version in BOTH {
        for bytes in [1, 4096, 4097, 9000, 11_000, 30_000] {
            let (mut host, mut peer) = asked(12, version);
            peer.reads_max = 700;
            host.unsent = vec![b'x'; bytes];
            until(&mut host, &mut peer, "an answer", |host, _| host.has_said_all());
            host.says_last(Op::Close);
            peer.reads_on();
            assert_eq!(peer.received.len(), bytes, "{version:?}");
        }
    }
}

/// No other number than its own seals it, and nothing goes before the rest of a record.
#[test]
fn a_shutdown_in_the_turn_of_a_short_send_tears_no_record() {
    for version in BOTH {
        for bytes in [11_000, 30_000] {
            let (mut host, mut peer) = asked(13, version);
            let token = host.token.expect("accepted");
            host.batch.arena = vec![b'x'; bytes];
            host.batch.ops =
                vec![Op::Send { token, from: 0, to: bytes as u32 }, Op::Shutdown(token)];
            let mut completions = Vec::new();
            host.driver.turn(&mut host.batch, Wait::No, &mut completions).expect("a sound driver");
            let [Completion::SendShort { taken, .. }] = completions[..] else {
                panic!("{completions:?}");
            };
            until(&mut host, &mut peer, "an end", |_, peer| peer.socket.eof_seen());
            peer.turn();
            let begun = (taken as usize).next_multiple_of(DATA_BYTES_MAX).min(bytes);
            assert_eq!(peer.received.len(), begun);
            assert!(was_told_of_the_end(&mut peer));
        }
    }
}

/// AES-GCM may seal so many records with one key, and TLS 1.2 has no way to change it.
#[test]
fn a_connection_of_tls12_ends_with_its_key() {
    const RECORDS: u64 = 20;
    let worn_soon = match cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls12(suite) => Tls12CipherSuite {
            common: CipherSuiteCommon {
                suite: suite.common.suite,
                hash_provider: suite.common.hash_provider,
                confidentiality_limit: RECORDS,
            },
            prf_provider: suite.prf_provider,
            kx: suite.kx,
            sign: suite.sign,
            aead_alg: suite.aead_alg,
        },
        SupportedCipherSuite::Tls13(_) => unreachable!("its name says so"),
    };
    let mut weak = CryptoProvider::clone(&provider());
    weak.cipher_suites = vec![SupportedCipherSuite::Tls12(Box::leak(Box::new(worn_soon)))];
    let identity = Identity::new();
    let net = SimNet::new(SETTINGS, Faults::none(), 14);
    let mut host = Host::with(net, identity.server_of(weak.into()));
    let mut peer = Peer::of(&host, &identity, &version::TLS12);
    peer.tls.writer().write_all(b"hello").expect("memory");
    until(&mut host, &mut peer, "a request", |host, _| host.received == b"hello");
    let mut answers = 0;
    while !host.closed && answers <= RECORDS {
        answers += 1;
        host.unsent = b"x".to_vec();
        host.turn();
        peer.turn();
    }
    assert!(host.closed, "after {answers} records");
    host.says_last(Op::Close);
    peer.turn();
    assert_eq!(peer.received.len() as u64, answers - 1);
    assert!(was_told_of_the_end(&mut peer));
}
