//! Publishes lines over one request that stays open, with pauses, and now and then a bad line.

use std::time::Duration;

use pushline::log::event::Kind;
use serde_json::{Value, json};

use super::conn::Conn;
use super::poster::{STORE_FAILED, chunks};
use super::{Actor, Ctx, Season, content};
use crate::parse::{Response, Responses};
use crate::truth::Truth;

#[derive(Default)]
pub struct Streamer {
    conn: Option<Conn>,
    responses: Responses,
    request: Request,
    /// Requests that ended, however; their lines in the log must form a prefix.
    past: Vec<Request>,
    act_at: Duration,
}

/// Lines of one request.
#[derive(Debug, Default)]
struct Request {
    tags: Vec<u64>,
    left: usize,
    /// A line that cannot be published was sent after the tags.
    spoilt: bool,
    finished: bool,
    /// How many the server says it has published.
    published: Option<usize>,
    /// The disk failed: lines behind those may be there after a restart.
    store_failed: bool,
}

impl Request {
    /// The lines are in the log in order, only the first ones, and as many as the server said.
    fn check(&self, truth: &Truth) {
        let places: Vec<u64> =
            self.tags.iter().map_while(|tag| truth.seqs(*tag).first()).copied().collect();
        assert!(places.windows(2).all(|two| two[0] < two[1]), "lines out of order: {places:?}");
        let rest = &self.tags[places.len()..];
        assert!(rest.iter().all(|tag| truth.seqs(*tag).is_empty()), "a line was left out");
        if let Some(published) = self.published {
            let more = places.len() - published;
            assert!(more == 0 || self.store_failed, "published, and told: {self:?}");
        }
    }
}

impl Streamer {
    fn begin(&mut self, ctx: &mut Ctx<'_>) {
        let mut conn = Conn::open(ctx.net, ctx.rng);
        conn.send(b"POST /publish HTTP/1.1\r\nHost: sim\r\nTransfer-Encoding: chunked\r\n\r\n");
        self.conn = Some(conn);
        let left = ctx.rng.usize(0..=ctx.plan.lines_max);
        self.request = Request { left, ..Request::default() };
    }

    fn go_on(&mut self, ctx: &mut Ctx<'_>) {
        let Some(conn) = &mut self.conn else { return };
        let request = &mut self.request;
        if request.finished {
            return;
        }
        let mut bytes = Vec::new();
        let burst = if ctx.plan.lines_max > 1000 { 400 } else { 8 };
        for _ in 0..ctx.rng.usize(0..=burst).min(request.left) {
            request.left -= 1;
            if ctx.rng.u16(0..400) == 0 {
                request.spoilt = true;
                request.left = 0;
                bytes.extend(b"{\"channel\":\"c0\"}\n");
                break;
            }
            let channel = ctx.channel();
            let kinds = [Kind::Text, Kind::Json, Kind::Binary];
            let content = content::in_compact_form(content::make(ctx, channel, &kinds));
            if content.data.len() > ctx.plan.settings.event_bytes_max {
                continue;
            }
            request.tags.push(content.tag);
            bytes.extend(Value::Object(content::fields(&content)).to_string().bytes());
            bytes.push(b'\n');
            ctx.truth.note_sent(content);
        }
        let done = request.left == 0 || ctx.season != Season::Active;
        if done && !request.spoilt && ctx.rng.bool() {
            // The last line need not end in a newline.
            bytes.pop_if(|byte| *byte == b'\n');
        }
        let mut out = Vec::new();
        chunks(&bytes, ctx.rng, &mut out);
        if done {
            request.finished = true;
            out.extend(b"0\r\n\r\n");
        }
        conn.send(&out);
    }

    fn answered(&mut self, response: &Response, truth: &Truth) {
        let body: Value = serde_json::from_slice(&response.body).expect("an answer is JSON");
        let Some(published) = body["published"].as_u64() else {
            // Refused as a whole.
            assert!(matches!(response.head.status, 408 | 503), "{body}");
            self.request.published = Some(0);
            return;
        };
        let published = published as usize;
        self.request.store_failed = body["error"]["code"] == STORE_FAILED;
        self.request.published = Some(published);
        let tags = &self.request.tags;
        let id =
            |tag: Option<&u64>| tag.map_or(json!(null), |tag| truth.id(truth.seqs(*tag)[0]).into());
        assert_eq!(body["first_id"], id(tags[..published].first()), "{body}");
        assert_eq!(body["last_id"], id(tags[..published].last()), "{body}");
        match response.head.status {
            200 => assert!(published == tags.len() && !self.request.spoilt, "{body}"),
            status => {
                assert_eq!(body["line"].as_u64(), Some(published as u64 + 1), "{body}");
                assert!(matches!(status, 400 | 429 | 503), "{status}: {body}");
                assert_eq!(status == 400, self.request.spoilt && published == tags.len());
            }
        }
    }

    fn gone(&mut self) {
        self.conn = None;
        self.responses = Responses::default();
        self.past.push(std::mem::take(&mut self.request));
    }
}

impl Actor for Streamer {
    fn due_at(&self, now: Duration) -> Option<Duration> {
        let conn = self.conn.as_ref().and_then(|conn| conn.due_at(now));
        [conn, Some(self.act_at)].into_iter().flatten().min()
    }

    fn act(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(mut conn) = self.conn.take() {
            conn.pump(ctx);
            let response = self.responses.take(&mut conn.input);
            let ended = conn.ended().is_some();
            self.conn = Some(conn);
            if let Some(response) = &response {
                self.answered(response, ctx.truth);
            }
            if ended || response.is_some() {
                self.gone();
            }
        }
        if self.act_at > ctx.now() {
            return;
        }
        self.act_at = ctx.think();
        match (&mut self.conn, ctx.season) {
            (_, Season::Leaving) | (None, Season::Settling) => self.act_at = Duration::MAX,
            (None, Season::Active) => self.begin(ctx),
            (Some(_), Season::Settling) => self.go_on(ctx),
            (Some(conn), Season::Active) => match ctx.rng.u8(0..40) {
                0 => {
                    conn.reset();
                    self.gone();
                }
                1 => self.gone(),
                _ if conn.has_unwritten() => {}
                _ => self.go_on(ctx),
            },
        }
    }

    fn unsettled(&self, truth: &Truth) -> Option<String> {
        self.past.iter().for_each(|request| request.check(truth));
        self.conn.as_ref().map(|_| format!("a streamer has no answer: {:?}", self.request))
    }
}
