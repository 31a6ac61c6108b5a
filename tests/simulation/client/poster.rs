//! Publishes single events over a connection it keeps, sometimes several requests at once. An event
//! with a key that was not answered is sent again.

use std::collections::VecDeque;
use std::time::Duration;

use pushline::log::event::Kind;
use serde_json::Value;

use super::conn::Conn;
use super::{Actor, Ctx, Season, content};
use crate::parse::{Response, Responses};
use crate::truth::{Content, Truth};

/// The code of an answer: the event was ordered, perhaps, and its commit failed.
pub const STORE_FAILED: &str = "log_unavailable";

#[derive(Default)]
pub struct Poster {
    conn: Option<Conn>,
    responses: Responses,
    unanswered: VecDeque<u64>,
    /// To be sent again.
    again: Vec<u64>,
    /// Refused: none of them may ever be in the log.
    refused: Vec<u64>,
    /// Answered with 200, with the seq it was told.
    accepted: Vec<(u64, u64)>,
    act_at: Duration,
    is_leaving: bool,
}

impl Poster {
    fn post(&mut self, ctx: &mut Ctx<'_>) {
        let tag = match self.again.pop() {
            Some(tag) => tag,
            None => {
                let channel = ctx.channel();
                let kinds = [Kind::Text, Kind::Text, Kind::Json, Kind::Binary];
                let mut content = content::make(ctx, channel, &kinds);
                let key = format!("key-{}", content.tag);
                content.key = (ctx.rng.u8(0..3) == 0).then_some(key);
                let tag = content.tag;
                ctx.truth.note_sent(content);
                tag
            }
        };
        let request = request(ctx.truth.sent(tag), ctx.rng);
        let conn = self.conn.get_or_insert_with(|| Conn::open(ctx.net, ctx.rng));
        conn.send(&request);
        self.unanswered.push_back(tag);
    }

    fn answered(&mut self, response: &Response, ctx: &mut Ctx<'_>) {
        let Some(tag) = self.unanswered.pop_front() else {
            // Refused before it made a request.
            assert!(matches!(response.head.status, 408 | 503) && response.head.closes());
            return;
        };
        let body: Value = serde_json::from_slice(&response.body).expect("an answer is JSON");
        let content = ctx.truth.sent(tag);
        let has_key = content.key.is_some();
        match response.head.status {
            200 => {
                let id = ctx.truth.seq_of(body["id"].as_str().expect("an id"));
                assert_eq!(body["channel"], content.channel[..]);
                self.accepted.push((tag, id));
            }
            413 => {
                assert!(content.data.len() > ctx.plan.settings.event_bytes_max, "{body}");
                self.refused.push(tag);
            }
            status => {
                assert!(matches!(status, 408 | 429 | 503), "{status}: {body}");
                // With a key, an earlier attempt may have been ordered. What a failing disk was given
                // may be there after a restart.
                if !has_key && body["error"]["code"] != STORE_FAILED {
                    self.refused.push(tag);
                }
            }
        }
        if response.head.closes() {
            self.is_leaving = true;
        }
    }

    fn gone(&mut self, truth: &Truth) {
        self.conn = None;
        self.responses = Responses::default();
        self.is_leaving = false;
        self.act_at = Duration::ZERO;
        let keyed = self.unanswered.drain(..).filter(|tag| truth.sent(*tag).key.is_some());
        self.again.extend(keyed);
    }
}

impl Actor for Poster {
    fn due_at(&self, now: Duration) -> Option<Duration> {
        let conn = self.conn.as_ref().and_then(|conn| conn.due_at(now));
        [conn, Some(self.act_at)].into_iter().flatten().min()
    }

    fn act(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(mut conn) = self.conn.take() {
            conn.pump(ctx);
            while let Some(response) = self.responses.take(&mut conn.input) {
                self.answered(&response, ctx);
            }
            let ended = conn.ended().is_some();
            self.conn = Some(conn);
            if ended || self.is_leaving {
                self.gone(ctx.truth);
            }
        }
        if self.act_at > ctx.now() {
            return;
        }
        self.act_at = ctx.think();
        match ctx.season {
            Season::Settling if !self.again.is_empty() => self.post(ctx),
            Season::Settling | Season::Leaving => self.act_at = Duration::MAX,
            Season::Active => match (&mut self.conn, ctx.rng.u8(0..30)) {
                (Some(conn), 0) => {
                    conn.reset();
                    self.gone(ctx.truth);
                }
                (Some(_), 1) => self.gone(ctx.truth),
                (Some(conn), 2..5) => {
                    let until = ctx.now() + Duration::from_millis(ctx.rng.u64(0..3000));
                    conn.stall_until(until);
                }
                (_, 5..8) => (0..ctx.rng.u8(2..6)).for_each(|_| self.post(ctx)),
                _ if self.unanswered.len() < 8 => self.post(ctx),
                _ => {}
            },
        }
    }

    fn unsettled(&self, truth: &Truth) -> Option<String> {
        for tag in &self.refused {
            assert!(truth.seqs(*tag).is_empty(), "tag {tag} was refused, and ordered");
        }
        for (tag, seq) in &self.accepted {
            assert!(truth.seqs(*tag).contains(seq), "tag {tag} was answered {seq}");
        }
        let waits = !self.unanswered.is_empty() || !self.again.is_empty();
        waits.then(|| format!("a poster has no answer: {:?} {:?}", self.unanswered, self.again))
    }
}

fn request(content: &Content, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut head = format!("POST /channels/{} HTTP/1.1\r\nHost: sim\r\n", content.channel);
    let media = match content.kind {
        Kind::Text => ["", "text/plain", "application/x-www-form-urlencoded"][rng.usize(0..3)],
        Kind::Json => "application/json",
        Kind::Binary => "application/octet-stream",
    };
    if !media.is_empty() {
        head.push_str(&format!("Content-Type: {media}\r\n"));
    }
    if let Some(event_type) = &content.event_type {
        head.push_str(&format!("Event-Type: {event_type}\r\n"));
    }
    if let Some(key) = &content.key {
        head.push_str(&format!("Idempotency-Key: {key}\r\n"));
    }
    if rng.u8(0..6) == 0 {
        head.push_str("Expect: 100-continue\r\n");
    }
    if rng.u8(0..3) > 0 {
        head.push_str(&format!("Content-Length: {}\r\n\r\n", content.data.len()));
        return [head.as_bytes(), &content.data].concat();
    }
    head.push_str("Transfer-Encoding: chunked\r\n\r\n");
    let mut out = head.into_bytes();
    chunks(&content.data, rng, &mut out);
    out.extend(b"0\r\n\r\n");
    out
}

/// Appends the bytes in chunks of random sizes.
pub fn chunks(mut bytes: &[u8], rng: &mut fastrand::Rng, out: &mut Vec<u8>) {
    while !bytes.is_empty() {
        let (chunk, rest) = bytes.split_at(rng.usize(1..=bytes.len()));
        out.extend(format!("{:x}\r\n", chunk.len()).bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
        bytes = rest;
    }
}
