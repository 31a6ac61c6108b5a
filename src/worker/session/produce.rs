//! `POST /channels/{channel}/stream`: a body that stays open is a stream, and tokens that arrive
//! together go to the log together. `POST /channels/{channel}/stream/cancel` ends it.

use std::sync::Arc;

use super::answer::Content;
use super::publish_head::{LENGTH_REQUIRED, check_coding, checked_field, only};
use super::state::{HttpState, Producer};
use super::step::Step;
use super::{Cx, publish};
use crate::auth::Denied;
use crate::limits::PUBLISH_BATCH_BYTES_MAX;
use crate::log::event::Publication;
use crate::log::message::{Published, Refusal, Share, StreamAt};
use crate::proto::cursor::EventId;
use crate::proto::envelope;
use crate::proto::http::body::BodyDecoder;
use crate::proto::http::head::{Expectation, Framing, Request};
use crate::proto::http::response::{self, Status};
use crate::proto::name::{NAME_BYTES_MAX, channel_name, channel_segment};
use crate::proto::reject::Reject;
use crate::proto::stream::tokens::Form;
use crate::proto::stream::{End, Mark, Part};
use crate::worker::clock::Why;
use crate::worker::effect::AfterPublish;

/// What the head of a stream's request says.
struct StreamHead {
    channel: Box<str>,
    id: Option<Box<str>>,
    offset: u64,
    form: Form,
}

// --- the request ---

/// `POST /channels/{channel}/stream`.
pub(super) fn begin(cx: &mut Cx<'_>, request: &Request<'_>, segment: &str) -> usize {
    if !publish::admit_publisher(cx, request) {
        return 0;
    }
    let head = match stream_head(cx, request, segment) {
        Ok(head) => head,
        Err(reject) => {
            cx.reject_and_close(reject);
            return 0;
        }
    };
    if let Err(refusal) = publish::admit(cx, Share::Whole) {
        cx.reject_and_close(refusal);
        return 0;
    }
    if request.expectation() == Expectation::Continue {
        response::write_continue(cx.out());
    }
    let id: Arc<str> = match &head.id {
        Some(id) => Arc::from(&**id),
        None => format!("{:016x}", cx.shared.random.u64(..)).into(),
    };
    let StreamHead { channel, offset, form, .. } = head;
    let body = (BodyDecoder::new(request.framing()), form);
    let producer = Producer::new(body, channel, id.clone(), offset);
    let mark = Mark { id, part: Part::Open, at: 0 };
    let open = Publication::control(producer.channel.clone(), mark, 0);
    cx.work().http = HttpState::Stream(Box::new(producer));
    publish::ask(cx, vec![open], AfterPublish::Stream);
    cx.wait(Why::Stream);
    0
}

fn stream_head(cx: &Cx<'_>, request: &Request<'_>, segment: &str) -> Result<StreamHead, Reject> {
    let mut buffer = [0; NAME_BYTES_MAX];
    let channel = channel_segment(segment, &mut buffer)?;
    cx.check_publish(channel)?;
    check_coding(request)?;
    let form = form_of(only(request, "content-type")?)?;
    let id = checked_field(request, "stream-id", envelope::key)?;
    let offset = match only(request, "stream-offset")?.map(number) {
        None => 0,
        Some(Some(offset)) if id.is_some() => offset,
        Some(_) => return Err(BAD_OFFSET),
    };
    if request.framing() == Framing::None {
        return Err(LENGTH_REQUIRED);
    }
    Ok(StreamHead { channel: channel.into(), id, offset, form })
}

// --- the body ---

/// Takes more of the body. Only one request of it is at the log at a time, which keeps its order.
pub(super) fn input(cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
    let bytes_max = cx.shared.settings.event_bytes_max;
    let work = cx.work();
    work.progress = work.progress.wrapping_add(1);
    let HttpState::Stream(producer) = &mut work.http else { return Step::Wait(0) };
    if work.outstanding > 0 || !producer.awaits_peer() {
        return Step::Wait(0);
    }
    let bytes = &bytes[..bytes.len().min(PUBLISH_BATCH_BYTES_MAX)];
    match producer.read(bytes, bytes_max) {
        Ok(used) => {
            go_on(cx);
            Step::Used(used)
        }
        Err(reject) => {
            // It is as if the connection had broken: the producer may come back.
            cx.reject_and_close(reject);
            Step::Wait(0)
        }
    }
}

