//! Two WebSocket clients: `tungstenite`, an independent one, for well-behaved ones, and a raw
//! one that can break every rule.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use base64::Engine;
use pushline::proto::ws::frame::Fin;
use pushline::tools::wire::frames;
use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use super::PATIENCE;
use super::http::{Conn, Response, request};

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The key of RFC 6455 section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A well-behaved client.
pub struct Ws {
    pub socket: WebSocket<TcpStream>,
}

impl Ws {
    /// Without a subprotocol. `query` is what follows `/ws?`.
    pub fn bare(addr: SocketAddr, query: &str) -> Self {
        Self::open(addr, query, None, &[])
    }

    /// With `pushline.v1`.
    pub fn envelope(addr: SocketAddr, query: &str) -> Self {
        Self::open(addr, query, Some("pushline.v1"), &[])
    }

    pub fn open(
        addr: SocketAddr,
        query: &str,
        protocol: Option<&'static str>,
        headers: &[(&'static str, &str)],
    ) -> Self {
        let url = format!("ws://{addr}/ws?{query}");
        let mut request = url.into_client_request().expect("a request");
        if let Some(protocol) = protocol {
            request.headers_mut().insert("Sec-WebSocket-Protocol", value(protocol));
        }
        for (name, text) in headers {
            request.headers_mut().insert(*name, value(text));
        }
        let stream = Conn::open(addr).stream;
        let (socket, response) = tungstenite::client(request, stream).expect("a handshake");
        let selected = response.headers().get("Sec-WebSocket-Protocol");
        assert_eq!(selected.map(|it| it.to_str().expect("text")), protocol);
        Self { socket }
    }

    pub fn send(&mut self, message: Message) {
        self.socket.send(message).expect("the server reads");
    }

    /// Sends an operation; returns the next message that is an answer. Events before it are kept.
    pub fn op(&mut self, op: &Value) {
        self.send(Message::text(op.to_string()));
    }

    /// The next message with data; pings are answered on the way.
    pub fn message(&mut self) -> Message {
        loop {
            match self.socket.read().expect("a message") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    pub fn text(&mut self) -> String {
        match self.message() {
            Message::Text(text) => text.to_string(),
            other => panic!("instead of text: {other:?}"),
        }
    }

    pub fn json(&mut self) -> Value {
        serde_json::from_str(&self.text()).expect("JSON")
    }

    /// Checks that the server closes with this code and reason; the handshake is completed.
    pub fn expect_close(&mut self, code: u16, reason: &str) {
        match self.message() {
            Message::Close(Some(frame)) => {
                assert_eq!((u16::from(frame.code), frame.reason.as_str()), (code, reason));
            }
            other => panic!("instead of a close: {other:?}"),
        }
        // tungstenite answers the close frame when it is driven further, and ends with the
        // connection.
        while self.socket.read().is_ok() {}
    }
}

fn value(text: &str) -> tungstenite::http::HeaderValue {
    text.parse().expect("a header value")
}

/// A client that writes frames itself.
pub struct RawWs {
    pub conn: Conn,
    pub head: Response,
}

/// A frame of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl RawFrame {
    /// The code and reason of a close frame.
    pub fn close(&self) -> (u16, String) {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        let code = u16::from_be_bytes([self.payload[0], self.payload[1]]);
        (code, String::from_utf8(self.payload[2..].to_vec()).expect("a reason is UTF-8"))
    }
}

impl RawWs {
    pub fn bare(addr: SocketAddr, query: &str) -> Self {
        Self::over(Conn::open(addr), query, &[])
    }

    pub fn envelope(addr: SocketAddr, query: &str) -> Self {
        Self::over(Conn::open(addr), query, &[("Sec-WebSocket-Protocol", "pushline.v1")])
    }

    pub fn over(mut conn: Conn, query: &str, headers: &[(&str, &str)]) -> Self {
        conn.send(upgrade(&format!("/ws?{query}"), headers));
        let head = conn.response_head();
        assert_eq!(head.status, 101, "{}", String::from_utf8_lossy(&conn.rest()));
        assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT));
        assert_eq!(head.header("content-length"), None);
        Self { conn, head }
    }

    pub fn send(&mut self, frame: impl AsRef<[u8]>) {
        self.conn.send(frame);
    }

    /// The next frame; the server never masks, never sets reserved bits, and uses the shortest
    /// length.
    pub fn frame(&mut self) -> RawFrame {
        loop {
            if let Some((found, length)) = frames::first(&self.conn.buffer).expect("a frame") {
                let (fin, opcode) = (found.fin == Fin::Last, found.opcode as u8);
                let frame = RawFrame { fin, opcode, payload: found.payload.to_vec() };
                self.conn.buffer.drain(..length);
                return frame;
            }
            assert!(self.conn.fill(), "the stream ended in {:?}", self.conn.buffer);
        }
    }

    /// The next frame that is not a ping; pings are answered.
    pub fn answer(&mut self) -> RawFrame {
        loop {
            let got = self.frame();
            if got.opcode != PING {
                return got;
            }
            // The server may have gone since it asked.
            let _ = self.conn.stream.write_all(&frame(true, PONG, &got.payload));
        }
    }

    /// Checks that the server closes with this code; we answer, and it ends the connection.
    pub fn expect_close(&mut self, code: u16) {
        assert_eq!(self.answer().close().0, code);
        self.send(frame(true, CLOSE, &code.to_be_bytes()));
        self.conn.expect_gone();
    }
}

/// An upgrade request with what every one of them has.
pub fn upgrade(target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ];
    all.extend_from_slice(headers);
    request("GET", target, &all, None)
}

/// A masked frame, as a client sends it.
pub fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0x00, 0xff, 0x31];
    let mut bytes = header(fin, opcode, payload.len() as u64, 0x80);
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().enumerate().map(|(place, byte)| byte ^ MASK[place % 4]));
    bytes
}

/// Only the header of a frame (with `0x80` for a masked one), without its key.
pub fn header(fin: bool, opcode: u8, length: u64, mask_bit: u8) -> Vec<u8> {
    let mut bytes = vec![if fin { 0x80 } else { 0 } | opcode];
    match length {
        0..=125 => bytes.push(length as u8 | mask_bit),
        126..=0xffff => {
            bytes.push(126 | mask_bit);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(127 | mask_bit);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes
}

pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A read deadline, for a client that is driven in small steps.
pub fn patience(socket: &WebSocket<TcpStream>) {
    socket.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
}
