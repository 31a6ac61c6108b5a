//! An event: published once, ordered once, and shared by all workers until the last cursor has
//! passed it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::channel_name::ChannelName;
pub use crate::proto::attributes::{Attributes, BadAttributes};
use crate::proto::cursor::{Epoch, EventId};
use crate::proto::data::{Data, EventView};
use crate::proto::sender::Sender;

/// How the payload was declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// One JSON value.
    Json,
    /// Any bytes; where only text can be sent, base64.
    Binary,
}

/// What a publisher sends, checked by its worker: the channel name is valid, text and JSON are
/// valid UTF-8, and sizes are within the limits.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The channel's name.
    pub channel: Box<str>,
    /// How `data` is to be read.
    pub kind: Kind,
    /// The payload.
    pub data: Bytes,
    /// `Event-Type`, if any.
    pub event_type: Option<Box<str>>,
    /// Idempotency key, if any.
    pub key: Option<Box<str>>,
    /// What only some events have.
    pub attributes: Option<Box<Attributes>>,
}

/// An event of the log.
#[derive(Debug)]
pub struct Event {
    /// Its place in the log.
    pub seq: u64,
    /// The channel's name (shared with the channel).
    pub channel: Arc<ChannelName>,
    /// The name's hash under the hasher all threads share, so that it is hashed only once.
    pub channel_hash: u64,
    /// How `data` is to be read.
    pub kind: Kind,
    /// The payload. UTF-8 unless `kind` is `Binary`.
    pub data: Bytes,
    /// `Event-Type`, if any.
    pub event_type: Option<Box<str>>,
    /// Idempotency key, if any.
    pub key: Option<Box<str>>,
    /// What only some events have.
    pub attributes: Option<Box<Attributes>>,
    /// When it was ordered, in nanoseconds of the log's monotonic clock.
    pub(super) ordered_ns: u64,
}

// With the counts of its `Arc`. An event is out of the cache by the time it leaves history, and each
// cache line has to be waited for then.
const _: () = assert!(size_of::<Event>() + 16 <= 128, "an event is two cache lines");

impl Event {
    /// A publication that has its place.
    pub(crate) fn new(
        seq: u64,
        channel: Arc<ChannelName>,
        channel_hash: u64,
        ordered_at: Duration,
        publication: Publication,
    ) -> Self {
        let Publication { kind, data, event_type, key, attributes, .. } = publication;
        let ordered_ns = u64::try_from(ordered_at.as_nanos()).unwrap_or(u64::MAX);
        Self { seq, channel, channel_hash, kind, data, event_type, key, attributes, ordered_ns }
    }

    /// When it was ordered, on the log's monotonic clock.
    pub(crate) fn ordered_at(&self) -> Duration {
        Duration::from_nanos(self.ordered_ns)
    }

    /// Whether history may have it. What is ephemeral is no loss to those who were not there.
    pub(crate) fn is_kept(&self) -> bool {
        is_kept(self.attributes.as_deref())
    }

    /// `Event-Key`, if any.
    pub fn event_key(&self) -> Option<&str> {
        self.attributes.as_ref()?.event_key.as_deref()
    }

    /// The connection that is left out, if there is one.
    pub fn sender(&self) -> Option<Sender> {
        self.attributes.as_ref()?.sender
    }

    /// The form the encoders take.
    pub fn view(&self, epoch: Epoch) -> EventView<'_> {
        EventView {
            id: EventId { epoch, seq: self.seq },
            channel: &self.channel,
            event_type: self.event_type.as_deref(),
            data: match self.kind {
                Kind::Text => Data::Text(checked_text(&self.data)),
                Kind::Json => Data::Json(checked_text(&self.data)),
                Kind::Binary => Data::Binary(&self.data),
            },
            attributes: self.attributes.as_deref(),
        }
    }
}

pub(super) fn is_kept(attributes: Option<&Attributes>) -> bool {
    attributes.is_none_or(|attributes| !attributes.ephemeral)
}

/// Valid, as the publisher's worker has checked it. Checking again costs little, as an event is
/// encoded once per batch and not per delivery, and keeps this free of `unsafe`.
fn checked_text(data: &[u8]) -> &str {
    simdutf8::basic::from_utf8(data).expect("publications are checked before they are ordered")
}
