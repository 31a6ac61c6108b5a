//! One client of a herd: what it has seen, and whether that is all it should have.

use std::net::TcpStream;

use serde_json::Value;

use crate::common::seq_of;
use crate::parse::{EventStream, Frames, Head, Message, frame};
use crate::publisher::{Truth, channel_name, read_payload};

/// The transport it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sse,
    WsBare,
    WsEnvelope,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Sse, Self::WsBare, Self::WsEnvelope];
}

/// Whether it reads what has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    On,
    Stalled,
}

/// The state of its connection.
#[derive(Debug)]
pub enum Stage {
    /// Not connected, nor about to be.
    Out,
    Connecting,
    /// The request is sent.
    Asked,
    /// The stream has begun.
    Open,
}

/// How it was told of a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Gap events in the stream.
    pub gaps: u32,
    /// Close frame 1013 (slow consumer).
    pub slow: u32,
    /// Close frame 4000 (gap).
    pub gap_closes: u32,
    /// Close frame 1012 (restart).
    pub restarts: u32,
    /// The connection ended without a close frame.
    pub cuts: u32,
}

/// What bytes mean for the owner of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    GoOn,
    /// It closed, and so do we.
    Close,
}

/// A client.
#[derive(Debug)]
pub struct Member {
    pub kind: Kind,
    pub channel: usize,
    pub socket: Option<TcpStream>,
    pub stage: Stage,
    pub reading: Reading,
    /// It has stalled at least once.
    pub has_slept: bool,
    pub told: Told,
    /// Its cursor: the id of the last event or gap.
    pub last_id: Option<String>,
    /// The next event it must see, counted in its channel; `None`: any.
    pub next: Option<usize>,
    /// A gap said that this event comes next.
    promised: Option<u64>,
    input: Vec<u8>,
    events: EventStream,
    frames: Frames,
    pub received: u64,
    pub lost: u64,
    pub retry_ms: Option<u64>,
    /// The reason for the last refusal, if there was one.
    pub refused: Option<u16>,
}

