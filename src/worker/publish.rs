//! Publishing over HTTP: one event a request, or a stream of lines that take effect as they come.

use bytes::Bytes;
use memchr::memchr;

use super::access::Fault;
use super::core::Core;
use super::deadline::Kind as Deadline;
use super::http::{Content, HttpState, Step};
use super::meta::{Meta, check_coding, check_data, checked_field, kind_of, only};
use super::pending::{AfterPublish, Pending};
use crate::auth::Access;
use crate::limits::{
    JSON_GROWTH_MAX, LINE_OVERHEAD_BYTES_MAX, PUBLISH_BATCH_BYTES_MAX, WAITING_MAX,
};
use crate::log::event::{Kind, Publication};
use crate::log::message::{Published, Refusal, RequestBody};
use crate::proto::cursor::EventId;
use crate::proto::envelope::{self, Invalid, Payload, Value};
use crate::proto::http::body::BodyDecoder;
use crate::proto::http::head::{Expectation, Framing, Request};
use crate::proto::http::response::{self, Status};
use crate::proto::name::{NAME_BYTES_MAX, channel_name, channel_segment};
use crate::ring::Token;

/// A single event's body on its way in.
#[derive(Debug)]
pub struct Body {
    decoder: BodyDecoder,
    meta: Meta,
    data: Vec<u8>,
}

/// Lines on their way in.
#[derive(Debug)]
pub struct Lines {
    decoder: BodyDecoder,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// Lines begun so far, counted from 1.
    line_no: u64,
    /// Lines ordered so far.
    published: u64,
    first_seq: u64,
    last_seq: u64,
    /// Parsed, not yet at the log (or refused by it for the moment).
    batch: Vec<Publication>,
    /// Which lines those of the batch are; kept until the log has answered.
    batch_line_nos: Vec<u64>,
    /// Why no further line is read.
    failed: Option<LineFault>,
}

/// Why a stream of lines ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineFault {
    Invalid(Invalid),
    Channel,
    TooLong,
    Denied,
    Refused(Refusal),
}

impl Core {
    // --- one event ---

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
            Err((status, code, message)) => {
                self.close_after_answer(index);
                self.error(index, status, code, message);
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
        self.set_deadline(index, Deadline::Body);
        0
    }

