//! A client's end of HTTP/2: what a subscriber sends and reads in the form of HTTP/1.1 goes over a
//! stream, whose windows open when the client likes. Made from RFC 9113, but for the field
//! compression, which has tests of its own.

use std::time::Duration;

use fastrand::Rng;
use pushline::proto::h2::PREFACE;
use pushline::proto::h2::hpack::encode::write_field;
use pushline::proto::h2::hpack::{Decoder, HpackError, Scratch};

use super::conn::End;
use crate::plan::{pick, up_to};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const INITIAL_WINDOW: u16 = 4;
const WINDOW_DEFAULT: u32 = 65_535;

/// The only stream.
const STREAM: u32 = 1;

/// A window of ours: what the server may send, and what it may send once we say so.
#[derive(Debug)]
struct Window {
    open: u32,
    owed: u32,
}

#[derive(Debug)]
pub struct Tunnel {
    /// The request until it is whole.
    request: Vec<u8>,
    is_open: bool,
    /// It was refused before the server had the whole preface: the answer is one of HTTP/1.1.
    is_refused: bool,
    /// A frame has come.
    has_heard: bool,
    received: Vec<u8>,
    decoder: Decoder,
    of_stream: Window,
    of_all: Window,
    /// Opens no window before.
    credit_at: Duration,
    /// How the stream ended.
    pub end: Option<End>,
}

impl Tunnel {
    pub fn new(rng: &mut Rng) -> Self {
        let open = pick(rng, &[0, 1, 100, 3000, WINDOW_DEFAULT, WINDOW_DEFAULT]);
        Self {
            request: Vec::new(),
            is_open: false,
            is_refused: false,
            has_heard: false,
            received: Vec::new(),
            decoder: Decoder::default(),
            of_stream: Window { open, owed: WINDOW_DEFAULT - open },
            of_all: Window { open: WINDOW_DEFAULT, owed: 0 },
            credit_at: Duration::ZERO,
            end: None,
        }
    }

    /// What goes over the connection for these bytes of a request.
    pub fn send(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.request.extend_from_slice(bytes);
        if self.is_open || !self.request.ends_with(b"\r\n\r\n") {
            return Vec::new();
        }
        self.is_open = true;
        let settings = [&INITIAL_WINDOW.to_be_bytes()[..], &self.of_stream.open.to_be_bytes()];
        let mut out = PREFACE.to_vec();
        write_frame(&mut out, SETTINGS, 0, 0, &settings.concat());
        write_frame(&mut out, HEADERS, END_HEADERS | END_STREAM, STREAM, &self.block());
        out
    }

    fn block(&self) -> Vec<u8> {
        let text = std::str::from_utf8(&self.request).expect("a request is text");
        let mut lines = text.trim_end().split("\r\n");
        let mut words = lines.next().expect("a request line").split(' ');
        let (method, path) = (words.next().expect("a method"), words.next().expect("a target"));
        let fields = lines.map(|line| line.split_once(": ").expect("a header line"));
        let mut block = Vec::new();
        let pseudo = [(":method", method), (":scheme", "http"), (":path", path)];
        for (name, value) in pseudo.into_iter().chain(fields) {
            write_field(&mut block, name.to_ascii_lowercase().as_bytes(), value.as_bytes());
        }
        block
    }

    /// Takes what arrived, and appends to `out` what the stream says and to `reply` what we answer.
    pub fn receive(&mut self, arrived: &mut Vec<u8>, out: &mut Vec<u8>, reply: &mut Vec<u8>) {
        self.received.append(arrived);
        self.is_refused |= !self.has_heard && self.received.starts_with(b"HTTP/1.1 ");
        if self.is_refused {
            return out.append(&mut self.received);
        }
        while let Some((header, rest)) = self.received.split_first_chunk::<9>() {
            let &[l2, l1, l0, kind, flags, s3, s2, s1, s0] = header;
            let length = u32::from_be_bytes([0, l2, l1, l0]) as usize;
            assert!(length <= 16_384, "a frame larger than we take");
            let Some(payload) = rest.get(..length).map(<[u8]>::to_vec) else { return };
            self.received.drain(..9 + length);
            self.has_heard = true;
            let stream = u32::from_be_bytes([s3, s2, s1, s0]);
            self.frame((kind, flags, stream), &payload, out, reply);
        }
    }

    fn frame(
        &mut self,
        (kind, flags, stream): (u8, u8, u32),
        payload: &[u8],
        out: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) {
        match kind {
            SETTINGS if flags & ACK == 0 => write_frame(reply, SETTINGS, ACK, 0, b""),
            PING if flags & ACK == 0 => write_frame(reply, PING, ACK, 0, payload),
            HEADERS => {
                assert_eq!((stream, self.end), (STREAM, None));
                self.head(payload, out);
            }
            DATA => {
                assert_eq!((stream, self.end), (STREAM, None));
                let length = payload.len() as u32;
                for window in [&mut self.of_stream, &mut self.of_all] {
                    window.open = window.open.checked_sub(length).expect("within the window");
                    window.owed += length;
                }
                out.extend_from_slice(payload);
            }
            RST_STREAM => self.end = self.end.or(Some(End::Reset)),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            self.end = Some(End::Eof);
        }
    }

    fn head(&mut self, block: &[u8], out: &mut Vec<u8>) {
        let take = |name: &[u8], value: &[u8]| {
            let line: &[&[u8]] = match name {
                b":status" => &[b"HTTP/1.1 ", value, b" Whatever\r\n"],
                _ => &[name, b": ", value, b"\r\n"],
            };
            out.extend_from_slice(&line.concat());
            Ok::<(), HpackError>(())
        };
        let decoded = self.decoder.decode(block, &mut Scratch::default(), take);
        decoded.expect("a field block");
        out.extend_from_slice(b"\r\n");
    }

    /// When it opens a window again.
    pub fn due_at(&self) -> Option<Duration> {
        let owes = self.of_stream.owed > 0 || self.of_all.owed > 0;
        (owes && self.is_open && self.end.is_none()).then_some(self.credit_at)
    }

    /// Opens windows, by as much as it likes.
    pub fn credit(&mut self, now: Duration, hurry: bool, rng: &mut Rng, reply: &mut Vec<u8>) {
        if !self.due_at().is_some_and(|at| hurry || at <= now) {
            return;
        }
        for (stream, window) in [(STREAM, &mut self.of_stream), (0, &mut self.of_all)] {
            let by = if hurry { window.owed } else { rng.u32(0..=window.owed) };
            if by > 0 {
                window.owed -= by;
                window.open += by;
                write_frame(reply, WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
            }
        }
        let longest = pick(rng, &[1, 10, 100, 100, 3000]);
        self.credit_at = now + up_to(rng, Duration::from_millis(longest));
    }
}

fn write_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
}
