//! `GET /channels/{channel}`: what the log knows about a channel.

use super::answer::Content;
use super::{Cx, produce};
use crate::log::message::Description;
use crate::proto::cursor::EventId;
use crate::proto::http::response::Status;
use crate::proto::name::{NAME_BYTES_MAX, channel_segment};
use crate::proto::reject::Reject;
use crate::worker::effect::Effect;

/// Asks the log for a channel's state.
pub(super) fn ask(cx: &mut Cx<'_>, segment: &str) {
    match readable_channel(cx, segment) {
        Ok(channel) => {
            cx.await_log();
            cx.push(Effect::Describe { channel });
        }
        Err(reject) => cx.reject(reject),
    }
}

/// The channel that a path's segment names, if the connection may read it.
pub(super) fn readable_channel(cx: &Cx<'_>, segment: &str) -> Result<Box<str>, Reject> {
    let mut buffer = [0; NAME_BYTES_MAX];
    let channel = channel_segment(segment, &mut buffer)?;
    cx.check_subscribe(channel)?;
    Ok(channel.into())
}

/// The log answered.
pub fn described(cx: &mut Cx<'_>, channel: &str, description: &Description) {
    let epoch = cx.shared.epoch;
    let id = |seq: Option<u64>| match seq {
        Some(seq) => format!("\"{}\"", EventId { epoch, seq }),
        None => "null".into(),
    };
    let stream = description.stream.as_ref().map_or(String::new(), |at| {
        format!(",\"stream\":{}", produce::stream_state(cx, channel, at))
    });
    let body = format!(
        "{{\"channel\":\"{channel}\",\"last_id\":{},\"first_id\":{},\"events\":{},\
         \"subscribers\":{}{stream}}}",
        id(description.last_seq),
        id(description.first_seq),
        description.events,
        description.subscribers,
    );
    let content = Content { content_type: "application/json", bytes: body.as_bytes() };
    // It is out of date when the next event comes.
    cx.respond(Status::Ok, &content, &[("Cache-Control", b"no-store")]);
}