/// Sends the log what was read, followed by the end once there is one.
pub(super) fn go_on(cx: &mut Cx<'_>) {
    let work = cx.work();
    let HttpState::Stream(producer) = &mut work.http else { return };
    if work.outstanding > 0 || producer.awaits_peer() {
        return;
    }
    let channel = producer.channel.clone();
    // The body may outlast the token.
    if let Err(denied) = cx.check_publish(&channel) {
        return cx.reject_and_close(denied);
    }
    // A body that is too fast is not refused but read more slowly.
    if publish::admit(cx, Share::Half).is_err() {
        return cx.wait(Why::Retry);
    }
    let HttpState::Stream(producer) = &mut cx.work().http else { return };
    let mut batch = std::mem::take(&mut producer.batch);
    let ends =
        batch.last().and_then(Publication::mark).is_some_and(|mark| mark.part != Part::Token);
    if let Some(end) = producer.end.filter(|_| !ends) {
        batch.push(Publication::control(channel, producer.mark(Part::End(end)), 0));
    }
    batch.iter_mut().for_each(|part| publish::sign(cx, part));
    publish::ask(cx, batch, AfterPublish::Stream);
}

/// The log answered.
pub(super) fn published(cx: &mut Cx<'_>, outcome: &Published, unaccepted: Vec<Publication>) {
    // The request may have ended meanwhile.
    let HttpState::Stream(producer) = &mut cx.work().http else { return };
    match (outcome.refusal, &outcome.stream) {
        (Some(Refusal::Busy | Refusal::Rate), _) => {
            producer.batch = unaccepted;
            cx.wait(Why::Retry);
        }
        (Some(Refusal::StreamEnded), Some(at)) if producer.attempt > 0 => {
            answer(cx, at);
        }
        (Some(refusal), _) => {
            // If the store failed, the stream may be open nevertheless.
            producer.asked = refusal == Refusal::Store;
            cx.reject_and_close(refusal);
        }
        (None, Some(at)) if at.ended.is_some() => answer(cx, at),
        (None, Some(at)) if producer.attempt == 0 => opened(cx, at),
        (None, Some(at)) if producer.attempt != at.attempt => {
            cx.reject_and_close(Refusal::StreamTaken);
        }
        (None, _) => go_on(cx),
    }
}

/// The log has the stream, and perhaps the first part of the body.
fn opened(cx: &mut Cx<'_>, at: &StreamAt) {
    let HttpState::Stream(producer) = &mut cx.work().http else { return };
    producer.attempt = at.attempt;
    let has = match producer.form {
        Form::Text => at.text_bytes,
        Form::Events | Form::Lines => at.tokens,
    };
    let Some(skip) = has.checked_sub(producer.offset) else {
        cx.close_after_answer();
        let has = has.to_string();
        return cx.reject_with(AHEAD, &[("Stream-Offset", has.as_bytes())]);
    };
    producer.skip = skip;
    let channel = producer.channel.clone();
    cx.begin_producing(channel);
    if let HttpState::Stream(producer) = &mut cx.work().http
        && producer.decoder.is_done()
    {
        producer.end = Some(End::Done);
    }
    go_on(cx);
}

/// Someone else has ended the stream: its producer learns it at once.
pub(super) fn ended(cx: &mut Cx<'_>, at: &StreamAt) {
    let state = cx.session.work().map(|work| &work.http);
    if let Some(HttpState::Stream(producer)) = state
        && producer.attempt == at.attempt
    {
        answer(cx, at);
    }
}

/// The time for the next token is over.
pub(super) fn due(cx: &mut Cx<'_>, stalled: bool) {
    let work = cx.work();
    let waits = work.outstanding > 0 || !work.carry.is_empty();
    let HttpState::Stream(producer) = &mut work.http else { return };
    if !stalled || waits || !producer.awaits_peer() {
        return cx.wait(Why::Stream);
    }
    producer.fail(End::Idle, IDLE);
    go_on(cx);
}

// --- the end ---

