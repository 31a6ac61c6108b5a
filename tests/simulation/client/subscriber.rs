//! A subscriber on any transport: reads, stalls, leaves, comes back with its last id.

use std::collections::HashMap;
use std::time::Duration;

use fastrand::Rng;
use pushline::config::SlowPolicy;
use pushline::log::event::Kind;
use serde_json::{Value, json};

use super::conn::{Conn, End};
use super::http2::Tunnel;
use super::poster::STORE_FAILED;
use super::transport::{Seen, Stream};
use super::{Actor, Ctx, Season, content};
use crate::oracle::{Company, EARLIEST, Follow, Gap, Stand};
use crate::plan::{Role, pick, up_to};
use crate::truth::Truth;

/// Further than restarts get the log.
const FAR_AHEAD: u64 = 1 << 40;

pub struct Subscriber {
    role: Role,
    follows: Vec<Follow>,
    /// The id it would come back with, or whatever it first came with.
    cursor: Option<String>,
    conn: Option<Conn>,
    /// Restarts of the server before it connected.
    restarts: u64,
    stream: Option<Stream>,
    act_at: Option<Duration>,
    /// Connections whose other end does not know that we are gone, and when its kernel will give up
    /// on what it has sent (`TCP_USER_TIMEOUT`).
    ghosts: Vec<(Duration, Conn)>,
    /// It ends the connection itself.
    is_leaving: bool,
    /// The server has no room for it.
    gave_up: bool,
    /// A handshake has failed although all is calm, as where there is no room: so it comes without
    /// TLS, and is told.
    was_cut: bool,
    asked: HashMap<u64, Asked>,
    refs: u64,
    /// Published on this connection, in order.
    published: Vec<u64>,
}

/// An operation that was not answered yet.
#[derive(Debug)]
enum Asked {
    Subscribe(Follow),
    Unsubscribe(String),
    Publish(u64),
    Ping,
}

impl Subscriber {
    pub fn new(role: Role, rng: &mut Rng) -> Self {
        Self {
            role,
            follows: Vec::new(),
            cursor: None,
            conn: None,
            restarts: 0,
            stream: None,
            act_at: Some(up_to(rng, Duration::from_millis(300))),
            ghosts: Vec::new(),
            is_leaving: false,
            gave_up: false,
            was_cut: false,
            asked: HashMap::new(),
            refs: 0,
            published: Vec::new(),
        }
    }

    // --- coming ---

    fn open(&self, ctx: &mut Ctx<'_>) -> Conn {
        let is_http2 = self.role == Role::Sse && ctx.rng.bool();
        let tunnel = is_http2.then(|| Tunnel::new(ctx.rng));
        let has_tls = ctx.plan.has_tls && !self.was_cut && ctx.rng.bool();
        let conn = match has_tls {
            true => Conn::open_tls(ctx.net, ctx.rng),
            false => Conn::open(ctx.net, ctx.rng),
        };
        match tunnel {
            Some(tunnel) => conn.through(tunnel),
            None => conn,
        }
    }

    fn connect(&mut self, ctx: &mut Ctx<'_>) {
        let mut conn = self.open(ctx);
        if self.follows.is_empty() {
            self.choose(ctx);
        } else if let Some(id) = self.cursor.as_ref().filter(|id| id.starts_with(&ctx.truth.epoch))
            && self.role == Role::Sse
        {
            let id = ctx.truth.seq_of(id);
            // Ahead of the log: it remains foreign.
            if id <= ctx.truth.head() {
                self.follows.iter_mut().for_each(|follow| follow.resume(id, ctx.truth));
            }
        }
        let in_band = self.role == Role::WsEnvelope && self.has_places();
        let channels: Vec<&str> = match in_band {
            true => Vec::new(),
            false => self.follows.iter().map(|follow| follow.channel.as_str()).collect(),
        };
        let cursor = self.cursor.as_deref().filter(|_| !in_band);
        let stream = Stream::open(self.role, &channels, cursor, &mut conn, ctx.rng);
        self.conn = Some(conn);
        self.restarts = ctx.truth.restarts;
        self.stream = Some(stream);
        self.is_leaving = false;
    }

    /// An envelope client that comes back gives a cursor for each channel.
    fn has_places(&self) -> bool {
        self.refs > 0 || self.follows.iter().any(|follow| matches!(follow.stand, Stand::At(_)))
    }

