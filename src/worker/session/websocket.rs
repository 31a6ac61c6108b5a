//! The WebSocket side of a connection: messages, operations, and the closing handshake.

use bytes::Bytes;

use super::state::{
    Farewell, Protocol, Publisher, Shown, WantedChannel, add_publications, line_bytes_max,
};
use super::step::Step;
use super::subscribe::TOO_MANY_CHANNELS;
use super::{
    Cx, backend, checks, closing, grant, presence, produce, publish, subscribe, ws_streams,
};
use crate::auth::TOKEN_BYTES_MAX;
use crate::limits::{LINE_OVERHEAD_BYTES_MAX, OUT_BYTES_MAX, OUTSTANDING_MAX};
use crate::log::event::{Kind, Publication};
use crate::log::message::{Published, Refusal};
use crate::proto::cursor::EventId;
use crate::proto::envelope::{self, ClientOp, OpBody, Value};
use crate::proto::name::channel_name;
use crate::proto::reject::Reject;
use crate::proto::stream::End;
use crate::proto::ws::close::CloseCode;
use crate::proto::ws::frame::{self, Opcode};
use crate::proto::ws::message::{MessageLimits, Received, Receiver};
use crate::reason::CloseReason;
use crate::worker::clock::Why;
use crate::worker::effect::{AfterJoin, AfterPublish, Effect, Ending};

/// Messages up to this are accepted, however small events are and even if the client may not
/// publish.
const MESSAGE_BYTES_ENOUGH: usize = 4 * 1024;

/// The same in envelope mode, where a message may carry a token.
const OPERATION_BYTES_ENOUGH: usize = TOKEN_BYTES_MAX + LINE_OVERHEAD_BYTES_MAX;

// --- input ---

/// Takes bytes of an open WebSocket.
pub(super) fn input(cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
    let limits = message_limits(cx);
    // Input after the message that ends the connection is ignored.
    if cx.session.has_farewell() {
        return Step::Used(bytes.len());
    }
    if has_to_wait(cx) {
        return Step::Wait(0);
    }
    // An idle connection keeps no receiver: a fresh one continues just as well.
    let mut kept = cx.session.work.as_mut().and_then(|work| work.ws.take());
    let (begins, mut fresh) = (kept.is_none(), Receiver::default());
    let receiver = kept.as_deref_mut().unwrap_or(&mut fresh);
    let (used, received) = match receiver.receive(bytes, &limits) {
        Ok(taken) => taken,
        Err(violation) => {
            closing::ws_refuse(cx, CloseReason::Violation(violation));
            return Step::Used(bytes.len());
        }
    };
    if !receiver.is_idle() {
        let progress = receiver.progress();
        let work = cx.work();
        work.ws = Some(kept.unwrap_or_else(|| Box::new(fresh)));
        work.progress = progress;
        if begins {
            await_message(cx);
        }
    }
    if let Some(received) = received {
        message(cx, received);
    }
    Step::Used(used)
}

/// Operations take effect in order: what follows a `subscribe` waits for its join. And a peer that
/// does not read what it asks for gets no more of it.
fn has_to_wait(cx: &Cx<'_>) -> bool {
    cx.session.work().is_some_and(|work| {
        work.joining
            || work.ws_streams.as_ref().is_some_and(|streams| streams.is_busy())
            || work.shown.is_some()
            || work.wanted.is_some()
            || work.outstanding >= OUTSTANDING_MAX
            || cx.out_len() > OUT_BYTES_MAX
    })
}

/// Sets the deadline of a message that has begun.
fn await_message(cx: &mut Cx<'_>) {
    let requests = &mut cx.session.requests;
    *requests = requests.wrapping_add(1);
    cx.wait(Why::Body);
}

/// A client that may publish nowhere needs no long messages.
pub(super) fn message_limits(cx: &Cx<'_>) -> MessageLimits {
    let settings = &cx.shared.settings;
    let enough = match cx.session.dialect.has_operations() {
        true => OPERATION_BYTES_ENOUGH,
        false => MESSAGE_BYTES_ENOUGH,
    };
    let message_bytes_max = match grant::may_publish_somewhere(cx) {
        // In envelope mode a message holds an event and what names it.
        true => line_bytes_max(settings.event_bytes_max).max(enough),
        false => enough,
    };
    MessageLimits { message_bytes_max, fragments_max: settings.fragments_max }
}

fn message(cx: &mut Cx<'_>, received: Received) {
    let envelope = cx.session.dialect.has_operations();
    match received {
        Received::Ping(payload) => {
            frame::write(cx.out(), Opcode::Pong, &payload);
        }
        Received::Pong => {}
        Received::Close { code, .. } => closing::ws_ends(cx, Farewell::Answer(code)),
        Received::Text(text) if envelope => op(cx, &text),
        Received::Binary(_) if envelope => {
            let reason = "pushline.v1 speaks text";
            closing::ws_refuse_with(cx, CloseCode::UNSUPPORTED, reason, CloseReason::BadRequest);
        }
        Received::Text(text) => publish_bare(cx, Kind::Text, text),
        Received::Binary(bytes) => publish_bare(cx, Kind::Binary, bytes),
    }
}

