//! Becoming a subscriber: what a request asks for, and what a join makes of the session.

use super::state::{Flags, HttpState, Protocol, Session};
use super::{Cx, Shared, access, grant, log_line};
use crate::auth::Access;
use crate::log::Keeps;
use crate::proto::dialect::{CURSOR_NAMES, Dialect, Heartbeat};
use crate::proto::http::head::{Framing, Method, Request, Version};
use crate::proto::http::query;
use crate::proto::http::response::{Connection, Date, Status, write_stream_head};
use crate::proto::name::channel_name;
use crate::proto::reject::Reject;
use crate::proto::sse;
use crate::proto::ws::handshake::{self, Accepted, Facts, Mode};
use crate::reason::CloseReason;
use crate::worker::effect::{AfterJoin, Begins, Effect, Ending};

pub(super) const TOO_MANY_CHANNELS: Reject =
    Reject::bad_request("too_many_channels", "more channels than one connection may have");

/// What a subscriber asks for in its query.
#[derive(Debug, Default)]
struct Wanted {
    channels: Vec<Box<str>>,
    envelope: Option<Mode>,
    beat_event: bool,
    /// It is to be told its connection's name.
    open_event: bool,
    cursor: Option<Vec<u8>>,
}

/// The status that answers an upgrade.
const SWITCHING_PROTOCOLS: u16 = 101;

impl Session {
    /// Whether the session still wants the channels it asked for: its end may have begun meanwhile.
    pub fn wants_to_join(&self) -> bool {
        self.takes_input() && self.work().is_some_and(|work| work.joining)
    }
}

impl Shared {
    /// Between half and one and a half times the setting, so that reconnects spread out.
    pub(super) fn jittered_retry_ms(&mut self) -> u32 {
        let mean = self.retry_ms();
        mean / 2 + self.random.u32(0..=mean)
    }

    /// The operator's setting, at most an hour.
    pub(super) fn retry_ms(&self) -> u32 {
        const HOUR_MS: u32 = 3_600_000;
        u32::try_from(self.settings.retry.as_millis()).unwrap_or(HOUR_MS).min(HOUR_MS)
    }
}

// --- requests ---

/// `GET /sse`.
pub(super) fn open_sse(cx: &mut Cx<'_>, request: &Request<'_>) {
    if !access::admit_request(cx, request, Access::Http, None) {
        return;
    }
    let wanted = match wanted(cx, request) {
        Ok(wanted) => wanted,
        Err(reject) => return cx.reject(reject),
    };
    if wanted.channels.is_empty() {
        let message = "name at least one: /sse?channel=news";
        return cx.reject(Reject::bad_request("channel_missing", message));
    }
    if request.method() == Method::Head {
        return answer_sse_head(cx);
    }
    let several = wanted.channels.len() > 1;
    let mode = wanted.envelope.unwrap_or(if several { Mode::Envelope } else { Mode::Bare });
    cx.session.dialect = match mode {
        Mode::Bare => Dialect::SseBare,
        Mode::Envelope => Dialect::SseEnvelope,
    };
    if wanted.beat_event {
        cx.session.flags.insert(Flags::BEAT_EVENT);
    }
    let cors = cx.work().answer.cors.clone().into_owned().into();
    let cursor = wanted.cursor.as_deref().unwrap_or_default();
    // A client that has not read all of a state must not be told an id that says it has.
    let is_state = |name: &str| cx.shared.settings.channel(name).history == Keeps::Latest;
    let begins = match cursor.is_empty() && !wanted.channels.iter().any(|name| is_state(name)) {
        true => Begins::Now,
        false => Begins::AtCursor,
    };
    // A stream with a token needs a name to refresh it by.
    let named = wanted.open_event || cx.session.grant().is_some();
    begin_join(cx, wanted, AfterJoin::OpenSse { cors, begins, named });
}

/// A stream has no end, so the answer to `HEAD` has no length either.
fn answer_sse_head(cx: &mut Cx<'_>) {
    let date = cx.shared.date;
    let (work, out) = cx.work_and_out();
    sse::write_head(out, &date, &work.answer.cors);
    end_after_head(cx);
}

