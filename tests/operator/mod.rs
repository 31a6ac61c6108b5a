//! A running server and plain blocking clients, for tests of what the operator sees. Every read has
//! a time limit.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use pushline::auth::Gate;
use pushline::config::Settings;
use pushline::proto::ws::frame::Opcode;
use pushline::server::Server;
use pushline::tools::wire::frames;
use pushline::tools::wire::head::Head;
use serde_json::Value;

/// How long anything may take before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A server with two workers on free ports. There are no heartbeats during a test, so that bytes
/// can be counted.
pub fn start(change: impl Fn(&mut Settings)) -> Server {
    let mut settings = Settings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        workers: Some(2),
        cpus: None,
        heartbeat: Duration::from_secs(10 * 365 * 86_400),
        ..Settings::default()
    };
    change(&mut settings);
    Server::start(settings, Gate::open()).expect("the server starts")
}

/// An answer of the server.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: Head,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The code of an error body.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("an error has a code").to_owned()
    }
}

/// One request on a connection of its own.
pub fn request(address: SocketAddr, method: &str, target: &str) -> Answer {
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    exchange(address, head.as_bytes())
}

pub fn get(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target)
}

/// Sends these bytes and reads to the end.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(address);
    stream.write_all(bytes).expect("the server takes a request");
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("the answer ends in time");
    answer_of(&received)
}

fn answer_of(received: &[u8]) -> Answer {
    let parsed = Head::parse(received).expect("a head");
    let (head, length) = parsed.unwrap_or_else(|| panic!("no head: {}", received.escape_ascii()));
    let body = String::from_utf8_lossy(&received[length..]).into_owned();
    Answer { status: head.status, head, body }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Waits for a fact.
pub fn await_that(what: &str, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !fact() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A client that counts every byte.
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, unread: Vec::new(), sent_bytes: 0, received_bytes: 0 }
    }

    /// A subscriber over SSE; `query` names its channels. Returns once it is subscribed.
    pub fn sse(address: SocketAddr, query: &str) -> Self {
        Self::sse_on(connect(address), query)
    }

    pub fn sse_on(stream: TcpStream, query: &str) -> Self {
        let mut client = Self::new(stream);
        client.send(format!("GET /sse?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let head = client.read_until(b"\r\n\r\n");
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", head.escape_ascii());
        client.read_until(b"\n\n");
        client
    }

    /// A subscriber over WebSocket.
    pub fn ws(address: SocketAddr, query: &str) -> Self {
        let mut client = Self::new(connect(address));
        let head = format!(
            "GET /ws?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.send(head.as_bytes());
        let head = client.read_until(b"\r\n\r\n");
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", head.escape_ascii());
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
        self.sent_bytes += bytes.len() as u64;
    }

    /// Publishes on this connection, which stays open.
    pub fn publish(&mut self, channel: &str, data: &str) {
        let length = data.len();
        self.send(
            format!(
                "POST /channels/{channel} HTTP/1.1\r\nHost: localhost\r\n\
                 Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{data}"
            )
            .as_bytes(),
        );
        let head = self.read_until(b"\r\n\r\n");
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", head.escape_ascii());
        let head = answer_of(&head);
        let length = head.header("content-length").and_then(|length| length.parse().ok());
        self.read_exact(length.expect("a length"));
    }

    /// Reads this many events of an SSE stream.
    pub fn read_sse_events(&mut self, count: usize) -> u64 {
        for _ in 0..count {
            let event = self.read_until(b"\n\n");
            assert!(event.starts_with(b"id: "), "{}", event.escape_ascii());
        }
        count as u64
    }

    /// Reads this many frames of a WebSocket; returns the last one's opcode and payload.
    pub fn read_ws_frames(&mut self, count: usize) -> (Opcode, Vec<u8>) {
        let mut last = None;
        for _ in 0..count {
            last = Some(self.read_ws_frame());
        }
        last.expect("at least one")
    }

    fn read_ws_frame(&mut self) -> (Opcode, Vec<u8>) {
        loop {
            if let Some((frame, length)) = frames::first(&self.unread).expect("a frame") {
                let (opcode, payload) = (frame.opcode, frame.payload.to_vec());
                self.unread.drain(..length);
                return (opcode, payload);
            }
            self.read_more();
        }
    }

    /// Whether the server ends the stream in time.
    pub fn is_ended(&mut self) -> bool {
        let mut last_words = Vec::new();
        self.stream.read_to_end(&mut last_words).is_ok()
    }

    fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            let found = self.unread.windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                return self.unread.drain(..at + end.len()).collect();
            }
            self.read_more();
        }
    }

    fn read_exact(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            self.read_more();
        }
        self.unread.drain(..count).collect()
    }

    fn read_more(&mut self) {
        let mut piece = [0; 16 * 1024];
        let count = loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result.expect("bytes in time"),
            }
        };
        assert_ne!(count, 0, "the stream ended behind {}", self.unread.escape_ascii());
        self.unread.extend_from_slice(&piece[..count]);
        self.received_bytes += count as u64;
    }
}
