//! The WebSocket side of a connection: messages in, operations done, the closing handshake.

use super::closing::Farewell;
use super::core::Core;
use super::http::Step;
use super::lines::{line_bytes_max, to_publication};
use super::pending::{AfterJoin, AfterPublish};
use super::slot::Phase;
use super::subscribe::TOO_MANY_CHANNELS;
use super::work::{Shown, Sub};
use crate::auth::TOKEN_BYTES_MAX;
use crate::limits::{LINE_OVERHEAD_BYTES_MAX, OUT_BYTES_MAX, OUTSTANDING_MAX};
use crate::log::event::{Kind, Publication};
use crate::log::message::{Published, Refusal};
use crate::proto::cursor::EventId;
use crate::proto::envelope::{self, ClientOp, OpBody, Value};
use crate::proto::name::channel_name;
use crate::proto::reject::Reject;
use crate::proto::variant::Variant;
use crate::proto::ws::close::CloseCode;
use crate::proto::ws::frame::{self, Opcode};
use crate::proto::ws::message::{MessageLimits, Received, Receiver};
use crate::reason::CloseReason;
use crate::ring::Op;

use bytes::Bytes;

/// Messages up to this are taken however small events are, and of those who may not publish.
const MESSAGE_BYTES_ENOUGH: usize = 4 * 1024;

/// The same in envelope mode, where a message may bring a token.
const OPERATION_BYTES_ENOUGH: usize = TOKEN_BYTES_MAX + LINE_OVERHEAD_BYTES_MAX;

impl Core {
    // --- input ---

    /// Bytes of an open WebSocket.
    pub(super) fn ws_input(&mut self, index: u32, bytes: &[u8]) -> Step {
        let limits = self.message_limits(index);
        let work = self.slots[index as usize].work.as_deref_mut();
        // Nothing counts behind what ends it.
        if work.as_ref().is_some_and(|work| work.farewell.is_some()) {
            return Step::Used(bytes.len());
        }
        // Operations take effect in order: what follows a `subscribe` waits for its join.
        if work.as_ref().is_some_and(|work| {
            work.joining
                || work.shown.is_some()
                || work.outstanding >= OUTSTANDING_MAX
                || work.out.len() > OUT_BYTES_MAX
        }) {
            return Step::Wait(0);
        }
        // An idle connection keeps no receiver: a fresh one goes on just as well.
        let mut kept = work.and_then(|work| work.ws.take());
        let (begins, mut fresh) = (kept.is_none(), Receiver::default());
        let receiver = kept.as_deref_mut().unwrap_or(&mut fresh);
        let (used, received) = match receiver.receive(bytes, &limits) {
            Ok(taken) => taken,
            Err(violation) => {
                self.ws_refuse(index, CloseReason::Violation(violation));
                return Step::Used(bytes.len());
            }
        };
        if !receiver.is_idle() {
            let progress = receiver.progress();
            let work = self.work(index);
            work.ws = Some(kept.unwrap_or_else(|| Box::new(fresh)));
            work.progress = progress;
            if begins {
                self.await_message(index);
            }
        }
        if let Some(received) = received {
            self.ws_message(index, received);
        }
        Step::Used(used)
    }

    /// A message has begun.
    fn await_message(&mut self, index: u32) {
        let requests = &mut self.slots[index as usize].requests;
        *requests = requests.wrapping_add(1);
        self.await_progress(index);
    }

    /// Who may publish nowhere has nothing long to say.
    pub(super) fn message_limits(&self, index: u32) -> MessageLimits {
        let settings = &self.setup.settings;
        let enough = match self.slots[index as usize].variant {
            Variant::WsEnvelope => OPERATION_BYTES_ENOUGH,
            _ => MESSAGE_BYTES_ENOUGH,
        };
        let message_bytes_max = match self.may_publish_somewhere(index) {
            // In envelope mode a message carries an event and what names it.
            true => line_bytes_max(settings.event_bytes_max).max(enough),
            false => enough,
        };
        MessageLimits { message_bytes_max, fragments_max: settings.fragments_max }
    }

    fn ws_message(&mut self, index: u32, received: Received) {
        let envelope = self.slots[index as usize].variant == Variant::WsEnvelope;
        match received {
            Received::Ping(payload) => {
                frame::write(&mut self.work(index).out, Opcode::Pong, &payload);
                self.mark_dirty(index);
            }
            Received::Pong => {}
            Received::Close { code, .. } => self.ws_ends(index, Farewell::Answer(code)),
            Received::Text(text) if envelope => self.ws_op(index, &text),
            Received::Binary(_) if envelope => {
                let reason = "pushline.v1 speaks text";
                self.ws_refuse_with(index, CloseCode::UNSUPPORTED, reason, CloseReason::BadRequest);
            }
            Received::Text(text) => self.ws_publish_bare(index, Kind::Text, text),
            Received::Binary(bytes) => self.ws_publish_bare(index, Kind::Binary, bytes),
        }
    }

