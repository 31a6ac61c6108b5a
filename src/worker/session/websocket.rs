//! The WebSocket side of a connection: messages, operations, and the closing handshake.

use bytes::Bytes;

use super::closing::Farewell;
use super::http::Step;
use super::ndjson::{Publisher, add_publications, line_bytes_max};
use super::subscribe::TOO_MANY_CHANNELS;
use super::work::{Shown, WantedChannel};
use super::{Cx, Protocol, Sessions};
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
use crate::worker::effect::{AfterJoin, AfterPublish, Effect};

/// Messages up to this are accepted, however small events are and even if the client may not
/// publish.
const MESSAGE_BYTES_ENOUGH: usize = 4 * 1024;

/// The same in envelope mode, where a message may carry a token.
const OPERATION_BYTES_ENOUGH: usize = TOKEN_BYTES_MAX + LINE_OVERHEAD_BYTES_MAX;

impl Sessions {
    // --- input ---

    /// Takes bytes of an open WebSocket.
    pub(super) fn ws_input(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
        let index = cx.index();
        let limits = self.message_limits(index);
        let out_len = cx.out_len();
        let work = self.of[index].work.as_deref_mut();
        // Input after the message that ends the connection is ignored.
        if work.as_ref().is_some_and(|work| work.farewell.is_some()) {
            return Step::Used(bytes.len());
        }
        // Operations take effect in order: what follows a `subscribe` waits for its join.
        if work.as_ref().is_some_and(|work| {
            work.joining
                || work.ws_streams.as_ref().is_some_and(|streams| streams.is_busy())
                || work.shown.is_some()
                || work.wanted.is_some()
                || work.outstanding >= OUTSTANDING_MAX
                || out_len > OUT_BYTES_MAX
        }) {
            return Step::Wait(0);
        }
        // An idle connection keeps no receiver: a fresh one continues just as well.
        let mut kept = work.and_then(|work| work.ws.take());
        let (begins, mut fresh) = (kept.is_none(), Receiver::default());
        let receiver = kept.as_deref_mut().unwrap_or(&mut fresh);
        let (used, received) = match receiver.receive(bytes, &limits) {
            Ok(taken) => taken,
            Err(violation) => {
                self.ws_refuse(cx, CloseReason::Violation(violation));
                return Step::Used(bytes.len());
            }
        };
        if !receiver.is_idle() {
            let progress = receiver.progress();
            let work = self.work(index);
            work.ws = Some(kept.unwrap_or_else(|| Box::new(fresh)));
            work.progress = progress;
            if begins {
                self.await_message(cx);
            }
        }
        if let Some(received) = received {
            self.ws_message(cx, received);
        }
        Step::Used(used)
    }

    /// Sets the deadline of a message that has begun.
    fn await_message(&mut self, cx: &mut Cx<'_>) {
        let requests = &mut self.of[cx.index()].requests;
        *requests = requests.wrapping_add(1);
        cx.wait(Why::Body);
    }

    /// A client that may publish nowhere needs no long messages.
    pub(super) fn message_limits(&self, index: u32) -> MessageLimits {
        let settings = &self.settings;
        let enough = match self.dialect(index).has_operations() {
            true => OPERATION_BYTES_ENOUGH,
            false => MESSAGE_BYTES_ENOUGH,
        };
        let message_bytes_max = match self.may_publish_somewhere(index) {
            // In envelope mode a message holds an event and what names it.
            true => line_bytes_max(settings.event_bytes_max).max(enough),
            false => enough,
        };
        MessageLimits { message_bytes_max, fragments_max: settings.fragments_max }
    }

    fn ws_message(&mut self, cx: &mut Cx<'_>, received: Received) {
        let envelope = self.dialect(cx.index()).has_operations();
        match received {
            Received::Ping(payload) => {
                frame::write(cx.out(), Opcode::Pong, &payload);
            }
            Received::Pong => {}
            Received::Close { code, .. } => self.ws_ends(cx, Farewell::Answer(code)),
            Received::Text(text) if envelope => self.ws_op(cx, &text),
            Received::Binary(_) if envelope => {
                let reason = "pushline.v1 speaks text";
                self.ws_refuse_with(cx, CloseCode::UNSUPPORTED, reason, CloseReason::BadRequest);
            }
            Received::Text(text) => self.ws_publish_bare(cx, Kind::Text, text),
            Received::Binary(bytes) => self.ws_publish_bare(cx, Kind::Binary, bytes),
        }
    }

    // --- bare mode ---

