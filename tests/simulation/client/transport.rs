//! A subscriber's stream: the request that opens it, and what comes out of its bytes.

use fastrand::Rng;
use serde_json::Value;

use super::conn::Conn;
use super::content::{check_envelope, check_sse};
use crate::parse::{EventStream, Frames, Head, Message, Responses, frame};
use crate::plan::Role;
use crate::truth::{Truth, tag_of};

const CLIENT_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// RFC 6455 section 1.3.
const ACCEPT_KEY: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a subscriber sees.
#[derive(Debug)]
pub enum Seen {
    /// The stream is open.
    Opened,
    /// The request was refused: the error's code.
    Refused(u16, String),
    /// An event with an id. Its data is checked.
    Event(u64),
    /// An event without one: its tag. Its data is checked.
    Bare(u64),
    /// A gap: the id of the event that tells it, and its data.
    Gap(u64, Value),
    /// An answer to an operation.
    Answer(Value),
    /// A close frame.
    Closed(Option<u16>),
}

#[derive(Debug)]
pub struct Stream {
    role: Role,
    enveloped: bool,
    open: bool,
    responses: Responses,
    events: EventStream,
    opened_told: bool,
    frames: Frames,
    close_sent: bool,
}

impl Stream {
    /// Sends the request that opens it.
    pub fn open(
        role: Role,
        channels: &[&str],
        cursor: Option<&str>,
        conn: &mut Conn,
        rng: &mut Rng,
    ) -> Self {
        let mut query: Vec<String> =
            channels.iter().map(|name| format!("channel={name}")).collect();
        let mut enveloped = channels.len() > 1 || role == Role::WsEnvelope;
        if role == Role::Sse && rng.u8(0..3) == 0 {
            enveloped = rng.bool();
            query.push(format!("envelope={}", if enveloped { "json" } else { "none" }));
        }
        let mut headers = String::new();
        match cursor {
            Some(cursor) if rng.bool() => headers = format!("Last-Event-ID: {cursor}\r\n"),
            Some(cursor) => {
                let name = ["last_event_id", "lastEventId", "lastEvent"][rng.usize(0..3)];
                query.push(format!("{name}={cursor}"));
            }
            None => {}
        }
        let path = if role == Role::Sse { "sse" } else { "ws" };
        if role != Role::Sse {
            headers.push_str("Upgrade: websocket\r\nConnection: Upgrade\r\n");
            headers.push_str("Sec-WebSocket-Version: 13\r\n");
            headers.push_str(&format!("Sec-WebSocket-Key: {CLIENT_KEY}\r\n"));
        }
        if role == Role::WsEnvelope {
            headers.push_str("Sec-WebSocket-Protocol: pushline.v1\r\n");
        }
        let query = query.join("&");
        let request = format!("GET /{path}?{query} HTTP/1.1\r\nHost: sim\r\n{headers}\r\n");
        conn.send(request.as_bytes());
        Self {
            role,
            enveloped,
            open: false,
            responses: Responses::default(),
            events: EventStream::default(),
            opened_told: false,
            frames: Frames::default(),
            close_sent: false,
        }
    }

    pub fn is_open(&self) -> bool {
        self.opened_told
    }

    /// Whether operations may still be sent.
    pub fn takes_frames(&self) -> bool {
        self.opened_told && self.role != Role::Sse && !self.close_sent
    }

    pub fn send_text(&self, conn: &mut Conn, text: &[u8], rng: &mut Rng) {
        conn.send(&frame(1, rng.u32(..).to_be_bytes(), text));
    }

    pub fn send_binary(&self, conn: &mut Conn, bytes: &[u8], rng: &mut Rng) {
        conn.send(&frame(2, rng.u32(..).to_be_bytes(), bytes));
    }

    pub fn send_ping(&self, conn: &mut Conn) {
        conn.send(&frame(9, [1, 2, 3, 4], b"ping"));
    }

    pub fn send_close(&mut self, conn: &mut Conn) {
        self.close_sent = true;
        conn.send(&frame(8, [4, 3, 2, 1], &1000u16.to_be_bytes()));
    }

    /// Our FIN is sent: nothing more can be said.
    pub fn say_no_more(&mut self) {
        self.close_sent = true;
    }