    // --- bare mode ---

    /// A message is an event for the connection's channel, if it has exactly one.
    fn ws_publish_bare(&mut self, index: u32, kind: Kind, data: Bytes) {
        let Some(replica) = self.only_channel(index) else {
            let reason = "publishing needs exactly one channel";
            return self.ws_refuse_with(index, CloseCode::POLICY, reason, CloseReason::BadRequest);
        };
        let channel: Box<str> = self.channels[replica].name[..].into();
        if data.len() > self.setup.settings.event_bytes_max {
            let reason = "event too large";
            return self.ws_refuse_with(index, CloseCode::TOO_BIG, reason, CloseReason::BadRequest);
        }
        if self.check_publish(index, &channel).is_err() {
            let reason = "publishing here is not allowed";
            return self.ws_refuse_with(index, CloseCode::POLICY, reason, CloseReason::Denied);
        }
        match self.admit_publish(index, self.share_of(index)) {
            Ok(()) => {}
            Err(Refusal::Rate) => {
                let (code, reason) = (CloseCode::POLICY, "publish rate exceeded");
                return self.ws_refuse_with(index, code, reason, CloseReason::Overloaded);
            }
            Err(_) => return self.ws_refuse(index, CloseReason::Overloaded),
        }
        let publication = Publication { channel, kind, data, event_type: None, key: None };
        self.ask_publish(index, vec![publication], AfterPublish::Nothing);
    }

    fn only_channel(&self, index: u32) -> Option<u32> {
        let slot = &self.slots[index as usize];
        if slot.is_live() {
            return Some(slot.replica);
        }
        match slot.work.as_ref().map(|work| work.subs.as_slice()) {
            Some([sub]) => Some(sub.replica),
            _ => None,
        }
    }

    /// The log answered a bare message's publish. There is no way to answer but to go.
    pub(super) fn ws_published(&mut self, index: u32, outcome: &Published) {
        // Another message's refusal may have begun to close it: nothing goes behind a close frame.
        if self.slots[index as usize].phase != Phase::Ws {
            return;
        }
        match outcome.refusal {
            None => {}
            Some(Refusal::Rate) => {
                let reason = "publish rate exceeded";
                self.ws_close(index, CloseCode::POLICY, reason, CloseReason::Overloaded);
            }
            Some(_) => self.disconnect(index, CloseReason::Overloaded),
        }
    }

    // --- envelope mode ---

    fn ws_op(&mut self, index: u32, text: &[u8]) {
        let ClientOp { reference, body } = match envelope::parse_op(text) {
            Ok(op) => op,
            Err(error) => return self.ws_reject(index, error.reference, error.reason),
        };
        match body {
            OpBody::Ping => self.ws_op_ok(index, reference, &[]),
            OpBody::Subscribe { channel, after } => {
                self.ws_subscribe(index, reference, &channel, after.as_deref());
            }
            OpBody::Unsubscribe { channel } => self.ws_unsubscribe(index, reference, &channel),
            OpBody::Publish(publication) => self.ws_publish(index, reference, publication),
            OpBody::Auth { token } => self.ws_auth(index, reference, &token),
        }
    }

    /// A new token, which may have to wait for its check; until then nothing more is read.
    fn ws_auth(&mut self, index: u32, reference: Option<&str>, token: &str) {
        if self.check_has_to_wait(index, self.gate.cost_of_token(token)) {
            let shown = Shown { reference: reference.map(Into::into), token: token.into() };
            self.work(index).shown = Some(Box::new(shown));
            return;
        }
        match self.refresh_grant(index, token) {
            Ok(()) => self.ws_op_ok(index, reference, &[]),
            Err(denied) => self.ws_reject(index, reference, denied),
        }
    }

    /// The token that was kept, if one was, has come to the front of its line.
    pub(super) fn show_kept_token(&mut self, index: u32) {
        let work = self.slots[index as usize].work.as_mut();
        if let Some(shown) = work.and_then(|work| work.shown.take()) {
            self.ws_auth(index, shown.reference.as_deref(), &shown.token);
        }
    }

    fn ws_subscribe(
        &mut self,
        index: u32,
        reference: Option<&str>,
        channel: &str,
        after: Option<&str>,
    ) {
        let name = match channel_name(channel.as_bytes()) {
            Ok(name) => name,
            Err(error) => return self.ws_reject(index, reference, error),
        };
        if let Err(denied) = self.check_subscribe(index, name) {
            return self.ws_reject(index, reference, denied);
        }
        if self.is_subscribed(index, name) {
            let message = "the connection has this channel already";
            let reject = Reject::bad_request("already_subscribed", message);
            return self.ws_reject(index, reference, reject);
        }
        if self.channel_count(index) >= self.setup.settings.connection_channels_max {
            return self.ws_reject(index, reference, TOO_MANY_CHANNELS);
        }
        let then = AfterJoin::Subscribed(reference.map(Into::into));
        let after = after.unwrap_or_default().as_bytes().to_vec();
        self.join(index, vec![name.into()], &after, then);
    }

