//! `POST /channels/{channel}`, one event a request, and how sessions take the log's answer to any
//! publish.

use bytes::Bytes;

use super::answer::Content;
use super::http::{HttpState, Step};
use super::publish_head::{
    PublishHead, attributes_of, check_coding, check_data, checked_field, counts_of, kind_of, only,
};
use super::{Cx, Sessions};
use crate::auth::Access;
use crate::bucket::Bucket;
use crate::config::PublisherShown;
use crate::limits::WAITING_MAX;
use crate::log::event::{Attributes, Publication};
use crate::log::message::{Counts, Published, Refusal, Share};
use crate::proto::cursor::EventId;
use crate::proto::envelope;
use crate::proto::http::body::BodyDecoder;
use crate::proto::http::head::{Expectation, Framing, Request};
use crate::proto::http::response::{self, Status};
use crate::proto::name::{NAME_BYTES_MAX, channel_segment};
use crate::proto::reject::Reject;
use crate::worker::clock::Why;
use crate::worker::effect::{AfterPublish, Effect};

/// The body of a single event as it arrives.
#[derive(Debug)]
pub(super) struct Body {
    decoder: BodyDecoder,
    head: PublishHead,
    data: Vec<u8>,
}

impl Body {
    /// Memory held for it.
    pub fn held_bytes(&self) -> usize {
        self.data.capacity()
    }
}

impl Sessions {
    /// `POST /channels/{channel}`. Returns how much of the body it used.
    pub(super) fn publish(
        &mut self,
        cx: &mut Cx<'_>,
        request: &Request<'_>,
        segment: &str,
        body: &[u8],
    ) -> usize {
        let index = cx.index();
        if !self.admit_publisher(cx, request) {
            return 0;
        }
        let head = match self.publish_head(cx, request, segment) {
            Ok(head) => head,
            Err(reject) => {
                self.reject_and_close(cx, reject);
                return 0;
            }
        };
        // The common case: all of it has arrived already.
        if let Framing::Length(length) = request.framing()
            && let Some(data) = usize::try_from(length).ok().and_then(|length| body.get(..length))
        {
            self.publish_one(cx, head, Bytes::copy_from_slice(data));
            return data.len();
        }
        let work = self.work(index);
        if request.expectation() == Expectation::Continue {
            response::write_continue(cx.out());
        }
        let decoder = BodyDecoder::new(request.framing());
        work.http = HttpState::Body(Box::new(Body { decoder, head, data: Vec::new() }));
        cx.wait(Why::Body);
        0
    }

    /// Lets a publisher in, or refuses it and closes, as it may still be sending its body.
    pub(super) fn admit_publisher(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> bool {
        match self.check_request(cx, request, Access::Http, None) {
            Ok(()) => true,
            Err(denied) => {
                self.close_after_answer(cx.index());
                self.answer_denied(cx, denied);
                false
            }
        }
    }

    fn publish_head(
        &mut self,
        cx: &mut Cx<'_>,
        request: &Request<'_>,
        segment: &str,
    ) -> Result<PublishHead, Reject> {
        let mut buffer = [0; NAME_BYTES_MAX];
        let channel = channel_segment(segment, &mut buffer)?;
        self.check_publish(cx.index(), channel)?;
        let kind = kind_of(only(request, "content-type")?)?;
        check_coding(request)?;
        let event_type = checked_field(request, "event-type", envelope::event_type)?;
        let key = checked_field(request, "idempotency-key", envelope::key)?;
        let sender = self.left_out(request)?;
        let attributes = Attributes { sender, ..attributes_of(request)? };
        let counts = counts_of(request)?;
        let bytes_max = self.settings.event_bytes_max;
        match request.framing() {
            Framing::None => return Err(LENGTH_REQUIRED),
            Framing::Length(length) if length > bytes_max as u64 => {
                return Err(too_large(bytes_max));
            }
            Framing::Length(_) | Framing::Chunked => {}
        }
        Ok(PublishHead { channel: channel.into(), kind, event_type, key, attributes, counts })
    }

    /// Takes more of a single event's body.
    pub(super) fn body_input(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
        let index = cx.index();
        let bytes_max = self.settings.event_bytes_max;
        let work = self.work(index);
        work.progress = work.progress.wrapping_add(1);
        let HttpState::Body(body) = &mut work.http else { return Step::Wait(0) };
        let decoded = match body.decoder.decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.reject_body(cx, error),
        };
        let announced = usize::try_from(body.decoder.announced_bytes()).unwrap_or(usize::MAX);
        let size = body.data.len().saturating_add(decoded.payload.len()).saturating_add(announced);
        if size > bytes_max {
            self.reject_and_close(cx, too_large(bytes_max));
            return Step::Wait(0);
        }
        body.data.extend_from_slice(decoded.payload);
        if body.decoder.is_done()
            && let HttpState::Body(body) = std::mem::take(&mut work.http)
        {
            // The token may have expired while the body arrived.
            match self.check_publish(cx.index(), &body.head.channel) {
                Ok(()) => self.publish_one(cx, body.head, Bytes::from(body.data)),
                Err(denied) => self.reject(cx, denied),
            }
        }
        Step::Used(decoded.consumed)
    }

    /// An idempotency key as the log keeps it: marked with its publisher, or one publisher could
    /// use up another's keys.
    fn own_key(&self, index: u32, key: Option<Box<str>>) -> Option<Box<str>> {
        let grant = self.of[index].grant.as_ref();
        match (key, grant) {
            (Some(key), Some(grant)) => Some(format!("{} {key}", grant.publisher()).into()),
            (key, _) => key,
        }
    }