/// Throws away what comes before the peer's close frame, for which we wait after sending ours.
pub fn closing_input(cx: &mut Cx<'_>, bytes: &[u8]) {
    if cx.world.ends_after_output() {
        return;
    }
    let limits = message_limits(cx);
    let mut receiver = cx.work().ws.take().unwrap_or_default();
    receiver.discard();
    let mut used = 0;
    while used < bytes.len() {
        match receiver.receive(&bytes[used..], &limits) {
            Ok((_, Some(Received::Close { .. }))) => {
                return cx.end(Ending::HandshakeOver);
            }
            Ok((taken, _)) => used += taken,
            Err(_) => return cx.end(Ending::HandshakeOver),
        }
    }
    cx.work().ws = Some(receiver);
}

// --- bare mode ---

/// Publishes a message as an event of the connection's channel, if it has exactly one.
fn publish_bare(cx: &mut Cx<'_>, kind: Kind, data: Bytes) {
    let Some(channel) = cx.world.only_channel() else {
        let reason = "publishing needs exactly one channel";
        return closing::ws_refuse_with(cx, CloseCode::POLICY, reason, CloseReason::BadRequest);
    };
    let channel: Box<str> = channel[..].into();
    if data.len() > cx.shared.settings.event_bytes_max {
        let reason = "event too large";
        return closing::ws_refuse_with(cx, CloseCode::TOO_BIG, reason, CloseReason::BadRequest);
    }
    if cx.check_publish(&channel).is_err() {
        let reason = "publishing here is not allowed";
        return closing::ws_refuse_with(cx, CloseCode::POLICY, reason, CloseReason::Denied);
    }
    let share = publish::share_of(cx);
    match publish::admit(cx, share) {
        Ok(()) => {}
        Err(Refusal::Rate) => {
            let (code, reason) = (CloseCode::POLICY, "publish rate exceeded");
            return closing::ws_refuse_with(cx, code, reason, CloseReason::Overloaded);
        }
        Err(_) => return closing::ws_refuse(cx, CloseReason::Overloaded),
    }
    let (event_type, key, attributes) = (None, None, None);
    let mut publication = Publication { channel, kind, data, event_type, key, attributes };
    publish::sign(cx, &mut publication);
    publish::ask(cx, vec![publication], AfterPublish::BareMessage);
}

/// Takes the log's answer to a bare message. In bare mode the only way to refuse is to close.
pub(super) fn published(cx: &mut Cx<'_>, outcome: &Published) {
    // Another message's refusal may have begun to close it: nothing is sent after a close
    // frame.
    if cx.session.protocol != Protocol::Ws {
        return;
    }
    match outcome.refusal {
        None => {}
        Some(Refusal::Rate) => {
            let reason = "publish rate exceeded";
            closing::ws_close(cx, CloseCode::POLICY, reason, CloseReason::Overloaded);
        }
        Some(_) => closing::disconnect(cx, CloseReason::Overloaded),
    }
}

// --- envelope mode ---

fn op(cx: &mut Cx<'_>, text: &[u8]) {
    let ClientOp { reference, body } = match envelope::parse_op(text) {
        Ok(op) => op,
        Err(error) => return cx.op_error(error.reference, error.reason),
    };
    match body {
        OpBody::Ping => pong(cx, reference),
        OpBody::Subscribe { channel, after } => {
            subscribe(cx, reference, &channel, after.as_deref());
        }
        OpBody::Unsubscribe { channel } => unsubscribe(cx, reference, &channel),
        OpBody::Publish(publication) => publish(cx, reference, publication),
        OpBody::Open { channel, stream, offset } => {
            ws_streams::open(cx, reference, &channel, (stream.as_deref(), offset));
        }
        OpBody::Append(token) => ws_streams::append(cx, reference, token),
        OpBody::End { channel, failed } => {
            let end = if failed { End::Error } else { End::Done };
            ws_streams::end(cx, reference, &channel, end);
        }
        OpBody::Cancel { channel } => produce::ws_cancel(cx, reference, &channel),
        OpBody::Auth { token } => auth(cx, reference, &token),
        OpBody::Presence { channel } => presence::ws_ask(cx, reference, &channel),
    }
}

/// A page sees no control frames, so its watchdog sends pings itself; it is told how often it
/// may, and what the connection is called where it publishes by a request.
fn pong(cx: &mut Cx<'_>, reference: Option<&str>) {
    let period_ms = cx.shared.settings.heartbeat.as_millis() as u64;
    let name = cx.shared.refresh_name(cx.token);
    let fields = [("every_ms", Value::Number(period_ms)), ("connection", Value::Text(&name))];
    cx.op_ok(reference, &fields);
}