    /// Its first request: which channels, from where.
    fn choose(&mut self, ctx: &mut Ctx<'_>) {
        let mut channels = ctx.plan.channels.clone();
        ctx.rng.shuffle(&mut channels);
        let most = channels.len().min(ctx.plan.settings.connection_channels_max);
        let count = if ctx.rng.bool() { 1 } else { ctx.rng.usize(1..=most) };
        let head = ctx.truth.head();
        let (cursor, stand) = match ctx.rng.u8(0..10) {
            0..6 => (None, Stand::Begun { head_then: 0 }),
            // It must get everything from the beginning, or be told that it is gone; a bare
            // WebSocket just gets what is kept.
            6..8 if self.role == Role::WsBare => {
                (Some(EARLIEST.into()), Stand::Begun { head_then: 0 })
            }
            6..8 => (Some(EARLIEST.into()), Stand::At(0)),
            8 => {
                let ahead = ctx.truth.id(head + FAR_AHEAD);
                let foreign = ["zzzzzzzz-7".into(), "what-is-this".into(), ahead];
                (Some(foreign[ctx.rng.usize(0..3)].clone()), Stand::Foreign)
            }
            _ => {
                let seq = ctx.rng.u64(0..=head);
                (Some(ctx.truth.id(seq)), Stand::At(seq))
            }
        };
        let asked = cursor.clone().unwrap_or_default();
        let follow = |channel| Follow::new(channel, stand.clone(), asked.clone());
        self.follows = channels.into_iter().take(count).map(follow).collect();
        self.cursor = cursor;
    }

    // --- reading ---

    fn see(&mut self, seen: Seen, ctx: &mut Ctx<'_>) {
        match seen {
            Seen::Opened => self.opened(ctx),
            Seen::Refused(status, code) => {
                assert!(matches!(status, 408 | 503), "{status} {code}");
                let full = code == "too_many_channels" || code == "too_many_connections";
                self.gave_up = full && ctx.season == Season::Settling;
                self.gone(ctx);
            }
            Seen::Event(id) => {
                let channel = &ctx.truth.event(id).channel;
                self.follow(channel).event(id, ctx.truth);
                self.note_id(id, ctx.truth);
            }
            Seen::Bare(tag) => {
                let channel = &ctx.truth.sent(tag).channel;
                self.follow(channel).tagged_event(tag, ctx.truth);
            }
            Seen::Gap(id, data) => {
                let channel = data["channel"].as_str().expect("a gap names its channel");
                let company = match (self.role, self.follows.len()) {
                    (Role::Sse, 1) => Company::Alone,
                    _ => Company::Shared,
                };
                self.follow(channel).gap(&Gap { id, data: &data }, company, ctx.truth);
                self.note_id(id, ctx.truth);
            }
            Seen::Answer(value) => self.answered(&value, ctx),
            Seen::Closed(code) => {
                assert!(code.is_some());
                self.is_leaving = true;
                if self.role == Role::WsBare {
                    // It has seen no ids.
                    self.cursor = None;
                }
            }
        }
    }

    fn opened(&mut self, ctx: &mut Ctx<'_>) {
        ctx.truth.opened_over_tls += u64::from(self.conn.as_ref().is_some_and(Conn::has_tls));
        let head_then = ctx.truth.head();
        let in_band = self.role == Role::WsEnvelope && self.has_places();
        for follow in &mut self.follows {
            if let Stand::Begun { .. } = follow.stand {
                follow.begin_anew(head_then);
            }
        }
        if in_band {
            for follow in std::mem::take(&mut self.follows) {
                self.subscribe(follow, ctx);
            }
        }
    }

    fn follow(&mut self, channel: &str) -> &mut Follow {
        let found = self.follows.iter_mut().find(|follow| follow.channel == channel);
        found.unwrap_or_else(|| panic!("{channel} is not subscribed to"))
    }

    fn note_id(&mut self, id: u64, truth: &Truth) {
        if self.role == Role::Sse {
            let before = self.cursor.as_ref().filter(|id| id.starts_with(&truth.epoch));
            let before = before.map(|id| truth.seq_of(id)).filter(|id| *id <= truth.head());
            assert!(before.is_none_or(|before| before <= id), "{id} after {before:?}");
        }
        self.cursor = Some(truth.id(id));
    }

    fn ended(&mut self, end: End, ctx: &mut Ctx<'_>) {
        let opened = self.stream.as_ref().is_some_and(Stream::is_open);
        let skips = ctx.plan.slow_is_always(SlowPolicy::Skip);
        let told = ctx.season == Season::Leaving || ctx.truth.restarts > self.restarts;
        if self.role == Role::Sse && opened && end == End::Eof && skips && !told {
            assert!(self.is_leaving, "the server ended a stream for no reason");
        }
        self.was_cut |= !opened && ctx.season == Season::Settling;
        self.gone(ctx);
    }