    /// Completes a client's publication with what only the server may say.
    pub(super) fn sign(&self, index: u32, publication: &mut Publication) {
        publication.key = self.own_key(index, publication.key.take());
        let rule = self.settings.channel(&publication.channel);
        if rule.publisher == PublisherShown::Subject
            && let Some(identity) = self.identity(index)
        {
            publication.attributes.get_or_insert_default().publisher =
                Some(identity.subject.clone());
        }
        if let Some(attributes) = &publication.attributes
            && attributes.ephemeral
        {
            // A repeat of it cannot be recognised, as it is not remembered.
            publication.key = None;
        }
    }

    fn publish_one(&mut self, cx: &mut Cx<'_>, head: PublishHead, data: Bytes) {
        let index = cx.index();
        if let Err(reject) = check_data(head.kind, &data) {
            return self.reject(cx, reject);
        }
        if let Err(invalid) = envelope::attributes(&head.attributes, data.is_empty()) {
            return self.reject(cx, invalid);
        }
        let share = self.share_of(cx);
        if let Err(refusal) = self.admit_publish(cx, share) {
            return self.reject(cx, refusal);
        }
        let PublishHead { channel, kind, event_type, key, attributes, counts } = head;
        let then = AfterPublish::Respond { channel: channel.clone(), counts };
        let attributes = attributes.boxed();
        let mut publication = Publication { channel, kind, data, event_type, key, attributes };
        self.sign(index, &mut publication);
        self.await_log(cx.index());
        self.ask_publish(cx, vec![publication], then);
    }

    /// Whether the connection may publish now: its share of the waiting room must have room for the
    /// request, and its rate must not be exceeded.
    pub(super) fn admit_publish(&mut self, cx: &mut Cx<'_>, share: Share) -> Result<(), Refusal> {
        match cx.world.waiting_at_log() < share.of(WAITING_MAX) {
            true if self.may_publish_now(cx.world.carrier()) => Ok(()),
            true => Err(Refusal::Rate),
            false => Err(Refusal::Busy),
        }
    }

    /// Whether the connection's rate allows one more publish now.
    fn may_publish_now(&mut self, index: u32) -> bool {
        let Some(rate) = self.settings.connection_publish_rate else { return true };
        let needed = index as usize + 1;
        if self.publishes.len() < needed {
            self.publishes.resize(needed, Bucket::default());
        }
        self.publishes[index as usize].take(rate, self.now)
    }

    /// The share of the waiting room that single events of the connection may fill.
    pub(super) fn share_of(&self, cx: &Cx<'_>) -> Share {
        match self.outstanding(cx.index()).max(cx.world.asked_beside()) {
            0 => Share::Whole,
            _ => Share::ThreeQuarters,
        }
    }

    pub(super) fn ask_publish(
        &mut self,
        cx: &mut Cx<'_>,
        publications: Vec<Publication>,
        then: AfterPublish,
    ) {
        let share = match then {
            AfterPublish::Ndjson | AfterPublish::Stream => Share::Half,
            _ => self.share_of(cx),
        };
        cx.push(Effect::Publish { share, publications, then });
    }

    /// Takes the log's answer to a publish.
    pub fn published(
        &mut self,
        cx: &mut Cx<'_>,
        then: AfterPublish,
        outcome: &Published,
        unaccepted: Vec<Publication>,
    ) {
        let work = self.work(cx.index());
        work.published_to = outcome.last_seq.max(work.published_to);
        match then {
            AfterPublish::Respond { channel, counts } => {
                self.answer_publish(cx, &channel, counts, outcome);
            }
            AfterPublish::Ndjson => self.ndjson_published(cx, outcome, unaccepted),
            AfterPublish::Stream => self.stream_published(cx, outcome, unaccepted),
            AfterPublish::Cancelled { channel, reference } => {
                self.answer_cancel(cx, &channel, reference.as_deref(), outcome);
            }
            AfterPublish::BareMessage => self.ws_published(cx, outcome),
            AfterPublish::Acknowledge(reference) => {
                self.ws_acknowledge(cx, reference.as_deref(), outcome);
            }
        }
    }

    /// Whether the answer to its publish says how many subscribers there are: not every publisher
    /// may know.
    pub(super) fn is_told_subscribers(&self, index: u32) -> bool {
        let grant = self.of[index].grant.as_ref();
        !self.settings.hide_subscribers || grant.is_some_and(|grant| grant.is_of_publish_key())
    }

    fn answer_publish(
        &mut self,
        cx: &mut Cx<'_>,
        channel: &str,
        counts: Counts,
        outcome: &Published,
    ) {
        let index = cx.index();
        if let Some(refusal) = outcome.refusal {
            return self.reject(cx, refusal);
        }
        let id = EventId { epoch: self.epoch, seq: outcome.last_seq };
        let mut body = Vec::with_capacity(96 + channel.len());
        body.extend_from_slice(b"{\"id\":\"");
        id.write(&mut body);
        body.extend_from_slice(b"\",\"channel\":\"");
        // Channel names hold no byte that JSON would escape.
        body.extend_from_slice(channel.as_bytes());
        body.push(b'"');
        if self.is_told_subscribers(index) {
            body.extend_from_slice(b",\"subscribers\":");
            body.extend_from_slice(itoa::Buffer::new().format(outcome.subscribers).as_bytes());
            if counts == Counts::Everywhere {
                let all = outcome.subscribers.saturating_add(outcome.elsewhere.unwrap_or(0));
                body.extend_from_slice(b",\"cluster\":");
                body.extend_from_slice(itoa::Buffer::new().format(all).as_bytes());
            }
        }
        body.push(b'}');
        let content = Content { content_type: "application/json", bytes: &body };
        self.respond(cx, Status::Ok, &content, &[]);
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
