//! The server over TLS: streams and publishes, certificates and their renewal, tickets, client
//! certificates, and third-party clients.

mod certificates;
mod clients;
mod handshakes;
mod renewal;
mod secrets;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use pushline::config::Settings;
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, DEFAULT_VERSIONS, HandshakeKind, ProtocolVersion, StreamOwned,
    SupportedProtocolVersion, version,
};

use crate::common::http::fetch;
use crate::common::identity::Identity;
use crate::common::{PATIENCE, TestServer, await_subscribers, await_that, metric, publish};

/// A server that speaks TLS with these files, and where.
fn serve(identity: &Identity, change: impl Fn(&mut Settings)) -> (TestServer, SocketAddr) {
    let server = TestServer::with(|settings| {
        identity.serve(settings);
        change(settings);
    });
    let at = server.server().listen_tls().expect("a TLS listener");
    (server, at)
}

/// A client's connection.
struct Client(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Client {
    fn connect(at: SocketAddr, config: Arc<ClientConfig>, name: &str) -> std::io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let socket = TcpStream::connect(at)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let tls = ClientConnection::new(config, name).expect("a configuration");
        let mut stream = StreamOwned::new(tls, socket);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("it is sent");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Reads on until a line is this one.
    fn until(&mut self, wanted: &str) {
        while self.line() != wanted {}
    }

    /// The status and the body of the answer to a request that closes.
    fn ask(mut self, request: &str) -> (u16, String) {
        self.send(request);
        let mut answer = String::new();
        // It says that nothing follows before it closes: else this is an error.
        self.0.read_to_string(&mut answer).expect("a clean end");
        let status = answer.get(9..12).and_then(|status| status.parse().ok());
        (status.expect("a status"), answer)
    }

    fn sees_refusal(mut self) -> bool {
        self.0.read(&mut [0]).is_err()
    }

    fn tls(&self) -> &ClientConnection {
        &self.0.get_ref().conn
    }
}

fn post(channel: &str, data: &str) -> String {
    format!(
        "POST /channels/{channel} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{data}",
        data.len()
    )
}

const STREAM: &str = "GET /sse?channel=news HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn with_version(
    identity: &Identity,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    identity.client(&[version])
}

#[test]
fn events_reach_streams_with_and_without_tls() {
    let identity = Identity::new(&["localhost"]);
    let (server, at) = serve(&identity, |_| {});
    let mut streams: Vec<Client> = [&version::TLS13, &version::TLS12]
        .map(|version| with_version(&identity, version))
        .into_iter()
        .map(|config| Client::connect(at, config, "localhost").expect("a handshake"))
        .collect();
    streams.iter_mut().for_each(|stream| stream.send(STREAM));
    await_subscribers(server.addr, "news", 2);
    publish(server.addr, "news", "without");
    let publisher = Client::connect(at, identity.client(DEFAULT_VERSIONS), "localhost");
    let (status, answer) = publisher.expect("a handshake").ask(&post("news", "with"));
    assert_eq!((status, answer.contains("\"subscribers\":2")), (200, true), "{answer}");
    for stream in &mut streams {
        stream.until("data: without");
        stream.until("data: with");
    }
    let versions = streams.iter().map(|stream| stream.tls().protocol_version());
    let expected = [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2].map(Some);
    assert_eq!(versions.collect::<Vec<_>>(), expected);
}

/// More than socket buffers hold, so that sends are short and records cut.
#[test]
fn a_reader_far_behind_gets_everything_in_order() {
    const EVENTS: usize = 300;
    let identity = Identity::new(&["localhost"]);
    let (server, at) = serve(&identity, |settings| settings.send_buffer = Some(8 << 10));
    let connect = |version| Client::connect(at, with_version(&identity, version), "localhost");
    let mut streams = [&version::TLS13, &version::TLS12].map(|v| connect(v).expect("a handshake"));
    streams.iter_mut().for_each(|stream| stream.send(STREAM));
    await_subscribers(server.addr, "news", 2);
    let filler = "x".repeat(20_000);
    for event in 0..EVENTS {
        publish(server.addr, "news", &format!("{event} {filler}"));
    }
    for stream in &mut streams {
        for event in 0..EVENTS {
            stream.until(&format!("data: {event} {filler}"));
        }
    }
}

#[test]
fn a_client_that_comes_back_resumes_its_session_at_any_worker() {
    let identity = Identity::new(&["localhost"]);
    let (server, at) = serve(&identity, |_| {});
    let config = identity.client(DEFAULT_VERSIONS);
    let mut kinds = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(at, config.clone(), "localhost").expect("a handshake");
        kinds.push(client.tls().handshake_kind());
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.line(), "HTTP/1.1 200 OK");
    }
    assert_ne!(kinds[0], Some(HandshakeKind::Resumed));
    assert!(kinds[1..].iter().all(|kind| *kind == Some(HandshakeKind::Resumed)), "{kinds:?}");
    await_that("the count of it", || {
        let resumed = "pushline_tls_handshakes_total{result=\"resumed\"}";
        metric(server.admin, resumed) == 7
    });
}

#[test]
fn a_get_without_tls_is_sent_to_the_same_place_with_it() {
    let identity = Identity::new(&["localhost"]);
    let (server, at) = serve(&identity, |settings| settings.tls.redirect = true);
    let answer = fetch(server.addr, "GET", "/sse?channel=news", &[], None);
    let there = format!("https://127.0.0.1:{}/sse?channel=news", at.port());
    assert_eq!((answer.status, answer.header("location")), (308, Some(there.as_str())));
    publish(server.addr, "news", "posts go on");
}
