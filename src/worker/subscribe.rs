//! Becoming a subscriber: what is asked for, the join at the log, and what the answer makes of the
//! connection.

use super::core::Core;
use super::http::HttpState;
use super::pending::{AfterJoin, Begins, Pending, PendingJoin};
use super::replica::Replica;
use super::slot::{Flags, Phase};
use super::work::{Gap, Sub};
use crate::auth::{Access, Denied};
use crate::log::message::{GapReason, JoinedChannel, Refusal, RequestBody};
use crate::proto::cursor::{Cursor, EventId};
use crate::proto::envelope::AFTER_BYTES_MAX;
use crate::proto::http::head::{Framing, Method, Request};
use crate::proto::http::query;
use crate::proto::http::response::{Connection, Status};
use crate::proto::name::channel_name;
use crate::proto::reject::Reject;
use crate::proto::sse;
use crate::proto::variant::Variant;
use crate::proto::ws::handshake::{self, Facts, Mode};
use crate::reason::CloseReason;

/// Query names a cursor may come by, the first that is there counts: ours, the polyfills', Ably's.
const CURSOR_NAMES: [&[u8]; 3] = [b"last_event_id", b"lastEventId", b"lastEvent"];

pub(super) const TOO_MANY_CHANNELS: Reject =
    Reject::bad_request("too_many_channels", "more channels than one connection may have");

/// What a subscriber asks for in its query.
#[derive(Debug, Default)]
struct Wanted {
    channels: Vec<Box<str>>,
    envelope: Option<Mode>,
    beat_event: bool,
    cursor: Option<Vec<u8>>,
}

/// What an upgrade is answered.
const SWITCHING_PROTOCOLS: u16 = 101;

impl Core {
    // --- requests ---

    /// `GET /sse`.
    pub(super) fn open_sse(&mut self, index: u32, request: &Request<'_>) {
        if !self.admit_request(index, request, Access::Http, None) {
            return;
        }
        let wanted = match self.wanted(index, request) {
            Ok(wanted) => wanted,
            Err(reject) => return self.reject(index, reject),
        };
        if wanted.channels.is_empty() {
            let message = "name at least one: /sse?channel=news";
            return self.reject(index, Reject::bad_request("channel_missing", message));
        }
        if request.method() == Method::Head {
            return self.answer_sse_head(index);
        }
        let several = wanted.channels.len() > 1;
        let mode = wanted.envelope.unwrap_or(if several { Mode::Envelope } else { Mode::Bare });
        self.slots[index as usize].variant = match mode {
            Mode::Bare => Variant::SseBare,
            Mode::Envelope => Variant::SseEnvelope,
        };
        if wanted.beat_event {
            self.slots[index as usize].flags.set(Flags::BEAT_EVENT);
        }
        let cors = self.work(index).answer.cors.clone().into_owned().into();
        let cursor = wanted.cursor.as_deref().unwrap_or_default();
        let begins = if cursor.is_empty() { Begins::Now } else { Begins::AtCursor };
        self.begin_join(index, wanted, AfterJoin::OpenSse { cors, begins });
    }

    /// A stream has no end, so the answer to `HEAD` has no length either.
    fn answer_sse_head(&mut self, index: u32) {
        let date = self.date;
        let work = self.work(index);
        sse::write_head(&mut work.out, &date, &work.answer.cors);
        work.answer.connection = Connection::Close;
        self.end_after_output(index);
        self.note_answered(index, Status::Ok.code());
        self.mark_dirty(index);
    }