fn answer(cx: &mut Cx<'_>, at: &StreamAt) {
    let HttpState::Stream(producer) = &mut cx.work().http else { return };
    let failed = producer.failed.take().filter(|_| at.ended != Some(End::Done));
    let cancelled = !producer.decoder.is_done();
    let channel = producer.channel.clone();
    if failed.is_some() || cancelled {
        cx.close_after_answer();
    }
    match failed {
        Some(reject) => cx.reject(reject),
        None => respond(cx, &channel, at),
    }
}

/// Answers with the state of a stream.
pub(super) fn respond(cx: &mut Cx<'_>, channel: &str, at: &StreamAt) {
    let body = stream_state(cx, channel, at);
    let content = Content { content_type: "application/json", bytes: body.as_bytes() };
    cx.respond(Status::Ok, &content, &[("Cache-Control", b"no-store")]);
}

/// `{"id","channel","state","events","first_id","last_id"}`.
pub(super) fn stream_state(cx: &Cx<'_>, channel: &str, at: &StreamAt) -> String {
    let epoch = cx.shared.epoch;
    let event = |seq| match seq {
        0 => "null".to_owned(),
        seq => format!("\"{}\"", EventId { epoch, seq }),
    };
    let id = serde_json::Value::from(&*at.id);
    let state = at.ended.map_or("open", End::state);
    format!(
        "{{\"id\":{id},\"channel\":\"{channel}\",\"state\":\"{state}\",\"events\":{},\
         \"first_id\":{},\"last_id\":{}}}",
        at.tokens,
        event(at.first_token),
        event(at.last_token),
    )
}

// --- cancel ---

/// `POST /channels/{channel}/stream/cancel`.
pub(super) fn cancel_stream(cx: &mut Cx<'_>, segment: &str) {
    let mut buffer = [0; NAME_BYTES_MAX];
    let channel = match channel_segment(segment, &mut buffer) {
        Ok(channel) => channel,
        Err(error) => return cx.reject(error),
    };
    match cancel(cx, channel) {
        Ok(publication) => {
            cx.await_log();
            let then = AfterPublish::Cancelled { channel: channel.into(), reference: None };
            publish::ask(cx, vec![publication], then);
        }
        Err(reject) => cx.reject(reject),
    }
}

/// The operation `cancel`.
pub(super) fn ws_cancel(cx: &mut Cx<'_>, reference: Option<&str>, channel: &str) {
    match cancel(cx, channel) {
        Ok(publication) => {
            let (channel, reference) = (channel.into(), reference.map(Into::into));
            let then = AfterPublish::Cancelled { channel, reference };
            publish::ask(cx, vec![publication], then);
        }
        Err(reject) => cx.op_error(reference, reject),
    }
}

fn cancel(cx: &mut Cx<'_>, channel: &str) -> Result<Publication, Reject> {
    let channel = channel_name(channel.as_bytes())?;
    if !cx.permission().may_cancel(channel) {
        return Err(Denied::CancelForbidden.into());
    }
    let share = publish::share_of(cx);
    publish::admit(cx, share)?;
    // The log knows which stream it is.
    let mark = Mark { id: "".into(), part: Part::End(End::Cancelled), at: 0 };
    Ok(Publication::control(channel.into(), mark, 0))
}

/// How a stream's body is cut, by its media type.
fn form_of(content_type: Option<&[u8]>) -> Result<Form, Reject> {
    let value = content_type.unwrap_or_default();
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    match value[..end].trim_ascii().to_ascii_lowercase().as_slice() {
        b"text/event-stream" => Ok(Form::Events),
        b"application/x-ndjson" | b"application/ndjson" | b"application/jsonl" => Ok(Form::Lines),
        b"" => Ok(Form::Text),
        essence if essence.starts_with(b"text/") => Ok(Form::Text),
        _ => Err(Reject::new(
            Status::UnsupportedMediaType,
            "media_type",
            "a stream is text/event-stream, application/x-ndjson or other text/*",
        )),
    }
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

const BAD_OFFSET: Reject = Reject::bad_request(
    "bad_stream_offset",
    "Stream-Offset is a number of tokens (of a text: bytes), and needs a Stream-Id",
);

pub(super) const AHEAD: Reject = Reject::new(
    Status::Conflict,
    "stream_behind",
    "the stream does not have what comes before Stream-Offset; begin at the answer's Stream-Offset",
);

const IDLE: Reject =
    Reject::new(Status::RequestTimeout, "stream_idle", "no token came within stream_idle");
