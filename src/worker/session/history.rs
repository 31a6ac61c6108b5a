//! `GET /channels/{channel}/events`: a page of a channel's history as JSON, for programs that ask
//! now and then instead of staying connected.

use super::answer::Content;
use super::{Cx, describe};
use crate::limits::{LISTED_EVENTS, LISTED_EVENTS_MAX};
use crate::log::message::{GapReason, Page, PageChannel};
use crate::proto::cursor::{Cursor, EventId};
use crate::proto::envelope;
use crate::proto::http::head::Request;
use crate::proto::http::query;
use crate::proto::http::response::Status;
use crate::proto::reject::Reject;
use crate::worker::effect::{Effect, Listing};

/// Asks the log for the page that the query describes.
pub(super) fn ask(cx: &mut Cx<'_>, request: &Request<'_>, segment: &str) {
    match listing(cx, request, segment) {
        Ok(listing) => {
            cx.await_log();
            cx.push(Effect::List(listing));
        }
        Err(reject) => cx.reject(reject),
    }
}

fn listing(cx: &Cx<'_>, request: &Request<'_>, segment: &str) -> Result<Listing, Reject> {
    let channel = describe::readable_channel(cx, segment)?;
    let (mut cursor, mut limit) = (Cursor::Earliest, LISTED_EVENTS);
    for pair in query::pairs(request.query()) {
        let (key, value) = pair?;
        match key.as_ref() {
            b"after" if !value.is_empty() => cursor = Cursor::parse(&value, cx.shared.epoch),
            b"limit" => limit = limit_of(&value).ok_or(BAD_LIMIT)?,
            _ => {}
        }
    }
    Ok(Listing { channel, cursor, limit })
}

/// The log answered: `{"channel","events","next","more","gap"?}`.
pub fn listed(cx: &mut Cx<'_>, listing: &Listing, page: &Page) {
    let Some(&of) = page.channels.first() else { return };
    let (epoch, channel) = (cx.shared.epoch, &listing.channel);
    let events = &page.events[..page.events.len().min(listing.limit)];
    let is_cut = events.len() < page.events.len();
    let seq = match events.last() {
        Some((_, last)) if is_cut => last.seq,
        _ => page.through.max(of.after),
    };
    let mut body = format!("{{\"channel\":\"{channel}\",\"events\":[").into_bytes();
    for (place, (_, event)) in events.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        envelope::write_event(&mut body, &event.view(epoch));
    }
    let (next, more) = (EventId { epoch, seq }, is_cut || !page.is_last);
    body.extend_from_slice(format!("],\"next\":\"{next}\",\"more\":{more}").as_bytes());
    if let Some(gap) = gap_before(listing.cursor, of) {
        body.extend_from_slice(format!(",\"gap\":\"{}\"", gap.as_str()).as_bytes());
    }
    body.push(b'}');
    let content = Content { content_type: "application/json", bytes: &body };
    cx.respond(Status::Ok, &content, &[("Cache-Control", b"no-store")]);
}

/// Why events between the cursor and the page are missing, if they are. A reader that asks for
/// everything that is kept is not told of what is not.
fn gap_before(cursor: Cursor, page: PageChannel) -> Option<GapReason> {
    match cursor {
        Cursor::Foreign => Some(GapReason::Epoch),
        Cursor::After(seq) if page.after < seq => Some(GapReason::Epoch),
        Cursor::After(seq) if page.after > seq => Some(GapReason::Evicted),
        _ => page.unreadable.then_some(GapReason::Evicted),
    }
}

fn limit_of(value: &[u8]) -> Option<usize> {
    let limit = std::str::from_utf8(value).ok()?.parse().ok()?;
    (1..=LISTED_EVENTS_MAX).contains(&limit).then_some(limit)
}

const BAD_LIMIT: Reject = Reject::bad_request("limit", "limit is a number from 1 to 1000");