/// Takes a new token, which may have to wait for its check; until then nothing more is read.
fn auth(cx: &mut Cx<'_>, reference: Option<&str>, token: &str) {
    if checks::has_to_wait(cx, cx.shared.gate.cost_of_token(token)) {
        let shown = Shown { reference: reference.map(Into::into), token: token.into() };
        cx.work().shown = Some(Box::new(shown));
        return;
    }
    match grant::refresh_grant(cx, token) {
        Ok(()) => cx.op_ok(reference, &[]),
        Err(denied) => cx.op_error(reference, denied),
    }
}

/// Goes on with the operation that was kept, if there is one, now that its token is at the front
/// of its line, or the backend has answered.
pub fn go_on_with_kept(cx: &mut Cx<'_>) {
    let Some(work) = cx.session.work.as_mut() else { return };
    let (shown, wanted) = (work.shown.take(), work.wanted.take());
    if let Some(shown) = shown {
        auth(cx, shown.reference.as_deref(), &shown.token);
    }
    if let Some(wanted) = wanted {
        let WantedChannel { reference, channel, after } = *wanted;
        subscribe(cx, reference.as_deref(), &channel, after.as_deref());
    }
}

fn subscribe(cx: &mut Cx<'_>, reference: Option<&str>, channel: &str, after: Option<&str>) {
    let name = match channel_name(channel.as_bytes()) {
        Ok(name) => name,
        Err(error) => return cx.op_error(reference, error),
    };
    match backend::has_to_ask_again(cx) {
        Ok(false) => {}
        Ok(true) => {
            let (reference, after) = (reference.map(Into::into), after.map(Into::into));
            let wanted = WantedChannel { reference, channel: name.into(), after };
            cx.work().wanted = Some(Box::new(wanted));
            return;
        }
        Err(denied) => return cx.op_error(reference, denied),
    }
    if let Err(denied) = cx.check_subscribe(name) {
        return cx.op_error(reference, denied);
    }
    if cx.world.has_channel(name) {
        let message = "the connection has this channel already";
        let reject = Reject::bad_request("already_subscribed", message);
        return cx.op_error(reference, reject);
    }
    if cx.world.channel_count() >= cx.shared.settings.connection_channels_max {
        return cx.op_error(reference, TOO_MANY_CHANNELS);
    }
    let then = AfterJoin::Subscribed(reference.map(Into::into));
    let cursor = after.unwrap_or_default().as_bytes().to_vec();
    subscribe::join(cx, vec![name.into()], cursor, then);
}

/// Answers a `subscribe` whose channel is joined.
pub(super) fn subscribed(cx: &mut Cx<'_>, reference: Option<&str>) {
    let Some((channel, id)) = cx.world.last_joined() else { return };
    let fields = [("channel", Value::Text(&channel)), ("id", Value::Id(id))];
    cx.op_ok(reference, &fields);
}

fn unsubscribe(cx: &mut Cx<'_>, reference: Option<&str>, channel: &str) {
    if !cx.world.has_channel(channel) {
        let message = "the connection does not have this channel";
        let reject = Reject::bad_request("not_subscribed", message);
        return cx.op_error(reference, reject);
    }
    cx.op_ok(reference, &[("channel", Value::Text(channel))]);
    cx.push(Effect::Leave { channel: channel.into() });
}

fn publish(cx: &mut Cx<'_>, reference: Option<&str>, publication: envelope::Publication<'_>) {
    let bytes_max = cx.shared.settings.event_bytes_max;
    let permission = cx.permission();
    let allowed = |channel: &str| permission.may_publish(channel);
    let mut publications = Vec::with_capacity(1);
    let by = Publisher { allowed: &allowed, sender: Some(cx.shared.sender(cx.token)) };
    if let Err(reject) = add_publications(publication, bytes_max, &by, &mut publications) {
        return cx.op_error(reference, reject);
    }
    let share = publish::share_of(cx);
    if let Err(refusal) = publish::admit(cx, share) {
        return cx.op_error(reference, refusal);
    }
    publications.iter_mut().for_each(|publication| publish::sign(cx, publication));
    let then = AfterPublish::Acknowledge(reference.map(Into::into));
    publish::ask(cx, publications, then);
}

/// Answers a `publish` once the log has.
pub(super) fn acknowledge(cx: &mut Cx<'_>, reference: Option<&str>, outcome: &Published) {
    if let Some(refusal) = outcome.refusal {
        return cx.op_error(reference, refusal);
    }
    if reference.is_none() {
        return;
    }
    let id = EventId { epoch: cx.shared.epoch, seq: outcome.last_seq };
    let count = match outcome.accepted {
        0 | 1 if !publish::is_told_subscribers(cx) => None,
        0 | 1 => Some(("subscribers", outcome.subscribers)),
        several => Some(("published", several)),
    };
    let count = count.map(|(name, count)| (name, Value::Number(u64::from(count))));
    let fields: Vec<_> = [Some(("id", Value::Id(id))), count].into_iter().flatten().collect();
    cx.op_ok(reference, &fields);
}