impl Member {
    pub fn new(kind: Kind, channel: usize) -> Self {
        Self {
            kind,
            channel,
            socket: None,
            stage: Stage::Out,
            reading: Reading::On,
            has_slept: false,
            told: Told::default(),
            last_id: None,
            next: None,
            promised: None,
            input: Vec::new(),
            events: EventStream::default(),
            frames: Frames::default(),
            received: 0,
            lost: 0,
            retry_ms: None,
            refused: None,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// What it requests. A bare WebSocket sees no ids, so it has nothing to resume with.
    pub fn request(&self) -> String {
        let channel = channel_name(self.channel);
        let cursor = match &self.last_id {
            Some(id) if self.kind != Kind::WsBare => format!("&last_event_id={id}"),
            _ => String::new(),
        };
        if self.kind == Kind::Sse {
            return format!(
                "GET /sse?channel={channel}{cursor} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            );
        }
        let protocol = match self.kind {
            Kind::WsEnvelope => "Sec-WebSocket-Protocol: pushline.v1\r\n",
            Kind::Sse | Kind::WsBare => "",
        };
        format!(
            "GET /ws?channel={channel}{cursor} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{protocol}\
             Sec-WebSocket-Key: cHVzaGxpbmUgYmVuY2ghIQ==\r\n\r\n"
        )
    }

    /// Its connection is gone.
    pub fn forget_connection(&mut self) {
        self.socket = None;
        self.stage = Stage::Out;
        self.input = Vec::new();
        self.events = EventStream::default();
        self.frames = Frames::default();
        self.promised = None;
        if self.kind == Kind::WsBare {
            self.next = None;
        }
    }

    /// Takes bytes. What must be sent back goes to `reply`, ages of events to `ages`.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        truth: &Truth,
        reply: &mut Vec<u8>,
        ages: &mut Vec<u64>,
    ) -> After {
        self.input.extend_from_slice(bytes);
        if matches!(self.stage, Stage::Asked) {
            let Some(head) = Head::take(&mut self.input) else { return After::GoOn };
            let wanted = if self.kind == Kind::Sse { 200 } else { 101 };
            if head.status != wanted {
                self.refused = Some(head.status);
                return After::Close;
            }
            self.stage = Stage::Open;
        }
        let mut input = std::mem::take(&mut self.input);
        let after = match self.kind {
            Kind::Sse => self.read_events(&mut input, truth, ages),
            Kind::WsBare | Kind::WsEnvelope => self.read_frames(&mut input, truth, reply, ages),
        };
        self.input = input;
        after
    }

    fn read_events(&mut self, input: &mut Vec<u8>, truth: &Truth, ages: &mut Vec<u64>) -> After {
        for event in self.events.take(input) {
            match &event.event[..] {
                "pushline.gap" => {
                    let gap = serde_json::from_str(&event.data).expect("a gap is JSON");
                    self.gap(&gap, event.id, truth);
                }
                "pushline.open" => {}
                _ => self.event(event.id, &event.data, truth, ages),
            }
        }
        self.retry_ms = self.events.retry_ms.or(self.retry_ms);
        if self.last_id.is_none() && !self.events.last_id.is_empty() {
            self.last_id = Some(self.events.last_id.clone());
        }
        After::GoOn
    }

    fn read_frames(
        &mut self,
        input: &mut Vec<u8>,
        truth: &Truth,
        reply: &mut Vec<u8>,
        ages: &mut Vec<u64>,
    ) -> After {
        while let Some(message) = self.frames.take(input) {
            match message {
                Message::Text(text) if self.kind == Kind::WsBare => {
                    self.bare_event(&text, ages);
                }
                Message::Text(text) => {
                    let mut json: Value = serde_json::from_str(&text).expect("an envelope");
                    let id = json["id"].as_str().expect("an id").to_owned();
                    let data = json["data"].take();
                    match json["event"].as_str() {
                        Some("pushline.gap") => self.gap(&data, id, truth),
                        _ => self.event(id, data.as_str().expect("text"), truth, ages),
                    }
                }
                Message::Ping(data) => reply.extend(frame(10, [1, 2, 3, 4], &data)),
                Message::Close(code) => {
                    match code {
                        Some(1013) => self.told.slow += 1,
                        Some(4000) => self.told.gap_closes += 1,
                        Some(1012) => self.told.restarts += 1,
                        other => panic!("closed with {other:?}"),
                    }
                    return After::Close;
                }
                other => panic!("unasked for: {other:?}"),
            }
        }
        After::GoOn
    }

    fn bare_event(&mut self, data: &str, ages: &mut Vec<u64>) {
        let (place, age_us) = read_payload(data);
        assert!(self.next.is_none_or(|next| next == place), "{place} instead of {:?}", self.next);
        self.next = Some(place + 1);
        self.received += 1;
        ages.push(age_us);
    }

    fn event(&mut self, id: String, data: &str, truth: &Truth, ages: &mut Vec<u64>) {
        let (place, age_us) = read_payload(data);
        let seq = seq_of(&id);
        if let Some(promised) = self.promised.take() {
            assert_eq!(seq, promised, "a gap promised another event");
        } else if let Some(next) = self.next {
            assert_eq!(place, next, "lost or doubled without a word");
        }
        let known = truth.seq_at(self.channel, place);
        assert!(known.is_none_or(|known| known == seq), "{id} is event {place}, not {known:?}");
        self.last_id = Some(id);
        self.next = Some(place + 1);
        self.received += 1;
        ages.push(age_us);
    }

    /// It begins where we were, and announces the event that then comes.
    fn gap(&mut self, gap: &Value, id: String, truth: &Truth) {
        self.told.gaps += 1;
        assert_eq!(gap["channel"], channel_name(self.channel)[..]);
        let after = gap["after"].as_str().expect("an id");
        let first = gap["first"].as_str().map(seq_of);
        let next = first.and_then(|first| truth.place_of(self.channel, first));
        if gap["reason"] == "epoch" {
            assert_eq!(Some(after), self.last_id.as_deref(), "{gap}");
        } else if let Some(was) = self.next {
            let at = truth.place_of(self.channel, seq_of(after)).map_or(0, |place| place + 1);
            assert_eq!(at, was, "the gap begins elsewhere: {gap}");
            let next = next.unwrap_or(truth.count(self.channel));
            assert!(next > at, "nothing is missing: {gap}");
            self.lost += (next - at) as u64;
        }
        self.promised = first;
        self.next = next;
        self.last_id = Some(id);
    }
}