    /// `GET /ws`.
    pub(super) fn open_ws(&mut self, index: u32, request: &Request<'_>) {
        if !matches!(request.framing(), Framing::None | Framing::Length(0)) {
            // What follows the head would be body and frames, in a way nobody agrees on.
            let reject = Reject::bad_request("unexpected_body", "an upgrade has no body");
            return self.reject_and_close(index, reject);
        }
        let values = |name: &str| request.headers_named(name).collect::<Vec<_>>();
        let (upgrade, connection) = (values("upgrade"), values("connection"));
        let (key, version) = (values("sec-websocket-key"), values("sec-websocket-version"));
        let protocol = values("sec-websocket-protocol");
        let facts = Facts {
            method: if request.method() == Method::Get { b"GET" } else { b"HEAD" },
            http_minor: u8::from(request.version() == crate::proto::http::head::Version::Http11),
            upgrade: &upgrade,
            connection: &connection,
            key: &key,
            version: &version,
            protocol: &protocol,
        };
        let accepted = match handshake::check(&facts) {
            Ok(accepted) => accepted,
            Err(refusal) => return self.reject_with(index, refusal, refusal.headers()),
        };
        // One that is no text is a malformed one, not none.
        let bearer = accepted.bearer.map(|token| std::str::from_utf8(token).unwrap_or_default());
        if !self.admit_request(index, request, Access::WebSocket, bearer) {
            return;
        }
        let wanted = match self.wanted(index, request) {
            Ok(wanted) => wanted,
            Err(reject) => return self.reject(index, reject),
        };
        if wanted.channels.is_empty() && accepted.mode == Mode::Bare {
            let message = "name a channel: /ws?channel=news, or speak pushline.v1";
            return self.reject(index, Reject::bad_request("channel_missing", message));
        }
        let slot = &mut self.slots[index as usize];
        slot.variant = match accepted.mode {
            Mode::Bare => Variant::WsBare,
            Mode::Envelope => Variant::WsEnvelope,
        };
        let then =
            AfterJoin::OpenWs { accept_key: accepted.accept_key, protocol: accepted.protocol };
        if wanted.channels.is_empty() {
            return self.open_stream(index, &then);
        }
        self.begin_join(index, wanted, then);
    }

    fn wanted(&self, index: u32, request: &Request<'_>) -> Result<Wanted, Reject> {
        let channels_max = self.setup.settings.connection_channels_max;
        let mut wanted = Wanted::default();
        let mut cursors = [const { None }; CURSOR_NAMES.len()];
        for pair in query::pairs(request.query()) {
            let (key, value) =
                pair.map_err(|_| Reject::bad_request("query", "a % without two digits"))?;
            match key.as_ref() {
                b"channel" => self.want_channel(index, &mut wanted, &value, channels_max)?,
                b"envelope" => wanted.envelope = Some(envelope_mode(&value)?),
                b"heartbeat" => wanted.beat_event = is_beat_event(&value)?,
                b"fallback" => self.metrics.add_client_fallback(&value),
                name => {
                    if let Some(place) = CURSOR_NAMES.iter().position(|known| *known == name) {
                        cursors[place].get_or_insert_with(|| value.into_owned());
                    }
                }
            }
        }
        let header = request.header("last-event-id").map(<[u8]>::to_vec);
        // An empty one is none.
        let mut cursors = std::iter::once(header).chain(cursors).flatten();
        wanted.cursor = cursors.find(|cursor| !cursor.is_empty());
        Ok(wanted)
    }

    fn want_channel(
        &self,
        index: u32,
        wanted: &mut Wanted,
        name: &[u8],
        channels_max: usize,
    ) -> Result<(), Reject> {
        let name = channel_name(name)?;
        self.check_subscribe(index, name)?;
        if wanted.channels.iter().any(|known| **known == *name) {
            return Ok(());
        }
        if wanted.channels.len() == channels_max {
            return Err(TOO_MANY_CHANNELS);
        }
        wanted.channels.push(name.into());
        Ok(())
    }

    /// Whether the connection may read the channel.
    pub(super) fn check_subscribe(&self, index: u32, channel: &str) -> Result<(), Denied> {
        match self.permission(index).may_subscribe(channel) {
            true => Ok(()),
            false => Err(Denied::SubscribeForbidden),
        }
    }

    /// Whether the connection may publish to the channel.
    pub(super) fn check_publish(&self, index: u32, channel: &str) -> Result<(), Denied> {
        match self.permission(index).may_publish(channel) {
            true => Ok(()),
            false => Err(Denied::PublishForbidden),
        }
    }

    // --- the join ---

    fn begin_join(&mut self, index: u32, wanted: Wanted, then: AfterJoin) {
        let text = wanted.cursor.unwrap_or_default();
        self.await_log(index);
        self.join(index, wanted.channels, &text, then);
    }

