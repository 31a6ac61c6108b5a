//! Token streams over a WebSocket: operations that open a channel's stream, append to it and end it.
//! A connection may produce the streams of several channels. Its operations go to the log in their
//! order, one request at a time; those that come meanwhile go with the next.

use std::sync::Arc;

use super::produce::AHEAD;
use super::state::{Produced, Protocol, Publisher, Waiting, What, WsStreams, add_publications};
use super::{Cx, publish};
use crate::limits::WS_STREAMS_MAX;
use crate::log::event::Publication;
use crate::log::message::{Published, Refusal, Share, StreamAt};
use crate::proto::attributes::Attributes;
use crate::proto::cursor::EventId;
use crate::proto::envelope::{self, Value};
use crate::proto::name::channel_name;
use crate::proto::reject::Reject;
use crate::proto::stream::{End, Mark, Part};
use crate::worker::clock::Why;
use crate::worker::effect::AfterPublish;

fn state<'c>(cx: &'c mut Cx<'_>) -> &'c mut WsStreams {
    cx.work().ws_streams.get_or_insert_default()
}

// --- operations ---

pub(super) fn open(
    cx: &mut Cx<'_>,
    reference: Option<&str>,
    channel: &str,
    (id, offset): (Option<&str>, Option<u64>),
) {
    let heard_at = cx.shared.now;
    let id: Arc<str> = match id {
        Some(id) => id.into(),
        None => format!("{:016x}", cx.shared.random.u64(..)).into(),
    };
    if let Err(reject) = check_open(cx, channel) {
        return cx.op_error(reference, reject);
    }
    let mark = Mark { id: id.clone(), part: Part::Open, at: 0 };
    let streams = state(cx);
    streams.open.push(Produced {
        channel: channel.into(),
        id,
        attempt: 0,
        next: 0,
        had: 0,
        heard_at,
    });
    streams.push(Waiting {
        channel: channel.into(),
        reference: reference.map(Into::into),
        what: What::Open(offset),
        publication: Some(Publication::control(channel.into(), mark, 0)),
    });
    go_on(cx);
}

fn check_open(cx: &mut Cx<'_>, channel: &str) -> Result<(), Reject> {
    channel_name(channel.as_bytes())?;
    cx.check_publish(channel)?;
    let streams = state(cx);
    if streams.of(channel).is_some() {
        let message = "the connection produces the channel's stream already";
        return Err(Reject::bad_request("already_open", message));
    }
    if streams.open.len() >= WS_STREAMS_MAX {
        let message = "the connection produces as many streams as it may";
        return Err(Reject::bad_request("too_many_streams", message));
    }
    Ok(())
}

pub(super) fn append(cx: &mut Cx<'_>, reference: Option<&str>, token: envelope::Publication<'_>) {
    let (bytes_max, now) = (cx.shared.settings.event_bytes_max, cx.shared.now);
    let channel: Box<str> = token.channel.as_ref().into();
    let permission = cx.permission();
    let allowed = |channel: &str| permission.may_publish(channel);
    let mut publications = Vec::with_capacity(1);
    let by = Publisher { allowed: &allowed, sender: None };
    if let Err(reject) = add_publications(token, bytes_max, &by, &mut publications) {
        // Tokens after a missing one must not become part of the stream.
        leave(cx, &channel);
        return cx.op_error(reference, reject);
    }
    let streams = state(cx);
    let Some(of) = streams.of(&channel) else {
        return cx.op_error(reference, Refusal::NoStream);
    };
    let (number, is_known) = (of.next, of.next < of.had);
    (of.next, of.heard_at) = (of.next + 1, now);
    if is_known {
        return appended(cx, reference, number, None);
    }
    let mark = Mark { id: of.id.clone(), part: Part::Token, at: of.attempt };
    let publication = publications.pop();
    let publication =
        publication.map(|plain| Publication { attributes: Attributes::of_stream(mark), ..plain });
    let (reference, what) = (reference.map(Into::into), What::Append(number));
    streams.push(Waiting { channel, reference, what, publication });
    go_on(cx);
}

