//! An event: published once, ordered once, shared by every worker until the last cursor passed it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::channel_name::ChannelName;
pub use crate::proto::attributes::{Attributes, BadAttributes};
use crate::proto::cursor::{Epoch, EventId};
use crate::proto::data::{Data, EventView};

/// How the payload was declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// One JSON value.
    Json,
    /// Bytes.
    Binary,
}

/// What a publisher hands in. Checked by its worker: the channel name is valid, text and JSON are
/// valid UTF-8, sizes are within the limits.
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
    /// The name's hash under the hasher all threads share, so that no one hashes it again.
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
    /// When it was ordered, on the log's monotonic clock.
    pub ordered_at: Duration,
}

impl Event {
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

/// The publisher's worker checked it; a second look per delivery would be paid for nothing, but
/// per encoded batch it is cheap and keeps this free of `unsafe`.
fn checked_text(data: &[u8]) -> &str {
    simdutf8::basic::from_utf8(data).expect("publications are checked before they are ordered")
}