/// An answer without a length is written, and it ends with its head.
pub(super) fn end_after_head(cx: &mut Cx<'_>) {
    cx.work().answer.connection = Connection::Close;
    cx.end(Ending::AfterOutput(None));
    log_line::log_answered(cx, Status::Ok.code());
}

/// `GET /ws`.
pub(super) fn open_ws(cx: &mut Cx<'_>, request: &Request<'_>) {
    if !matches!(request.framing(), Framing::None | Framing::Length(0)) {
        // Peers would not agree whether what follows the head is body or frames.
        let reject = Reject::bad_request("unexpected_body", "an upgrade has no body");
        return cx.reject_and_close(reject);
    }
    let values = |name: &str| request.headers_named(name).collect::<Vec<_>>();
    let (upgrade, connection) = (values("upgrade"), values("connection"));
    let (key, version) = (values("sec-websocket-key"), values("sec-websocket-version"));
    let protocol = values("sec-websocket-protocol");
    let facts = Facts {
        method: if request.method() == Method::Get { b"GET" } else { b"HEAD" },
        http_minor: u8::from(request.version() == Version::Http11),
        upgrade: &upgrade,
        connection: &connection,
        key: &key,
        version: &version,
        protocol: &protocol,
    };
    let accepted = match handshake::check(&facts) {
        Ok(accepted) => accepted,
        Err(refusal) => return cx.reject_with(refusal, refusal.headers()),
    };
    upgrade_to_ws(cx, request, &accepted);
}

fn upgrade_to_ws(cx: &mut Cx<'_>, request: &Request<'_>, accepted: &Accepted<'_>) {
    // A token that is not UTF-8 is malformed, not missing.
    let bearer = accepted.bearer.map(|token| std::str::from_utf8(token).unwrap_or_default());
    if !access::admit_request(cx, request, Access::WebSocket, bearer) {
        return;
    }
    let wanted = match wanted(cx, request) {
        Ok(wanted) => wanted,
        Err(reject) => return cx.reject(reject),
    };
    if wanted.channels.is_empty() && accepted.mode == Mode::Bare {
        let message = "name a channel: /ws?channel=news, or speak pushline.v1";
        return cx.reject(Reject::bad_request("channel_missing", message));
    }
    cx.session.dialect = match accepted.mode {
        Mode::Bare => Dialect::WsBare,
        Mode::Envelope => Dialect::WsEnvelope,
    };
    let then = AfterJoin::OpenWs { accept_key: accepted.accept_key, protocol: accepted.protocol };
    if wanted.channels.is_empty() {
        return open_stream(cx, &then);
    }
    begin_join(cx, wanted, then);
}

fn wanted(cx: &Cx<'_>, request: &Request<'_>) -> Result<Wanted, Reject> {
    let channels_max = cx.shared.settings.connection_channels_max;
    let mut wanted = Wanted::default();
    let mut cursors = [const { None }; CURSOR_NAMES.len()];
    for pair in query::pairs(request.query()) {
        let (key, value) = pair?;
        match key.as_ref() {
            b"channel" => want_channel(cx, &mut wanted, &value, channels_max)?,
            b"envelope" => wanted.envelope = Some(envelope_mode(&value)?),
            b"fallback" => cx.shared.metrics.add_client_fallback(&value),
            b"heartbeat" => wanted.beat_event = is_beat_event(&value)?,
            b"open" => wanted.open_event = is_open_event(&value)?,
            name => {
                if let Some(place) = CURSOR_NAMES.iter().position(|known| *known == name) {
                    cursors[place].get_or_insert_with(|| value.into_owned());
                }
            }
        }
    }
    let header = request.header("last-event-id").map(<[u8]>::to_vec);
    // An empty cursor counts as none.
    let mut cursors = std::iter::once(header).chain(cursors).flatten();
    wanted.cursor = cursors.find(|cursor| !cursor.is_empty());
    Ok(wanted)
}

