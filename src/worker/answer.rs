//! Answers to requests, and the ways a request is refused.

use std::borrow::Cow;

use super::admission::Refused;
use super::core::Core;
use super::http::{HttpState, Step};
use super::remark::Asked;
use crate::proto::http::body::BodyError;
use crate::proto::http::head::HeadError;
use crate::proto::http::response::{self, BodyMode, Connection, Head, Status};
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
    /// The request, if its answer is to be told of.
    pub asked: Option<Box<Asked>>,
}

impl Default for Answer {
    fn default() -> Self {
        let (connection, mode) = (Connection::KeepAlive, BodyMode::Whole);
        Self { connection, mode, cors: Cow::Borrowed(b""), asked: None }
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

    /// Answers the present request with an error.
    pub(super) fn error(&mut self, index: u32, status: Status, code: &str, message: &str) {
        let retry: &[(&str, &[u8])] = match status {
            Status::ServiceUnavailable | Status::TooManyRequests => &[("Retry-After", b"1")],
            _ => &[],
        };
        self.respond_error(index, status, code, message, retry);
    }

    pub(super) fn respond_error(
        &mut self,
        index: u32,
        status: Status,
        code: &str,
        message: &str,
        headers: &[(&str, &[u8])],
    ) {
        self.metrics.add_request_error(status.code());
        let mut body = Vec::new();
        response::write_error_body(&mut body, code, message);
        let content = Content { content_type: "application/json", bytes: &body };
        self.respond(index, status, &content, headers);
    }

    /// Answers with an error and ends the connection, because what else the peer sends can't be
    /// told apart any more or is not wanted.
    pub(super) fn fail(&mut self, index: u32, status: Status, code: &str, message: &str) {
        self.close_after_answer(index);
        self.error(index, status, code, message);
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
        self.fail(index, error.status(), error.code(), error.message());
        Step::Wait(0)
    }

    pub(super) fn reject_body(&mut self, index: u32, error: BodyError) -> Step {
        self.note_ending(index, CloseReason::BadRequest);
        self.fail(index, error.status(), error.code(), error.message());
        Step::Wait(0)
    }

    /// A connection there is no room for.
    pub(super) fn refuse_connection(&mut self, index: u32, refused: Refused) {
        let reason = match refused {
            Refused::Draining => CloseReason::Drain,
            Refused::Full | Refused::Address | Refused::Rate => CloseReason::Refused,
        };
        self.note_ending(index, reason);
        let (code, message) = refused.describe();
        self.fail(index, Status::ServiceUnavailable, code, message);
    }
}
