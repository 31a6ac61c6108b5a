//! What the head of a publish request says about the event, and whether the body matches it.

use memchr::memchr;

use super::Cx;
use crate::log::event::Kind;
use crate::log::message::Counts;
use crate::proto::attributes::Attributes;
use crate::proto::envelope::{self, Invalid};
use crate::proto::http::head::Request;
use crate::proto::http::response::Status;
use crate::proto::reject::Reject;
use crate::proto::sender::Sender;

/// What the head of a publish request said about the event.
#[derive(Debug)]
pub(super) struct PublishHead {
    pub channel: Box<str>,
    pub kind: Kind,
    pub event_type: Option<Box<str>>,
    pub key: Option<Box<str>>,
    pub attributes: Attributes,
    pub counts: Counts,
}

/// What the head says about the event besides its type and idempotency key.
pub(super) fn attributes_of(request: &Request<'_>) -> Result<Attributes, Reject> {
    let event_key = checked_field(request, "event-key", envelope::event_key)?;
    let tombstone = switch(request, "event-tombstone")?;
    let ephemeral = switch(request, "event-ephemeral")?;
    Ok(Attributes { event_key, tombstone, ephemeral, ..Attributes::default() })
}

/// The connection whose publish this is, if the head names one: the one that is left out of what
/// is published to others.
pub(super) fn sender_of(cx: &Cx<'_>, request: &Request<'_>) -> Result<Option<Sender>, Reject> {
    let Some(name) = only(request, "publish-from")? else { return Ok(None) };
    let name = std::str::from_utf8(name).map_err(|_| NO_SENDER)?;
    // Nothing is left out for a connection that is not here.
    Ok(Some(cx.shared.sender_named(name).unwrap_or(Sender::NOBODY)))
}

/// The connection that is not to be sent the event.
pub(super) fn left_out(cx: &Cx<'_>, request: &Request<'_>) -> Result<Option<Sender>, Reject> {
    match only(request, "publish-to")? {
        None | Some(b"all") => Ok(None),
        Some(b"others") => Ok(Some(sender_of(cx, request)?.ok_or(NO_SENDER)?)),
        Some(_) => Err(Invalid::To.into()),
    }
}

/// An event is for others, but the request does not say which connection to leave out.
pub(super) const NO_SENDER: Reject = Reject::bad_request(
    "publish_from",
    "what is published to others needs Publish-From: the name of a connection, which its first \
     event tells (pushline.open)",
);

/// Which subscribers the answer is to tell of.
pub(super) fn counts_of(request: &Request<'_>) -> Result<Counts, Reject> {
    match only(request, "publish-count")? {
        None | Some(b"node") => Ok(Counts::Here),
        Some(b"cluster") => Ok(Counts::Everywhere),
        Some(_) => Err(Reject::bad_request("bad_switch", "Publish-Count is node or cluster")),
    }
}

fn switch(request: &Request<'_>, name: &str) -> Result<bool, Reject> {
    match only(request, name)? {
        None | Some(b"false") => Ok(false),
        Some(b"true") => Ok(true),
        Some(_) => {
            let message = "Event-Tombstone and Event-Ephemeral are true or false";
            Err(Reject::bad_request("bad_switch", message))
        }
    }
}

/// How a body is to be read, by its media type; parameters are ignored.
pub(super) fn kind_of(content_type: Option<&[u8]>) -> Result<Kind, Reject> {
    let Some(value) = content_type else { return Ok(Kind::Text) };
    let end = memchr(b';', value).unwrap_or(value.len());
    let essence = value[..end].trim_ascii();
    let is = |media_type: &[u8]| essence.eq_ignore_ascii_case(media_type);
    match essence.split_at_checked(b"text/".len()) {
        None if essence.is_empty() => Ok(Kind::Text),
        Some((top, _)) if top.eq_ignore_ascii_case(b"text/") => Ok(Kind::Text),
        _ if is(b"application/json") => Ok(Kind::Json),
        _ if is(b"application/octet-stream") => Ok(Kind::Binary),
        _ if is(b"application/x-www-form-urlencoded") => Ok(Kind::Text),
        _ => Err(Reject::new(
            Status::UnsupportedMediaType,
            "media_type",
            "an event is text/*, application/json or application/octet-stream",
        )),
    }
}

/// A header that may appear only once: given two, another reader of the request might take the
/// other.
#[inline]
pub(super) fn only<'r>(request: &Request<'r>, name: &str) -> Result<Option<&'r [u8]>, Reject> {
    if request.may_have(name) { the_only(request, name) } else { Ok(None) }
}

fn the_only<'r>(request: &Request<'r>, name: &str) -> Result<Option<&'r [u8]>, Reject> {
    let mut values = request.headers_named(name);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => {
            let message = "Content-Type, Idempotency-Key, the Event- and the Publish- fields may appear only once";
            Err(Reject::bad_request("header_repeated", message))
        }
    }
}

/// Refuses compressed bodies: subscribers could not tell them from the data they encode.
pub(super) fn check_coding(request: &Request<'_>) -> Result<(), Reject> {
    match request.header("content-encoding") {
        Some(coding) if !coding.eq_ignore_ascii_case(b"identity") => {
            let message = "an event is sent as it is, without Content-Encoding";
            Err(Reject::new(Status::UnsupportedMediaType, "content_coding", message))
        }
        _ => Ok(()),
    }
}

/// An event's type or idempotency key, checked.
pub(super) fn checked_field(
    request: &Request<'_>,
    name: &str,
    check: fn(&str) -> Result<&str, Invalid>,
) -> Result<Option<Box<str>>, Reject> {
    let Some(value) = only(request, name)? else { return Ok(None) };
    let text = std::str::from_utf8(value).map_err(|_| Invalid::Utf8).and_then(check);
    Ok(Some(text?.into()))
}

/// Checks that the body is of the kind the head said.
pub(super) fn check_data(kind: Kind, data: &[u8]) -> Result<(), Reject> {
    if kind == Kind::Binary {
        return Ok(());
    }
    let text = simdutf8::basic::from_utf8(data)
        .map_err(|_| Reject::bad_request("not_utf8", "the body is not valid UTF-8"))?;
    if kind != Kind::Json {
        return Ok(());
    }
    // The error says what was expected and where, and quotes nothing of the body.
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ()).map_err(|error| {
        let message = format!("the body is not one JSON value: {error}").into();
        Reject { status: Status::BadRequest, code: "not_json", message }
    })
}

pub(super) const LENGTH_REQUIRED: Reject = Reject::new(
    Status::LengthRequired,
    "length_required",
    "a publish needs Content-Length or chunked coding",
);

/// The event, or the line it is in, exceeds `event_bytes_max`.
pub(super) fn too_large(event_bytes_max: usize) -> Reject {
    let message =
        format!("the event is larger than this server takes: max_event_bytes is {event_bytes_max}");
    Reject { status: Status::ContentTooLarge, code: "event_too_large", message: message.into() }
}