    /// Whoever is turned away may still be sending: the answer is the last one.
    fn admit_publisher(&mut self, index: u32, request: &Request<'_>) -> bool {
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
    ) -> Result<Meta, Fault> {
        let mut buffer = [0; NAME_BYTES_MAX];
        let channel = channel_segment(segment, &mut buffer)
            .map_err(|error| (Status::BadRequest, error.code(), error.message()))?;
        self.check_publish(index, channel)?;
        let kind = kind_of(only(request, "content-type")?)?;
        check_coding(request)?;
        let event_type = checked_field(request, "event-type", envelope::event_type)?;
        let key = checked_field(request, "idempotency-key", envelope::key)?;
        match request.framing() {
            Framing::None => {
                let message = "a publish needs Content-Length or chunked coding";
                return Err((Status::LengthRequired, "length_required", message));
            }
            Framing::Length(length) if length > self.setup.settings.event_bytes_max as u64 => {
                return Err(TOO_LARGE);
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
            let (status, code, message) = TOO_LARGE;
            self.fail(index, status, code, message);
            return Step::Wait(0);
        }
        body.data.extend_from_slice(decoded.payload);
        if body.decoder.is_done()
            && let HttpState::Body(body) = std::mem::take(&mut work.http)
        {
            // The body may have outlasted the token.
            match self.check_publish(index, &body.meta.channel) {
                Ok(()) => self.publish_one(index, body.meta, Bytes::from(body.data)),
                Err((status, code, message)) => self.error(index, status, code, message),
            }
        }
        Step::Used(decoded.consumed)
    }

    fn publish_one(&mut self, index: u32, meta: Meta, data: Bytes) {
        if let Err((status, code, message)) = check_data(meta.kind, &data) {
            return self.error(index, status, code, message);
        }
        let refusal = match self.waiting.len() < WAITING_MAX {
            true if self.may_publish_now(index, 1) => None,
            true => Some(Refusal::Rate),
            false => Some(Refusal::Busy),
        };
        if let Some(refusal) = refusal {
            return self.error(index, refusal.status(), refusal.code(), refusal.message());
        }
        let Meta { channel, kind, event_type, key } = meta;
        let then = AfterPublish::Respond { channel: channel.clone() };
        let publication = Publication { channel, kind, data, event_type, key };
        self.await_log(index);
        self.ask_publish(index, vec![publication], then);
    }

    pub(super) fn ask_publish(
        &mut self,
        index: u32,
        publications: Vec<Publication>,
        then: AfterPublish,
    ) {
        let token = self.token(index);
        let ticket = self.pending.insert(Pending::Publish { token, then }) as u32;
        self.work(index).outstanding += 1;
        self.ask(RequestBody::Publish { token, ticket, publications });
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

    fn answer_publish(&mut self, index: u32, channel: &str, outcome: &Published) {
        if let Some(refusal) = outcome.refusal {
            return self.error(index, refusal.status(), refusal.code(), refusal.message());
        }
        let id = EventId { epoch: self.setup.epoch, seq: outcome.last_seq };
        let mut body = Vec::with_capacity(96 + channel.len());
        body.extend_from_slice(b"{\"id\":\"");
        id.write(&mut body);
        body.extend_from_slice(b"\",\"channel\":\"");
        // Names hold no byte that JSON would escape.
        body.extend_from_slice(channel.as_bytes());
        body.extend_from_slice(b"\",\"subscribers\":");
        body.extend_from_slice(itoa::Buffer::new().format(outcome.subscribers).as_bytes());
        body.push(b'}');
        let content = Content { content_type: "application/json", bytes: &body };
        self.respond(index, Status::Ok, &content, &[]);
    }

    // --- lines ---

    /// `POST /publish`.
    pub(super) fn publish_lines(&mut self, index: u32, request: &Request<'_>) -> usize {
        if !self.admit_publisher(index, request) {
            return 0;
        }
        if request.framing() == Framing::None {
            self.close_after_answer(index);
            let message = "a publish needs Content-Length or chunked coding";
            self.error(index, Status::LengthRequired, "length_required", message);
            return 0;
        }
        let work = self.work(index);
        if request.expectation() == Expectation::Continue {
            response::write_continue(&mut work.out);
        }
        work.http = HttpState::Lines(Box::new(Lines::new(BodyDecoder::new(request.framing()))));
        self.mark_dirty(index);
        if request.framing() == Framing::Length(0) {
            self.answer_lines(index);
        }
        0
    }

    /// More of the lines. One batch at a time is at the log, so that their order is theirs.
    pub(super) fn lines_input(&mut self, index: u32, bytes: &[u8]) -> Step {
        let bytes_max = self.setup.settings.event_bytes_max;
        let permission = self.permission(index);
        let work = self.work(index);
        let HttpState::Lines(lines) = &mut work.http else { return Step::Wait(0) };
        if work.outstanding > 0 || !lines.batch.is_empty() {
            return Step::Wait(0);
        }
        let bytes = &bytes[..bytes.len().min(PUBLISH_BATCH_BYTES_MAX)];
        let decoded = match lines.decoder.decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.reject_body(index, error),
        };
        let allowed = |channel: &str| permission.may_publish(channel);
        lines.take(decoded.payload, bytes_max, &allowed);
        if lines.decoder.is_done() {
            lines.take_last(bytes_max, &allowed);
        }
        self.lines_go_on(index);
        Step::Used(decoded.consumed)
    }

    /// Sends what was parsed, or answers when there is nothing more to come.
    fn lines_go_on(&mut self, index: u32) {
        let HttpState::Lines(lines) = &mut self.work(index).http else { return };
        let count = lines.batch.len();
        // A stream that is too fast is not refused but read more slowly.
        let at_once =
            count == 0 || (self.waiting.len() < WAITING_MAX && self.may_publish_now(index, count));
        let HttpState::Lines(lines) = &mut self.work(index).http else { return };
        if !lines.batch.is_empty() {
            if !at_once {
                return self.set_deadline(index, Deadline::Retry);
            }
            let batch = std::mem::take(&mut lines.batch);
            self.ask_publish(index, batch, AfterPublish::GoOn);
        } else if lines.failed.is_some() || lines.decoder.is_done() {
            self.answer_lines(index);
        }
    }

    fn lines_published(&mut self, index: u32, outcome: &Published, unaccepted: Vec<Publication>) {
        let HttpState::Lines(lines) = &mut self.work(index).http else { return };
        lines.note(outcome);
        match outcome.refusal {
            Some(Refusal::Busy) => {
                lines.batch = unaccepted;
                self.set_deadline(index, Deadline::Retry);
                return;
            }
            Some(refusal) => {
                // The refused line is the first one that was not taken.
                lines.line_no = lines.batch_line_nos.first().copied().unwrap_or(lines.line_no);
                lines.failed = Some(LineFault::Refused(refusal));
            }
            None => {}
        }
        let token = self.token(index);
        self.lines_go_on(index);
        if self.is_current(token) {
            self.take_carry(index);
        }
    }

    /// A lane was full a moment ago.
    pub(super) fn retry_lines(&mut self, index: u32) {
        self.lines_go_on(index);
    }

    fn answer_lines(&mut self, index: u32) {
        let epoch = self.setup.epoch;
        let HttpState::Lines(lines) = std::mem::take(&mut self.work(index).http) else { return };
        let mut body = Vec::with_capacity(192);
        let status = match lines.failed {
            None => Status::Ok,
            Some(fault) => {
                self.metrics.request_errors.add(1);
                self.close_after_answer(index);
                let (status, code, message) = fault.describe();
                let message = format!(
                    "line {}: {message}; {} published before it",
                    lines.line_no, lines.published
                );
                response::write_error_body(&mut body, code, &message);
                body.pop();
                body.extend_from_slice(format!(",\"line\":{},", lines.line_no).as_bytes());
                status
            }
        };
        if lines.failed.is_none() {
            body.push(b'{');
        }
        lines.write_summary(&mut body, epoch);
        body.push(b'}');
        let content = Content { content_type: "application/json", bytes: &body };
        self.respond(index, status, &content, &[]);
    }
}

impl Lines {
    fn new(decoder: BodyDecoder) -> Self {
        Self {
            decoder,
            line: Vec::new(),
            line_no: 0,
            published: 0,
            first_seq: 0,
            last_seq: 0,
            batch: Vec::new(),
            batch_line_nos: Vec::new(),
            failed: None,
        }
    }