pub(super) fn end(cx: &mut Cx<'_>, reference: Option<&str>, channel: &str, end: End) {
    let streams = state(cx);
    let Some(of) = streams.of(channel) else {
        return cx.op_error(reference, Refusal::NoStream);
    };
    let mark = Mark { id: of.id.clone(), part: Part::End(end), at: of.attempt };
    streams.push(Waiting {
        channel: channel.into(),
        reference: reference.map(Into::into),
        what: What::End,
        publication: Some(Publication::control(channel.into(), mark, 0)),
    });
    go_on(cx);
}

// --- the log ---

/// Sends the log the operations that wait, unless it still has some.
pub(super) fn go_on(cx: &mut Cx<'_>) {
    let streams = cx.session.work().and_then(|work| work.ws_streams.as_ref());
    if streams.is_none_or(|streams| streams.asked > 0 || streams.line.is_empty()) {
        return;
    }
    // A connection that is too fast is not refused but read more slowly.
    if publish::admit(cx, Share::Half).is_err() {
        return cx.wait(Why::Retry);
    }
    let mut batch = state(cx).next_batch();
    batch.iter_mut().for_each(|part| publish::sign(cx, part));
    publish::ask(cx, batch, AfterPublish::Stream);
}

/// The log answered.
pub(super) fn published(cx: &mut Cx<'_>, outcome: &Published, unaccepted: Vec<Publication>) {
    let streams = state(cx);
    let accepted = outcome.accepted as usize;
    let lost = streams.asked.saturating_sub(accepted + unaccepted.len());
    let taken: Vec<Waiting> = streams.line.drain(..accepted.min(streams.asked)).collect();
    streams.asked -= taken.len();
    streams.put_back(unaccepted);
    let mut seqs = places(outcome);
    for waiting in taken {
        took(cx, waiting, seqs.next(), outcome.stream.as_ref());
    }
    match outcome.refusal {
        None => {}
        Some(Refusal::Busy | Refusal::Rate) if lost == 0 => return cx.wait(Why::Retry),
        Some(refusal) => {
            refused(cx, lost.max(1), refusal, outcome.stream.as_ref());
        }
    }
    go_on(cx);
}

/// The log has taken an operation's part of a stream, and gave it this place, if that is known.
fn took(cx: &mut Cx<'_>, waiting: Waiting, seq: Option<u64>, at: Option<&StreamAt>) {
    let reference = waiting.reference.as_deref();
    match (waiting.what, at) {
        (What::Append(number), _) => appended(cx, reference, number, seq),
        (What::Open(offset), Some(at)) => opened(cx, &waiting, offset, at),
        (What::End, Some(at)) => tell_end(cx, reference, &waiting.channel, at),
        (What::Open(_) | What::End, None) => {}
    }
}

/// Answers that a token is in the log: at this place, if that is known.
fn appended(cx: &mut Cx<'_>, reference: Option<&str>, number: u64, seq: Option<u64>) {
    if reference.is_none() {
        return;
    }
    let epoch = cx.shared.epoch;
    let id = seq.map(|seq| ("id", Value::Id(EventId { epoch, seq })));
    let fields: Vec<_> = [("offset", Value::Number(number))].into_iter().chain(id).collect();
    cx.op_ok(reference, &fields);
}

fn opened(cx: &mut Cx<'_>, waiting: &Waiting, offset: Option<u64>, at: &StreamAt) {
    let (channel, reference) = (&waiting.channel, waiting.reference.as_deref());
    let Some(of) = state(cx).of(channel) else { return };
    let id = of.id.clone();
    (of.attempt, of.had, of.next) = (at.attempt, at.tokens, offset.unwrap_or(at.tokens));
    cx.begin_producing(channel.clone());
    if offset.is_some_and(|offset| offset > at.tokens) {
        leave(cx, channel);
        return cx.op_error(reference, AHEAD);
    }
    let fields = [
        ("channel", Value::Text(channel)),
        ("stream", Value::Text(&id)),
        ("offset", Value::Number(at.tokens)),
    ];
    cx.op_ok(reference, &fields);
    if !std::mem::replace(&mut state(cx).watched, true) {
        cx.wait(Why::Stream);
    }
}

