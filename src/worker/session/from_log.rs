//! What the log has answered goes on to what asked: the publish, the join, the stream.

use super::state::Protocol;
use super::{Cx, answer, ndjson, produce, publish, subscribe, view, websocket, ws_streams};
use crate::log::event::Publication;
use crate::log::message::{Published, Refusal, StreamAt};
use crate::worker::effect::{AfterJoin, AfterPublish};

/// Takes the log's answer to a publish.
pub fn published(
    cx: &mut Cx<'_>,
    then: AfterPublish,
    outcome: &Published,
    mut unaccepted: Vec<Publication>,
) {
    let work = cx.work();
    work.published_to = outcome.last_seq.max(work.published_to);
    match then {
        AfterPublish::Respond { channel, counts } => {
            publish::answer(cx, &channel, counts, outcome);
            unaccepted.clear();
            cx.shared.list_space = unaccepted;
        }
        AfterPublish::Ndjson => ndjson::published(cx, outcome, unaccepted),
        AfterPublish::Stream if cx.session.protocol == Protocol::Ws => {
            ws_streams::published(cx, outcome, unaccepted);
        }
        AfterPublish::Stream => produce::published(cx, outcome, unaccepted),
        AfterPublish::Cancelled { channel, reference } => {
            cancelled(cx, &channel, reference.as_deref(), outcome);
        }
        AfterPublish::BareMessage => websocket::published(cx, outcome),
        AfterPublish::Acknowledge(reference) => {
            websocket::acknowledge(cx, reference.as_deref(), outcome);
        }
    }
}

/// A stream was to be cancelled.
fn cancelled(cx: &mut Cx<'_>, channel: &str, reference: Option<&str>, outcome: &Published) {
    let is_op = cx.session.protocol == Protocol::Ws;
    match (outcome.refusal, &outcome.stream) {
        // Ended before or by this: either is what was asked for.
        (None | Some(Refusal::StreamEnded), Some(at)) if is_op => {
            ws_streams::tell_end(cx, reference, channel, at);
        }
        (None | Some(Refusal::StreamEnded), Some(at)) => {
            produce::respond(cx, channel, at);
        }
        (refusal, _) if is_op => {
            cx.op_error(reference, refusal.unwrap_or(Refusal::NoStream));
        }
        (refusal, _) => cx.reject(refusal.unwrap_or(Refusal::NoStream)),
    }
}

/// Takes up the joined channels.
pub fn joined(cx: &mut Cx<'_>, then: AfterJoin) {
    cx.work().joining = false;
    match then {
        AfterJoin::Subscribed(reference) => websocket::subscribed(cx, reference.as_deref()),
        then => subscribe::open_stream(cx, &then),
    }
}

/// The log refused the join; nothing was joined.
pub fn join_refused(cx: &mut Cx<'_>, then: AfterJoin, refusal: Refusal) {
    cx.work().joining = false;
    match then {
        AfterJoin::Subscribed(reference) => cx.op_error(reference.as_deref(), refusal),
        AfterJoin::OpenView { .. } if refusal == Refusal::NoStream => view::answer_no_stream(cx),
        AfterJoin::OpenSse { .. } | AfterJoin::OpenWs { .. } | AfterJoin::OpenView { .. } => {
            answer::refuse_for_now(cx, refusal.into());
        }
    }
}

/// Someone else has ended the channel's stream: its producer learns it at once.
pub fn token_stream_ended(cx: &mut Cx<'_>, channel: &str, at: &StreamAt) {
    match cx.session.protocol {
        Protocol::Ws => ws_streams::ended(cx, channel, at),
        _ => produce::ended(cx, at),
    }
}