    /// Everything that has arrived complete.
    pub fn take(&mut self, conn: &mut Conn, truth: &Truth) -> Vec<Seen> {
        let mut seen = Vec::new();
        if !self.open {
            let Some(first) = self.take_head(conn) else { return seen };
            seen.push(first);
            if !self.open {
                return seen;
            }
        }
        match self.role {
            Role::Sse => self.take_events(conn, truth, &mut seen),
            _ => self.take_frames(conn, truth, &mut seen),
        }
        seen
    }

    /// The answer to the request. Of an SSE stream it is the preamble that opens it.
    fn take_head(&mut self, conn: &mut Conn) -> Option<Seen> {
        let status = conn.input.get(9..12)?;
        if status != b"200" && status != b"101" {
            let response = self.responses.take(&mut conn.input)?;
            let body: Value = serde_json::from_slice(&response.body).expect("an error is JSON");
            let code = body["error"]["code"].as_str().expect("with a code");
            return Some(Seen::Refused(response.head.status, code.into()));
        }
        let head = Head::take(&mut conn.input)?;
        self.open = true;
        match self.role {
            Role::Sse => {
                assert_eq!(head.header("content-type"), Some("text/event-stream"));
                assert_eq!(head.header("content-length"), None);
            }
            _ => {
                assert_eq!(head.status, 101);
                assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT_KEY));
                let protocol = (self.role == Role::WsEnvelope).then_some("pushline.v1");
                assert_eq!(head.header("sec-websocket-protocol"), protocol);
            }
        }
        self.opened_told = true;
        Some(Seen::Opened)
    }

    fn take_events(&mut self, conn: &mut Conn, truth: &Truth, seen: &mut Vec<Seen>) {
        for event in self.events.take(&mut conn.input) {
            assert!(self.events.retry_ms.is_some(), "the preamble comes first");
            let id = truth.seq_of(&event.id);
            let data = || serde_json::from_str::<Value>(&event.data).expect("an envelope is JSON");
            if event.event == "pushline.gap" {
                let data = if self.enveloped { data()["data"].clone() } else { data() };
                seen.push(Seen::Gap(id, data));
                continue;
            }
            let content = truth.event(id);
            if self.enveloped {
                assert_eq!(event.event, content.event_type.as_deref().unwrap_or(""));
                assert_eq!(data()["id"], event.id);
                check_envelope(content, &data());
            } else {
                check_sse(content, &event.event, &event.data);
            }
            seen.push(Seen::Event(id));
        }
    }

    fn take_frames(&mut self, conn: &mut Conn, truth: &Truth, seen: &mut Vec<Seen>) {
        while let Some(message) = self.frames.take(&mut conn.input) {
            match message {
                Message::Ping(payload) => {
                    if !self.close_sent {
                        conn.send(&frame(10, [9, 9, 9, 9], &payload));
                    }
                }
                Message::Pong(payload) => assert_eq!(payload, b"ping"),
                Message::Close(code) => {
                    if !self.close_sent {
                        self.send_close(conn);
                    }
                    seen.push(Seen::Closed(code));
                }
                Message::Text(text) if self.role == Role::WsEnvelope => {
                    seen.push(envelope_seen(&text, truth));
                }
                Message::Text(text) => seen.push(bare_seen(text.as_bytes(), false, truth)),
                Message::Binary(bytes) => {
                    assert_eq!(self.role, Role::WsBare, "pushline.v1 speaks text");
                    seen.push(bare_seen(&bytes, true, truth));
                }
            }
        }
    }
}

fn bare_seen(data: &[u8], binary: bool, truth: &Truth) -> Seen {
    let content = truth.sent(tag_of(data));
    assert_eq!(content.data, data);
    assert_eq!(binary, content.kind == pushline::log::event::Kind::Binary);
    Seen::Bare(content.tag)
}

fn envelope_seen(text: &str, truth: &Truth) -> Seen {
    let value: Value = serde_json::from_str(text).expect("an envelope is JSON");
    let Some(channel) = value.get("channel").filter(|_| value.get("ok").is_none()) else {
        return Seen::Answer(value);
    };
    let id = truth.seq_of(value["id"].as_str().expect("an event has an id"));
    if value["event"] == "pushline.gap" {
        assert_eq!(*channel, value["data"]["channel"]);
        return Seen::Gap(id, value["data"].clone());
    }
    check_envelope(truth.event(id), &value);
    Seen::Event(id)
}