    /// Publishes a message as an event of the connection's channel, if it has exactly one.
    fn ws_publish_bare(&mut self, cx: &mut Cx<'_>, kind: Kind, data: Bytes) {
        let Some(channel) = cx.world.only_channel() else {
            let reason = "publishing needs exactly one channel";
            return self.ws_refuse_with(cx, CloseCode::POLICY, reason, CloseReason::BadRequest);
        };
        let channel: Box<str> = channel[..].into();
        if data.len() > self.settings.event_bytes_max {
            let reason = "event too large";
            return self.ws_refuse_with(cx, CloseCode::TOO_BIG, reason, CloseReason::BadRequest);
        }
        if self.check_publish(cx.index(), &channel).is_err() {
            let reason = "publishing here is not allowed";
            return self.ws_refuse_with(cx, CloseCode::POLICY, reason, CloseReason::Denied);
        }
        let share = self.share_of(cx);
        match self.admit_publish(cx, share) {
            Ok(()) => {}
            Err(Refusal::Rate) => {
                let (code, reason) = (CloseCode::POLICY, "publish rate exceeded");
                return self.ws_refuse_with(cx, code, reason, CloseReason::Overloaded);
            }
            Err(_) => return self.ws_refuse(cx, CloseReason::Overloaded),
        }
        let (event_type, key, attributes) = (None, None, None);
        let mut publication = Publication { channel, kind, data, event_type, key, attributes };
        self.sign(cx.index(), &mut publication);
        self.ask_publish(cx, vec![publication], AfterPublish::BareMessage);
    }

    /// Takes the log's answer to a bare message. In bare mode the only way to refuse is to close.
    pub(super) fn ws_published(&mut self, cx: &mut Cx<'_>, outcome: &Published) {
        // Another message's refusal may have begun to close it: nothing is sent after a close
        // frame.
        if self.protocol(cx.index()) != Protocol::Ws {
            return;
        }
        match outcome.refusal {
            None => {}
            Some(Refusal::Rate) => {
                let reason = "publish rate exceeded";
                self.ws_close(cx, CloseCode::POLICY, reason, CloseReason::Overloaded);
            }
            Some(_) => self.disconnect(cx, CloseReason::Overloaded),
        }
    }

    // --- envelope mode ---

    fn ws_op(&mut self, cx: &mut Cx<'_>, text: &[u8]) {
        let ClientOp { reference, body } = match envelope::parse_op(text) {
            Ok(op) => op,
            Err(error) => return self.ws_reject(cx, error.reference, error.reason),
        };
        match body {
            OpBody::Ping => self.ws_pong(cx, reference),
            OpBody::Subscribe { channel, after } => {
                self.ws_subscribe(cx, reference, &channel, after.as_deref());
            }
            OpBody::Unsubscribe { channel } => self.ws_unsubscribe(cx, reference, &channel),
            OpBody::Publish(publication) => self.ws_publish(cx, reference, publication),
            OpBody::Open { channel, stream, offset } => {
                self.ws_open_stream(cx, reference, &channel, (stream.as_deref(), offset));
            }
            OpBody::Append(token) => self.ws_append(cx, reference, token),
            OpBody::End { channel, failed } => {
                let end = if failed { End::Error } else { End::Done };
                self.ws_end_stream(cx, reference, &channel, end);
            }
            OpBody::Cancel { channel } => self.ws_cancel(cx, reference, &channel),
            OpBody::Auth { token } => self.ws_auth(cx, reference, &token),
            OpBody::Presence { channel } => self.ws_presence(cx, reference, &channel),
        }
    }

    /// A page sees no control frames, so its watchdog sends pings itself; it is told how often it
    /// may, and what the connection is called where it publishes by a request.
    fn ws_pong(&mut self, cx: &mut Cx<'_>, reference: Option<&str>) {
        let period_ms = self.settings.heartbeat.as_millis() as u64;
        let name = self.refresh_name(cx.token);
        let fields = [("every_ms", Value::Number(period_ms)), ("connection", Value::Text(&name))];
        self.ws_op_ok(cx, reference, &fields);
    }

    /// Takes a new token, which may have to wait for its check; until then nothing more is read.
    fn ws_auth(&mut self, cx: &mut Cx<'_>, reference: Option<&str>, token: &str) {
        if self.check_has_to_wait(cx, self.gate.cost_of_token(token)) {
            let shown = Shown { reference: reference.map(Into::into), token: token.into() };
            self.work(cx.index()).shown = Some(Box::new(shown));
            return;
        }
        match self.refresh_grant(cx, token) {
            Ok(()) => self.ws_op_ok(cx, reference, &[]),
            Err(denied) => self.ws_reject(cx, reference, denied),
        }
    }

    /// Goes on with the operation that was kept, if there is one, now that its token is at the front
    /// of its line, or the backend has answered.
    pub fn go_on_with_kept(&mut self, cx: &mut Cx<'_>) {
        let Some(work) = self.of[cx.index()].work.as_mut() else { return };
        let (shown, wanted) = (work.shown.take(), work.wanted.take());
        if let Some(shown) = shown {
            self.ws_auth(cx, shown.reference.as_deref(), &shown.token);
        }
        if let Some(wanted) = wanted {
            let WantedChannel { reference, channel, after } = *wanted;
            self.ws_subscribe(cx, reference.as_deref(), &channel, after.as_deref());
        }
    }