    /// The connection is over; comes back later.
    fn gone(&mut self, ctx: &mut Ctx<'_>) {
        self.conn = None;
        self.stream = None;
        let mut places = self.published.drain(..).filter_map(|tag| ctx.truth.seqs(tag).first());
        let mut last = 0;
        assert!(places.all(|seq| std::mem::replace(&mut last, *seq) < *seq), "out of order");
        for asked in std::mem::take(&mut self.asked).into_values() {
            match asked {
                Asked::Subscribe(follow) => self.follows.push(follow),
                Asked::Unsubscribe(channel) => {
                    self.follows.retain(|follow| follow.channel != channel);
                }
                Asked::Publish(_) | Asked::Ping => {}
            }
        }
        if self.role == Role::WsBare {
            // It has no place to come back to, unless it never read anything.
            self.cursor = None;
            self.follows.iter_mut().for_each(|follow| follow.begin_anew(0));
        }
        self.act_at = Some(ctx.think());
    }

    // --- operations ---

    fn operate(&mut self, asked: Asked, mut op: Value, ctx: &mut Ctx<'_>) {
        self.refs += 1;
        op["ref"] = self.refs.into();
        let (Some(conn), Some(stream)) = (&mut self.conn, &self.stream) else { return };
        stream.send_text(conn, op.to_string().as_bytes(), ctx.rng);
        self.asked.insert(self.refs, asked);
    }

    fn subscribe(&mut self, mut follow: Follow, ctx: &mut Ctx<'_>) {
        let mut op = json!({ "op": "subscribe", "channel": follow.channel });
        match follow.stand {
            Stand::At(seq) => {
                if seq == 0 && follow.asked == EARLIEST {
                    follow = Follow::new(follow.channel, follow.stand, follow.asked);
                } else {
                    follow.resume(seq, ctx.truth);
                }
                op["after"] = follow.asked.clone().into();
            }
            Stand::Begun { .. } => follow.begin_anew(u64::MAX),
            Stand::Foreign => op["after"] = follow.asked.clone().into(),
        }
        self.operate(Asked::Subscribe(follow), op, ctx);
    }

    fn answered(&mut self, value: &Value, ctx: &mut Ctx<'_>) {
        let reference = value["ref"].as_u64().expect("a ref of ours");
        let asked = self.asked.remove(&reference).expect("answered once");
        let ok = value["ok"] == true;
        match asked {
            Asked::Subscribe(follow) if ok => {
                assert_eq!(value["channel"], follow.channel[..]);
                let id = ctx.truth.seq_of(value["id"].as_str().expect("an id"));
                let mut follow = follow;
                match follow.stand {
                    Stand::At(seq) => assert!(id >= seq, "asked {seq}, told {id}"),
                    Stand::Begun { .. } => follow.stand = Stand::At(id),
                    Stand::Foreign => {}
                }
                self.follows.push(follow);
            }
            Asked::Subscribe(_) => assert_eq!(value["error"]["code"], "too_many_channels"),
            Asked::Unsubscribe(channel) => {
                assert!(ok, "{value}");
                self.follows.retain(|follow| follow.channel != channel);
            }
            Asked::Publish(tag) if ok => {
                let id = ctx.truth.seq_of(value["id"].as_str().expect("an id"));
                assert_eq!(ctx.truth.seqs(tag), [id]);
            }
            Asked::Publish(tag) => {
                // The server may have been started again since, and have found it.
                let may_be_there = value["error"]["code"] == STORE_FAILED;
                assert!(may_be_there || ctx.truth.seqs(tag).is_empty(), "{value}");
            }
            Asked::Ping => assert!(ok, "{value}"),
        }
    }

    fn operate_somehow(&mut self, ctx: &mut Ctx<'_>) {
        match ctx.rng.u8(0..6) {
            0 => self.operate(Asked::Ping, json!({ "op": "ping" }), ctx),
            1 if self.follows.len() > 1 => {
                let channel = pick_channel(&self.follows, ctx.rng);
                let leaving = |asked: &Asked| matches!(asked, Asked::Unsubscribe(_));
                if !self.asked.values().any(leaving) {
                    let op = json!({ "op": "unsubscribe", "channel": channel });
                    self.operate(Asked::Unsubscribe(channel), op, ctx);
                }
            }
            2 => {
                let channel = ctx.channel();
                let idle = self.asked.is_empty();
                if idle && !self.follows.iter().any(|follow| follow.channel == channel) {
                    let stand = match ctx.rng.bool() {
                        true => Stand::Begun { head_then: 0 },
                        false => Stand::At(ctx.rng.u64(0..=ctx.truth.head())),
                    };
                    self.subscribe(Follow::new(channel, stand, String::new()), ctx);
                }
            }
            _ => {
                let channel = ctx.channel();
                let kinds = [Kind::Text, Kind::Json, Kind::Binary];
                let content = content::in_compact_form(content::make(ctx, channel, &kinds));
                if content.data.len() <= ctx.plan.settings.event_bytes_max {
                    let mut op = Value::Object(content::fields(&content));
                    op["op"] = "publish".into();
                    self.published.push(content.tag);
                    self.operate(Asked::Publish(content.tag), op, ctx);
                    ctx.truth.note_sent(content);
                }
            }
        }
    }

