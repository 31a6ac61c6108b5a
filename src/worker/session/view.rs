//! `GET /channels/{channel}/stream`: a channel's stream as its producer would send it, for readers
//! that know nothing of Pushline. Such a reader is a subscriber like any other, in a dialect that has
//! an end.

use super::answer::Content;
use super::subscribe::write_view_head;
use super::{Cx, access, subscribe};
use crate::auth::Access;
use crate::proto::dialect::Dialect;
use crate::proto::http::head::{Method, Request};
use crate::proto::http::query;
use crate::proto::http::response::Status;
use crate::proto::name::{NAME_BYTES_MAX, channel_segment};
use crate::proto::reject::Reject;
use crate::proto::stream::{Begin, OrElse};
use crate::worker::effect::AfterJoin;

/// `GET /channels/{channel}/stream`.
pub(super) fn begin(cx: &mut Cx<'_>, request: &Request<'_>, segment: &str) {
    let mut buffer = [0; NAME_BYTES_MAX];
    match channel_segment(segment, &mut buffer) {
        Ok(channel) => open(cx, request, channel, OrElse::Refuse),
        Err(error) => cx.reject(error),
    }
}

/// A path that the operator has mapped to a channel's stream. There, a stream that has ended counts
/// as none: a client that uses such a path has the whole answer by then.
pub(super) fn begin_mapped(cx: &mut Cx<'_>, request: &Request<'_>) -> bool {
    if !matches!(request.method(), Method::Get | Method::Head) {
        return false;
    }
    let mut maps = cx.shared.settings.stream_paths.iter();
    let Some(channel) = maps.find_map(|map| map.channel_of(request.path())) else {
        return false;
    };
    if access::admit_request(cx, request, Access::Http, None) {
        open(cx, request, &channel, OrElse::RefuseEnded);
    }
    true
}

/// Opens a plain reader of the channel's stream. `or_else` says what happens if there is none.
pub(super) fn open(cx: &mut Cx<'_>, request: &Request<'_>, channel: &str, or_else: OrElse) {
    if let Err(denied) = cx.check_subscribe(channel) {
        return cx.reject(denied);
    }
    let (dialect, after) = match view_wanted(request) {
        Ok(wanted) => wanted,
        Err(reject) => return cx.reject(reject),
    };
    if request.method() == Method::Head {
        return answer_head(cx, dialect);
    }
    cx.session.dialect = dialect;
    let cors = cx.work().answer.cors.clone().into_owned().into();
    let begin = Begin { after, or_else };
    cx.await_log();
    subscribe::join(cx, vec![channel.into()], Vec::new(), AfterJoin::OpenView { cors, begin });
}

/// Answers that there is no stream to resume.
pub(super) fn answer_no_stream(cx: &mut Cx<'_>) {
    let content = Content { content_type: "", bytes: b"" };
    cx.respond(Status::NoContent, &content, &[("Cache-Control", b"no-store")]);
}

fn answer_head(cx: &mut Cx<'_>, dialect: Dialect) {
    let date = cx.shared.date;
    let cors = cx.work().answer.cors.clone();
    write_view_head(cx.out(), dialect, &date, &cors);
    subscribe::end_after_head(cx);
}

fn view_wanted(request: &Request<'_>) -> Result<(Dialect, Option<u64>), Reject> {
    let (mut dialect, mut after) = (Dialect::StreamEvents, None);
    for pair in query::pairs(request.query()) {
        let (key, value) = pair?;
        match (key.as_ref(), value.as_ref()) {
            (b"view", b"text") => dialect = Dialect::StreamText,
            (b"view", b"events") => dialect = Dialect::StreamEvents,
            (b"view", _) => {
                return Err(Reject::bad_request("view", "view is events or text"));
            }
            (b"starting_after", number) => {
                let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
                let message = "starting_after is the number of the last token received, from 0";
                after = Some(number.ok_or(Reject::bad_request("starting_after", message))?);
            }
            _ => {}
        }
    }
    Ok((dialect, after))
}
