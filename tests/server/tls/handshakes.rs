//! Handshakes: what is agreed on, sessions that resume, and clients that do not go on.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use pushline::config::TlsVersion;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, DEFAULT_VERSIONS, HandshakeKind, version};

use super::{Client, STREAM, serve, with_version};
use crate::common::identity::Identity;
use crate::common::{PATIENCE, await_subscribers, await_that, metric, publish};

#[test]
fn a_handshake_that_does_not_go_on_is_cut_and_streams_live_on() {
    let identity = Identity::new(&["localhost"]);
    // Long enough for a handshake that does go on.
    let (server, at) = serve(&identity, |settings| settings.head_time = Duration::from_secs(4));
    let connect = || Client::connect(at, identity.client(DEFAULT_VERSIONS), "localhost");
    let mut stream = connect().expect("a handshake");
    stream.send(STREAM);
    await_subscribers(server.addr, "news", 1);
    let hello = hello(&identity);
    // Nothing, half of the first message, and all of it but not the last.
    let silent = [0, hello.len() / 2, hello.len()].map(|said| {
        let mut silent = TcpStream::connect(at).expect("it listens");
        silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        silent.write_all(&hello[..said]).expect("it is sent");
        (silent, said)
    });
    for (mut silent, said) in silent {
        let answered = silent.read_to_end(&mut Vec::new()).expect("an end");
        assert_eq!(answered > 0, said == hello.len());
    }
    await_that("three are counted", || {
        metric(server.admin, "pushline_closes_total{reason=\"head_timeout\"}") == 3
    });
    publish(server.addr, "news", "still there");
    stream.until("data: still there");
}

/// The first message of a client.
fn hello(identity: &Identity) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client =
        ClientConnection::new(identity.client(DEFAULT_VERSIONS), name).expect("a configuration");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory");
    hello
}

#[test]
fn versions_before_the_oldest_allowed_are_refused() {
    let identity = Identity::new(&["localhost"]);
    for (oldest, is_served) in [(TlsVersion::Tls12, true), (TlsVersion::Tls13, false)] {
        let (_server, at) = serve(&identity, |settings| settings.tls.min_version = oldest);
        let connect = |version| Client::connect(at, with_version(&identity, version), "localhost");
        assert_eq!(connect(&version::TLS12).is_ok(), is_served, "{oldest:?}");
        assert!(connect(&version::TLS13).is_ok(), "{oldest:?}");
    }
}

/// How the second of two connections comes about, the first of which is to `ats[0]`.
fn second(
    ats: [std::net::SocketAddr; 2],
    config: &std::sync::Arc<ClientConfig>,
) -> Option<HandshakeKind> {
    let [_, kind] = ats.map(|at| {
        let mut client = Client::connect(at, config.clone(), "localhost").expect("a handshake");
        let kind = client.tls().handshake_kind();
        // The ticket comes before the answer.
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.line(), "HTTP/1.1 200 OK");
        kind
    });
    kind
}

#[test]
fn sessions_resume_at_another_node_with_the_same_key_file() {
    let identity = Identity::new(&["localhost"]);
    let secret = identity.folder().join("tickets");
    fs::write(&secret, "0123456789abcdef0123456789abcdef\n").expect("written");
    for (file, resumes) in [(Some(secret), true), (None, false)] {
        let nodes = [(); 2]
            .map(|()| serve(&identity, |settings| settings.tls.ticket_key_file = file.clone()));
        let ats = [nodes[0].1, nodes[1].1];
        let kind = second(ats, &identity.client(DEFAULT_VERSIONS));
        assert_eq!(kind == Some(HandshakeKind::Resumed), resumes, "{kind:?}");
    }
}

/// Others could send it again, and so publish twice.
#[test]
fn no_session_has_early_data() {
    let identity = Identity::new(&["localhost"]);
    let (_server, at) = serve(&identity, |_| {});
    let mut config = ClientConfig::clone(&identity.client(DEFAULT_VERSIONS));
    config.enable_early_data = true;
    let config = config.into();
    assert_eq!(second([at, at], &config), Some(HandshakeKind::Resumed));
    let name = ServerName::try_from("localhost").expect("a name");
    let mut third = ClientConnection::new(config, name).expect("a configuration");
    assert!(third.early_data().is_none(), "a ticket allows it");
}