    /// Takes the lines that end in `bytes`, and keeps the beginning of the next one.
    fn take(&mut self, mut bytes: &[u8], bytes_max: usize, allowed: &dyn Fn(&str) -> bool) {
        while self.failed.is_none()
            && let Some(end) = memchr(b'\n', bytes)
        {
            if self.line.is_empty() {
                self.parse(&bytes[..end], bytes_max, allowed);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&bytes[..end]);
                self.parse(&line, bytes_max, allowed);
                line.clear();
                self.line = line;
            }
            bytes = &bytes[end + 1..];
        }
        if self.failed.is_none() {
            self.line.extend_from_slice(bytes);
            if self.line.len() > line_bytes_max(bytes_max) {
                self.line_no += 1;
                self.failed = Some(LineFault::TooLong);
            }
        }
    }

    /// The body has ended; a last line need not end in a newline.
    fn take_last(&mut self, bytes_max: usize, allowed: &dyn Fn(&str) -> bool) {
        if self.failed.is_none() && !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            if !line.is_empty() {
                self.parse(&line, bytes_max, allowed);
            }
        }
    }

    fn parse(&mut self, line: &[u8], bytes_max: usize, allowed: &dyn Fn(&str) -> bool) {
        self.line_no += 1;
        if line.trim_ascii().is_empty() {
            return;
        }
        if line.len() > line_bytes_max(bytes_max) {
            self.failed = Some(LineFault::TooLong);
            return;
        }
        let publication = match envelope::parse_publication(line) {
            Ok(publication) => publication,
            Err(invalid) => {
                self.failed = Some(LineFault::Invalid(invalid));
                return;
            }
        };
        match to_publication(publication, bytes_max) {
            Ok(publication) if allowed(&publication.channel) => {
                self.batch.push(publication);
                self.batch_line_nos.push(self.line_no);
            }
            Ok(_) => self.failed = Some(LineFault::Denied),
            Err(fault) => self.failed = Some(fault),
        }
    }

    fn note(&mut self, outcome: &Published) {
        self.batch_line_nos.drain(..outcome.accepted as usize);
        if outcome.accepted == 0 {
            return;
        }
        if self.published == 0 {
            self.first_seq = outcome.first_seq;
        }
        self.published += u64::from(outcome.accepted);
        self.last_seq = outcome.last_seq;
    }

    fn write_summary(&self, out: &mut Vec<u8>, epoch: crate::proto::cursor::Epoch) {
        out.extend_from_slice(b"\"published\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.published).as_bytes());
        for (name, seq) in [("first_id", self.first_seq), ("last_id", self.last_seq)] {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            if self.published == 0 {
                out.extend_from_slice(b"null");
                continue;
            }
            out.push(b'"');
            EventId { epoch, seq }.write(out);
            out.push(b'"');
        }
    }
}

