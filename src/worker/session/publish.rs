//! `POST /channels/{channel}`, one event a request, and what every publish goes through.

use bytes::Bytes;

use super::answer::Content;
use super::publish_head::{
    LENGTH_REQUIRED, PublishHead, attributes_of, check_coding, check_data, checked_field,
    counts_of, kind_of, only, too_large,
};
use super::state::{Body, HttpState};
use super::step::Step;
use super::{Cx, Shared, access, answer, publish_head};
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

impl Shared {
    /// Whether the connection's rate allows one more publish now.
    fn may_publish_now(&mut self, index: u32) -> bool {
        let Some(rate) = self.settings.connection_publish_rate else { return true };
        let needed = index as usize + 1;
        if self.publishes.len() < needed {
            self.publishes.resize(needed, Bucket::default());
        }
        self.publishes[index as usize].take(rate, self.now)
    }

    /// A connection is gone.
    pub(super) fn forget_rate(&mut self, index: u32) {
        if let Some(bucket) = self.publishes.get_mut(index as usize) {
            *bucket = Bucket::default();
        }
    }
}

/// `POST /channels/{channel}`. Returns how much of the body it used.
pub(super) fn begin(cx: &mut Cx<'_>, request: &Request<'_>, segment: &str, body: &[u8]) -> usize {
    if !admit_publisher(cx, request) {
        return 0;
    }
    let head = match head(cx, request, segment) {
        Ok(head) => head,
        Err(reject) => {
            cx.reject_and_close(reject);
            return 0;
        }
    };
    // The common case: all of it has arrived already.
    if let Framing::Length(length) = request.framing()
        && let Some(data) = usize::try_from(length).ok().and_then(|length| body.get(..length))
    {
        publish_one(cx, head, Bytes::copy_from_slice(data));
        return data.len();
    }
    if request.expectation() == Expectation::Continue {
        response::write_continue(cx.out());
    }
    let decoder = BodyDecoder::new(request.framing());
    cx.work().http = HttpState::Body(Box::new(Body { decoder, head, data: Vec::new() }));
    cx.wait(Why::Body);
    0
}

/// Lets a publisher in, or refuses it and closes, as it may still be sending its body.
pub(super) fn admit_publisher(cx: &mut Cx<'_>, request: &Request<'_>) -> bool {
    match access::check_request(cx, request, Access::Http, None) {
        Ok(()) => true,
        Err(denied) => {
            cx.close_after_answer();
            access::answer_denied(cx, denied);
            false
        }
    }
}

