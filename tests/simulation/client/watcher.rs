//! Changes the values of a state, and follows it: begins without a cursor, goes on from its own, or
//! begins again. The oracle is a map: once all is quiet it has exactly what there is, whenever it came.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;

use super::conn::Conn;
use super::{Actor, Ctx, Season};
use crate::parse::{Dispatched, EventStream, Head, Responses};
use crate::plan::up_to;
use crate::truth::{PRICES, Truth};

/// Keys of the state.
pub const KEYS: u8 = 6;

pub struct Watcher {
    poster: Option<Conn>,
    responses: Responses,
    conn: Option<Conn>,
    /// None: there is no answer yet.
    events: Option<EventStream>,
    refusals: Responses,
    known: BTreeMap<String, String>,
    cursor: Option<String>,
    act_at: Duration,
    has_settled: bool,
    is_gone: bool,
}

impl Watcher {
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            poster: None,
            responses: Responses::default(),
            conn: None,
            events: None,
            refusals: Responses::default(),
            known: BTreeMap::new(),
            cursor: None,
            act_at: up_to(rng, Duration::from_millis(300)),
            has_settled: false,
            is_gone: false,
        }
    }

    fn change(&mut self, ctx: &mut Ctx<'_>) {
        let conn = self.poster.get_or_insert_with(|| Conn::open(ctx.net, ctx.rng));
        let key = ctx.rng.u8(0..KEYS);
        let (removes, value) = (ctx.rng.u8(0..6) == 0, ctx.rng.u32(..).to_string());
        let data = if removes { "" } else { &value };
        let request = format!(
            "POST /channels/{PRICES} HTTP/1.1\r\nHost: sim\r\nEvent-Key: k{key}\r\n\
             Event-Tombstone: {removes}\r\nContent-Length: {}\r\n\r\n{data}",
            data.len()
        );
        conn.send(request.as_bytes());
    }

    fn hear_answers(&mut self, ctx: &mut Ctx<'_>) {
        let Some(mut conn) = self.poster.take() else { return };
        conn.pump(ctx);
        let mut is_over = conn.ended().is_some();
        while let Some(response) = self.responses.take(&mut conn.input) {
            let status = response.head.status;
            assert!(matches!(status, 200 | 408 | 429 | 503), "{status}");
            is_over |= response.head.closes();
        }
        match is_over {
            true => self.responses = Responses::default(),
            false => self.poster = Some(conn),
        }
    }

    fn connect(&mut self, ctx: &mut Ctx<'_>) {
        let cursor = self.cursor.as_ref().map(|id| format!("&last_event_id={id}"));
        if cursor.is_none() {
            self.known.clear();
        }
        let mut conn = Conn::open(ctx.net, ctx.rng);
        let query = format!("channel={PRICES}&envelope=json{}", cursor.unwrap_or_default());
        conn.send(format!("GET /sse?{query} HTTP/1.1\r\nHost: sim\r\n\r\n").as_bytes());
        (self.conn, self.events, self.refusals) = (Some(conn), None, Responses::default());
    }

    fn read(&mut self, ctx: &mut Ctx<'_>) {
        let Some(mut conn) = self.conn.take() else { return };
        conn.pump(ctx);
        if self.events.is_none() {
            match conn.input.get(9..12) {
                None => {}
                Some(b"200") => {
                    self.events = Head::take(&mut conn.input).map(|_| EventStream::default());
                }
                Some(_) => {
                    if let Some(refusal) = self.refusals.take(&mut conn.input) {
                        let is_full = refusal.body.windows(8).any(|part| part == b"too_many");
                        self.is_gone = is_full && ctx.season == Season::Settling;
                        return;
                    }
                }
            }
        }
        let mut is_whole = true;
        if let Some(mut events) = self.events.take() {
            for event in events.take(&mut conn.input) {
                is_whole &= self.told(&event);
            }
            self.events = Some(events);
        }
        if is_whole && conn.ended().is_none() {
            self.conn = Some(conn);
        }
    }

    /// Whether it still knows what there is.
    fn told(&mut self, event: &Dispatched) -> bool {
        if event.event == "pushline.gap" {
            self.cursor = None;
            return false;
        }
        if event.event.starts_with("pushline.") {
            return true;
        }
        let envelope: Value = serde_json::from_str(&event.data).expect("JSON");
        let text = |name: &str| envelope[name].as_str().expect("text").to_owned();
        match envelope["tombstone"] == true {
            true => drop(self.known.remove(&text("event_key"))),
            false => drop(self.known.insert(text("event_key"), text("data"))),
        }
        self.cursor = Some(event.id.clone());
        true
    }
}

impl Actor for Watcher {
    fn due_at(&self, now: Duration) -> Option<Duration> {
        let conns = [&self.poster, &self.conn].into_iter().flatten();
        conns.filter_map(|conn| conn.due_at(now)).chain([self.act_at]).min()
    }

    fn act(&mut self, ctx: &mut Ctx<'_>) {
        self.hear_answers(ctx);
        self.read(ctx);
        if ctx.season == Season::Settling && !self.has_settled {
            self.has_settled = true;
            self.poster = None;
            if ctx.rng.bool() {
                // A newcomer has to be given all of it.
                (self.conn, self.cursor, self.act_at) = (None, None, ctx.now());
            }
        }
        if self.act_at > ctx.now() {
            return;
        }
        self.act_at = ctx.think();
        match (ctx.season, &mut self.conn) {
            (Season::Leaving, _) => self.act_at = Duration::MAX,
            (_, _) if self.is_gone => self.act_at = Duration::MAX,
            (_, None) => self.connect(ctx),
            (Season::Settling, Some(_)) => {}
            (Season::Active, Some(conn)) => match ctx.rng.u8(0..20) {
                0 => {
                    conn.reset();
                    self.conn = None;
                }
                1 => (self.conn, self.cursor) = (None, None),
                2 => self.conn = None,
                3 => conn.stall_until(ctx.now() + up_to(ctx.rng, Duration::from_secs(3))),
                4..8 => {}
                _ => self.change(ctx),
            },
        }
    }

    fn unsettled(&self, truth: &Truth) -> Option<String> {
        match &self.known {
            _ if self.is_gone => None,
            known if self.events.is_some() && self.conn.is_some() && *known == truth.prices => None,
            known => Some(format!("a watcher knows {known:?}, there is {:?}", truth.prices)),
        }
    }
}