impl LineFault {
    fn describe(self) -> Fault {
        match self {
            Self::Invalid(invalid) => (Status::BadRequest, invalid.code(), invalid.message()),
            Self::Channel => (Status::BadRequest, "channel", "not a channel name"),
            Self::TooLong => TOO_LARGE,
            Self::Denied => {
                (Status::Forbidden, "publish_denied", "publishing to this channel is not allowed")
            }
            Self::Refused(refusal) => (refusal.status(), refusal.code(), refusal.message()),
        }
    }
}

const TOO_LARGE: Fault =
    (Status::ContentTooLarge, "event_too_large", "the event is larger than this server takes");

/// Longest line, or operation of a WebSocket, that publishes an event.
pub(super) fn line_bytes_max(event_bytes_max: usize) -> usize {
    event_bytes_max.saturating_mul(JSON_GROWTH_MAX).saturating_add(LINE_OVERHEAD_BYTES_MAX)
}

/// A client's publication in the form the log takes.
fn to_publication(
    from: envelope::Publication<'_>,
    bytes_max: usize,
) -> Result<Publication, LineFault> {
    if channel_name(from.channel.as_bytes()).is_err() {
        return Err(LineFault::Channel);
    }
    let (kind, data) = match from.payload {
        Payload::Text(text) => (Kind::Text, Bytes::from(text.into_owned())),
        Payload::Json(json) => (Kind::Json, Bytes::copy_from_slice(json.as_bytes())),
        Payload::Binary(bytes) => (Kind::Binary, Bytes::from(bytes)),
    };
    if data.len() > bytes_max {
        return Err(LineFault::TooLong);
    }
    Ok(Publication {
        channel: from.channel.into(),
        kind,
        data,
        event_type: from.event_type.map(Into::into),
        key: from.key.map(Into::into),
    })
}

/// The same for a WebSocket's `publish`.
pub(super) fn op_publication(
    from: envelope::Publication<'_>,
    bytes_max: usize,
) -> Result<Publication, (&'static str, &'static str)> {
    to_publication(from, bytes_max).map_err(|fault| {
        let (_, code, message) = fault.describe();
        (code, message)
    })
}

/// The fields of a publish's acknowledgement.
pub(super) fn acknowledgement(
    id: EventId,
    subscribers: u32,
) -> [(&'static str, Value<'static>); 2] {
    [("id", Value::Id(id)), ("subscribers", Value::Number(u64::from(subscribers)))]
}
