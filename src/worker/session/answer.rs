//! Answers to requests, and the ways a request is refused.

use std::borrow::Cow;

use super::http::{HttpState, Step};
use super::log_line::Asked;
use super::{Cx, Sessions};
use crate::proto::http::body::BodyError;
use crate::proto::http::head::HeadError;
use crate::proto::http::response::{self, BodyMode, Connection, Head, Status};
use crate::proto::reject::Reject;
use crate::proto::sse;
use crate::reason::{CloseReason, Refused};
use crate::worker::effect::Ending;

/// How a request is to be answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Whether the connection stays open afterwards.
    pub connection: Connection,
    /// Whether the client sees the body.
    pub mode: BodyMode,
    /// CORS headers.
    pub cors: Cow<'static, [u8]>,
    /// The request comes from an EventSource, for which any status but 200 is final.
    pub to_event_source: bool,
    /// The request, if its answer goes to the access log.
    pub asked: Option<Box<Asked>>,
}

impl Default for Answer {
    fn default() -> Self {
        let (connection, mode) = (Connection::KeepAlive, BodyMode::Whole);
        Self { connection, mode, cors: Cow::Borrowed(b""), to_event_source: false, asked: None }
    }
}

/// A body in the form `respond` takes.
pub(super) struct Content<'a> {
    pub content_type: &'a str,
    pub bytes: &'a [u8],
}

impl Sessions {
    /// Answers the present request.
    pub(super) fn respond(
        &mut self,
        cx: &mut Cx<'_>,
        status: Status,
        content: &Content<'_>,
        headers: &[(&str, &[u8])],
    ) {
        let date = self.date;
        if self.is_draining {
            self.close_after_answer(cx.index());
        }
        let work = self.work(cx.index());
        let content_type = Some(content.content_type).filter(|text| !text.is_empty());
        let head = Head {
            status,
            connection: work.answer.connection,
            content_type,
            date: Some(&date),
            headers,
            prepared: &work.answer.cors,
        };
        response::write_response(cx.out(), &head, content.bytes, work.answer.mode);
        let mut left = None;
        work.http = match std::mem::take(&mut work.http) {
            HttpState::Waiting { unwanted: Some(decoder) } => HttpState::Discard(decoder),
            HttpState::Waiting { unwanted: None } | HttpState::Body(_) | HttpState::Ndjson(_) => {
                HttpState::default()
            }
            HttpState::Stream(producer) => {
                left = Some(producer);
                HttpState::default()
            }
            kept @ (HttpState::Head(_) | HttpState::Discard(_)) => kept,
        };
        if work.answer.connection == Connection::Close {
            cx.end(Ending::AfterOutput(None));
        }
        if let Some(producer) = left {
            self.leave_stream(cx, &producer);
        }
        self.note_answered(cx, status.code());
    }

    /// Refuses the present request.
    pub(super) fn reject(&mut self, cx: &mut Cx<'_>, reject: impl Into<Reject>) {
        let reject = reject.into();
        let retry: &[(&str, &[u8])] = match reject.status {
            Status::ServiceUnavailable | Status::TooManyRequests => &[("Retry-After", b"1")],
            _ => &[],
        };
        self.reject_with(cx, reject, retry);
    }

    /// As `reject`, with extra headers.
    pub(super) fn reject_with(
        &mut self,
        cx: &mut Cx<'_>,
        reject: impl Into<Reject>,
        headers: &[(&str, &[u8])],
    ) {
        let reject = reject.into();
        self.metrics.add_request_error(reject.status.code());
        let mut body = Vec::new();
        reject.write_body(&mut body);
        let content = Content { content_type: "application/json", bytes: &body };
        self.respond(cx, reject.status, &content, headers);
    }

    /// Refuses the request and ends the connection, because what follows on it can no longer be
    /// told apart or is not wanted.
    pub(super) fn reject_and_close(&mut self, cx: &mut Cx<'_>, reject: impl Into<Reject>) {
        self.close_after_answer(cx.index());
        self.reject(cx, reject);
    }

    /// Makes the present request the connection's last.
    pub(super) fn close_after_answer(&mut self, index: u32) {
        self.work(index).answer.connection = Connection::Close;
    }

    pub(super) fn reject_head(&mut self, cx: &mut Cx<'_>, error: HeadError) -> Step {
        self.work(cx.index()).answer = Answer::default();
        self.note_asked(cx, None);
        self.note_origin(cx, None);
        cx.note(CloseReason::BadRequest);
        self.reject_and_close(cx, error);
        Step::Wait(0)
    }

    pub(super) fn reject_body(&mut self, cx: &mut Cx<'_>, error: BodyError) -> Step {
        cx.note(CloseReason::BadRequest);
        self.reject_and_close(cx, error);
        Step::Wait(0)
    }

    /// Refuses the present request of a connection for which there is no room, or no longer any.
    pub(super) fn refuse_connection(&mut self, cx: &mut Cx<'_>, refused: Refused) {
        let reason = match refused {
            Refused::Draining => CloseReason::Drain,
            Refused::Full | Refused::Address | Refused::Rate => CloseReason::Refused,
        };
        self.metrics.refused[refused as usize].add(1);
        cx.note(reason);
        self.close_after_answer(cx.index());
        self.refuse_for_now(cx, refused.into());
    }

    /// Refuses the present request for a passing reason: no room, no time, shutting down. This is
    /// the one place that decides what a browser's stream gets instead of an error, after which it
    /// would never reconnect (WHATWG HTML 9.2.3): an empty stream that says when to come back.
    /// Closing without a byte would make Firefox retry ten times at once, and a proxy would turn it
    /// into an error of its own.
    pub(super) fn refuse_for_now(&mut self, cx: &mut Cx<'_>, reject: Reject) {
        if !self.work(cx.index()).answer.to_event_source {
            return self.reject(cx, reject);
        }
        self.metrics.add_request_error(reject.status.code());
        let (date, retry_ms) = (self.date, self.refusal_retry_ms());
        let work = self.work(cx.index());
        sse::write_refusal(cx.out(), &date, &work.answer.cors, reject.code, retry_ms);
        work.http = HttpState::default();
        cx.end(Ending::AfterOutput(None));
        self.note_answered(cx, Status::Ok.code());
    }

    /// One to two and a half times the setting: longer than after a cut, and spread out, so that
    /// refused clients cost little.
    fn refusal_retry_ms(&mut self) -> u32 {
        let mean = self.retry_ms();
        mean + self.random.u32(0..=mean / 2 * 3)
    }
}