    /// Whether the connection has the channel.
    fn is_subscribed(&self, index: u32, name: &str) -> bool {
        let hash = self.setup.hasher.channel(name);
        let Some(replica) = self.channels.find(name, hash) else { return false };
        let slot = &self.slots[index as usize];
        let explicit = slot.work.iter().flat_map(|work| &work.subs);
        (slot.is_live() && slot.replica == replica)
            || explicit.into_iter().any(|sub| sub.replica == replica)
    }

    fn channel_count(&self, index: u32) -> usize {
        let slot = &self.slots[index as usize];
        let explicit = slot.work.as_ref().map_or(0, |work| work.subs.len());
        usize::from(slot.is_live()) + explicit
    }

    /// The log joined a channel for a `subscribe`.
    pub(super) fn ws_subscribed(&mut self, index: u32, reference: Option<&str>) {
        let sub = self.work(index).subs.last().map(|sub| (sub.replica, sub.cursor));
        let Some((replica, cursor)) = sub else { return };
        let channel = self.channels[replica].name.clone();
        let id = EventId { epoch: self.setup.epoch, seq: cursor };
        let fields = [("channel", Value::Text(&channel)), ("id", Value::Id(id))];
        self.ws_op_ok(index, reference, &fields);
    }

    fn ws_unsubscribe(&mut self, index: u32, reference: Option<&str>, channel: &str) {
        let hash = self.setup.hasher.channel(channel);
        let replica = self.channels.find(channel, hash);
        if self.slots[index as usize].is_live() {
            // The answer needs own output, and with it a cursor of its own.
            self.mark_dirty(index);
        }
        let subs = &mut self.work(index).subs;
        let place = subs.iter().position(|sub| Some(sub.replica) == replica);
        let Some(place) = place else {
            let message = "the connection does not have this channel";
            let reject = Reject::bad_request("not_subscribed", message);
            return self.ws_reject(index, reference, reject);
        };
        let sub: Sub = subs.remove(place);
        self.work(index).read_anew();
        self.drop_sub(sub);
        self.ws_op_ok(index, reference, &[("channel", Value::Text(channel))]);
    }

    fn ws_publish(
        &mut self,
        index: u32,
        reference: Option<&str>,
        publication: envelope::Publication<'_>,
    ) {
        let bytes_max = self.setup.settings.event_bytes_max;
        let mut publication = match to_publication(publication, bytes_max) {
            Ok(publication) => publication,
            Err(reject) => return self.ws_reject(index, reference, reject),
        };
        if let Err(denied) = self.check_publish(index, &publication.channel) {
            return self.ws_reject(index, reference, denied);
        }
        if let Err(refusal) = self.admit_publish(index, self.share_of(index)) {
            return self.ws_reject(index, reference, refusal);
        }
        publication.key = self.own_key(index, publication.key);
        let then = AfterPublish::Acknowledge(reference.map(Into::into));
        self.ask_publish(index, vec![publication], then);
    }

    /// The log answered a `publish`.
    pub(super) fn ws_acknowledge(
        &mut self,
        index: u32,
        reference: Option<&str>,
        outcome: &Published,
    ) {
        if let Some(refusal) = outcome.refusal {
            return self.ws_reject(index, reference, refusal);
        }
        if reference.is_none() {
            return;
        }
        let id = EventId { epoch: self.setup.epoch, seq: outcome.last_seq };
        let subscribers = Value::Number(u64::from(outcome.subscribers));
        let fields = [("id", Value::Id(id)), ("subscribers", subscribers)];
        let told = if self.is_told_subscribers(index) { 2 } else { 1 };
        self.ws_op_ok(index, reference, &fields[..told]);
    }

    fn ws_op_ok(&mut self, index: u32, reference: Option<&str>, fields: &[(&str, Value<'_>)]) {
        if self.slots[index as usize].phase != Phase::Ws {
            return;
        }
        let out = &mut self.work(index).out;
        frame::write_text_with(out, |out| envelope::write_ok(out, reference, fields));
        self.mark_dirty(index);
    }

    /// Refuses an operation.
    pub(super) fn ws_reject(
        &mut self,
        index: u32,
        reference: Option<&str>,
        reject: impl Into<Reject>,
    ) {
        if self.slots[index as usize].phase != Phase::Ws {
            return;
        }
        let out = &mut self.work(index).out;
        frame::write_text_with(out, |out| reject.into().write_op_answer(out, reference));
        self.mark_dirty(index);
    }

    /// A direct op for a live connection's heartbeat.
    pub(super) fn send_direct(&mut self, index: u32, from: u32, to: u32) {
        let token = self.token(index);
        self.batch.ops.push(Op::Send { token, from, to });
    }
}