fn want_channel(
    cx: &Cx<'_>,
    wanted: &mut Wanted,
    name: &[u8],
    channels_max: usize,
) -> Result<(), Reject> {
    let name = channel_name(name)?;
    cx.check_subscribe(name)?;
    if wanted.channels.iter().any(|known| **known == *name) {
        return Ok(());
    }
    if wanted.channels.len() == channels_max {
        return Err(TOO_MANY_CHANNELS);
    }
    wanted.channels.push(name.into());
    Ok(())
}

// --- the join ---

fn begin_join(cx: &mut Cx<'_>, wanted: Wanted, then: AfterJoin) {
    cx.await_log();
    join(cx, wanted.channels, wanted.cursor.unwrap_or_default(), then);
}

/// Joins these channels; nothing more is read until they are joined.
pub(super) fn join(cx: &mut Cx<'_>, channels: Vec<Box<str>>, cursor: Vec<u8>, then: AfterJoin) {
    cx.work().joining = true;
    cx.push(Effect::Join { channels, cursor, then });
}

/// Makes the session a stream.
pub(super) fn open_stream(cx: &mut Cx<'_>, then: &AfterJoin) {
    // The rules may have changed while the log was asked.
    if !cx.shared.vouches_for(cx.session.grant()) {
        return cx.end(Ending::Now(CloseReason::KeyRemoved));
    }
    let retry_ms = cx.shared.jittered_retry_ms();
    // A stream that starts now is caught up to what this worker has seen.
    let head = cx.world.head();
    let (protocol, status) = match then {
        AfterJoin::OpenSse { cors, begins, named } => {
            let from = (*begins == Begins::Now).then_some(head);
            sse::write_head(&mut cx.effects.out, &cx.shared.date, cors);
            sse::write_preamble(cx.out(), retry_ms, from);
            if cx.session.heartbeat() == Heartbeat::Event {
                let period_ms = cx.shared.settings.heartbeat.as_millis();
                sse::write_first_beat(cx.out(), period_ms);
            }
            if *named {
                let name = cx.shared.refresh_name(cx.token);
                sse::write_opened(cx.out(), &name);
            }
            (Protocol::Sse, Status::Ok.code())
        }
        AfterJoin::OpenView { cors, .. } => {
            write_view_head(&mut cx.effects.out, cx.session.dialect, &cx.shared.date, cors);
            (Protocol::Sse, Status::Ok.code())
        }
        AfterJoin::OpenWs { accept_key, protocol } => {
            handshake::write_accept(cx.out(), accept_key, *protocol, b"");
            (Protocol::Ws, SWITCHING_PROTOCOLS)
        }
        AfterJoin::Subscribed(_) => return,
    };
    cx.work().http = HttpState::default();
    cx.speak(protocol);
    log_line::log_answered(cx, status);
    log_line::log_opened(cx);
    grant::await_expiry(cx);
}

/// Appends the head of a stream's answer, which ends with the connection. `extra` are whole lines.
pub(super) fn write_view_head(out: &mut Vec<u8>, dialect: Dialect, date: &Date, extra: &[u8]) {
    let content: &[u8] = match dialect {
        Dialect::StreamText => b"Content-Type: text/plain; charset=utf-8\r\n",
        // The AI SDK asks for this field; other clients ignore it.
        _ => b"Content-Type: text/event-stream\r\nx-vercel-ai-ui-message-stream: v1\r\n",
    };
    write_stream_head(out, content, date, extra);
}

fn envelope_mode(value: &[u8]) -> Result<Mode, Reject> {
    match value {
        b"json" => Ok(Mode::Envelope),
        b"none" => Ok(Mode::Bare),
        _ => Err(Reject::bad_request("envelope", "envelope is json or none")),
    }
}

fn is_open_event(value: &[u8]) -> Result<bool, Reject> {
    match value {
        b"event" => Ok(true),
        _ => Err(Reject::bad_request("open", "open is event, or left out")),
    }
}

fn is_beat_event(value: &[u8]) -> Result<bool, Reject> {
    match value {
        b"event" => Ok(true),
        b"comment" => Ok(false),
        _ => Err(Reject::bad_request("heartbeat", "heartbeat is comment or event")),
    }
}