    fn ws_subscribe(
        &mut self,
        cx: &mut Cx<'_>,
        reference: Option<&str>,
        channel: &str,
        after: Option<&str>,
    ) {
        let name = match channel_name(channel.as_bytes()) {
            Ok(name) => name,
            Err(error) => return self.ws_reject(cx, reference, error),
        };
        match self.has_to_ask_again(cx) {
            Ok(false) => {}
            Ok(true) => {
                let (reference, after) = (reference.map(Into::into), after.map(Into::into));
                let wanted = WantedChannel { reference, channel: name.into(), after };
                self.work(cx.index()).wanted = Some(Box::new(wanted));
                return;
            }
            Err(denied) => return self.ws_reject(cx, reference, denied),
        }
        if let Err(denied) = self.check_subscribe(cx.index(), name) {
            return self.ws_reject(cx, reference, denied);
        }
        if cx.world.has_channel(name) {
            let message = "the connection has this channel already";
            let reject = Reject::bad_request("already_subscribed", message);
            return self.ws_reject(cx, reference, reject);
        }
        if cx.world.channel_count() >= self.settings.connection_channels_max {
            return self.ws_reject(cx, reference, TOO_MANY_CHANNELS);
        }
        let then = AfterJoin::Subscribed(reference.map(Into::into));
        let cursor = after.unwrap_or_default().as_bytes().to_vec();
        self.join(cx, vec![name.into()], cursor, then);
    }

    /// Answers a `subscribe` whose channel is joined.
    pub(super) fn ws_subscribed(&mut self, cx: &mut Cx<'_>, reference: Option<&str>) {
        let Some((channel, id)) = cx.world.last_joined() else { return };
        let fields = [("channel", Value::Text(&channel)), ("id", Value::Id(id))];
        self.ws_op_ok(cx, reference, &fields);
    }

    fn ws_unsubscribe(&mut self, cx: &mut Cx<'_>, reference: Option<&str>, channel: &str) {
        if !cx.world.has_channel(channel) {
            let message = "the connection does not have this channel";
            let reject = Reject::bad_request("not_subscribed", message);
            return self.ws_reject(cx, reference, reject);
        }
        self.ws_op_ok(cx, reference, &[("channel", Value::Text(channel))]);
        cx.push(Effect::Leave { channel: channel.into() });
    }

    fn ws_publish(
        &mut self,
        cx: &mut Cx<'_>,
        reference: Option<&str>,
        publication: envelope::Publication<'_>,
    ) {
        let (index, bytes_max) = (cx.index(), self.settings.event_bytes_max);
        let permission = self.permission(index);
        let allowed = |channel: &str| permission.may_publish(channel);
        let mut publications = Vec::with_capacity(1);
        let by = Publisher { allowed: &allowed, sender: Some(self.sender(cx.token)) };
        if let Err(reject) = add_publications(publication, bytes_max, &by, &mut publications) {
            return self.ws_reject(cx, reference, reject);
        }
        let share = self.share_of(cx);
        if let Err(refusal) = self.admit_publish(cx, share) {
            return self.ws_reject(cx, reference, refusal);
        }
        publications.iter_mut().for_each(|publication| self.sign(index, publication));
        let then = AfterPublish::Acknowledge(reference.map(Into::into));
        self.ask_publish(cx, publications, then);
    }

    /// Answers a `publish` once the log has.
    pub(super) fn ws_acknowledge(
        &mut self,
        cx: &mut Cx<'_>,
        reference: Option<&str>,
        outcome: &Published,
    ) {
        if let Some(refusal) = outcome.refusal {
            return self.ws_reject(cx, reference, refusal);
        }
        if reference.is_none() {
            return;
        }
        let id = EventId { epoch: self.epoch, seq: outcome.last_seq };
        let count = match outcome.accepted {
            0 | 1 if !self.is_told_subscribers(cx.index()) => None,
            0 | 1 => Some(("subscribers", outcome.subscribers)),
            several => Some(("published", several)),
        };
        let count = count.map(|(name, count)| (name, Value::Number(u64::from(count))));
        let fields: Vec<_> = [Some(("id", Value::Id(id))), count].into_iter().flatten().collect();
        self.ws_op_ok(cx, reference, &fields);
    }

    /// Answers an operation.
    pub(super) fn ws_op_ok(
        &mut self,
        cx: &mut Cx<'_>,
        reference: Option<&str>,
        fields: &[(&str, Value<'_>)],
    ) {
        if self.protocol(cx.index()) != Protocol::Ws {
            return;
        }
        let out = cx.out();
        frame::write_text_with(out, |out| envelope::write_ok(out, reference, fields));
    }

    /// Refuses an operation.
    pub(super) fn ws_reject(
        &mut self,
        cx: &mut Cx<'_>,
        reference: Option<&str>,
        reject: impl Into<Reject>,
    ) {
        if self.protocol(cx.index()) != Protocol::Ws {
            return;
        }
        let out = cx.out();
        frame::write_text_with(out, |out| reject.into().write_op_answer(out, reference));
    }
}