    fn publish_bare(&mut self, ctx: &mut Ctx<'_>) {
        let [follow] = &self.follows[..] else { return };
        let kind = pick(ctx.rng, &[Kind::Text, Kind::Binary]);
        let mut content = content::make(ctx, follow.channel.clone(), &[kind]);
        content.event_type = None;
        let (Some(conn), Some(stream)) = (&mut self.conn, &self.stream) else { return };
        if content.data.len() > ctx.plan.settings.event_bytes_max {
            return;
        }
        match kind {
            Kind::Binary => stream.send_binary(conn, &content.data, ctx.rng),
            _ => stream.send_text(conn, &content.data, ctx.rng),
        }
        self.published.push(content.tag);
        ctx.truth.note_sent(content);
    }

    // --- whims ---

    fn follow_a_whim(&mut self, ctx: &mut Ctx<'_>) {
        let Some(conn) = &mut self.conn else { return };
        if conn.has_unwritten() {
            return;
        }
        let talks = self.stream.as_ref().is_some_and(Stream::takes_frames);
        match ctx.rng.u8(0..24) {
            0 => {
                conn.reset();
                self.gone(ctx);
            }
            1 => self.gone(ctx),
            2 => {
                conn.finish();
                self.is_leaving = true;
                self.stream_closed();
            }
            3 => {
                conn.die();
                let given_up_at = ctx.now() + ctx.plan.settings.dead_time;
                self.ghosts.extend(self.conn.take().map(|conn| (given_up_at, conn)));
                self.gone(ctx);
            }
            4..8 => {
                let until = ctx.now() + up_to(ctx.rng, Duration::from_secs(6));
                conn.stall_until(until);
            }
            8 if talks => {
                self.is_leaving = true;
                let stream = self.stream.as_mut().expect("it talks");
                stream.send_close(conn);
            }
            9 if talks => self.stream.as_ref().expect("it talks").send_ping(conn),
            _ if talks && self.role == Role::WsEnvelope => self.operate_somehow(ctx),
            10..16 if talks && !self.is_leaving => self.publish_bare(ctx),
            _ => {}
        }
    }

    /// Nothing may be written any more.
    fn stream_closed(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.say_no_more();
        }
    }
}

impl Actor for Subscriber {
    fn due_at(&self, now: Duration) -> Option<Duration> {
        let conn = self.conn.as_ref().and_then(|conn| conn.due_at(now));
        let ghost = self.ghosts.iter().map(|(at, _)| *at).min();
        [conn, self.act_at, ghost].into_iter().flatten().min()
    }

    fn act(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now();
        self.ghosts.extract_if(.., |(at, _)| *at <= now).for_each(|(_, mut conn)| conn.time_out());
        if let Some(mut conn) = self.conn.take() {
            conn.pump(ctx);
            let mut stream = self.stream.take().expect("a connection has a stream");
            let seen = stream.take(&mut conn, ctx.truth);
            (self.conn, self.stream) = (Some(conn), Some(stream));
            seen.into_iter().for_each(|seen| self.see(seen, ctx));
        }
        if let Some(end) = self.conn.as_ref().and_then(Conn::ended) {
            self.ended(end, ctx);
        }
        if self.act_at.is_some_and(|at| at <= ctx.now()) {
            self.act_at = Some(ctx.think());
            match (&self.conn, ctx.season) {
                (None, Season::Leaving) => self.act_at = None,
                (None, _) if self.gave_up => self.act_at = None,
                (None, _) => self.connect(ctx),
                (Some(_), Season::Active) => self.follow_a_whim(ctx),
                (Some(_), _) => self.act_at = None,
            }
        }
    }

    fn unsettled(&self, truth: &Truth) -> Option<String> {
        if !self.ghosts.is_empty() {
            return Some("a dead peer is not given up yet".into());
        }
        if self.gave_up {
            return None;
        }
        let name = format!("{:?}", self.role);
        if !self.stream.as_ref().is_some_and(Stream::is_open) || self.is_leaving {
            return Some(format!("{name} is not connected"));
        }
        if !self.asked.is_empty() {
            return Some(format!("{name} has no answer to {:?}", self.asked));
        }
        let mut missing = self.follows.iter().map(|follow| (follow, follow.missing(truth)));
        let missing = missing.find(|(_, seq)| seq.is_some());
        missing.map(|(follow, seq)| format!("{name} has not got {seq:?}: {follow:?}"))
    }
}

fn pick_channel(follows: &[Follow], rng: &mut Rng) -> String {
    follows[rng.usize(0..follows.len())].channel.clone()
}
