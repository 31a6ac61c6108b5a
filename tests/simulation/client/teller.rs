//! Tells a story on a channel of its own: a producer that sends a stream's body, is cut and comes back,
//! and a plain reader of it, who is cut, too. The oracle is the text: what was read is its beginning at
//! all times, and all of it once it was told to the end.

use std::time::Duration;

use fastrand::Rng;
use pushline::ring::sim::SimNet;
use serde_json::Value;

use super::conn::Conn;
use super::{Actor, Ctx, Season};
use crate::parse::{EventStream, Head, Responses};
use crate::truth::{STORIES, Truth};

pub struct Teller {
    channel: String,
    /// What there is to tell; each ends in a dot, and has no other.
    words: Vec<String>,
    producer: Producer,
    reader: Reader,
    act_at: Duration,
}

#[derive(Default)]
struct Producer {
    conn: Option<Conn>,
    responses: Responses,
    /// Words of this body that were sent.
    sent: usize,
    /// Words that were sent of any body: nothing else can be read.
    sent_ever: usize,
    /// How the stream ended, once the server has said so.
    ended: Option<String>,
}

#[derive(Default)]
struct Reader {
    conn: Option<Conn>,
    head: Option<Head>,
    lines: EventStream,
    read: String,
    is_done: bool,
}

impl Teller {
    pub fn new(rng: &mut Rng) -> Self {
        let words = (0..rng.usize(1..20)).map(|_| "x".repeat(rng.usize(0..60)) + ".").collect();
        let channel = format!("{STORIES}{:x}", rng.u64(..));
        let (producer, reader) = (Producer::default(), Reader::default());
        Self { channel, words, producer, reader, act_at: Duration::ZERO }
    }

    fn is_over(&self) -> bool {
        self.producer.ended.is_some()
    }

    fn produce(&mut self, ctx: &mut Ctx<'_>) {
        let channel = &self.channel;
        let Producer { conn, sent, sent_ever, .. } = &mut self.producer;
        let conn = conn.get_or_insert_with(|| {
            *sent = 0;
            let mut conn = Conn::open(ctx.net, ctx.rng);
            let head = format!(
                "POST /channels/{channel}/stream HTTP/1.1\r\nHost: sim\r\nStream-Id: story\r\n\
                 Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            conn.send(head.as_bytes());
            conn
        });
        if *sent > self.words.len() {
            return;
        }
        let until = self.words.len().min(*sent + ctx.rng.usize(1..5));
        for word in &self.words[*sent..until] {
            let event = format!("data: {word}\n\n");
            conn.send(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
        }
        *sent_ever = until.max(*sent_ever);
        *sent = until;
        if until == self.words.len() {
            conn.send(b"0\r\n\r\n");
            *sent += 1;
        }
    }

    fn read(&mut self, net: &SimNet, rng: &mut Rng) {
        let mut conn = Conn::open(net, rng);
        // From behind what it has, or all of it again.
        let count = self.reader.read.matches('.').count();
        let query = match count.checked_sub(1) {
            Some(last) if rng.bool() => format!("?starting_after={last}"),
            _ => {
                self.reader.read.clear();
                String::new()
            }
        };
        let channel = &self.channel;
        conn.send(
            format!("GET /channels/{channel}/stream{query} HTTP/1.1\r\nHost: sim\r\n\r\n")
                .as_bytes(),
        );
        self.reader.conn = Some(conn);
    }
}

impl Producer {
    fn act(&mut self, ctx: &mut Ctx<'_>) {
        let Some(mut conn) = self.conn.take() else { return };
        conn.pump(ctx);
        let response = self.responses.take(&mut conn.input);
        let is_gone = response.is_some() || conn.ended().is_some();
        if let Some(response) = response {
            let body: Value = serde_json::from_slice(&response.body).expect("an answer is JSON");
            match response.head.status {
                200 => self.ended = body["state"].as_str().map(Into::into),
                // It ended without us.
                409 if body["error"]["code"] == "stream_ended" => self.ended = Some("error".into()),
                status => assert!(matches!(status, 408 | 409 | 429 | 503), "{status}: {body}"),
            }
        }
        if is_gone {
            self.responses = Responses::default();
        } else {
            self.conn = Some(conn);
        }
    }
}

impl Reader {
    fn act(&mut self, ctx: &mut Ctx<'_>) {
        let Some(mut conn) = self.conn.take() else { return };
        conn.pump(ctx);
        if self.head.is_none() {
            self.head = Head::take(&mut conn.input);
        }
        match self.head.as_ref().map(|head| head.status) {
            None => {}
            Some(200) => {
                for event in self.lines.take(&mut conn.input) {
                    match &*event.data {
                        "[DONE]" => self.is_done = true,
                        word => self.read += word,
                    }
                }
            }
            // There is no stream, its beginning is gone, or there is no room.
            Some(status) => {
                assert!(matches!(status, 204 | 408 | 410 | 429 | 503), "{status}");
                self.lose();
                return;
            }
        }
        match conn.ended() {
            Some(_) => self.lose(),
            None => self.conn = Some(conn),
        }
    }

    fn lose(&mut self) {
        (self.conn, self.head, self.lines) = (None, None, EventStream::default());
    }
}

impl Actor for Teller {
    fn due_at(&self, now: Duration) -> Option<Duration> {
        let conns = [&self.producer.conn, &self.reader.conn].into_iter().flatten();
        conns.filter_map(|conn| conn.due_at(now)).chain([self.act_at]).min()
    }

    fn act(&mut self, ctx: &mut Ctx<'_>) {
        self.producer.act(ctx);
        self.reader.act(ctx);
        let told: String = self.words[..self.producer.sent_ever].concat();
        assert!(told.starts_with(&self.reader.read), "{:?} of {told:?}", self.reader.read);
        assert!(!self.reader.is_done || self.reader.read == self.words.concat(), "all was read");
        if self.act_at > ctx.now() {
            return;
        }
        self.act_at = ctx.think();
        match ctx.season {
            Season::Leaving => self.act_at = Duration::MAX,
            Season::Settling if self.producer.sent_ever == 0 || self.is_over() => {
                self.producer.conn = None;
                self.reader.lose();
                self.act_at = Duration::MAX;
            }
            Season::Settling => self.produce(ctx),
            Season::Active => {
                let is_over = self.is_over();
                match (ctx.rng.u8(0..30), &mut self.producer.conn) {
                    (_, None) if is_over => {}
                    (0, Some(conn)) => {
                        conn.reset();
                        self.producer.conn = None;
                        self.producer.responses = Responses::default();
                    }
                    (1, Some(_)) => {
                        self.producer.conn = None;
                        self.producer.responses = Responses::default();
                    }
                    (2, Some(conn)) => conn.stall_until(ctx.now() + Duration::from_millis(500)),
                    _ => self.produce(ctx),
                }
                match ctx.rng.u8(0..20) {
                    0 => self.reader.lose(),
                    _ if self.reader.conn.is_none() && !self.reader.is_done => {
                        self.read(ctx.net, ctx.rng);
                    }
                    _ => {}
                }
            }
        }
    }

    fn unsettled(&self, _: &Truth) -> Option<String> {
        let waits = self.producer.conn.is_some() && !self.is_over();
        waits.then(|| {
            format!("a teller has no answer: {:?} of {}", self.producer.sent, self.words.len())
        })
    }
}
