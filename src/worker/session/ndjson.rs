//! `POST /publish`: a stream of lines (NDJSON), each an event that takes effect as it comes.

use super::answer::Content;
use super::publish_head::LENGTH_REQUIRED;
use super::state::{HttpState, Ndjson};
use super::step::Step;
use super::{Cx, answer, grant, publish, publish_head};
use crate::auth::Denied;
use crate::limits::PUBLISH_BATCH_BYTES_MAX;
use crate::log::event::Publication;
use crate::log::message::{Published, Refusal, Share};
use crate::proto::http::body::BodyDecoder;
use crate::proto::http::head::{Expectation, Framing, Request};
use crate::proto::http::response::{self, Status};
use crate::proto::reject::Reject;
use crate::worker::clock::Why;
use crate::worker::effect::AfterPublish;

/// `POST /publish`.
pub(super) fn begin(cx: &mut Cx<'_>, request: &Request<'_>) -> usize {
    if !publish::admit_publisher(cx, request) {
        return 0;
    }
    if !grant::may_publish_somewhere(cx) {
        let message = "publishing is not allowed".into();
        cx.reject_and_close(Reject { message, ..Denied::PublishForbidden.into() });
        return 0;
    }
    if request.framing() == Framing::None {
        cx.reject_and_close(LENGTH_REQUIRED);
        return 0;
    }
    let sender = match publish_head::sender_of(cx, request) {
        Ok(sender) => sender,
        Err(reject) => {
            cx.reject_and_close(reject);
            return 0;
        }
    };
    if request.expectation() == Expectation::Continue {
        response::write_continue(cx.out());
    }
    let decoder = BodyDecoder::new(request.framing());
    cx.work().http = HttpState::Ndjson(Box::new(Ndjson::new(decoder, sender)));
    cx.wait(Why::Body);
    if request.framing() == Framing::Length(0) {
        answer(cx);
    }
    0
}

/// Takes more of the body. Only one batch is at the log at a time, which keeps the lines in
/// order.
pub(super) fn input(cx: &mut Cx<'_>, bytes: &[u8]) -> Step {
    let bytes_max = cx.shared.settings.event_bytes_max;
    let permission = cx.permission();
    let work = cx.work();
    work.progress = work.progress.wrapping_add(1);
    let HttpState::Ndjson(lines) = &mut work.http else { return Step::Wait(0) };
    if work.outstanding > 0 || !lines.batch.is_empty() {
        return Step::Wait(0);
    }
    let bytes = &bytes[..bytes.len().min(PUBLISH_BATCH_BYTES_MAX)];
    let decoded = match lines.decoder.decode(bytes) {
        Ok(decoded) => decoded,
        Err(error) => return answer::reject_body(cx, error),
    };
    lines.take(decoded.payload, bytes_max, &|channel| permission.may_publish(channel));
    go_on(cx);
    Step::Used(decoded.consumed)
}

/// Sends what was parsed, or answers if nothing more will come.
pub(super) fn go_on(cx: &mut Cx<'_>) {
    let bytes_max = cx.shared.settings.event_bytes_max;
    let permission = cx.permission();
    let HttpState::Ndjson(lines) = &mut cx.work().http else { return };
    lines.take_left(bytes_max, &|channel| permission.may_publish(channel));
    let count = lines.batch.len();
    // A stream that is too fast is not refused; it is read more slowly.
    let at_once = count == 0 || publish::admit(cx, Share::Half).is_ok();
    let HttpState::Ndjson(lines) = &mut cx.work().http else { return };
    if !lines.batch.is_empty() {
        if !at_once {
            return cx.wait(Why::Retry);
        }
        let mut batch = std::mem::take(&mut lines.batch);
        batch.iter_mut().for_each(|line| publish::sign(cx, line));
        publish::ask(cx, batch, AfterPublish::Ndjson);
    } else if lines.failed.is_some() || lines.decoder.is_done() {
        answer(cx);
    }
}

pub(super) fn published(cx: &mut Cx<'_>, outcome: &Published, unaccepted: Vec<Publication>) {
    let HttpState::Ndjson(lines) = &mut cx.work().http else { return };
    lines.note(outcome);
    match outcome.refusal {
        Some(Refusal::Busy) => {
            lines.batch = unaccepted;
            cx.wait(Why::Retry);
            return;
        }
        Some(refusal) => {
            // The refused line is the first one that was not taken.
            lines.line_no = lines.batch_line_nos.first().copied().unwrap_or(lines.line_no);
            lines.failed = Some(refusal.into());
        }
        None => {}
    }
    go_on(cx);
}

/// Reads no further line. What was read is published first; the answer says how far it got.
pub(super) fn fail(cx: &mut Cx<'_>, reject: Reject) {
    let work = cx.work();
    let HttpState::Ndjson(lines) = &mut work.http else { return };
    lines.line = Vec::new();
    if lines.failed.is_some() {
        return;
    }
    lines.failed = Some(reject);
    lines.line_no += 1;
    if work.outstanding == 0 && lines.batch.is_empty() {
        answer(cx);
    }
}

fn answer(cx: &mut Cx<'_>) {
    let epoch = cx.shared.epoch;
    let HttpState::Ndjson(lines) = std::mem::take(&mut cx.work().http) else { return };
    let mut body = Vec::with_capacity(192);
    let status = match &lines.failed {
        None => {
            body.push(b'{');
            Status::Ok
        }
        Some(reject) => {
            cx.close_after_answer();
            cx.shared.metrics.add_request_error(reject.status.code());
            reject.begin_lines_answer(&mut body, lines.line_no, lines.published);
            reject.status
        }
    };
    lines.write_summary(&mut body, epoch);
    body.push(b'}');
    let content = Content { content_type: "application/json", bytes: &body };
    cx.respond(status, &content, &[]);
}
