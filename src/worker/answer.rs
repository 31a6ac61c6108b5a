//! Answers to requests, and the ways a request is refused.

use std::borrow::Cow;

use super::admission::Refused;
use super::core::Core;
use super::http::{HttpState, Step};
use super::remark::Asked;
use crate::proto::http::body::BodyError;
use crate::proto::http::head::HeadError;
use crate::proto::http::response::{self, BodyMode, Connection, Head, Status};
use crate::proto::reject::Reject;
use crate::proto::sse;
use crate::reason::CloseReason;

/// How a request is to be answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What becomes of the connection.
    pub connection: Connection,
    /// Whether the client sees the body.
    pub mode: BodyMode,
    /// Cross-origin lines.
    pub cors: Cow<'static, [u8]>,
    /// Who asks is an EventSource: to it, any status but 200 is final.
    pub to_event_source: bool,
    /// The request, if its answer is to be told of.
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

impl Core {
    /// Answers the present request.
    pub(super) fn respond(
        &mut self,
        index: u32,
        status: Status,
        content: &Content<'_>,
        headers: &[(&str, &[u8])],
    ) {
        let date = self.date;
        if self.is_draining() {
            self.close_after_answer(index);
        }
        let work = self.work(index);
        let content_type = Some(content.content_type).filter(|text| !text.is_empty());
        let head = Head {
            status,
            connection: work.answer.connection,
            content_type,
            date: Some(&date),
            headers,
            prepared: &work.answer.cors,
        };
        response::write_response(&mut work.out, &head, content.bytes, work.answer.mode);
        work.http = match std::mem::take(&mut work.http) {
            HttpState::Waiting { unwanted: Some(decoder) } => HttpState::Discard(decoder),
            HttpState::Waiting { unwanted: None } | HttpState::Body(_) | HttpState::Lines(_) => {
                HttpState::default()
            }
            kept @ (HttpState::Head(_) | HttpState::Discard(_)) => kept,
        };
        if work.answer.connection == Connection::Close {
            self.end_after_output(index);
        }
        self.note_answered(index, status.code());
        self.mark_dirty(index);
    }

    /// Refuses the present request.
    pub(super) fn reject(&mut self, index: u32, reject: impl Into<Reject>) {
        let reject = reject.into();
        let retry: &[(&str, &[u8])] = match reject.status {
            Status::ServiceUnavailable | Status::TooManyRequests => &[("Retry-After", b"1")],
            _ => &[],
        };
        self.reject_with(index, reject, retry);
    }

    /// The same with headers of its own.
    pub(super) fn reject_with(
        &mut self,
        index: u32,
        reject: impl Into<Reject>,
        headers: &[(&str, &[u8])],
    ) {
        let reject = reject.into();
        self.metrics.add_request_error(reject.status.code());
        let mut body = Vec::new();
        reject.write_body(&mut body);
        let content = Content { content_type: "application/json", bytes: &body };
        self.respond(index, reject.status, &content, headers);
    }

    /// Refuses the request and ends the connection, because what else the peer sends can't be told
    /// apart any more or is not wanted.
    pub(super) fn reject_and_close(&mut self, index: u32, reject: impl Into<Reject>) {
        self.close_after_answer(index);
        self.reject(index, reject);
    }

    /// The present request is the connection's last.
    pub(super) fn close_after_answer(&mut self, index: u32) {
        self.work(index).answer.connection = Connection::Close;
    }

    pub(super) fn reject_head(&mut self, index: u32, error: HeadError) -> Step {
        self.work(index).answer = Answer::default();
        self.note_asked(index, None);
        self.note_origin(index, None);
        self.note_ending(index, CloseReason::BadRequest);
        self.reject_and_close(index, error);
        Step::Wait(0)
    }

    pub(super) fn reject_body(&mut self, index: u32, error: BodyError) -> Step {
        self.note_ending(index, CloseReason::BadRequest);
        self.reject_and_close(index, error);
        Step::Wait(0)
    }

    /// Refuses the present request of a connection there is no room for, or not any more.
    pub(super) fn refuse_connection(&mut self, index: u32, refused: Refused) {
        let reason = match refused {
            Refused::Draining => CloseReason::Drain,
            Refused::Full | Refused::Address | Refused::Rate => CloseReason::Refused,
        };
        self.metrics.refused[refused as usize].add(1);
        self.note_ending(index, reason);
        self.close_after_answer(index);
        self.refuse_for_now(index, refused.into());
    }

    /// Refuses the present request for a reason that passes: no room, no time, going away. The one
    /// place that decides what a browser's stream gets instead of an error, which it would never
    /// come back from (WHATWG HTML 9.2.3): an empty stream that says when to come back. A
    /// connection closed without a byte would make Firefox try ten times at once, and a proxy make
    /// an error of its own of it.
    pub(super) fn refuse_for_now(&mut self, index: u32, reject: Reject) {
        if !self.work(index).answer.to_event_source {
            return self.reject(index, reject);
        }
        self.metrics.add_request_error(reject.status.code());
        let (date, retry_ms) = (self.date, self.refusal_retry_ms());
        let work = self.work(index);
        sse::write_refusal(&mut work.out, &date, &work.answer.cors, reject.code, retry_ms);
        work.http = HttpState::default();
        self.end_after_output(index);
        self.note_answered(index, Status::Ok.code());
        self.mark_dirty(index);
    }

    /// From once to two and a half times the setting: longer than after a cut, and spread, so that
    /// those there is no room for cost little.
    fn refusal_retry_ms(&mut self) -> u32 {
        let mean = self.retry_ms();
        mean + self.random.u32(0..=mean / 2 * 3)
    }
}
