//! `POST /channels/{channel}`, one event a request, and what the log makes of any publish.

use bytes::Bytes;

use super::answer::Content;
use super::core::Core;
use super::http::{HttpState, Step};
use super::meta::{Meta, check_coding, check_data, checked_field, kind_of, only};
use super::pending::{AfterPublish, Pending};
use crate::auth::Access;
use crate::limits::WAITING_MAX;
use crate::log::event::Publication;
use crate::log::message::{Published, Refusal, RequestBody, Share};
use crate::proto::cursor::EventId;
use crate::proto::envelope;
use crate::proto::http::body::BodyDecoder;
use crate::proto::http::head::{Expectation, Framing, Request};
use crate::proto::http::response::{self, Status};
use crate::proto::name::{NAME_BYTES_MAX, channel_segment};
use crate::proto::reject::Reject;
use crate::ring::Token;

/// A single event's body on its way in.
#[derive(Debug)]
pub struct Body {
    decoder: BodyDecoder,
    meta: Meta,
    data: Vec<u8>,
}

impl Body {
    /// Memory of what has come.
    pub fn held_bytes(&self) -> usize {
        self.data.capacity()
    }
}

impl Core {
    /// `POST /channels/{channel}`. Tells how much of the body it used.
    pub(super) fn publish(
        &mut self,
        index: u32,
        request: &Request<'_>,
        segment: &str,
        body: &[u8],
    ) -> usize {
        if !self.admit_publisher(index, request) {
            return 0;
        }
        let meta = match self.publish_meta(index, request, segment) {
            Ok(meta) => meta,
            Err(reject) => {
                self.reject_and_close(index, reject);
                return 0;
            }
        };
        // The common case: all of it is here already.
        if let Framing::Length(length) = request.framing()
            && let Some(data) = usize::try_from(length).ok().and_then(|length| body.get(..length))
        {
            self.publish_one(index, meta, Bytes::copy_from_slice(data));
            return data.len();
        }
        let work = self.work(index);
        if request.expectation() == Expectation::Continue {
            response::write_continue(&mut work.out);
        }
        let decoder = BodyDecoder::new(request.framing());
        work.http = HttpState::Body(Box::new(Body { decoder, meta, data: Vec::new() }));
        self.mark_dirty(index);
        self.await_progress(index);
        0
    }

    /// Whoever is turned away may still be sending: the answer is the last one.
    pub(super) fn admit_publisher(&mut self, index: u32, request: &Request<'_>) -> bool {
        let before = self.work(index).answer.connection;
        self.close_after_answer(index);
        if !self.admit_request(index, request, Access::Http, None) {
            return false;
        }
        self.work(index).answer.connection = before;
        true
    }

    fn publish_meta(
        &mut self,
        index: u32,
        request: &Request<'_>,
        segment: &str,
    ) -> Result<Meta, Reject> {
        let mut buffer = [0; NAME_BYTES_MAX];
        let channel = channel_segment(segment, &mut buffer)?;
        self.check_publish(index, channel)?;
        let kind = kind_of(only(request, "content-type")?)?;
        check_coding(request)?;
        let event_type = checked_field(request, "event-type", envelope::event_type)?;
        let key = checked_field(request, "idempotency-key", envelope::key)?;
        let bytes_max = self.setup.settings.event_bytes_max;
        match request.framing() {
            Framing::None => return Err(LENGTH_REQUIRED),
            Framing::Length(length) if length > bytes_max as u64 => {
                return Err(too_large(bytes_max));
            }
            Framing::Length(_) | Framing::Chunked => {}
        }
        Ok(Meta { channel: channel.into(), kind, event_type, key })
    }