/// The log has refused the first `count` of the waiting operations.
fn refused(cx: &mut Cx<'_>, count: usize, refusal: Refusal, at: Option<&StreamAt>) {
    for _ in 0..count {
        let Some(waiting) = state(cx).pop() else { return };
        let (channel, reference) = (&waiting.channel, waiting.reference.as_deref());
        match (waiting.what, refusal, at) {
            // It has ended, which is what was asked for.
            (What::End, Refusal::StreamEnded, Some(at)) => {
                tell_end(cx, reference, channel, at);
            }
            _ => {
                leave(cx, channel);
                cx.op_error(reference, refusal);
            }
        }
    }
}

/// A stream of the connection has ended: answers with its state.
pub(super) fn tell_end(cx: &mut Cx<'_>, reference: Option<&str>, channel: &str, at: &StreamAt) {
    let epoch = cx.shared.epoch;
    forget(cx, channel);
    let mut fields = vec![
        ("channel", Value::Text(channel)),
        ("stream", Value::Text(&at.id)),
        ("state", Value::Text(at.ended.map_or("open", End::state))),
        ("events", Value::Number(at.tokens)),
    ];
    for (name, seq) in [("first_id", at.first_token), ("last_id", at.last_token)] {
        if seq > 0 {
            fields.push((name, Value::Id(EventId { epoch, seq })));
        }
    }
    cx.op_ok(reference, &fields);
}

/// Someone else has ended the channel's stream: its producer learns it at once.
pub(super) fn ended(cx: &mut Cx<'_>, channel: &str, at: &StreamAt) {
    let streams = state(cx);
    if streams.of(channel).is_some_and(|of| of.attempt == at.attempt) {
        tell_end(cx, None, channel, at);
    }
}

// --- the end ---

fn forget(cx: &mut Cx<'_>, channel: &str) -> Option<Produced> {
    let open = &mut state(cx).open;
    let of = open.iter().position(|of| *of.channel == *channel)?;
    let of = open.swap_remove(of);
    cx.end_producing(channel);
    Some(of)
}

/// The connection does not produce the channel's stream any more. Another one may go on with it, or
/// this one once more.
fn leave(cx: &mut Cx<'_>, channel: &str) {
    if let Some(Produced { channel, id, attempt, .. }) = forget(cx, channel) {
        cx.leave_stream(channel, id, attempt);
    }
}

/// The connection is gone.
pub(super) fn leave_all(cx: &mut Cx<'_>) {
    let work = cx.session.work.as_mut();
    let Some(streams) = work.and_then(|work| work.ws_streams.take()) else { return };
    for Produced { channel, id, attempt, .. } in streams.open {
        cx.leave_stream(channel, id, attempt);
    }
}

/// Ends streams to which nothing was appended for too long.
pub(super) fn due(cx: &mut Cx<'_>) {
    let (now, idle) = (cx.shared.now, cx.shared.settings.stream_idle);
    let streams = state(cx);
    let late = |of: &&Produced| of.attempt > 0 && now.saturating_sub(of.heard_at) >= idle;
    let late: Vec<Box<str>> =
        streams.open.iter().filter(late).map(|of| of.channel.clone()).collect();
    streams.watched = !streams.open.is_empty();
    if streams.watched {
        cx.wait(Why::Stream);
    }
    if cx.session.protocol == Protocol::Ws {
        late.iter().for_each(|channel| end(cx, None, channel, End::Idle));
    }
}

/// The places of what was accepted, one behind the other; where other nodes have published between
/// them they are not known.
fn places(outcome: &Published) -> impl Iterator<Item = u64> + use<> {
    let Published { first_seq, last_seq, accepted, .. } = *outcome;
    let count = u64::from(accepted);
    let are_known = count > 0 && last_seq.checked_sub(first_seq) == Some(count - 1);
    (first_seq..).take(if are_known { accepted as usize } else { 0 })
}
