//! Answers to requests, and the ways a request is refused.

use super::state::{Answer, HttpState, Protocol};
use super::step::Step;
use super::{Cx, Shared, access, log_line};
use crate::proto::envelope::{self, Value};
use crate::proto::http::body::BodyError;
use crate::proto::http::head::HeadError;
use crate::proto::http::response::{self, Connection, Head, Status};
use crate::proto::reject::Reject;
use crate::proto::sse;
use crate::proto::ws::frame;
use crate::reason::{CloseReason, Refused};
use crate::worker::effect::Ending;

/// A body in the form `respond` takes.
pub(super) struct Content<'a> {
    pub content_type: &'a str,
    pub bytes: &'a [u8],
}

impl Cx<'_> {
    /// Answers the present request.
    pub(super) fn respond(
        &mut self,
        status: Status,
        content: &Content<'_>,
        headers: &[(&str, &[u8])],
    ) {
        let date = self.shared.date;
        if self.shared.is_draining {
            self.close_after_answer();
        }
        let (work, out) = self.work_and_out();
        let content_type = Some(content.content_type).filter(|text| !text.is_empty());
        let head = Head {
            status,
            connection: work.answer.connection,
            content_type,
            date: Some(&date),
            headers,
            prepared: &work.answer.cors,
        };
        response::write_response(out, &head, content.bytes, work.answer.mode);
        let left = work.http.answered();
        if work.answer.connection == Connection::Close {
            self.end(Ending::AfterOutput(None));
        }
        if let Some(producer) = left {
            self.leave_producer(&producer);
        }
        log_line::log_answered(self, status.code());
    }

    /// Refuses the present request.
    pub(super) fn reject(&mut self, reject: impl Into<Reject>) {
        let reject = reject.into();
        let retry: &[(&str, &[u8])] = match reject.status {
            Status::ServiceUnavailable | Status::TooManyRequests => &[("Retry-After", b"1")],
            _ => &[],
        };
        self.reject_with(reject, retry);
    }

    /// As `reject`, with extra headers.
    pub(super) fn reject_with(&mut self, reject: impl Into<Reject>, headers: &[(&str, &[u8])]) {
        let reject = reject.into();
        self.shared.metrics.add_request_error(reject.status.code());
        let mut body = Vec::new();
        reject.write_body(&mut body);
        let content = Content { content_type: "application/json", bytes: &body };
        self.respond(reject.status, &content, headers);
    }

    /// Refuses the request and ends the connection, because what follows on it can no longer be
    /// told apart or is not wanted.
    pub(super) fn reject_and_close(&mut self, reject: impl Into<Reject>) {
        self.close_after_answer();
        self.reject(reject);
    }

    /// Makes the present request the connection's last.
    pub(super) fn close_after_answer(&mut self) {
        self.work().answer.connection = Connection::Close;
    }

    // --- operations of a WebSocket ---

    /// Answers an operation.
    pub(super) fn op_ok(&mut self, reference: Option<&str>, fields: &[(&str, Value<'_>)]) {
        if self.session.protocol != Protocol::Ws {
            return;
        }
        let out = self.out();
        frame::write_text_with(out, |out| envelope::write_ok(out, reference, fields));
    }

    /// Refuses an operation.
    pub(super) fn op_error(&mut self, reference: Option<&str>, reject: impl Into<Reject>) {
        if self.session.protocol != Protocol::Ws {
            return;
        }
        let out = self.out();
        frame::write_text_with(out, |out| reject.into().write_op_answer(out, reference));
    }
}

impl Shared {
    /// One to two and a half times the setting: longer than after a cut, and spread out, so that
    /// refused clients cost little.
    fn refusal_retry_ms(&mut self) -> u32 {
        let mean = self.retry_ms();
        mean + self.random.u32(0..=mean / 2 * 3)
    }
}

pub(super) fn reject_head(cx: &mut Cx<'_>, error: HeadError) -> Step {
    cx.work().answer = Answer::default();
    log_line::log_asked(cx, None);
    access::prepare_cors(cx, None);
    cx.note(CloseReason::BadRequest);
    cx.reject_and_close(error);
    Step::Wait(0)
}

pub(super) fn reject_body(cx: &mut Cx<'_>, error: BodyError) -> Step {
    cx.note(CloseReason::BadRequest);
    cx.reject_and_close(error);
    Step::Wait(0)
}

/// Refuses the present request of a connection for which there is no room, or no longer any.
pub(super) fn refuse_connection(cx: &mut Cx<'_>, refused: Refused) {
    let reason = match refused {
        Refused::Draining => CloseReason::Drain,
        Refused::Full | Refused::Address | Refused::Rate => CloseReason::Refused,
    };
    cx.shared.metrics.add_refused(refused);
    cx.note(reason);
    cx.close_after_answer();
    refuse_for_now(cx, refused.into());
}

/// Refuses the present request for a passing reason: no room, no time, shutting down. This is
/// the one place that decides what a browser's stream gets instead of an error, after which it
/// would never reconnect (WHATWG HTML 9.2.3): an empty stream that says when to come back.
/// Closing without a byte would make Firefox retry ten times at once, and a proxy would turn it
/// into an error of its own.
pub(super) fn refuse_for_now(cx: &mut Cx<'_>, reject: Reject) {
    if !cx.work().answer.to_event_source {
        return cx.reject(reject);
    }
    cx.shared.metrics.add_request_error(reject.status.code());
    let (date, retry_ms) = (cx.shared.date, cx.shared.refusal_retry_ms());
    let (work, out) = cx.work_and_out();
    sse::write_refusal(out, &date, &work.answer.cors, reject.code, retry_ms);
    work.http = HttpState::default();
    cx.end(Ending::AfterOutput(None));
    log_line::log_answered(cx, Status::Ok.code());
}