    /// More of a single event's body.
    pub(super) fn body_input(&mut self, index: u32, bytes: &[u8]) -> Step {
        let bytes_max = self.setup.settings.event_bytes_max;
        let work = self.work(index);
        work.progress = work.progress.wrapping_add(1);
        let HttpState::Body(body) = &mut work.http else { return Step::Wait(0) };
        let decoded = match body.decoder.decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.reject_body(index, error),
        };
        let announced = usize::try_from(body.decoder.announced_bytes()).unwrap_or(usize::MAX);
        let size = body.data.len().saturating_add(decoded.payload.len()).saturating_add(announced);
        if size > bytes_max {
            self.reject_and_close(index, too_large(bytes_max));
            return Step::Wait(0);
        }
        body.data.extend_from_slice(decoded.payload);
        if body.decoder.is_done()
            && let HttpState::Body(body) = std::mem::take(&mut work.http)
        {
            // The body may have outlasted the token.
            match self.check_publish(index, &body.meta.channel) {
                Ok(()) => self.publish_one(index, body.meta, Bytes::from(body.data)),
                Err(denied) => self.reject(index, denied),
            }
        }
        Step::Used(decoded.consumed)
    }

    /// An idempotency key as the log keeps it: it is good for one publisher only, or anybody could
    /// use up another's.
    pub(super) fn own_key(&self, index: u32, key: Option<Box<str>>) -> Option<Box<str>> {
        let grant = self.slots[index as usize].grant.as_ref();
        match (key, grant) {
            (Some(key), Some(grant)) => Some(format!("{} {key}", grant.publisher()).into()),
            (key, _) => key,
        }
    }

    fn publish_one(&mut self, index: u32, meta: Meta, data: Bytes) {
        if let Err(reject) = check_data(meta.kind, &data) {
            return self.reject(index, reject);
        }
        if let Err(refusal) = self.admit_publish(index, self.share_of(index)) {
            return self.reject(index, refusal);
        }
        let Meta { channel, kind, event_type, key } = meta;
        let key = self.own_key(index, key);
        let then = AfterPublish::Respond { channel: channel.clone() };
        let publication = Publication { channel, kind, data, event_type, key };
        self.await_log(index);
        self.ask_publish(index, vec![publication], then);
    }

    /// Whether the connection may publish now: its share of what may wait has room for its request,
    /// and its rate is not exceeded.
    pub(super) fn admit_publish(&mut self, index: u32, share: Share) -> Result<(), Refusal> {
        match self.waiting.len() < share.of(WAITING_MAX) {
            true if self.may_publish_now(index) => Ok(()),
            true => Err(Refusal::Rate),
            false => Err(Refusal::Busy),
        }
    }

    /// What a connection may fill with single events.
    pub(super) fn share_of(&self, index: u32) -> Share {
        match self.outstanding(index) {
            0 => Share::Whole,
            _ => Share::ThreeQuarters,
        }
    }

    pub(super) fn ask_publish(
        &mut self,
        index: u32,
        publications: Vec<Publication>,
        then: AfterPublish,
    ) {
        let token = self.token(index);
        let share = match then {
            AfterPublish::GoOn => Share::Half,
            _ => self.share_of(index),
        };
        let ticket = self.wait_for(Pending::Publish { token, then });
        self.ask_for(index, RequestBody::Publish { ticket, share, publications });
    }

    /// The log answered a publish.
    pub(super) fn published(
        &mut self,
        token: Token,
        then: AfterPublish,
        outcome: &Published,
        unaccepted: Vec<Publication>,
    ) {
        self.metrics.published.add(u64::from(outcome.accepted));
        if outcome.refusal.is_some() {
            self.metrics.publish_refusals.add(1);
        }
        if !self.is_current(token) {
            return;
        }
        let index = token.slot;
        let work = self.work(index);
        work.outstanding -= 1;
        work.published_to = outcome.last_seq.max(work.published_to);
        match then {
            AfterPublish::Respond { channel } => self.answer_publish(index, &channel, outcome),
            AfterPublish::GoOn => return self.lines_published(index, outcome, unaccepted),
            AfterPublish::Nothing => self.ws_published(index, outcome),
            AfterPublish::Acknowledge(reference) => {
                self.ws_acknowledge(index, reference.as_deref(), outcome);
            }
        }
        self.say_farewell_if_due(index);
        if self.is_current(token) {
            self.take_carry(index);
        }
    }

    /// Whether the answer to its publish says who is there: presence is not everybody's business.
    pub(super) fn is_told_subscribers(&self, index: u32) -> bool {
        let grant = self.slots[index as usize].grant.as_ref();
        !self.setup.settings.hide_subscribers
            || grant.is_some_and(|grant| grant.is_of_publish_key())
    }

    fn answer_publish(&mut self, index: u32, channel: &str, outcome: &Published) {
        if let Some(refusal) = outcome.refusal {
            return self.reject(index, refusal);
        }
        let id = EventId { epoch: self.setup.epoch, seq: outcome.last_seq };
        let mut body = Vec::with_capacity(96 + channel.len());
        body.extend_from_slice(b"{\"id\":\"");
        id.write(&mut body);
        body.extend_from_slice(b"\",\"channel\":\"");
        // Names hold no byte that JSON would escape.
        body.extend_from_slice(channel.as_bytes());
        body.push(b'"');
        if self.is_told_subscribers(index) {
            body.extend_from_slice(b",\"subscribers\":");
            body.extend_from_slice(itoa::Buffer::new().format(outcome.subscribers).as_bytes());
        }
        body.push(b'}');
        let content = Content { content_type: "application/json", bytes: &body };
        self.respond(index, Status::Ok, &content, &[]);
    }
}

pub(super) const LENGTH_REQUIRED: Reject = Reject::new(
    Status::LengthRequired,
    "length_required",
    "a publish needs Content-Length or chunked coding",
);

/// The event, or the line it is in, exceeds `event_bytes_max`.
pub(super) fn too_large(event_bytes_max: usize) -> Reject {
    let message =
        format!("the event is larger than this server takes: max_event_bytes is {event_bytes_max}");
    Reject { status: Status::ContentTooLarge, code: "event_too_large", message: message.into() }
}