fn head(cx: &mut Cx<'_>, request: &Request<'_>, segment: &str) -> Result<PublishHead, Reject> {
    let mut buffer = [0; NAME_BYTES_MAX];
    let channel = channel_segment(segment, &mut buffer)?;
    cx.check_publish(channel)?;
    let kind = kind_of(only(request, "content-type")?)?;
    check_coding(request)?;
    let event_type = checked_field(request, "event-type", envelope::event_type)?;
    let key = checked_field(request, "idempotency-key", envelope::key)?;
    let sender = publish_head::left_out(cx, request)?;
    let attributes = Attributes { sender, ..attributes_of(request)? };
    let counts = counts_of(request)?;
    let bytes_max = cx.shared.settings.event_bytes_max;
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
pub(super) fn input(cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
    let bytes_max = cx.shared.settings.event_bytes_max;
    let work = cx.work();
    work.progress = work.progress.wrapping_add(1);
    let HttpState::Body(body) = &mut work.http else { return Step::Wait(0) };
    let decoded = match body.decoder.decode(bytes) {
        Ok(decoded) => decoded,
        Err(error) => return answer::reject_body(cx, error),
    };
    let announced = usize::try_from(body.decoder.announced_bytes()).unwrap_or(usize::MAX);
    let size = body.data.len().saturating_add(decoded.payload.len()).saturating_add(announced);
    if size > bytes_max {
        cx.reject_and_close(too_large(bytes_max));
        return Step::Wait(0);
    }
    body.data.extend_from_slice(decoded.payload);
    if body.decoder.is_done()
        && let HttpState::Body(body) = std::mem::take(&mut work.http)
    {
        // The token may have expired while the body arrived.
        match cx.check_publish(&body.head.channel) {
            Ok(()) => publish_one(cx, body.head, Bytes::from(body.data)),
            Err(denied) => cx.reject(denied),
        }
    }
    Step::Used(decoded.consumed)
}

/// An idempotency key as the log keeps it: marked with its publisher, or one publisher could
/// use up another's keys.
fn own_key(cx: &Cx<'_>, key: Option<Box<str>>) -> Option<Box<str>> {
    let grant = cx.session.grant.as_ref();
    match (key, grant) {
        (Some(key), Some(grant)) => Some(format!("{} {key}", grant.publisher()).into()),
        (key, _) => key,
    }
}

/// Completes a client's publication with what only the server may say.
pub(super) fn sign(cx: &Cx<'_>, publication: &mut Publication) {
    publication.key = own_key(cx, publication.key.take());
    let rule = cx.shared.settings.channel(&publication.channel);
    if rule.publisher == PublisherShown::Subject
        && let Some(identity) = cx.session.identity()
    {
        publication.attributes.get_or_insert_default().publisher = Some(identity.subject.clone());
    }
    if let Some(attributes) = &publication.attributes
        && attributes.ephemeral
    {
        // A repeat of it cannot be recognised, as it is not remembered.
        publication.key = None;
    }
}

fn publish_one(cx: &mut Cx<'_>, head: PublishHead, data: Bytes) {
    if let Err(reject) = check_data(head.kind, &data) {
        return cx.reject(reject);
    }
    if let Err(invalid) = envelope::attributes(&head.attributes, data.is_empty()) {
        return cx.reject(invalid);
    }
    let share = share_of(cx);
    if let Err(refusal) = admit(cx, share) {
        return cx.reject(refusal);
    }
    let PublishHead { channel, kind, event_type, key, attributes, counts } = head;
    let then = AfterPublish::Respond { channel: channel.clone(), counts };
    let attributes = attributes.boxed();
    let mut publication = Publication { channel, kind, data, event_type, key, attributes };
    sign(cx, &mut publication);
    cx.await_log();
    let mut publications = std::mem::take(&mut cx.shared.list_space);
    publications.push(publication);
    ask(cx, publications, then);
}

/// Whether the connection may publish now: its share of the waiting room must have room for the
/// request, and its rate must not be exceeded.
pub(super) fn admit(cx: &mut Cx<'_>, share: Share) -> Result<(), Refusal> {
    match cx.world.waiting_at_log() < share.of(WAITING_MAX) {
        true if cx.shared.may_publish_now(cx.world.carrier()) => Ok(()),
        true => Err(Refusal::Rate),
        false => Err(Refusal::Busy),
    }
}

/// The share of the waiting room that single events of the connection may fill.
pub(super) fn share_of(cx: &Cx<'_>) -> Share {
    match cx.session.outstanding().max(cx.world.asked_beside()) {
        0 => Share::Whole,
        _ => Share::ThreeQuarters,
    }
}

pub(super) fn ask(cx: &mut Cx<'_>, publications: Vec<Publication>, then: AfterPublish) {
    let share = match then {
        AfterPublish::Ndjson | AfterPublish::Stream => Share::Half,
        _ => share_of(cx),
    };
    cx.push(Effect::Publish { share, publications, then });
}

/// Whether the answer to its publish says how many subscribers there are: not every publisher
/// may know.
pub(super) fn is_told_subscribers(cx: &Cx<'_>) -> bool {
    let grant = cx.session.grant.as_ref();
    !cx.shared.settings.hide_subscribers || grant.is_some_and(|grant| grant.is_of_publish_key())
}

pub(super) fn answer(cx: &mut Cx<'_>, channel: &str, counts: Counts, outcome: &Published) {
    if let Some(refusal) = outcome.refusal {
        return cx.reject(refusal);
    }
    let id = EventId { epoch: cx.shared.epoch, seq: outcome.last_seq };
    let mut body = std::mem::take(&mut cx.shared.body_space);
    body.clear();
    body.extend_from_slice(b"{\"id\":\"");
    id.write(&mut body);
    body.extend_from_slice(b"\",\"channel\":\"");
    // Channel names hold no byte that JSON would escape.
    body.extend_from_slice(channel.as_bytes());
    body.push(b'"');
    if is_told_subscribers(cx) {
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
    cx.respond(Status::Ok, &content, &[]);
    cx.shared.body_space = body;
}
