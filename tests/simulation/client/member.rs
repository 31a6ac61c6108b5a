//! A member of a channel with presence: asks who is there, follows what is told of it, leaves, and
//! comes back with its cursor. Once all is quiet it knows exactly who is there.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fastrand::Rng;
use serde_json::{Value, json};

use super::conn::Conn;
use super::{Actor, Ctx, Season};
use crate::parse::{Dispatched, EventStream, Head, Responses};
use crate::plan::up_to;
use crate::truth::{MEMBERS, Truth};

pub struct Member {
    /// Tells it from other actors.
    id: u64,
    subject: String,
    /// Who is there, and as of when; none: it has to ask.
    known: Option<(BTreeSet<String>, String)>,
    conn: Option<Conn>,
    awaits: Awaits,
    act_at: Duration,
    is_gone: bool,
}

enum Awaits {
    List(Responses),
    Stream(Responses),
    Events(EventStream),
}

impl Member {
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            id: rng.u64(..),
            subject: format!("s{}", rng.u8(0..4)),
            known: None,
            conn: None,
            awaits: Awaits::List(Responses::default()),
            act_at: up_to(rng, Duration::from_millis(300)),
            is_gone: false,
        }
    }

    fn connect(&mut self, ctx: &mut Ctx<'_>) {
        self.conn = Some(Conn::open(ctx.net, ctx.rng));
        match self.known {
            None => {
                self.ask("/channels/members/presence".into());
                self.awaits = Awaits::List(Responses::default());
            }
            Some(_) => self.ask_for_stream(),
        }
    }

    fn ask_for_stream(&mut self) {
        let cursor = self.known.as_ref().map_or("", |(_, cursor)| cursor);
        self.ask(format!("/sse?channel={MEMBERS}&last_event_id={cursor}"));
        self.awaits = Awaits::Stream(Responses::default());
    }

    fn ask(&mut self, path: String) {
        let claims = URL_SAFE_NO_PAD.encode(json!({"sub": self.subject}).to_string());
        let head = format!("Host: sim\r\nAuthorization: Bearer .{claims}.");
        if let Some(conn) = &mut self.conn {
            conn.send(format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n").as_bytes());
        }
    }

    /// The connection is over; comes back later.
    fn gone(&mut self, ctx: &mut Ctx<'_>) {
        self.conn = None;
        ctx.truth.members.remove(&self.id);
        self.act_at = ctx.think();
    }

    fn read(&mut self, ctx: &mut Ctx<'_>) {
        let Some(conn) = &mut self.conn else { return };
        conn.pump(ctx);
        let input = &mut conn.input;
        match &mut self.awaits {
            Awaits::List(responses) => {
                let Some(list) = responses.take(input) else { return };
                match list.head.status {
                    200 => self.listed(&list.body),
                    _ => self.gone(ctx),
                }
            }
            Awaits::Stream(responses) => match input.get(9..12) {
                None => {}
                Some(b"200") => self.opened(ctx),
                Some(_) => {
                    let Some(refusal) = responses.take(input) else { return };
                    let is_full = refusal.body.windows(8).any(|part| part == b"too_many");
                    self.is_gone = is_full && ctx.season == Season::Settling;
                    self.gone(ctx);
                }
            },
            Awaits::Events(events) => {
                for event in events.take(input) {
                    self.told(&event);
                }
                if self.known.is_none() {
                    self.gone(ctx);
                }
            }
        }
    }

    fn opened(&mut self, ctx: &mut Ctx<'_>) {
        let head = self.conn.as_mut().and_then(|conn| Head::take(&mut conn.input));
        if head.is_some() {
            self.awaits = Awaits::Events(EventStream::default());
            ctx.truth.members.insert(self.id, self.subject.clone());
            self.read(ctx);
        }
    }

    fn listed(&mut self, body: &[u8]) {
        let list: Value = serde_json::from_slice(body).expect("JSON");
        assert_eq!(list["count"], list["members"].as_array().map_or(0, Vec::len));
        let members = subjects(&list["members"]).collect();
        self.known = Some((members, list["id"].as_str().expect("an id").to_owned()));
        self.ask_for_stream();
    }

    fn told(&mut self, event: &Dispatched) {
        let Some((members, cursor)) = &mut self.known else { return };
        // What its connection is called, not an event of the log.
        if event.event == "pushline.open" {
            return;
        }
        event.id.clone_into(cursor);
        match event.event.as_str() {
            "pushline.presence" => {
                let data: Value = serde_json::from_str(&event.data).expect("JSON");
                members.extend(subjects(&data["join"]));
                for left in data["leave"].as_array().expect("a list") {
                    members.remove(left.as_str().expect("text"));
                }
            }
            // What it knows may be wrong from here on.
            "pushline.gap" => self.known = None,
            other => panic!("{other} on a channel of members"),
        }
    }
}

fn subjects(of: &Value) -> impl Iterator<Item = String> {
    let of = of.as_array().expect("a list").iter();
    of.map(|member| member["subject"].as_str().expect("text").to_owned())
}

impl Actor for Member {
    fn due_at(&self, now: Duration) -> Option<Duration> {
        let conn = self.conn.as_ref().and_then(|conn| conn.due_at(now));
        [conn, Some(self.act_at)].into_iter().flatten().min()
    }

    fn act(&mut self, ctx: &mut Ctx<'_>) {
        self.read(ctx);
        if self.conn.as_ref().is_some_and(|conn| conn.ended().is_some()) {
            self.gone(ctx);
        }
        if self.act_at > ctx.now() {
            return;
        }
        self.act_at = ctx.think();
        match (ctx.season, &mut self.conn) {
            (Season::Leaving, _) => self.act_at = Duration::MAX,
            (_, _) if self.is_gone => self.act_at = Duration::MAX,
            (_, None) => self.connect(ctx),
            (Season::Settling, Some(_)) => self.act_at = Duration::MAX,
            (Season::Active, Some(conn)) => match ctx.rng.u8(0..12) {
                0 => {
                    conn.reset();
                    self.gone(ctx);
                }
                1..3 => self.gone(ctx),
                3 => {
                    // For ever, as others must see.
                    self.is_gone = true;
                    self.gone(ctx);
                }
                4 => conn.stall_until(ctx.now() + up_to(ctx.rng, Duration::from_secs(3))),
                _ => {}
            },
        }
    }

    fn unsettled(&self, truth: &Truth) -> Option<String> {
        let there: BTreeSet<String> = truth.members.values().cloned().collect();
        match &self.known {
            _ if self.is_gone => None,
            Some((members, _)) if truth.members.contains_key(&self.id) && *members == there => None,
            known => Some(format!("{} knows {known:?}, there are {there:?}", self.subject)),
        }
    }
}
