//! An HTTP/2 client that does what it is told, and tells of every frame.

use std::collections::HashMap;
use std::net::SocketAddr;

use pushline::proto::h2::hpack::encode::write_field;
use pushline::proto::h2::hpack::{Decoder, HpackError, Scratch};
use pushline::proto::h2::{ErrorCode, PREFACE};

use super::Conn;
use super::sse::events;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// A setting.
pub const INITIAL_WINDOW: u16 = 4;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame of the server.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// Of a reset or a goodbye.
    pub fn code(&self) -> u32 {
        let code = self.payload.last_chunk().expect("a code");
        u32::from_be_bytes(*code)
    }
}

/// What came on a stream.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub fields: HashMap<String, String>,
    pub body: Vec<u8>,
    pub ended: bool,
    pub reset: Option<u32>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The data of the events that came whole.
    pub fn events(&self) -> Vec<String> {
        events(&self.body).map(|event| event.data).collect()
    }
}

pub struct Http2 {
    pub conn: Conn,
    decoder: Decoder,
    next_id: u32,
    /// By stream; of every frame that was read.
    pub answers: HashMap<u32, Answer>,
    /// Windows are opened again by what came.
    pub credits: bool,
}

impl Http2 {
    /// Opens a connection, with these settings.
    pub fn open_with(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut conn = Conn::open(addr);
        conn.send(PREFACE);
        let (decoder, answers) = (Decoder::default(), HashMap::new());
        let mut client = Self { conn, decoder, next_id: 1, answers, credits: true };
        let pair =
            |&(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        let payload: Vec<u8> = settings.iter().flat_map(pair).collect();
        client.send(SETTINGS, 0, 0, &payload);
        let first = client.frame().expect("settings");
        assert_eq!((first.kind, first.flags), (SETTINGS, 0), "{first:?}");
        client.send(SETTINGS, ACK, 0, b"");
        client
    }

    pub fn open(addr: SocketAddr) -> Self {
        Self::open_with(addr, &[])
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.conn.send(framed(kind, flags, stream, payload));
    }

    /// Begins a request; tells its stream.
    pub fn request(&mut self, method: &str, path: &str, more: &[(&str, &str)], ends: bool) -> u32 {
        let stream = self.next_id;
        self.next_id += 2;
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &head(method, path, more));
        stream
    }

    pub fn get(&mut self, path: &str) -> u32 {
        self.request("GET", path, &[], true)
    }

    pub fn post(&mut self, path: &str, body: &str) -> u32 {
        let stream = self.request("POST", path, &[], false);
        self.send(DATA, END_STREAM, stream, body.as_bytes());
        stream
    }

    /// The next frame; `None` at the end of the connection.
    pub fn frame(&mut self) -> Option<Frame> {
        while self.conn.buffer.len() < 9 || self.conn.buffer.len() < 9 + length(&self.conn.buffer) {
            if !self.conn.fill_or_cut() {
                return None;
            }
        }
        let bytes: Vec<u8> = self.conn.buffer.drain(..9 + length(&self.conn.buffer)).collect();
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        let frame = Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].into() };
        self.note(&frame);
        Some(frame)
    }

    fn note(&mut self, frame: &Frame) {
        let answer = self.answers.entry(frame.stream).or_default();
        answer.ended |= frame.ends();
        match frame.kind {
            HEADERS => {
                let fields = &mut answer.fields;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let take = |name: &[u8], value: &[u8]| {
                    fields.insert(text(name), text(value));
                    Ok::<(), HpackError>(())
                };
                let decoded = self.decoder.decode(&frame.payload, &mut Scratch::default(), take);
                decoded.expect("a field block");
                answer.status = answer.fields[":status"].parse().expect("a number");
            }
            DATA => {
                answer.body.extend_from_slice(&frame.payload);
                let length = frame.payload.len() as u32;
                if self.credits && length > 0 {
                    self.widen(0, length);
                    self.widen(frame.stream, length);
                }
            }
            RESET => answer.reset = Some(frame.code()),
            _ => {}
        }
    }

    pub fn widen(&mut self, stream: u32, by: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    }

    /// Reads until this holds of what came on the stream.
    pub fn until(&mut self, stream: u32, holds: impl Fn(&Answer) -> bool) -> &Answer {
        while !self.answers.get(&stream).is_some_and(&holds) {
            let frame = self.frame();
            assert!(frame.is_some(), "the connection ended: {:?}", self.answers);
        }
        &self.answers[&stream]
    }

    /// The whole answer on a stream.
    pub fn answer(&mut self, stream: u32) -> &Answer {
        self.until(stream, |answer| answer.ended || answer.reset.is_some())
    }

    /// Waits until the server has read all that was sent.
    pub fn sync(&mut self) {
        self.send(PING, 0, 0, b"in order");
        loop {
            let frame = self.frame().expect("the answer to a ping");
            if frame.kind == PING && frame.flags & ACK != 0 {
                return;
            }
        }
    }

    /// Reads to the end of the connection: the goodbyes.
    pub fn goodbyes(&mut self) -> Vec<Frame> {
        let mut found = Vec::new();
        while let Some(frame) = self.frame() {
            if frame.kind == GOAWAY {
                found.push(frame);
            }
        }
        found
    }

    /// Reads to the end of the connection, which is that of one that does too much.
    pub fn expect_calm(&mut self) {
        let goodbyes = self.goodbyes();
        let codes: Vec<u32> = goodbyes.iter().map(Frame::code).collect();
        assert_eq!(codes, [ErrorCode::EnhanceYourCalm as u32]);
    }
}

fn length(header: &[u8]) -> usize {
    u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize
}

pub fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A request's field block.
pub fn head(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let own =
        [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path)];
    // Pseudo-header fields come first.
    let (pseudo, others): (Vec<_>, Vec<_>) =
        more.iter().partition(|(name, _)| name.starts_with(':'));
    let mut block = Vec::new();
    for (name, value) in own.iter().chain(pseudo).chain(others) {
        write_field(&mut block, name.as_bytes(), value.as_bytes());
    }
    block
}