    /// Asks the log to join these channels, all at one moment.
    pub(super) fn join(
        &mut self,
        index: u32,
        names: Vec<Box<str>>,
        cursor_text: &[u8],
        then: AfterJoin,
    ) {
        let cursor = Cursor::parse(cursor_text, self.setup.epoch);
        if cursor != Cursor::Now {
            self.metrics.replays.add(1);
        }
        let mut replicas = Vec::with_capacity(names.len());
        let mut channels = Vec::with_capacity(names.len());
        if self.join_here(index, &names, cursor) {
            return self.finish_join(index, then);
        }
        for name in names {
            let replica = self.find_or_make_replica(&name);
            self.channels[replica].pending_joins += 1;
            replicas.push(replica);
            channels.push(name);
        }
        let token = self.token(index);
        let after = cut_echo(cursor_text);
        let join = PendingJoin { token, replicas, after, then };
        let ticket = self.wait_for(Pending::Join(join));
        self.work(index).joining = true;
        self.ask_for(index, RequestBody::Join { ticket, channels, cursor });
    }

    /// Joins channels that this worker's replicas know all about. Either all of them or none.
    fn join_here(&mut self, index: u32, names: &[Box<str>], cursor: Cursor) -> bool {
        let mut stands = std::mem::take(&mut self.stands);
        stands.extend(names.iter().map_while(|name| {
            let replica = self.channels.find(name, self.setup.hasher.channel(name))?;
            Some((replica, self.channels[replica].stand(cursor, self.head_seen)?))
        }));
        let here = stands.len() == names.len();
        for (replica, from) in stands.drain(..).filter(|_| here) {
            let of = &mut self.channels[replica];
            of.locally_joined += 1;
            of.name.enter();
            self.add_sub(index, replica, from, None, "");
        }
        self.stands = stands;
        here
    }

    /// The log answered a join.
    pub(super) fn joined(
        &mut self,
        join: PendingJoin,
        head_seq: u64,
        channels: Vec<JoinedChannel>,
    ) {
        let PendingJoin { token, replicas, after, then } = join;
        debug_assert_eq!(replicas.len(), channels.len());
        self.head_seen = self.head_seen.max(head_seq);
        let current = self.is_current(token);
        for (replica, joined) in replicas.into_iter().zip(channels) {
            let JoinedChannel { name, after: from, last_seq, gap, .. } = joined;
            let of = &mut self.channels[replica];
            of.name = name;
            of.joined(head_seq);
            of.log_joined += 1;
            if current {
                let nothing_between = gap.is_none() && last_seq <= from;
                let cursor = if nothing_between { from.max(head_seq) } else { from };
                self.add_sub(token.slot, replica, cursor, gap, &after);
            } else {
                self.left(replica);
            }
        }
        if !current {
            return;
        }
        let index = token.slot;
        self.join_answered(index);
        self.finish_join(index, then);
        if self.is_current(token) {
            self.take_carry(index);
        }
    }

    fn finish_join(&mut self, index: u32, then: AfterJoin) {
        match then {
            AfterJoin::Subscribed(reference) => self.ws_subscribed(index, reference.as_deref()),
            then => self.open_stream(index, &then),
        }
    }

    fn join_answered(&mut self, index: u32) {
        let work = self.work(index);
        work.outstanding -= 1;
        work.joining = false;
    }

    fn add_sub(
        &mut self,
        index: u32,
        replica: u32,
        cursor: u64,
        gap: Option<GapReason>,
        after: &str,
    ) {
        let asked = Cursor::parse(after.as_bytes(), self.setup.epoch);
        // A bare WebSocket can tell a gap only by closing; one that asks for all there is would
        // then never get any of it.
        let untold =
            asked == Cursor::Earliest && self.slots[index as usize].variant == Variant::WsBare;
        let gap = gap.filter(|_| !untold);
        match gap {
            Some(GapReason::Evicted) => self.metrics.gaps_evicted.add(1),
            Some(GapReason::Epoch) => self.metrics.gaps_epoch.add(1),
            Some(GapReason::Overrun) => self.metrics.gaps_overrun.add(1),
            None => {}
        }
        if self.slots[index as usize].is_live() {
            // With two channels it needs a cursor for each.
            let cursor = self.live_cursor(index);
            self.make_explicit(index, cursor);
        }
        let gap = gap.map(|reason| Box::new(Gap { reason, after: after.into(), first: None }));
        let follower = self.channels[replica].add_follower(index);
        self.metrics.subscriptions.add(1);
        let position = match (&gap, asked) {
            // The oldest of one channel may be older than that of another.
            (None, Cursor::Earliest) => 0,
            (None, Cursor::After(seq)) => seq,
            (None, _) => cursor,
            (Some(gap), Cursor::After(seq)) if gap.reason == GapReason::Evicted => seq,
            (Some(_), _) => 0,
        };
        let work = self.work(index);
        work.position = work.position.max(position);
        work.read_anew();
        work.subs.push(Sub { replica, index: follower, cursor, gap });
    }

