//! What an event carries, borrowed: the form every encoder takes.

use super::attributes::Attributes;
use super::cursor::EventId;

/// The payload as the publisher declared it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// Any UTF-8 text.
    Text(&'a str),
    /// One JSON value, checked by the publisher's worker; embedded as JSON in the envelope.
    Json(&'a str),
    /// Bytes: base64 on SSE and in the envelope, a binary frame on a bare WebSocket.
    Binary(&'a [u8]),
}

/// One event as the wire encoders see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventView<'a> {
    /// Its place in the log.
    pub id: EventId,
    /// The channel it was published to.
    pub channel: &'a str,
    /// `event:` on SSE, `"event"` in the envelope.
    pub event_type: Option<&'a str>,
    /// The payload.
    pub data: Data<'a>,
    /// In the envelope, if there are any.
    pub attributes: Option<&'a Attributes>,
}