    /// The log refused a join: nothing was joined.
    pub(super) fn join_refused(&mut self, join: PendingJoin, refusal: Refusal) {
        for &replica in &join.replicas {
            self.channels.change(replica, Replica::join_refused);
            self.forget_if_unused(replica);
        }
        if !self.is_current(join.token) {
            return;
        }
        let index = join.token.slot;
        self.join_answered(index);
        match join.then {
            AfterJoin::Subscribed(reference) => {
                self.ws_reject(index, reference.as_deref(), refusal);
            }
            AfterJoin::OpenSse { .. } | AfterJoin::OpenWs { .. } => {
                self.refuse_for_now(index, refusal.into());
            }
        }
        if self.is_current(join.token) {
            self.take_carry(index);
        }
    }

    /// The connection is a stream from here on.
    fn open_stream(&mut self, index: u32, then: &AfterJoin) {
        // The rules may have changed while the log was asked.
        if !self.is_vouched_for(index) {
            return self.close(index, CloseReason::KeyRemoved);
        }
        let retry_ms = self.jittered_retry_ms();
        // Whoever joins now has seen to what this worker has seen to.
        let head = EventId { epoch: self.setup.epoch, seq: self.head_seen };
        // Only who has a token needs a name to refresh it by.
        let guarded = self.slots[index as usize].grant.is_some();
        let opened = guarded.then(|| self.refresh_name(index));
        let beats = self.slots[index as usize].flags.has(Flags::BEAT_EVENT);
        let beat_period = beats.then_some(self.setup.settings.heartbeat);
        let date = self.date;
        let work = self.work(index);
        let (phase, status) = match then {
            AfterJoin::OpenSse { cors, begins } => {
                let from = (*begins == Begins::Now).then_some(head);
                sse::write_head(&mut work.out, &date, cors);
                sse::write_preamble(&mut work.out, retry_ms, from);
                if let Some(period) = beat_period {
                    sse::write_first_beat(&mut work.out, period.as_millis());
                }
                if let Some(id) = opened {
                    sse::write_opened(&mut work.out, &id);
                }
                (Phase::Sse, Status::Ok.code())
            }
            AfterJoin::OpenWs { accept_key, protocol } => {
                handshake::write_accept(&mut work.out, accept_key, *protocol, b"");
                (Phase::Ws, SWITCHING_PROTOCOLS)
            }
            AfterJoin::Subscribed(_) => return,
        };
        work.http = HttpState::default();
        self.set_phase(index, phase);
        self.note_answered(index, status);
        self.note_opened(index);
        self.await_expiry(index);
        self.slots[index as usize].heard_s = self.now.as_secs() as u32;
        self.mark_dirty(index);
    }

    /// Between half and one and a half of the setting, so that reconnects spread.
    pub(super) fn jittered_retry_ms(&mut self) -> u32 {
        let mean = self.retry_ms();
        mean / 2 + self.random.u32(0..=mean)
    }

    /// What the operator set, or at most an hour.
    pub(super) fn retry_ms(&self) -> u32 {
        const HOUR_MS: u32 = 3_600_000;
        u32::try_from(self.setup.settings.retry.as_millis()).unwrap_or(HOUR_MS).min(HOUR_MS)
    }
}

fn envelope_mode(value: &[u8]) -> Result<Mode, Reject> {
    match value {
        b"json" => Ok(Mode::Envelope),
        b"none" => Ok(Mode::Bare),
        _ => Err(Reject::bad_request("envelope", "envelope is json or none")),
    }
}

fn is_beat_event(value: &[u8]) -> Result<bool, Reject> {
    match value {
        b"event" => Ok(true),
        b"comment" => Ok(false),
        _ => Err(Reject::bad_request("heartbeat", "heartbeat is comment or event")),
    }
}

fn cut_echo(text: &[u8]) -> Box<str> {
    let text = &text[..text.len().min(AFTER_BYTES_MAX)];
    String::from_utf8_lossy(text).into()
}
